"""`bsipatch check`: what the feed offers this device, or precisely why nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from . import _feed, _output, _signals
from ._options import Json, Store

if TYPE_CHECKING:
    from ..device.choosing import Choice


def command(
    store: Store,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask nobody: judge by what the last check brought.")
    ] = False,
    json: Json = False,
) -> None:
    """Look what the feed offers this device, and say why it offers nothing else.

    Changes nothing but the records of what was seen and when.

    Examples:

      bsipatch check --store /var/lib/bsipatch/webkit

      bsipatch check --store STORE --json | jq -r .offered.result
    """
    from ..device.agent.early import note_check
    from ..device.logs import Log
    from ..device.telemetry import follow_up

    with _signals.working() as stop, _feed.session(store, stop=stop) as opened:
        view = opened.view(offline=offline, stop=stop)
        choice = opened.installer.choose(view, None)
        if not offline:
            note_check(opened.store.root, opened.feed.device_id)
            follow_up.check(Log(opened.store.root), choice)
        live = opened.store.live()
    taken_back = choice.decision.withdrawn
    facts = {
        "live": live.display,
        "build": live.build,
        "offered": _feed.plan_facts(choice.plan),
        "offer": None if choice.plan is None else _feed.offer_facts(choice.plan.offers[-1]),
        "withdrawn": None
        if taken_back is None or taken_back.withdrawn is None
        else {
            "id": taken_back.id,
            "reason": taken_back.withdrawn.reason,
            "revert": choice.decision.revert is not None,
        },
        "moved": choice.moved or None,
        "refused": _feed.refusal_facts(choice),
        "feed": _feed.feed_facts(view),
    }
    lines = [*_lines(choice, live.display), *_feed.problem_lines(view)]
    _output.emit(json, facts, lines)


def _lines(choice: Choice, live: str) -> list[str]:
    product = choice.facts.product
    lines: list[str] = []
    taken_back = choice.decision.withdrawn
    if taken_back is not None and taken_back.withdrawn is not None:
        lines.append(f"{live} has been withdrawn: {taken_back.withdrawn.reason}")
        if choice.decision.revert is not None:
            lines.append("`bsipatch install` takes it off.")
    if choice.moved:
        lines += [
            f"The base has moved on: {choice.moved}.",
            "`bsipatch adopt` makes it the new baseline; until then nothing is installed.",
        ]
    if choice.plan is not None:
        return [*lines, *_output.columns(_feed.plan_rows(choice.plan))]
    listed = [offer for offer in choice.view.offers if offer.product == product]
    if not listed:
        lines.append(f"The channel {choice.view.channel} lists nothing for {product}.")
    elif not lines and all(_is_had(choice, offer.id) for offer in listed):
        lines.append(f"{product} {live} is what the channel {choice.view.channel} has.")
    else:
        lines.append(f"Nothing for this device in {choice.view.channel}; {product} {live} stays.")
    for offer in listed:
        for reason in choice.reasons(offer):
            if reason.code not in ("installed", "superseded"):
                lines.append(f"  {offer.id}: {reason.text}")
    return lines


def _is_had(choice: Choice, name: str) -> bool:
    had = ("installed", "contained-in-base", "superseded")
    return all(reason.code in had for reason in choice.decision.why_not(name))
