"""`bsipatch group`: several components, updated in one step."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _health, _output, _signals
from ._options import Jobs, Json, threads

if TYPE_CHECKING:
    from ..store import Applied, Group
    from ..store.reverting import Reverted


class Action(StrEnum):
    """What can be done with a group."""

    adopt = "adopt"
    apply = "apply"
    revert = "revert"
    remove = "remove"
    status = "status"


def command(
    action: Annotated[Action, typer.Argument(help="What to do.")],
    group: Annotated[Path, typer.Argument(help="The group's folder.", metavar="GROUP")],
    items: Annotated[
        list[str] | None,
        typer.Argument(
            help="adopt: the NAME of a component; apply: NAME=UPDATE for each.", metavar="[ITEM]..."
        ),
    ] = None,
    no_health: Annotated[bool, typer.Option("--no-health", help="apply: without a trial.")] = False,
    even_if_barred: Annotated[
        bool, typer.Option("--even-if-barred", help="apply: although one failed here before.")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", help="revert, remove: why.")] = "",
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Update several components in one step, or take them back: all of them or none.

    A component is a store of its own at GROUP/components/NAME, where every other command works as
    usual. When a health check of one fails, all that were applied with it go back.

    Examples:

      bsipatch init --store /var/lib/bsipatch/all/components/webkit --baseline …

      bsipatch group adopt /var/lib/bsipatch/all webkit

      bsipatch group apply /var/lib/bsipatch/all webkit=a.bsi safari=b.bsi

      bsipatch group remove /var/lib/bsipatch/all
    """
    from ..errors import UsageError
    from ..store import Group as Opened
    from ..store import Terms, Work

    named, opened = items or [], Opened(group)
    takes_items = action in (Action.adopt, Action.apply)
    if takes_items != bool(named):
        raise UsageError(
            f"group {action} takes {'NAME' if takes_items else 'nothing more'}",
            hint="See `bsipatch group --help`.",
        )
    if action is Action.apply:
        terms = Terms(health=not no_health, even_if_barred=even_if_barred)
        with _output.progress(json) as bar, _signals.working() as stop:
            work = Work(jobs=threads(jobs), progress=bar, stop=stop)
            applied = opened.apply(_pairs(named), work=work, terms=terms)
        facts = {name: _applied(done) for name, done in applied.items()}
    elif action in (Action.revert, Action.remove):
        with _signals.working():
            reverted = opened.revert(remove=action is Action.remove, reason=reason)
        facts = {name: _reverted(done) for name, done in reverted.items()}
    else:
        with _signals.working():
            for name in named:
                opened.adopt(name)
        facts = _shown(opened)
    rows = [
        (name, f"{fact['display']}, build {fact['build']} (generation {fact['generation']})")
        for name, fact in facts.items()
    ]
    _output.emit(json, {"components": facts}, _output.columns(rows))


def _pairs(items: list[str]) -> dict[str, str]:
    from ..errors import UsageError

    found: dict[str, str] = {}
    for item in items:
        name, equals, update = item.partition("=")
        if not (name and equals and update) or name in found:
            raise UsageError("not NAME=UPDATE, or named twice", found=item)
        found[name] = update
    return found


def _live(generation: Any) -> dict[str, Any]:
    return {
        "product": generation.product,
        "version": generation.version,
        "letter": generation.letter,
        "display": generation.display,
        "build": generation.build,
        "generation": generation.number,
    }


def _applied(done: Applied) -> dict[str, Any]:
    return {
        **_live(done.generation),
        "already": done.already,
        "previous": done.was.number,
        "trial": _health.trial(done.trial),
        "health": _health.results(done.health),
        "recovered": list(done.recovered),
    }


def _reverted(done: Reverted) -> dict[str, Any]:
    return {**_live(done.live), "left": done.left.number, "notes": list(done.notes)}


def _shown(opened: Group) -> dict[str, Any]:
    with opened.stores() as stores:
        return {
            name: {
                **_live(store.live()),
                "live": str(store.live_path),
                "trial": _health.trial(store.trial()),
            }
            for name, store in stores.items()
        }
