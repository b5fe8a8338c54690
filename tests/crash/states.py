"""Which crash states of a log are looked at: every moment, and of what was in flight a choice."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from .disk import SECTOR, Log, State, Step, last_flush
from .machine import Kind

#: that many writes in flight have every prefix looked at
_ALL_PREFIXES = 12
_ROUNDS = 400
_BLOCK = 4096
_JBD2 = bytes.fromhex("c03b3998")
_JBD2_SUPER = (b"\0\0\0\3", b"\0\0\0\4")
_BTRFS_SUPER = (64 << 10, 64 << 20)


def choose(log: Log, kind: Kind, budget: int, seed: int) -> list[State]:
    """At most `budget` different states, the same for the same seed.

    First, for every epoch and for the moment of success, nothing and
    everything of what was in flight; then prefixes, subsets and torn writes.
    """
    draw = random.Random(seed)
    moments = _moments(log)
    found: dict[State, None] = {}
    for at in moments:
        for state in _plain(log, at):
            found.setdefault(state)
    needed = list(found)
    most = -(-budget * 2 // 3)
    if len(needed) > most:
        # the moment of success is what a missing sync shows in
        late = [s for s in needed if log.success is not None and s.at == log.success]
        rest = [s for s in needed if s not in late]
        draw.shuffle(rest)
        found = dict.fromkeys((late + rest)[:most])
    for state in _random_states(log, kind, moments, draw):
        if len(found) >= budget:
            break
        found.setdefault(state)
    return sorted(found)


def _moments(log: Log) -> list[int]:
    """The end of every epoch, the end of the log, and the moment at which success was reported."""
    ends = {index for index, step in enumerate(log.steps) if step.kind == "flush"}
    ends.add(len(log.steps))
    if log.success is not None:
        ends.add(log.success)
    return sorted(ends)


def _flying(log: Log, at: int) -> list[int]:
    return [i for i in range(last_flush(log, at), at) if log.steps[i].kind == "write"]


def _plain(log: Log, at: int) -> Iterator[State]:
    flying = _flying(log, at)
    yield State(at)
    if flying:
        yield State(at, tuple(flying))


def _random_states(
    log: Log, kind: Kind, moments: Iterable[int], draw: random.Random
) -> Iterator[State]:
    busy = [(at, flying) for at in moments if (flying := _flying(log, at))]
    prefixes = []
    for at, flying in busy:
        lengths = range(1, len(flying))
        if len(lengths) > _ALL_PREFIXES:
            lengths = sorted(draw.sample(lengths, _ALL_PREFIXES))  # type: ignore[assignment]
        prefixes += [State(at, tuple(flying[:length])) for length in lengths]
    draw.shuffle(prefixes)
    kinds = [iter(prefixes), _subsets(busy, draw), _torn(log, kind, busy, draw)]
    for _ in range(_ROUNDS * max(1, len(busy))):
        for states in kinds:
            state = next(states, None)
            if state is not None:
                yield state


def _subsets(busy: list[tuple[int, list[int]]], draw: random.Random) -> Iterator[State]:
    several = [item for item in busy if len(item[1]) > 1]
    while several:
        at, flying = draw.choice(several)
        share = draw.choice((0.2, 0.5, 0.8))
        yield State(at, tuple(index for index in flying if draw.random() < share))


def _torn(
    log: Log, kind: Kind, busy: list[tuple[int, list[int]]], draw: random.Random
) -> Iterator[State]:
    """One write in part beside whole ones, or every write in part."""
    while busy:
        at, flying = draw.choice(busy)
        if draw.random() < 0.5:
            victims = {draw.choice(flying)}
            kept = [index for index in flying if index not in victims and draw.random() < 0.7]
        else:
            victims, kept = set(flying), []
        torn = []
        for index in sorted(victims):
            mask = _mask(log, kind, index, draw)
            if mask is None:
                if draw.random() < 0.5:
                    kept.append(index)
            else:
                torn.append((index, f"{mask:x}"))
        yield State(at, tuple(sorted(kept)), tuple(torn))


def _mask(log: Log, kind: Kind, index: int, draw: random.Random) -> int | None:
    """Which sectors of a write are there; None when it cannot be torn."""
    step = log.steps[index]
    count = -(-len(step.data) // SECTOR)
    if draw.random() < 0.5:  # the drive stopped in the middle
        mask = (1 << draw.randrange(1, max(2, count))) - 1
    else:
        mask = draw.randrange(1, max(2, (1 << count) - 1))
    for start, end in _whole(step, kind):
        first, last = start // SECTOR, min(count, -(-end // SECTOR))
        bits = ((1 << (last - first)) - 1) << first
        mask = mask | bits if mask >> first & 1 else mask & ~bits
    return None if mask in (0, (1 << count) - 1) else mask


def _whole(step: Step, kind: Kind) -> Iterator[tuple[int, int]]:
    """The parts of a write that the file system itself needs whole.

    The superblocks of ext4, of its journal and of btrfs, which are larger than
    a sector, have one checksum each and no second chance.
    """
    for at in range(0, len(step.data), _BLOCK):
        block, place = step.data[at : at + 12], step.offset + at
        if kind.name == "ext4":
            journal = block[:4] == _JBD2 and block[4:8] in _JBD2_SUPER
            needed = place == 0 or journal
        else:
            needed = kind.name == "btrfs" and place in _BTRFS_SUPER
        if needed:
            yield at, at + _BLOCK
