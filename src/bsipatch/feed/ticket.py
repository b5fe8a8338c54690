"""A ticket: what one device, and no other, may install until a given time, signed for it alone.

A device sends its id and a fresh nonce to the ticket service and keeps the answer.  It is verified
without any network: by signature, device, nonce and time.  The nonce makes an old ticket useless
once the device has asked for a new one.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

import msgspec

from bsipatch import trust
from bsipatch.errors import CorruptError, ExpiredError, FeedError, LimitError, TrustError
from bsipatch.feed.names import check_device_id, check_id
from bsipatch.limits import DEFAULT, Limits
from bsipatch.trust import Policy, PrivateKey

__all__ = ["PAYLOAD_TYPE", "Ticket", "issue", "new_nonce", "verify_ticket"]

PAYLOAD_TYPE = "application/vnd.bsipatch.ticket+json"
FORMAT = 1
#: what two clocks may differ, in seconds
CLOCK_SKEW = 300

_NONCE = re.compile(r"[0-9a-f]{32}")
_MAX_INT = (1 << 53) - 1


class Ticket(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is signed. Times in seconds since 1970; updates are ids, sorted, each once."""

    format: int
    device: str
    nonce: str
    updates: tuple[str, ...]
    issued: int
    expires: int


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(Ticket, strict=True)


def new_nonce() -> str:
    """32 hex digits from the system's random source."""
    return secrets.token_hex(16)


def check_nonce(nonce: str) -> str:
    """The nonce itself when it is spelled as new_nonce() does. Raises FeedError."""
    if not _NONCE.fullmatch(nonce):
        raise FeedError("a nonce is 32 lower-case hex digits", found=ascii(nonce[:80]))
    return nonce


def issue(
    device: str,
    nonce: str,
    updates: Sequence[str],
    keys: Sequence[PrivateKey],
    *,
    now: int,
    valid: int,
    limits: Limits = DEFAULT,
) -> bytes:
    """The envelope of a ticket that holds for `valid` seconds from `now` on.

    Raises FeedError for a malformed id or nonce, LimitError for too many updates, SignatureError
    without a key.
    """
    ticket = Ticket(
        format=FORMAT,
        device=check_device_id(device),
        nonce=check_nonce(nonce),
        updates=tuple(sorted({check_id(name) for name in updates})),
        issued=now,
        expires=now + valid,
    )
    _check(ticket, limits)
    return trust.sign(_encoder.encode(ticket), keys, payload_type=PAYLOAD_TYPE)


def verify_ticket(
    envelope: bytes,
    policy: Policy,
    *,
    device: str,
    nonce: str,
    now: int,
    limits: Limits = DEFAULT,
) -> Ticket:
    """The ticket, once it is certain that it is this device's, for this nonce, and holds now.

    Raises TrustError (another device's, another nonce's), ExpiredError (no longer, or not yet),
    SignatureError, ThresholdError, CorruptError, LimitError, FeedError.
    """
    bounds = limits.but(max_manifest=limits.max_ticket)
    payload = trust.verify(envelope, policy, payload_type=PAYLOAD_TYPE, limits=bounds).payload
    try:
        ticket = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptError(f"not a ticket: {ascii(str(error))[1:-1]}") from None
    if _encoder.encode(ticket) != payload:
        raise CorruptError("the ticket is not in canonical form")
    _check(ticket, limits)
    if ticket.device != device:
        raise TrustError("the ticket is another device's", expected=device, found=ticket.device)
    if not secrets.compare_digest(ticket.nonce, nonce):
        raise TrustError(
            "the ticket answers another request",
            expected=nonce,
            found=ticket.nonce,
            hint="Ask for a new one.",
        )
    if now >= ticket.expires:
        raise ExpiredError("the ticket has expired", expected=ticket.expires, found=now)
    if now < ticket.issued - CLOCK_SKEW:
        raise ExpiredError("the ticket is from the future", expected=ticket.issued, found=now)
    return ticket


def _check(ticket: Ticket, limits: Limits) -> None:
    if ticket.format != FORMAT:
        raise FeedError("a ticket's format is not known here", expected=FORMAT, found=ticket.format)
    check_device_id(ticket.device)
    check_nonce(ticket.nonce)
    if len(ticket.updates) > limits.max_ticket_updates:
        raise LimitError(
            "too many updates in a ticket",
            expected=limits.max_ticket_updates,
            found=len(ticket.updates),
        )
    for name in ticket.updates:
        check_id(name)
    if list(ticket.updates) != sorted(set(ticket.updates)):
        raise CorruptError("a ticket's updates must be sorted, each once")
    if not 0 <= ticket.issued < ticket.expires <= _MAX_INT:
        raise CorruptError("a ticket's times make no sense", found=ticket.expires)
