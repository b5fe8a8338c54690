"""How trials, health checks and bars are shown, wherever a command speaks of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from . import _output

if TYPE_CHECKING:
    from ..store import Bar, BootReport, Result, Trial


def trial(found: Trial | None) -> dict[str, Any] | None:
    """A trial for programs."""
    if found is None:
        return None
    return {
        "generation": found.number,
        "falls_back_to": found.old,
        "scope": found.scope,
        "tries": found.tries,
        "blips": found.blips,
        "start": found.start.phase,
        "since": found.since,
    }


def trial_text(found: Trial | None) -> str:
    """A trial for people, one clause."""
    if found is None:
        return ""
    back = f"generation {found.old} is live again if it fails"
    if found.scope == "relaunch":
        return f"its health checks are due (bsipatch recover); {back}"
    if found.start.phase == "applied":
        return f"until the next restart has gone well; {back}"
    left = f"{found.tries} more start{'' if found.tries == 1 else 's'}"
    return f"this start counts, {left} after it; {back}"


def results(found: Iterable[Result]) -> list[dict[str, Any]]:
    """Health checks for programs."""
    return [
        {
            "check": result.title,
            "kind": result.kind,
            "passed": result.passed,
            "problem": result.problem or None,
            "detail": result.detail,
            "output": result.output,
            "seconds": round(result.seconds, 3),
        }
        for result in found
    ]


def results_text(found: Iterable[Result]) -> str:
    """Health checks that passed, for people, in one line."""
    return ", ".join(
        f"{result.title} {_output.seconds(result.seconds)}" for result in found if result.passed
    )


def bar(found: Bar) -> dict[str, Any]:
    """A bar for programs."""
    import msgspec

    return {**msgspec.to_builtins(found), "display": found.display}


def bar_text(found: Bar) -> str:
    """A bar for people, one line."""
    return f"{found.display}, build {found.build}: {found.reason} ({found.by}, {found.time})"


def report(json: bool, found: BootReport, done: Iterable[str] = (), /, **more: Any) -> None:
    """Prints what came of a start's mark, or of recovery."""
    live = found.live
    facts = {
        "state": found.state,
        "generation": live.number,
        "display": live.display,
        "version": live.version,
        "letter": live.letter,
        "build": live.build,
        "trial": trial(found.trial),
        "note": found.note,
        "health": results(found.results),
        "recovered": list(found.recovered),
        **more,
    }
    rows = [
        ("Live", f"{live.product} {live.display}, build {live.build}"),
        ("State", f"{found.state}: {found.note}"),
        ("Health", results_text(found.results)),
        ("On trial", trial_text(found.trial)),
    ]
    _output.emit(json, facts, [*found.recovered, *done, *_output.columns(rows)])
