"""Is a store that went through a power cut whole: exactly old or exactly new, and usable."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path

import msgspec

from bsipatch.errors import BsipatchError, NotFoundError
from bsipatch.store import Store, check, records
from bsipatch.tree import walk

from .kit import STORE, Kit, opened
from .scenarios import NOTHING

_CORRUPT = (errno.EUCLEAN, errno.EIO, errno.EBADMSG)


class Expect(msgspec.Struct, frozen=True):
    """What may be live: one of `before` until success was reported, then only `after`."""

    before: tuple[str, ...]
    after: str
    #: what the history must end with once success was reported, "" when it says nothing
    event: str = ""

    def allowed(self, succeeded: bool) -> tuple[str, ...]:
        """The builds that may be live."""
        return (self.after,) if succeeded else (*self.before, self.after)


class Verdict(msgspec.Struct, frozen=True):
    """What was found.

    ok       as promised
    live     the build that was live, NOTHING without a store
    did      how many things recovery had to do
    why      what is wrong, empty when all is well
    damaged  the file system itself did not survive; says nothing about the store
    """

    ok: bool
    live: str = ""
    did: int = 0
    why: str = ""
    damaged: bool = False


def recover(place: Path) -> list[str]:
    """What every command that opens the store for writing does first; its sentences."""
    with opened(place) as store, store.writing("recover") as done:
        return list(done)


def judge(kit: Kit, place: Path, expect: Expect, *, succeeded: bool, use: bool) -> Verdict:
    """Recovers the store below `place` and looks at all of it.

    use: also apply, revert and collect afterwards, as the owner would.
    """
    allowed = expect.allowed(succeeded)
    try:
        return _judge(kit, place, allowed, expect.event if succeeded else "", use)
    except (BsipatchError, OSError, AssertionError) as error:
        damaged = _number_of(error) in _CORRUPT
        return Verdict(False, why=_told(error), damaged=damaged)


def _judge(kit: Kit, place: Path, allowed: tuple[str, ...], event: str, use: bool) -> Verdict:
    try:
        done = recover(place)
    except NotFoundError:
        if NOTHING not in allowed:
            return Verdict(False, NOTHING, why=f"the store is gone, expected {_names(allowed)}")
        kit.init(place)
        recover(place)
        return Verdict(True, NOTHING)
    before = _contents(place)
    again = recover(place)
    if again:
        return Verdict(False, why=f"recovery is not done after one run: {again}")
    if _contents(place) != before:
        return Verdict(False, why="a second recovery changed the store")
    with opened(place) as store:
        live = kit.name_of(walk(store.live_path))
        if live is None:
            return Verdict(False, why="the live tree is torn: neither old nor new")
        if live not in allowed:
            return Verdict(
                False, live, len(done), f"live is {_names([live])}, expected {_names(allowed)}"
            )
        wrong = _look(store, event)
        if wrong:
            return Verdict(False, live, len(done), wrong)
    if use:
        _use(kit, place, live)
    return Verdict(True, live, len(done))


def _look(store: Store, event: str = "") -> str:
    """Every generation whole, the records in step, nothing left lying about."""
    drifts = check(store).drift
    if drifts:
        return f"a generation is not whole: {drifts[0]}"
    if records.leftovers(store.fd):
        return f"left lying about: {records.leftovers(store.fd)}"
    events = store.history()
    if not events or events[-1].live != store.live().number:
        return "the history does not end with what is live"
    if event and events[-1].event != event:
        return f"the history ends with {events[-1].event!r}: it has forgotten {event!r}"
    status = store.status()
    if status.unfinished:
        return f"unfinished after recovery: {status.unfinished}"
    return ""


def _use(kit: Kit, place: Path, live: str) -> None:
    """The store does its work afterwards."""
    letter = "a" if live == "b" else "b"  # (a) may be barred by then
    kit.apply(place, letter)
    with opened(place) as store:
        if kit.name_of(walk(store.live_path)) != letter:
            raise AssertionError("an update applied afterwards is not what is live")
        store.revert(baseline=True)
        store.collect()
        if kit.name_of(walk(store.live_path)) != "":
            raise AssertionError("a revert afterwards did not lead to the baseline")
        wrong = _look(store)
        if wrong:
            raise AssertionError(f"after more work: {wrong}")


def _contents(place: Path) -> list[tuple[str, int, int]]:
    """Name, inode and size of all in the store's folder and of each generation."""
    root = place / STORE
    found = []
    for folder in (root, root / records.GENERATIONS):
        for path in sorted(folder.iterdir()):
            status = path.lstat()
            size = 0 if path.name == "lock" or path.is_dir() else status.st_size
            found.append((path.name, status.st_ino, size))
    return found


def _number_of(error: BaseException) -> int | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause.errno
        cause = cause.__cause__
    return None


def _told(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"


def _names(builds: object) -> str:
    return " or ".join(repr(name or "baseline") for name in builds)  # type: ignore[attr-defined]
