"""Is a store that went through a power cut whole: exactly old or exactly new, and usable."""

from __future__ import annotations

import errno
import stat
import traceback
from pathlib import Path

import msgspec

from bsipatch.errors import BsipatchError, NotFoundError
from bsipatch.store import Store, check, records
from bsipatch.tree import walk
from tests.support.stores import NOW

from .kit import GROUP, LIVE, STORE, Kit, entries, group_of, live_tree, open_store, opened, stores
from .scenarios import NOTHING, Scenario

_CORRUPT = (errno.EUCLEAN, errno.EIO, errno.EBADMSG)


class Expect(msgspec.Struct, frozen=True):
    """What may be live: one of `before` until success was reported, then only `after`."""

    before: tuple[str, ...]
    after: str
    #: what the history must end with once success was reported, "" when it says nothing
    event: str = ""
    #: the live tree is spoilt before, in part until success is reported, and sound after
    mends: bool = False
    #: the store has a live path of its own, of this mode
    live_mode: str = ""
    #: events that the history told before, and does not forget
    told: tuple[str, ...] = ()
    #: an event that the history does not forget once the first success of several was reported
    midway: str = ""
    #: how the trial stands once success was reported, tries and phase; "" when not looked at
    trial: str = ""

    @staticmethod
    def of(scenario: Scenario) -> Expect:
        """That of an operation done from its start."""
        return Expect(
            before=(scenario.old, *scenario.between),
            after=scenario.new,
            event=scenario.event,
            mends=scenario.mends,
            live_mode=scenario.live_mode,
            told=scenario.told,
            midway=scenario.midway,
            trial=scenario.trial,
        )

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
    found = []
    for root in stores(place):
        with open_store(root) as store, store.writing("recover") as done:
            found += done
    return found


def judge(
    kit: Kit, place: Path, expect: Expect, *, succeeded: bool, use: bool, midway: bool = False
) -> Verdict:
    """Recovers the store below `place` and looks at all of it.

    midway: the first success of several was reported.
    use: also apply, revert and collect afterwards, as the owner would.
    """
    try:
        if midway and expect.midway:
            expect = msgspec.structs.replace(expect, told=(*expect.told, expect.midway))
        return _judge(kit, place, expect, succeeded, use)
    except (BsipatchError, OSError, AssertionError) as error:
        damaged = _number_of(error) in _CORRUPT
        return Verdict(False, why=_told(error), damaged=damaged)


def _judge(kit: Kit, place: Path, expect: Expect, succeeded: bool, use: bool) -> Verdict:
    allowed = expect.allowed(succeeded)
    wrong = "" if expect.mends else _shown_wrongly(kit, place, allowed)
    if wrong:
        return Verdict(False, why=f"before recovery {wrong}")
    try:
        done = recover(place)
    except NotFoundError:
        if NOTHING not in allowed:
            return Verdict(False, NOTHING, why=f"the store is gone, expected {_names(allowed)}")
        kit.init(place, live_mode=expect.live_mode)
        recover(place)
        wrong = _shown_wrongly(kit, place, ("",))
        return Verdict(not wrong, NOTHING, why=wrong and f"after another init {wrong}")
    before = _contents(place)
    again = recover(place)
    if again:
        return Verdict(False, why=f"recovery is not done after one run: {again}")
    if _contents(place) != before:
        return Verdict(False, why="a second recovery changed the store")
    mended = 0
    if expect.mends:
        wrong = _spoilt_further(kit, place, succeeded)
        if wrong:
            return Verdict(False, why=wrong)
        mended = 0 if succeeded else repair(kit, place)
    wrong = _shown_wrongly(kit, place, allowed)
    if expect.live_mode and live_tree(place / STORE) != place / LIVE:
        return Verdict(False, why="the store knows nothing of its live path")
    live = kit.shown(place)
    if wrong or live is None:
        return Verdict(False, live or "", len(done), wrong)
    did = len(done) + mended
    for root in stores(place):
        with open_store(root) as store:
            wrong = _look(store, expect.event if succeeded else "")
            trial = store.trial()
            forgotten = {*expect.told} - {event.event for event in store.history()}
        if forgotten:
            return Verdict(False, live, did, f"the history has forgotten {sorted(forgotten)}")
        stands = "none" if trial is None else f"{trial.tries} {trial.start.phase}"
        if succeeded and expect.trial not in ("", stands):
            wrong = wrong or f"the trial stands at {stands} for {expect.trial}"
        if wrong:
            return Verdict(False, live, did, wrong)
    if use:
        _use_group(kit, place) if (place / GROUP).is_dir() else _use(kit, place, live)
    return Verdict(True, live, did)


def _shown_wrongly(kit: Kit, place: Path, allowed: tuple[str, ...]) -> str:
    """What is wrong with what programs see; "" when nothing is, or there is no store yet."""
    if not all((root / records.IDENTITY).exists() for root in stores(place)):
        return ""
    live = kit.shown(place)
    if live is None:
        return "the live tree is torn: neither old nor new"
    return "" if live in allowed else f"live is {_names([live])}, expected {_names(allowed)}"


def repair(kit: Kit, place: Path) -> int:
    """Repairs what is spoilt; how many entries were."""
    with opened(place) as store:
        report = check(store, repair=True, sources=[kit.updates["a"]])
    if not report.sound:
        raise AssertionError(f"not all was repaired: {report.drift[0]}")
    return len(report.repaired)


def _spoilt_further(kit: Kit, place: Path, succeeded: bool) -> str:
    """What is neither as it was spoilt nor as it was signed; "" when nothing is."""
    found = entries(live_tree(place / STORE))
    for path in sorted({*kit.spoilt, *kit.sound, *found}):
        was, signed, now = (kind.get(path) for kind in (kit.spoilt, kit.sound, found))
        # a folder that was missing and is being filled
        half_made = was is None and now is not None and now[0] == stat.S_IFDIR | 0o700
        if now not in (was, signed) and (succeeded or not half_made):
            return f"{path} is neither as it was nor as it was signed"
    return ""


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
    told = {0, *(number for one in events for number in (one.live, one.was))}
    strays = {*records.generation_numbers(store.fd)} - told
    if strays:
        return f"a generation that nobody knows of, and no move removes: {sorted(strays)}"
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


def _use_group(kit: Kit, place: Path) -> None:
    """The same for several stores in one step."""
    group = group_of(place)
    names = [root.name for root in stores(place)]
    for name in names:
        group.adopt(name)
    group.apply(dict.fromkeys(names, kit.updates["c"]), now=NOW)
    if kit.shown(place) != "c&c":
        raise AssertionError("updates applied afterwards are not what is live")
    group.revert(baseline=True)
    if kit.shown(place) != "&":
        raise AssertionError("a revert afterwards did not lead to the baselines")
    for root in stores(place):
        with open_store(root) as store:
            store.collect()
            wrong = _look(store)
        if wrong:
            raise AssertionError(f"after more work: {wrong}")


def _contents(place: Path) -> list[tuple[str, int, int]]:
    """Name, inode and size of all in the folders of stores, of the group, and of generations."""
    folders = [place, *(place / GROUP / name for name in ("", "sets"))]
    for root in stores(place):
        generations = root / records.GENERATIONS
        folders += [root, generations, *generations.iterdir()]
    found = []
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
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
