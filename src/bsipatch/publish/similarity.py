"""Which old files does a new one resemble? By content, whatever they are called.

A file's features are what stays when a program is built again: runs of printable characters
(names, messages, the lines of a text), and short runs of bytes behind places that the content
itself chooses, so that nothing depends on where in the file they lie.  A sketch keeps the
features whose hashes are the smallest: the same choice in every file, so that sketches can be
compared in place of files.

Everything is bounded: a file is read in a few pieces of fixed size, and all files together up
to a limit, the most likely ones first.  The same trees always give the same answer.
"""

from __future__ import annotations

import heapq
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bsipatch.errors import from_os_error
from bsipatch.limits import KIB, MIB
from bsipatch.tree import Entry

__all__ = ["Finder", "Sketch", "resemblance", "sketch"]

#: smaller files are not worth a look; their whole content costs little
LEAST_SIZE = 256
#: an old file may be so many times as large as the new one (a part of it), or as small
_SIZE_RATIO = 16
#: hashes kept of each file
_KEPT = 256
#: pieces read of a large file, and the bytes of one
_PIECES = 8
_PIECE = 256 * KIB
#: bytes read of each tree, all files together
_MOST_READ = 256 * MIB
#: so many old files with the most features in common are compared exactly
_COMPARED = 16
#: a feature of more old files than this tells none of them apart
_COMMON = 64
#: less than this share of common features is chance
LEAST_SHARE = 0.05
#: bytes that a feature has at most
_FEATURE = 48

_WORDS = re.compile(rb"[\x20-\x7e]{6,%d}" % _FEATURE)
#: one place in 256 of random bytes; the values are spread over what code and tables are made of
_PLACES = re.compile(
    rb"(?s)[\x01\x03\x10\x1d\x2c\x47\x55\x5b\x66\x83\x8b\x94\xa9\xc5\xe8\xf3]"
    rb"[\x00\x0f\x18\x2a\x39\x48\x61\x74\x7c\x91\xaa\xb2\xc0\xd6\xf9\xfe].{14}"
)
#: spreads the hashes, whose order decides what is kept
_MIX = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Sketch:
    """The smallest feature hashes of one file, and of how many they are the smallest."""

    hashes: frozenset[int]
    #: the largest hash kept; with fewer than all features kept, what lies above is unknown
    horizon: int


def sketch(pieces: Iterable[bytes]) -> Sketch:
    """The sketch of a file, from pieces of it in any order."""
    found: set[int] = set()
    for piece in pieces:
        for pattern in (_WORDS, _PLACES):
            found.update(map(zlib.crc32, pattern.findall(piece)))
    mixed = (value * _MIX & _MASK for value in found)
    kept = heapq.nsmallest(_KEPT, mixed)
    return Sketch(frozenset(kept), kept[-1] if len(kept) == _KEPT else _MASK)


def resemblance(new: Sketch, old: Sketch) -> float:
    """About what share of the new file's features the old one has, 0 to 1.

    Only hashes below both horizons are compared: there both sketches are complete.
    """
    horizon = min(new.horizon, old.horizon)
    mine = [value for value in new.hashes if value <= horizon]
    if not mine:
        return 0.0
    return sum(value in old.hashes for value in mine) / len(mine)


class Finder:
    """Finds the old files that new ones resemble. Not safe for several threads."""

    def __init__(
        self,
        old_root: Path,
        new_root: Path,
        *,
        tick: Callable[[], None] | None = None,
        most_read: int = _MOST_READ,
    ) -> None:
        """`tick` is called after each file read; an exception it raises stops the search."""
        self._roots = old_root, new_root
        self._tick = tick
        self._left = [most_read, most_read]
        self._known: list[dict[str, Sketch | None]] = [{}, {}]
        self._candidates: list[Entry] = []
        self._having: dict[int, list[int]] = {}

    def consider(self, candidates: Iterable[Entry]) -> None:
        """Old files that likely() may name, the preferred ones first; each content once.

        They are read until the limit is reached; what comes later is passed over.
        """
        seen: set[tuple[int, str]] = set()
        for old in candidates:
            if (old.size, old.digest) in seen:
                continue
            seen.add((old.size, old.digest))
            drawn = self._sketch(0, old)
            if drawn is None:
                continue
            number = len(self._candidates)
            self._candidates.append(old)
            for value in drawn.hashes:
                self._having.setdefault(value, []).append(number)

    def share(self, new: Entry, old: Entry) -> float | None:
        """How much `new` resembles `old`; None when one of them is too small or not to be read."""
        mine, theirs = self._sketch(1, new), self._sketch(0, old)
        return None if mine is None or theirs is None else resemblance(mine, theirs)

    def likely(self, new: Entry) -> list[tuple[float, Entry]]:
        """Considered files that `new` resembles, with their shares, the likeliest first.

        Among equals the order is that in which they were considered.
        """
        mine = self._sketch(1, new)
        if mine is None:
            return []
        votes: dict[int, int] = {}
        for value in mine.hashes:
            having = self._having.get(value, [])
            if len(having) <= _COMMON:
                for number in having:
                    votes[number] = votes.get(number, 0) + 1
        found: list[tuple[float, int]] = []
        for number in sorted(votes, key=lambda n: (-votes[n], n))[:_COMPARED]:
            old = self._candidates[number]
            if new.size > old.size * _SIZE_RATIO or old.size > new.size * _SIZE_RATIO:
                continue
            share = self.share(new, old)
            if share is not None and share >= LEAST_SHARE:
                found.append((-share, number))
        return [(-share, self._candidates[number]) for share, number in sorted(found)]

    def _sketch(self, which: int, entry: Entry) -> Sketch | None:
        known = self._known[which]
        if entry.path not in known:
            cost = min(entry.size, _PIECES * _PIECE)
            if entry.size < LEAST_SIZE or cost > self._left[which]:
                known[entry.path] = None
            else:
                self._left[which] -= cost
                known[entry.path] = sketch(_pieces(self._roots[which] / entry.path, entry.size))
                if self._tick is not None:
                    self._tick()
        return known[entry.path]


def _pieces(file: Path, size: int) -> Iterable[bytes]:
    """All of a small file; of a large one, pieces spread evenly from its beginning to its end."""
    try:
        with file.open("rb") as opened:
            if size <= _PIECES * _PIECE:
                yield opened.read(_PIECES * _PIECE)
                return
            for number in range(_PIECES):
                opened.seek((size - _PIECE) * number // (_PIECES - 1))
                yield opened.read(_PIECE)
    except OSError as error:
        raise from_os_error(error, file) from error
