"""`bsipatch feed status`: what each channel offers to each baseline, and what expires when."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from .. import _output
from .._options import Json
from ..inspect import moment
from . import _common

if TYPE_CHECKING:
    from ...publish.feed.status import ListedOffer, Status


def command(
    feed: _common.Place,
    keys: _common.Keys,
    json: Json = False,
) -> None:
    """Show what each channel offers to each baseline, and what expires when.

    Examples:

      bsipatch feed status

      bsipatch feed status --feed https://updates.example.org/feed --keys keys --json
    """
    opened = _common.open_feed(feed, keys, None, False, look=True)
    from ...publish.feed.status import status_of
    from ...publish.feed.transaction import unfinished

    found = status_of(opened.state, opened.now)
    journal = unfinished(opened.storage)
    if not json:
        for warning in found.warnings:
            print(f"bsipatch: warning: {warning}", file=sys.stderr)
        if journal is not None:
            print(
                f"bsipatch: warning: a publication has been under way since "
                f"{moment(journal.since)}; if it has died, the next command finishes it",
                file=sys.stderr,
            )
    since = None if journal is None else journal.since
    _output.emit(json, _facts(found, since), _lines(found))


def _facts(status: Status, unfinished: int | None) -> dict[str, object]:
    return {
        "unfinished_since": unfinished,
        "warnings": list(status.warnings),
        "roles": [
            {
                "role": role.role,
                "version": role.version,
                "expires": role.expires,
                "threshold": role.threshold,
                "keys": list(role.key_ids),
            }
            for role in status.roles
        ],
        "channels": {
            channel: [
                {
                    "product": product,
                    "version": version,
                    "baseline": digest,
                    "offers": [
                        {
                            "state": listed.state,
                            "percent": listed.percent,
                            "next": listed.next,
                            "offer": msgspec.to_builtins(listed.offer),
                        }
                        for listed in group
                    ],
                }
                for (product, version, digest), group in groups.items()
            ]
            for channel, groups in status.channels.items()
        },
    }


def _lines(status: Status) -> Iterator[str]:
    for channel, groups in status.channels.items():
        yield f"{channel}:" if groups else f"{channel}: nothing"
        for (product, version, digest), group in groups.items():
            yield f"  {product} {version}, baseline {digest[:12]}"
            for listed in group:
                yield f"    {listed.offer.id}  {_output.short_size(listed.offer.size)}"
                yield f"      {_state(listed)}"
    rows = [
        (role.role, f"version {role.version}, valid until {moment(role.expires)}")
        for role in status.roles
    ]
    yield from _output.columns(rows)


def _state(listed: ListedOffer) -> str:
    offer = listed.offer
    told = {
        "everyone": "offered to everybody",
        "rollout": f"offered to {listed.percent} %",
        "paused": f"paused at {listed.percent} %",
        "superseded": "superseded by a newer one",
        "withdrawn": "withdrawn",
    }[listed.state]
    if offer.withdrawn is not None:
        told += f": {offer.withdrawn.reason} (notice until {moment(offer.withdrawn.expires)})"
    if listed.next is not None:
        told += f", {listed.next[0]} % from {moment(listed.next[1])}"
    if offer.ticket_required:
        told += ", with a ticket"
    return told
