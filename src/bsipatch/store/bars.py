"""The improvements that are not wanted again, and why: STORE/bars.json.

A bar holds for the manifest it names and for whatever has the same product,
version and letter, so that the same improvement built again is not a way
around it.  Its publisher lifts it with a newer letter or with a manifest whose
`supersedes` names the barred build; a person with `bsipatch allow`.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Sequence

from ..errors import BsipatchError, NotFoundError, PolicyError, StoreDamagedError
from ..limits import Limits
from ..manifest import Manifest
from . import durable, records
from .records import Bar, Bars, Generation, Pending, Why

#: fewest hex digits by which a manifest may be named
_PREFIX = 8


def read(root_fd: int, file: str, limits: Limits) -> tuple[Bar, ...]:
    """Every bar, oldest first; those of the last move too. Raises StoreDamagedError, OSError."""
    listed, moved = _listed(root_fd, file, limits), last_move(root_fd, file, limits)
    return listed if moved is None else tuple(_added(listed, moved.bars))


def last_move(root_fd: int, file: str, limits: Limits) -> Pending | None:
    """A move that is done, whose bars are in its record alone. Raises as read() does."""
    shown = f"{file}/{records.MOVED}"
    try:
        return records.read(Pending, records.MOVED, dir_fd=root_fd, limits=limits, file=shown)
    except NotFoundError:
        return None


def is_readable(root_fd: int, file: str, limits: Limits) -> bool:
    """Whether there is a list that can be added to, or none yet."""
    try:
        _listed(root_fd, file, limits)
    except BsipatchError:
        return False
    return True


def _listed(root_fd: int, file: str, limits: Limits) -> tuple[Bar, ...]:
    shown = f"{file}/{records.BARS}"
    try:
        found = records.read(Bars, records.BARS, dir_fd=root_fd, limits=limits, file=shown)
    except NotFoundError:
        return ()
    if found.format != records.FORMAT:
        raise StoreDamagedError(
            "the list of bars is of another format",
            file=shown,
            expected=records.FORMAT,
            found=found.format,
        )
    return found.bars


def put(root_fd: int, new: Iterable[Bar], file: str, limits: Limits) -> bool:
    """Adds bars, durably; False when all were there. The store must be locked. Raises OSError.

    A manifest has one bar: the owner's does not weaken one that a failure put
    there.  A list that cannot be read is begun anew, since going back must not
    fail for its sake.
    """
    try:
        before = _listed(root_fd, file, limits)
    except BsipatchError:
        before = ()
    bars = _added(before, new)
    if bars == list(before):
        return False
    _write(root_fd, bars[-limits.max_bars :])
    return True


def _added(bars: Iterable[Bar], new: Iterable[Bar]) -> list[Bar]:
    found = list(bars)
    for bar in new:
        there = next((item for item in found if item.manifest == bar.manifest), None)
        if there is not None and bar.why == "owner":
            continue
        found = [item for item in found if item.manifest != bar.manifest] + [bar]
    return found


def lift(root_fd: int, manifests: Iterable[str], file: str, limits: Limits) -> tuple[Bar, ...]:
    """Takes the bars of these manifests off the list, durably; returns them."""
    gone = set(manifests)
    bars = read(root_fd, file, limits)
    lifted = tuple(bar for bar in bars if bar.manifest in gone)
    if lifted:
        _write(root_fd, [bar for bar in bars if bar.manifest not in gone])
    return lifted


def _write(root_fd: int, bars: Sequence[Bar]) -> None:
    if bars:
        data = records.encode(Bars(format=records.FORMAT, bars=tuple(bars)))
        durable.replace_file(records.BARS, data, dir_fd=root_fd)
    else:
        durable.remove_file(records.BARS, dir_fd=root_fd)


def find(bars: Iterable[Bar], manifest: Manifest, digest: str) -> Bar | None:
    """The bar that holds this update back, the strongest first."""
    found = [bar for bar in bars if _holds(bar, manifest, digest)]
    found.sort(key=lambda bar: bar.why == "owner")
    return found[0] if found else None


def _holds(bar: Bar, manifest: Manifest, digest: str) -> bool:
    if bar.manifest == digest:
        return True
    same = (bar.product, bar.version, bar.letter) == (
        manifest.product,
        manifest.version,
        manifest.letter,
    )
    return same and bar.build not in manifest.supersedes


def check(
    bars: Iterable[Bar], manifest: Manifest, digest: str, *, automatic: bool, even_if_barred: bool
) -> Bar | None:
    """Whether an update may be applied; the bar that the caller overrides, if any.

    `automatic`: nobody asked for this very update.  What the owner took off
    stays off then; asked for by name it may come back.  Raises PolicyError
    with who barred it, when and why.
    """
    bar = find(bars, manifest, digest)
    if bar is None or even_if_barred or (bar.why == "owner" and not automatic):
        return bar
    raise PolicyError(
        f"{bar.display} is barred since {bar.time}: {bar.reason}",
        hint=(
            f"Wait for its successor; or `bsipatch allow {bar.letter or bar.build}`, "
            "or apply it with --even-if-barred."
        ),
    )


def select(bars: Sequence[Bar], wanted: str) -> tuple[Bar, ...]:
    """The bars that a person means: by letter, display, build, manifest (8 digits or more), "all".

    Raises NotFoundError that lists what is barred.
    """
    found = tuple(bar for bar in bars if wanted == "all" or _is_called(bar, wanted))
    if not found:
        known = ", ".join(f"{bar.display} (build {bar.build})" for bar in bars) or "nothing"
        raise NotFoundError(f"no such improvement is barred: {wanted}", hint=f"Barred: {known}.")
    return found


def _is_called(bar: Bar, wanted: str) -> bool:
    if wanted in (bar.letter, bar.display, bar.build, f"({bar.letter})"):
        return True
    return len(wanted) >= _PREFIX and bar.manifest.startswith(wanted.lower())


def make(generation: Generation, why: Why, reason: str) -> Bar | None:
    """The bar of a generation; None for the baseline, which cannot have one."""
    if generation.manifest is None:
        return None
    return Bar(
        manifest=generation.manifest,
        product=generation.product,
        version=generation.version,
        letter=generation.letter,
        build=generation.build,
        why=why,
        reason=reason,
        by=person(),
        time=records.now(),
    )


def person() -> str:
    """Who runs this, for people: "root, by sudo of ada"."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid {os.getuid()}"
    behind = os.environ.get("SUDO_USER", "")
    return f"{name}, by sudo of {behind[:64]}" if behind.isprintable() and behind else name
