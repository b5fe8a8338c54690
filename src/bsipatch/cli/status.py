"""`bsipatch status`: what is live, what could be, and what can be done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _disk, _health, _output, _standing
from ._disk import Disk
from ._options import Json, Store

if TYPE_CHECKING:
    from ..store import Generation, Status


def command(store: Store, disk: Disk = False, json: Json = False) -> None:
    """Show what is live and where, what can be reverted to, and what is waited for.

    Of a store that follows a feed also what the last check found. Asks no network, waits for
    nobody and changes nothing.

    Examples:

      bsipatch status --store /var/lib/bsipatch/webkit

      ls "$(bsipatch status --store STORE --json | jq -r .live)"
    """
    from ..store import Store as Opened

    with Opened(store) as opened:
        status = opened.status()
        usage = _disk.measure(opened) if disk else None
    state = _standing.find(opened.root)
    facts = _facts(status)
    facts["device"] = None if state is None else _standing.facts(state, opened.root)
    if usage is not None:
        facts |= _disk.facts(usage)
    lines = _lines(status)
    if state is not None:
        lines += _standing.lines(state, opened.root)
    _output.emit(json, facts | {"store": str(opened.root)}, [*lines, *_disk.lines(usage)])


#: how what did not change is kept, for people
_STRATEGIES = {
    "snapshot": "a snapshot of the one before, unchanged blocks are on the disk once",
    "reflink": "clones, unchanged blocks are on the disk once",
    "hardlink": "unchanged files are on the disk once, under several names",
    "copy": "every file is on the disk once for each generation",
}


def _unfinished(status: Status) -> str:
    if not status.unfinished:
        return ""
    return (
        f"{', '.join(status.unfinished)}: left by a run that was interrupted; what is live is "
        "whole. `bsipatch recover` clears it away, as the next command that changes something does"
    )


def _facts(status: Status) -> dict[str, Any]:
    live, manifest = status.generation, status.manifest
    return {
        "live": str(status.live),
        "product": live.product,
        "platform": status.identity.platform,
        "architectures": list(status.identity.architectures),
        "version": live.version,
        "letter": live.letter,
        "display": live.display,
        "build": live.build,
        "tree_digest": live.tree,
        "generation": live.number,
        "generations": list(status.generations),
        "strategy": live.strategy,
        "since": live.created,
        "source": live.source,
        "baseline": _short(status.baseline),
        "can_revert_to": [_short(generation) for generation in status.reachable],
        "security": [_item(item) for item in manifest.security] if manifest else [],
        "activation": _item(manifest.activation) if manifest else None,
        "trial": _health.trial(status.trial),
        "barred": [_health.bar(bar) for bar in status.barred],
        "busy": status.busy,
        "unfinished": list(status.unfinished),
    }


def _item(struct: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(struct)


def _short(generation: Generation) -> dict[str, Any]:
    return {
        "generation": generation.number,
        "version": generation.version,
        "letter": generation.letter,
        "display": generation.display,
        "build": generation.build,
    }


def _lines(status: Status) -> list[str]:
    live = status.generation
    back = ", ".join(
        f"{generation.display} (generation {generation.number})" for generation in status.reachable
    )
    rows = [
        ("Product", live.product),
        ("Version", f"{live.display}, build {live.build}"),
        ("Live", str(status.live)),
        ("Generation", f"{live.number}; on the disk: {', '.join(map(str, status.generations))}"),
        ("Strategy", f"{live.strategy}: {_STRATEGIES.get(live.strategy, '')}"),
        ("Since", live.created),
        ("Revert to", back or "nothing: the baseline is live"),
        ("On trial", _health.trial_text(status.trial)),
        *(("Barred", _health.bar_text(bar)) for bar in status.barred),
        ("Busy", status.busy or ""),
        ("Unfinished", _unfinished(status)),
    ]
    lines = _output.columns(rows, _output.STATUS_WIDTH)
    for item in status.manifest.security if status.manifest else ():
        lines.append(f"  {item.component}: {', '.join(item.cves)}")
        lines.append(f"    {item.impact}")
    return lines
