"""What the agent does next. Pure: the same that was seen gives the same step.

The order: what was interrupted; what is on trial and can be judged; the feed, when it is
due; what was withdrawn; the newest improvement that nothing holds back.  Then it waits,
for the earliest moment at which any of this can be another answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from ..service_state import Listed, Process
from .memo import Memo

Do: TypeAlias = Literal["recover", "judge", "check", "withdraw", "tell", "fetch", "install", "rest"]

#: held by nothing but these, an improvement is fetched, so that it is there when they end
_FETCHED = frozenset({"idle"})
#: reasons that end without anybody telling us, and after how many seconds to ask again
_ASKED_AGAIN = {
    "idle": 300.0,
    "battery": 900.0,
    "metered": 900.0,
    "space": 1800.0,
    "memory": 1800.0,
    "not-in-ring": 3600.0,
}
#: seconds for which running programs put off what nobody waits for; then it is installed beneath
#: them, for they keep what they have open, and a security update must not wait for ever
PATIENCE = 86_400.0
#: seconds after a start of the machine at which a trial is judged when no one else has done so
SETTLED = 900.0
#: seconds after which a step is tried again that failed for a reason of this machine
AGAIN = 300.0
#: seconds after which another process's lock is tried again
BUSY = 30.0
#: no wait is longer: clocks are set, files are put back
_LONGEST = 86_400.0
_SHORTEST = 1.0
_EMPTY = Memo()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that a decision rests on. Times in seconds since 1970.

    due         seconds until the next check, 0 for now; None when no feed is followed
    unfinished  an interrupted run left something in the store
    trial       "" for none; relaunch: its checks can be made; restart: it waits for one;
                starting: this start of the machine is its trial
    starts      who counts starts: whether an init system has told of this one
    up          seconds since the machine started
    withdrawn   what is live was taken back by its publisher
    moved       why the base is another one, or ""
    listed      what the feed has for this device, the newest first
    programs    those that run now of what the first of `listed` names
    relaunch    those that run since before the last change
    live        what is live, for people
    problem     why what is known of the feed cannot be relied on, or ""
    unread      what the last check brought cannot be looked at now, say because another process
                does; `listed` is empty then
    """

    now: float
    due: float | None
    unfinished: bool = False
    trial: Literal["", "relaunch", "restart", "starting"] = ""
    starts: bool = False
    up: float = SETTLED
    withdrawn: bool = False
    moved: str = ""
    listed: tuple[Listed, ...] = ()
    programs: tuple[Process, ...] = ()
    relaunch: tuple[Process, ...] = ()
    live: str = ""
    problem: str = ""
    unread: bool = False
    memo: Memo = _EMPTY


@dataclass(frozen=True, slots=True)
class Step:
    """What to do. `until`, `why` and `pids` are those of a rest: see Memo."""

    do: Do
    update: str = ""
    until: float = 0.0
    why: str = ""
    pids: tuple[int, ...] = ()


def decide(seen: Seen, tried: frozenset[Do] = frozenset()) -> Step:
    """The next step; what was `tried` in this run and still seems due is left for the next."""
    for step in _urgent(seen):
        if step.do not in tried:
            return step
    target = _target(seen)
    if target is None or seen.memo.about(target.id).retry > seen.now:
        return _rest(seen, target)
    memo = seen.memo.about(target.id)
    held = {why.code for why in target.why}
    if held or (seen.programs and not target.enforced and _patient(seen, memo)):
        if not memo.fetched and "fetch" not in tried and held <= _FETCHED:
            return Step("fetch", target.id)
        return _rest(seen, target)
    if "install" not in tried:
        return Step("install", target.id)
    return _rest(seen, target)


def _urgent(seen: Seen) -> Iterable[Step]:
    if seen.unfinished or seen.trial == "relaunch":
        yield Step("recover")
    # An init system that counts the start also judges it; where it has not, we do.
    if seen.trial == "starting" and (not seen.starts or seen.up >= SETTLED):
        yield Step("judge")
    if seen.due is not None and seen.due <= 0:
        yield Step("check")
    if seen.withdrawn:
        yield Step("withdraw")
    if seen.memo.relaunch and not seen.relaunch and seen.trial != "restart":
        yield Step("tell")


def _target(seen: Seen) -> Listed | None:
    """The newest improvement, if it can be had by itself now or is to be there when it can."""
    if seen.moved or seen.withdrawn:
        return None
    # What is live has to prove itself before it is replaced by itself.
    if seen.trial:
        return None
    for one in seen.listed:
        if one.standing == "available":
            return one if {why.code for why in one.why} <= _FETCHED else None
    return None


def _patient(seen: Seen, memo: Memo) -> bool:
    """Whether the programs that run are still waited for."""
    return not memo.ready or seen.now < memo.ready + PATIENCE


# --- waiting ---


def _rest(seen: Seen, target: Listed | None) -> Step:
    moments, pids = [_LONGEST + seen.now], [one.pid for one in seen.relaunch]
    if seen.due is not None:
        moments.append(seen.now + (seen.due or AGAIN))
    if seen.unread or any(step.do != "check" for step in _urgent(seen)):
        moments.append(seen.now + AGAIN)
    if seen.trial == "starting":
        moments.append(seen.now + SETTLED - seen.up)
    for one in seen.listed:
        if one.standing in ("available", "waiting"):
            moments += [seen.now + _ASKED_AGAIN[w.code] for w in one.why if w.code in _ASKED_AGAIN]
            told = (*(why.until for why in one.why), one.by)
            moments += [_seconds(moment) for moment in told if moment is not None]
    if target is not None:
        memo = seen.memo.about(target.id)
        if memo.retry > seen.now:
            moments.append(memo.retry)
        elif seen.programs:
            pids += [one.pid for one in seen.programs]
            moments.append((memo.ready or seen.now) + PATIENCE)
    until = min(moment for moment in moments if moment > seen.now)
    return Step(
        "rest",
        update="" if target is None else target.id,
        until=max(until, seen.now + _SHORTEST),
        why=waits_for(seen, target),
        pids=tuple(sorted(set(pids))),
    )


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def waits_for(seen: Seen, target: Listed | None) -> str:
    """What the device waits for, one line for people; never that all is well while it is not."""
    if seen.due is None:
        return "no feed is followed"
    if seen.moved:
        return f"the base has moved on: {seen.moved}"
    if seen.withdrawn:
        return f"{seen.live} was withdrawn and could not be taken off yet"
    if seen.trial == "restart":
        return f"{seen.live} takes effect with the next restart"
    if seen.trial:
        return f"{seen.live} is on trial"
    if target is not None:
        memo = seen.memo.about(target.id)
        if memo.retry > seen.now:
            return f"{target.display} could not be installed, tried again later: {memo.error}"
        if seen.programs:
            return f"{target.display} is installed when {names(seen.programs)} ended"
    for one in seen.listed:
        if one.standing in ("available", "waiting"):
            held = "; ".join(why.text for why in one.why)
            return f"{one.display} waits: {held}" if held else f"{one.display} is next"
    if seen.relaunch:
        return f"{seen.live} takes effect when {names(seen.relaunch)} ended"
    for one in seen.listed:
        if one.standing == "removed":
            return f"{one.display} was removed by its owner and stays off until asked for"
    if seen.problem:
        return f"the feed could not be read: {seen.problem}"
    return "nothing but the next check"


def names(programs: Sequence[Process]) -> str:
    """Programs for people, each once."""
    return ", ".join(dict.fromkeys(one.name for one in programs))
