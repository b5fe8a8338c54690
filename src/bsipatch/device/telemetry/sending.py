"""Sends the opt-in report to the collector that the policy names, and remembers when.

One a day, and one when something has become another: then no sooner than an hour after the one
before.  The moments are spread by the report's own pseudonym, so that a fleet does not come
at once; after a failure the wait grows to a day.  What is sent is what `bsipatch telemetry
--report` shows, byte for byte, and nothing with it: no cookie, no name of the device.

STORE/reports.json holds the moments.  Without it, or with a damaged one, a report more is
sent; the collector keeps one for each device and day.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec

from ...errors import BsipatchError, PolicyError, TransferError, from_os_error
from ...fleet import model
from ...fleet.model import Report
from ...output import OutputFile
from ..policy import Policy
from ..schedule import Timing, fraction, retry_delay

if TYPE_CHECKING:
    from ..transport import Transport

#: in the store's folder
NAME = "reports.json"
#: seconds between two reports that say the same, and what is added to that, by device
_USUAL, _SPREAD = 86_400.0, 4 * 3600.0
#: seconds between two reports of which the second says something else: this to twice this
_CHANGED = 3600.0
#: seconds over which a fleet's first ones are spread
_FIRST = 3600.0
_RETRY = Timing(retry=900.0, cap=86_400.0)
#: a clock that differs by more than this from what was written has been set back
_SLACK = 300.0
_MOST_ANSWER = 4096
_MOST = 1 << 14


class Sent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of reports so far. Times in seconds since 1970.

    next      when one is due that says the same as the one before
    sent      when the newest went out; None before the first
    content   of what it said, but for its time
    failures  in a row since then; `error` is the newest one's words
    """

    next: float = 0.0
    sent: float | None = None
    content: str = ""
    failures: int = 0
    error: str = ""


def wanted(policy: Policy) -> bool:
    """Whether everybody who is to be asked agrees, and somebody is there to report to."""
    return policy.reports and bool(policy.report_to)


def due(sent: Sent, report: Report, now: float) -> float:
    """When this report is due, seconds since 1970; at once when that is not after `now`."""
    latest = now + max(_USUAL + _SPREAD, _RETRY.cap) + _SLACK
    if sent.next > latest or (sent.sent or 0.0) > now + _SLACK:
        return now  # the clock was set back
    if sent.sent is None or sent.failures or content(report) == sent.content:
        return sent.next
    soon = sent.sent + _CHANGED * (1 + fraction(report.device, "changed", sent.sent))
    return min(sent.next, soon)


def first(report: Report, now: float) -> Sent:
    """For a device that has never sent one: within an hour, but not all devices at once."""
    return Sent(next=now + fraction(report.device, "first report", 0) * _FIRST)


def succeeded(report: Report, now: float) -> Sent:
    """After it went out."""
    wait = _USUAL + fraction(report.device, "report", now) * _SPREAD
    return Sent(next=now + wait, sent=now, content=content(report))


def failed(sent: Sent, report: Report, now: float, error: str) -> Sent:
    """After it did not."""
    failures = sent.failures + 1
    return msgspec.structs.replace(
        sent,
        failures=failures,
        next=now + retry_delay(report.device, failures, now, _RETRY),
        error=error[:500],
    )


def content(report: Report) -> str:
    """The same for reports that differ in nothing but the time that they were made."""
    return hashlib.sha256(model.encode(msgspec.structs.replace(report, made=0))).hexdigest()


def send(policy: Policy, report: Report, transport: Transport, now: float) -> None:
    """Hands it to the policy's collector, now.

    Raises PolicyError (reports are off, or there is nobody to report to), TransferError and
    what else the transport raises.
    """
    if not policy.reports:
        raise PolicyError(
            "reports are switched off", hint="`bsipatch policy --set reports=true` turns them on."
        )
    if not policy.report_to:
        raise PolicyError(
            "there is nobody to report to",
            hint="`bsipatch policy --set report_to=https://...` names the publisher's collector.",
        )
    data = model.encode(report)
    if policy.report_to.startswith("file:"):
        _put(policy.report_to, report.device, data, now)
    else:
        transport.post(f"{policy.report_to.rstrip('/')}/report", data, _MOST_ANSWER)


def _put(url: str, device: str, data: bytes, now: float) -> None:
    """Into a folder, as the collector would do: it is what a publisher's commands read."""
    path = unquote(urlsplit(url).path)
    if "\0" in path or ".." in path.split("/"):
        raise TransferError("not a plain path on this machine", file=url)
    folder = Path(path) / datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
        with OutputFile(folder / f"{device}.json", mode=0o644) as out:
            out.write(data)
            out.commit()
    except OSError as error:
        raise from_os_error(error, folder) from error


def load(store: Path) -> Sent:
    """What was written; an empty one when there is nothing, or nothing that can be read."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        with (store / NAME).open("rb") as file:
            found = msgspec.json.decode(file.read(_MOST), type=Sent)
        if found.failures >= 0:
            return found
    return Sent()


def save(store: Path, sent: Sent) -> None:
    """Writes it, whole or not at all; one that cannot be written costs a report more."""
    with contextlib.suppress(OSError, BsipatchError), OutputFile(store / NAME, mode=0o600) as out:
        out.write(msgspec.json.encode(sent) + b"\n")
        out.commit()
