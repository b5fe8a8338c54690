"""What the feed's commands share: options, opening a feed, and showing what a change changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import CancelledError, MissingDependencyError, UsageError
from .. import _output, _passphrase, _signals
from .._options import ChannelName
from ..inspect import moment

if TYPE_CHECKING:
    from ...publish.feed.edits import Change, Draft
    from ...publish.feed.keys import KeyRing
    from ...publish.feed.repository import Feed, Report
    from ...publish.feed.transaction import Hook

Place = Annotated[
    str,
    typer.Option(
        "--feed",
        "-f",
        envvar="BSIPATCH_FEED",
        metavar="FEED",
        help="A directory, or s3://, gs://, az://; http(s):// to look at.",
    ),
]
Keys = Annotated[
    Path,
    typer.Option(
        "--keys",
        envvar="BSIPATCH_FEED_KEYS",
        file_okay=False,
        metavar="DIR",
        help="The folder of the feed's keys.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Show what would change, publish nothing.")
]
TakeOver = Annotated[
    bool,
    typer.Option(
        "--take-over",
        help="Finish or discard another publisher's unfinished work, although it may be alive.",
    ),
]
Channel = Annotated[
    ChannelName | None, typer.Option("--channel", "-c", help="In this channel alone.")
]
Id = Annotated[str, typer.Argument(metavar="ID", help="An update's id, or its last twelve digits.")]
Percent = Annotated[
    str | None,
    typer.Option("--percent", metavar="P,P,...", help="Steps of a rollout, such as 5,25,100."),
]
Every = Annotated[
    str, typer.Option("--every", metavar="TIME", help="Time between two steps, such as 24h.")
]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
#: before these steps of a publication there is nothing to cancel any more
_LATE = ("root", "end")


def channel_name(channel: ChannelName | None) -> str | None:
    """What the feed's own code calls it."""
    return None if channel is None else channel.value


def duration(text: str) -> int:
    """ "24h" in seconds. Raises UsageError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not int(match[1]):
        raise UsageError("a time is a number and s, m, h, d or w, such as 24h", found=text)
    return int(match[1]) * _UNITS[match[2]]


def percents(text: str | None) -> tuple[int, ...]:
    """ "5,25,100" as numbers. Raises UsageError."""
    if text is None:
        return ()
    parts = [part.strip().removesuffix("%").strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,3}", part) for part in parts):
        raise UsageError("percentages are whole numbers such as 5,25,100", found=text)
    return tuple(int(part) for part in parts)


@contextmanager
def needing_feed() -> Iterator[None]:
    """Says which extra is missing."""
    try:
        import securesystemslib  # noqa: F401
        import tuf  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"a feed needs {error.name}", hint="pip install 'bsipatch[feed]'"
        ) from error
    yield


def key_ring(keys: Path, passphrase_file: Path | None) -> KeyRing:
    """The folder of keys; pass phrases are asked for when something is signed."""
    with needing_feed():
        from ...publish.feed.keys import KeyRing
    return KeyRing(keys, lambda path: _passphrase.load(path, passphrase_file))


def open_feed(
    place: str,
    keys: Path,
    passphrase_file: Path | None,
    take_over: bool,
    ignore: str | None = None,
    hook: Hook | None = None,
    look: bool = False,
) -> Feed:
    """The feed, with whatever a dead publisher left behind finished or discarded."""
    ring = key_ring(keys, passphrase_file)
    from ...publish.feed.repository import Feed
    from ...publish.feed.storage import open_storage

    follow = stop_early if hook is None else hook
    return Feed(
        open_storage(place), ring, take_over=take_over, ignore=ignore, hook=follow, look=look
    )


@contextmanager
def publishing() -> Iterator[Hook]:
    """A hook for Feed. Until a publication begins Ctrl-C ends the command at once, at a pass phrase
    too; from then on it stops between two steps, while there is something to stop."""
    with ExitStack() as stack:
        begun = False

        def hook(step: str) -> None:
            nonlocal begun
            if not begun:
                stack.enter_context(_signals.working())
                begun = True
            stop_early(step)

        yield hook


def stop_early(step: str) -> None:
    """A publication's hook: Ctrl-C stops it while nothing of it can be seen yet."""
    if _signals.stop.is_set() and step.split()[0] not in _LATE:
        raise CancelledError


