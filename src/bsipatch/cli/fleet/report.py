"""`bsipatch fleet report`: who is protected, who is not and why, and whether to pause."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import _output, _passphrase, _signals
from .._options import Json

if TYPE_CHECKING:
    from ...fleet.analysis import Fleet
    from ...fleet.model import Report

#: bytes of one file of reports, and reports over all files
_MOST_FILE = 1 << 30
_MOST_REPORTS = 5_000_000
_SUFFIXES = (".json", ".jsonl")


def command(
    reports: Annotated[
        list[Path],
        typer.Argument(
            metavar="REPORTS...",
            help="Files with one report a line, folders of *.json(l), or what `collect` fills.",
        ),
    ],
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", dir_okay=False, help="Write a page with plots."),
    ] = None,
    update: Annotated[
        str | None, typer.Option("--update", metavar="ID", help="Look at this update alone.")
    ] = None,
    failures: Annotated[
        float, typer.Option("--failures", min=0, max=100, help="Percent of failures allowed.")
    ] = 2.0,
    least: Annotated[
        int, typer.Option("--least", min=1, help="Fewer failures than this pause nothing.")
    ] = 3,
    confidence: Annotated[
        float,
        typer.Option("--confidence", min=50, max=99.99, help="How sure to be, in percent."),
    ] = 95.0,
    pause: Annotated[
        str | None,
        typer.Option("--pause", metavar="FEED", help="Pause in this feed what fails too often."),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys",
            envvar="BSIPATCH_FEED_KEYS",
            file_okay=False,
            metavar="DIR",
            help="For --pause: the folder of the feed's keys.",
        ),
    ] = None,
    passphrase_file: _passphrase.File = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="With --pause: publish nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Say how a rollout goes, and with --pause stop it where failures pass the threshold.

    An update is to be paused when the share of failures among the devices that tried it is
    above --failures with --confidence, and at least --least devices failed. Ends with exit
    code 0 also then: `pause` in --json names what is to be paused.

    Examples:

      bsipatch fleet report reports/ --html fleet.html

      bsipatch fleet report today.jsonl --failures 1 --pause /srv/feed --keys keys
    """
    import dataclasses

    import msgspec

    from ...errors import UsageError
    from ...fleet import analysis

    if pause is not None and keys is None:
        raise UsageError("--pause needs the feed's keys", hint="Give --keys DIR.")
    with _output.progress(json) as bar, _signals.working() as stop:
        found, refused = _read(reports, _signals.stopping(bar, stop))
    threshold = analysis.Threshold(
        failures=failures / 100, least=least, confidence=confidence / 100
    )
    fleet = analysis.analyse(found, threshold=threshold, refused=refused)
    if update is not None:
        kept = tuple(one for one in fleet.updates if one.update == update)
        fleet = dataclasses.replace(fleet, updates=kept)
    if html is not None:
        _write_page(html, fleet)
    wanted = [one.update for one in fleet.updates if one.decision.pause]
    paused: list[dict[str, Any]] = []
    if pause is not None and keys is not None:
        paused = _pause(pause, keys, passphrase_file, wanted, dry_run)
    facts = {
        **msgspec.to_builtins(fleet),
        "pause": wanted,
        "paused": paused,
        "html": None if html is None else str(html),
    }
    _output.emit(json, facts, _lines(fleet, html, paused))


# --- reading ---


def _read(places: Sequence[Path], progress: Any) -> tuple[list[Report], int]:
    """Every report, and how many lines were none."""
    from ...errors import LimitError, NotFoundError
    from ...fleet import model

    files = list(_files(places))
    if not files:
        raise NotFoundError("no files of reports", file=places[0], expected=", ".join(_SUFFIXES))
    whole = sum(file.stat().st_size for file in files)
    found: list[Report] = []
    refused = done = 0
    for file in files:
        with _output.opening(file) as opened:
            data = opened.read(_MOST_FILE + 1)
        if len(data) > _MOST_FILE:
            raise LimitError("a file of reports", file=file, expected=_MOST_FILE)
        for report, error in model.decode_lines(data, file=str(file)):
            if report is None:
                refused += error is not None
                continue
            found.append(report)
            if len(found) > _MOST_REPORTS:
                raise LimitError("reports", file=file, expected=_MOST_REPORTS)
        done += len(data)
        progress("reading reports", done, max(whole, done))
    return found, refused


def _files(places: Sequence[Path]) -> Iterator[Path]:
    from ...errors import from_os_error
    from ...fleet.collecting import DAY

    for place in places:
        try:
            if place.is_dir():
                yield from _inside(place)
                for day in sorted(place.iterdir()):
                    if DAY.fullmatch(day.name) and day.is_dir():
                        yield from _inside(day)
            else:
                place.stat()
                yield place
        except OSError as error:
            raise from_os_error(error, place) from error


def _inside(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES and p.is_file())


# --- pausing ---


def _pause(
    place: str, keys: Path, passphrase_file: Path | None, updates: Sequence[str], dry_run: bool
) -> list[dict[str, Any]]:
    """Pauses each update's rollout; one that cannot be paused is told with the reason."""
    from ...errors import UsageError
    from ..feed import _common

    if not updates:
        return []
    with _common.needing_feed():
        from ...publish.feed import edits
    told: list[dict[str, Any]] = []
    with _signals.working():
        feed = _common.open_feed(place, keys, passphrase_file, False)
        for name in updates:

            def edit(draft: edits.Draft, now: int, name: str = name) -> edits.Draft:
                return edits.pause(draft, name, now)

            try:
                report = feed.edit(edit, dry_run=dry_run)
                told.append({"id": name, "paused": report.published, "reason": ""})
            except UsageError as error:
                told.append({"id": name, "paused": False, "reason": error.message})
    return told


# --- showing ---


def _write_page(path: Path, fleet: Fleet) -> None:
    from ...output import OutputFile
    from ...report import fleet_page

    with OutputFile(path) as out:
        out.write(fleet_page.render(fleet).encode())
        out.commit()


def _lines(fleet: Fleet, html: Path | None, paused: list[dict[str, Any]]) -> Iterator[str]:
    from ...report.fleet_page import REASONS, duration

    devices = _output.number(fleet.devices, "device")
    reports = _output.number(fleet.reports, "report")
    yield f"{devices} in {reports}"
    if fleet.refused:
        yield f"{fleet.refused:,} lines were no reports and were left out"
    for one in fleet.updates:
        yield ""
        yield one.update
        yield (
            f"  protected   {100 * one.protected_share:.1f} %, "
            f"{one.protected:,} of {one.devices:,} devices; "
            f"half of them within {duration(one.median_seconds)}"
        )
        for reason, count in one.stragglers:
            yield f"  not yet     {count:,}: {REASONS.get(reason, reason)}"
        for ring in one.rings:
            yield f"  ring {ring.percent:>3} %  {ring.failed:,} of {ring.tried:,} failed"
        yield f"  {one.decision.text}"
    for told in paused:
        yield ""
        yield (
            f"Paused {told['id']}"
            if told["paused"]
            else f"Not paused: {told['id']} {told['reason'] or '(dry run)'}"
        )
    if html is not None:
        yield ""
        yield f"Page: {html}"
