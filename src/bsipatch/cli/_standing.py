"""What `status` says of a device that follows a feed: what it could have, and what it waits for.

Loaded only for a store with a feed.  Asks no network and takes no lock.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _output

if TYPE_CHECKING:
    from ..device.service_state import Listed, State

#: of the timeline, what somebody did or decided; waiting and settings are told elsewhere
_LEFT_OUT = frozenset({"waiting", "waiting-for", "setting", "init", "gc"})
_WORDS = {
    "moved": "the base has moved on: nothing is installed until `bsipatch adopt`",
    "withdrawn": "withdrawn by its publisher, and taken off by the next install",
    "available": "an improvement can be installed",
    "waiting": "an improvement waits",
    "restart": "what is installed takes effect with the next restart",
    "trial": "what is installed has yet to pass its checks",
    "removed": "the owner took an improvement off; `bsipatch install` with its id brings it back",
    "unknown": "not known: the feed has not been read well",
    "not-offered": "nothing for this device; `bsipatch check` says why",
    "current": "everything that the feed has for this device is on",
}


def find(root: Path) -> State | None:
    """The device's state; None for a store without a feed, or without what following one needs."""
    if not (root / "feed" / "config.toml").exists():
        return None
    try:
        from ..device.service import DeviceService

        with DeviceService(root) as service:
            return service.state(history=20)
    except ImportError:
        return None


def facts(state: State, root: Path) -> dict[str, Any]:
    """For --json, below "device"."""
    import msgspec

    from ..device.agent import memo as memos

    result = _result(state)
    known = memos.load(root)
    return {
        "standing": state.standing,
        "up_to_date": state.standing == "current",
        "listed": msgspec.to_builtins(state.listed),
        "waits": _waits(state),
        "withdrawn": state.withdrawn or None,
        "moved": state.moved or None,
        "needs": msgspec.to_builtins(state.needs),
        "checks": msgspec.to_builtins(state.checks),
        "automatic": state.automatic,
        "policy_error": state.policy_error or None,
        "last_result": result,
        "agent": {"waits_for": known.doing or None, "failures": known.failures}
        | {"error": known.error or None},
    }


def lines(state: State, root: Path) -> list[str]:
    """For people."""
    from ..device.agent import memo as memos

    checks, result, known = state.checks, _result(state), memos.load(root)
    standing = _WORDS.get(state.standing, state.standing)
    if state.withdrawn:
        standing += f": {state.withdrawn}"
    needs = ""
    if state.needs.processes:
        programs = dict.fromkeys(one.name for one in state.needs.processes)
        needs = f"relaunch {', '.join(programs)}: it still runs with what was live before"
    failed = f" ({checks.failures} failed since)" if checks.failures else ""
    rows = [
        ("Standing", standing),
        *(("Available", _one(one)) for one in state.listed if one.standing == "available"),
        *(("Waiting", _one(one)) for one in state.listed if one.standing == "waiting"),
        *(("Removed", _one(one)) for one in state.listed if one.standing == "removed"),
        *(("Waits for", text) for text in _waits(state)),
        ("Failed", f"{known.failures} times, tried again: {known.error}" if known.failures else ""),
        ("Needs", needs),
        ("Last check", f"{checks.last_success}{failed}" if checks.last_success else "never"),
        ("Problem", state.policy_error or checks.problem),
        ("Next check", (checks.next or "") if state.standing != "no-feed" else ""),
        (
            "Last result",
            f"{result['event']}: {result['text']} ({result['time']})" if result else "",
        ),
        ("Automatic", "on" if state.automatic else "off"),
    ]
    return _output.columns(rows, _output.STATUS_WIDTH)


def _one(listed: Listed) -> str:
    cves = sorted({cve for item in listed.security for cve in item.cves})
    fixes = f", fixes {', '.join(cves)}" if cves else ""
    return f"{listed.display} ({listed.id}), {_output.short_size(listed.size)} to download{fixes}"


def _waits(state: State) -> list[str]:
    found = [
        f"{one.display}: {why.text}"
        for one in state.listed
        if one.standing in ("available", "waiting")
        for why in one.why
    ]
    if state.needs.scope == "restart":
        found.append("a restart")
    return found


def _result(state: State) -> dict[str, Any] | None:
    """The newest thing that was done or decided here."""
    for one in state.history:
        if one.event not in _LEFT_OUT and one.level != "debug":
            return {"time": one.time, "event": one.event, "text": one.text.splitlines()[0]}
    return None
