"""`bsipatch why-not`: everything against one update, with the evidence."""

from __future__ import annotations

from typing import Annotated

import typer

from . import _feed, _output, _signals
from ._options import Json, Store

#: of a reason's evidence, what are moments in seconds since 1970
_MOMENTS = frozenset({"at", "begins", "expires", "until"})


def command(
    update: Annotated[
        str, typer.Argument(help="The update's id, or its last digits.", metavar="ID")
    ],
    store: Store,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask nobody: judge by what the last check brought.")
    ] = False,
    json: Json = False,
) -> None:
    """Say why an update is not offered to this device: each reason, and what it rests on.

    Example:

      bsipatch why-not WebKit-26.3.1-a-0123456789ab --store /var/lib/bsipatch/webkit
    """
    from ..device.choosing import Refusal

    with _signals.working() as stop, _feed.session(store, stop=stop) as opened:
        view = opened.view(offline=offline, stop=stop)
        choice = opened.installer.choose(view, None)
        offer = view.offer(update)
        failed = [
            {"time": e.time, "event": e.event, "code": e.error, "reason": e.reason}
            for e in opened.store.history()
            if offer.id in e.source.split(" then ") and e.reason
        ]
    reasons = choice.reasons(offer)
    offered = any(offer in plan.offers for plan in choice.plans[:1])
    facts = Refusal(offer, reasons).as_dict() | {
        "offered": offered,
        "earlier": failed,
        "feed": _feed.feed_facts(view),
    }
    lines = []
    if offered:
        lines.append(f"{offer.id} is offered to this device: `bsipatch install` installs it.")
    elif not reasons:
        lines.append(f"Nothing is against {offer.id}; another way to the same result is cheaper.")
    for reason in reasons:
        lines.append(f"{reason.code}: {reason.text}")
        for name, value in reason.evidence.items():
            told = _feed.moment(int(value)) if name in _MOMENTS and value is not None else value
            lines.append(f"  {name}: {told}")
    for event in failed:
        lines.append(f"{event['time']}  {event['event']}: {event['reason']}")
    _output.emit(json, facts, lines)