def change(
    place: str,
    keys: Path,
    passphrase_file: Path | None,
    take_over: bool,
    edit: Callable[[Draft, int], Draft],
    *,
    dry_run: bool,
    json: bool,
    sources: Mapping[str, Path] | None = None,
) -> None:
    """Opens the feed, publishes an edit, shows what it changed."""
    with publishing() as hook:
        feed = open_feed(place, keys, passphrase_file, take_over, hook=hook)
        report = feed.edit(edit, sources=sources, dry_run=dry_run)
    show(report, dry_run=dry_run, json=json)


def show(
    report: Report,
    *,
    dry_run: bool,
    json: bool,
    more: Mapping[str, Any] | None = None,
    lines: Sequence[str] = (),
) -> None:
    """A report as lines of a diff with `lines` after them, or as JSON with `more` in it."""
    facts = {
        "published": report.published,
        "dry_run": dry_run,
        "recovered": report.recovered or None,
        "changes": [
            {
                "channel": c.channel,
                "id": c.id,
                "what": c.what,
                "before": c.before,
                "after": c.after,
            }
            for c in report.changes
        ],
        "versions": {role: list(pair) for role, pair in report.versions.items()},
        **(more or {}),
    }
    _output.emit(json, facts, [*_lines(report, dry_run), *lines])


def _lines(report: Report, dry_run: bool) -> Iterator[str]:
    if report.recovered:
        yield f"An earlier publication that had died was {report.recovered}."
    for entry in report.changes:
        yield from change_lines(entry)
    if report.versions:
        steps = [f"{role} {old} -> {new}" for role, (old, new) in report.versions.items()]
        yield "Versions: " + ", ".join(steps)
    if report.pending is not None:
        yield "Not published."
    elif dry_run and report.versions:
        yield "Dry run: nothing was published."
    elif report.published:
        yield "Published."
    else:
        yield "Nothing to change."


def change_lines(entry: Change) -> Iterator[str]:
    """One change as a diff shows it: what goes, then what comes."""
    named = entry.id if entry.id == entry.channel else f"{entry.channel}: {entry.id}"
    yield f"{named}: {entry.what}"
    if entry.what == "rollout":
        for mark, value in (("-", entry.before), ("+", entry.after)):
            yield f"  {mark} {'everybody' if value is None else value_text('rollout', value)}"
        return
    if entry.before is not None:
        yield f"  - {value_text(entry.what, entry.before)}"
    if entry.after is not None:
        yield f"  + {value_text(entry.what, entry.after)}"


def value_text(what: str, value: Any) -> str:
    """A field's value in words."""
    if what == "offer":
        size = _output.size(value["size"])
        ticket = ", for devices with a ticket" if value.get("ticket_required") else ""
        text = f"{value['version']}, {size}, sequence {value['sequence']}{ticket}"
        staged = value.get("rollout")
        return text if staged is None else f"{text}; {value_text('rollout', staged)}"
    if what == "rollout":
        steps = [f"{percent} % from {moment(since)}" for percent, since in value["steps"]]
        text = ", ".join(steps) or "nobody yet"
        held = value.get("held", [])
        paused = f"paused, {len(held)} steps set aside; " if value.get("paused") else ""
        return paused + text
    if what == "withdrawn":
        back = f", installed ones go back to the {value.get('to', 'previous')}"
        reverts = back if value.get("revert_installed") else ""
        return f"{value['reason']} (notice until {moment(value['expires'])}{reverts})"
    if what == "published":
        return moment(value)
    if what == "expires":
        return moment(int(datetime.fromisoformat(value).timestamp()))
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    return str(value)
