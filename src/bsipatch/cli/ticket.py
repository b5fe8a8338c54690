"""`bsipatch ticket`: a device's personal permission for updates that need one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from . import _feed, _output, _signals
from ._options import Json, Store


def command(
    store: Store,
    key: Annotated[
        Path | None,
        typer.Option("--key", dir_okay=False, metavar="PUB", help="The service's public key."),
    ] = None,
    service: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="Ask this service.")
    ] = None,
    request: Annotated[
        bool, typer.Option("--request", help="Only print what to send; older tickets end.")
    ] = False,
    accept: Annotated[
        Path | None,
        typer.Option("--accept", dir_okay=False, metavar="FILE", help="Keep this answer."),
    ] = None,
    json: Json = False,
) -> None:
    """Ask for a ticket, keep one, or show what the present one allows.

    Examples:

      bsipatch ticket --key tickets.pem --from https://tickets.example.org --store STORE

      bsipatch ticket --request --json --store STORE    # then, by any way:

      bsipatch ticket --accept answer.dsse --store STORE
    """
    from ..device import ticketing

    facts: dict[str, Any] = {}
    with _signals.working() as stop, _feed.session(store, stop=stop, asked=True) as opened:
        feed, now = opened.feed, time.time()
        if key is not None:
            ticketing.trust_service(feed, _bytes(key, feed.limits.max_key_file))
        if request:
            facts = dict(ticketing.request(feed))
        elif service is not None:
            with feed.transport(stop=stop) as transport:
                ticketing.ask(feed, service, transport, now)
        elif accept is not None:
            most = feed.limits.max_ticket + feed.limits.max_envelope
            ticketing.accept(feed, _bytes(accept, most), now)
        updates = sorted(ticketing.allowed(feed, now))
    facts |= {"updates": updates, "pinned": None if key is None else str(key)}
    lines = [f"{name}: {facts[name]}" for name in ("device", "nonce") if name in facts]
    if not lines:
        lines = [f"Allowed: {update}" for update in updates] or ["No ticket holds here."]
    if key is not None:
        lines.insert(0, f"Pinned {key}: tickets count when this key has signed them.")
    _output.emit(json, facts, lines)


def _bytes(path: Path, most: int) -> bytes:
    from ..errors import LimitError

    with _output.opening(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise LimitError("the file is too large", file=path, expected=most)
    return data
