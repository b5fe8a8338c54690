"""The model of bytes (docs/entropy.md, 5)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache

from tests.reference.entropy.coder import (
    MASK32,
    STRETCH_MAX,
    Adaptive,
    RangeDecoder,
    clamp,
    squash,
    stretch,
    teach,
)


def _allowed(counts: Sequence[int]) -> bool:
    few, many = sorted(counts)
    return few < 5 and many <= (40, 30, 12, 5, 4)[few]


History = tuple[int, int, int]
NOTHING: History = (0, 0, 0)


@cache
def observe(history: History, bit: int) -> History:
    """The bit history (zeros, ones, last bit if both were seen) after one more bit."""
    counts = [history[0], history[1]]
    same, other = bit, 1 - bit
    counts[same] += 1
    if counts[other] > 2:
        counts[other] = (counts[other] + 2) // 2
    while not _allowed(counts):
        if counts[same] > counts[other] or counts[other] == 0:
            counts[same] -= 1
        else:
            counts[other] -= 1
    return counts[0], counts[1], bit if counts[0] and counts[1] else 0


def _scramble(value: int) -> int:
    return value * 0x9E3779B1 & MASK32


class _Line:
    def __init__(self, check: int = 0) -> None:
        self.check = check
        self.histories = [NOTHING] * 15


class _Maps(dict[History, Adaptive]):
    """The map of a context, made as far as it is asked for."""

    def __missing__(self, history: History) -> Adaptive:
        zeros, ones, _ = history
        first = ((ones * 5 + 2) << 16) // ((zeros + ones) * 5 + 4)
        self[history] = made = Adaptive(first, 6)
        return made


CURVE = [squash((k - 11) * 128) for k in range(24)]


def _curve() -> list[Adaptive]:
    return [Adaptive(p, 6) for p in CURVE]


class ByteModel:
    """Decodes bytes, each with `contexts` hashes and a selector."""

    def __init__(self, contexts: int, selectors: int, table_bits: int, match_bits: int) -> None:
        self._contexts = contexts
        self._selectors = selectors
        self._bits = [table_bits] * contexts + [min(table_bits, 14)]
        self._tables: list[dict[int, _Line]] = [defaultdict(_Line) for _ in self._bits]
        self._maps = [_Maps() for _ in self._bits]
        self._weights: dict[tuple[int, int, int], list[int]] = {}
        self._refine_bits = min(table_bits, 12)
        self._refine_selector: dict[tuple[int, int, int], list[Adaptive]] = defaultdict(_curve)
        self._refine_context: dict[int, list[Adaptive]] = defaultdict(_curve)
        self._trust = [Adaptive(45875) for _ in range(288)]
        self._match_bits = match_bits
        self._past = bytearray(1 << match_bits)
        self._index: dict[int, int] = {}
        self._place = 0
        self._matching = False
        self._match_place = 0
        self._match_len = 0
        self._misses = 0
        self._coded = 0
        self._recent = 0

    def _line(self, slot: int, hashed: int) -> _Line:
        table = self._tables[slot]
        at, check = hashed >> (32 - self._bits[slot]), hashed & 255
        group = []
        for n in range(3):
            line = table[at ^ n]
            if line.check == check:
                return line
            group.append(line)
        oldest = min(range(3), key=lambda n: (sum(group[n].histories[0][:2]), n))
        table[at ^ oldest] = _Line(check)
        return table[at ^ oldest]

    def _match_class(self) -> int:
        length, misses = self._match_len, self._misses & 255
        row = length if length < 16 else 16 + min((length - 16) >> 3, 15)
        if misses == 0:
            return row * 9
        return row * 9 + 1 + (misses & 3) + (4 if misses.bit_count() > 2 else 0)

    def decode(
        self, decoder: RangeDecoder | None, hashes: Sequence[int], selector: int, known: int = 0
    ) -> int:
        """One byte; without a decoder, learns `known` instead."""
        selector = min(selector, self._selectors - 1)
        expected, match_class = 0, 0
        foretold = 0x10000 | self._recent & 255
        if self._matching:
            length = self._match_len
            expected = 256 + self._past[self._match_place]
            match_class = self._match_class()
            foretold = expected << 4 | (length >> 1 if length < 16 else 8 if length < 32 else 9)
        mixed_hashes = []
        for i, value in enumerate([*hashes, foretold | selector << 20]):
            hashed = _scramble(value + i * 0x3D4D51CB & MASK32)
            mixed_hashes.append(hashed ^ hashed >> 15)
        refine_hash = _scramble(mixed_hashes[min(1, self._contexts - 1)])

        partial = 1
        lines: list[_Line] = []
        for place in range(8):
            if place in (0, 4):
                lines = []
                for slot, hashed in enumerate(mixed_hashes):
                    if place == 4:
                        hashed = _scramble(hashed + partial * 0x2545F491 & MASK32)
                    lines.append(self._line(slot, hashed ^ hashed >> 13))
            in_nibble = place & 3
            node = (1 << in_nibble | partial & ((1 << in_nibble) - 1)) - 1
            foretells = expected >> (8 - place) == partial
            forced = known >> (7 - place) & 1 if decoder is None else None
            bit = self._bit(
                decoder,
                forced,
                lines,
                node,
                partial,
                selector,
                expected >> (7 - place) & 1 if foretells else None,
                match_class,
                refine_hash,
            )
            partial = partial << 1 | bit
        byte = partial & 255
        self._coded += 1
        self._recent = (self._recent << 8 | byte) & 0xFFFFFFFFFFFFFFFF
        if self._match_bits:
            self._advance(byte)
        return byte

    def _bit(
        self,
        decoder: RangeDecoder | None,
        forced: int | None,
        lines: list[_Line],
        node: int,
        partial: int,
        selector: int,
        guess: int | None,
        match_class: int,
        refine_hash: int,
    ) -> int:
        inputs, seen = [], 0
        for slot, line in enumerate(lines):
            history = line.histories[node]
            if history == NOTHING:
                inputs.append(0)
            else:
                inputs.append(stretch(self._maps[slot][history].p))
                seen += 1
        kind = 0
        if guess is None:
            inputs.append(0)
        else:
            x = stretch(self._trust[match_class].p)
            inputs.append(x if guess else -x)
            kind = 1 if self._match_len < 16 else 2
        inputs.append(64)
        weights = self._weights.get((selector, seen, kind))
        if weights is None:
            weights = [120000 // (seen + 3)] * len(inputs)
            self._weights[selector, seen, kind] = weights
        x = clamp(sum(i * w for i, w in zip(inputs, weights, strict=True)) >> 16)
        mixed = squash(x)

        hashed = (refine_hash ^ _scramble(partial)) >> (32 - self._refine_bits)
        curves = [
            self._refine_selector[selector, int(kind == 2), partial],
            self._refine_context[hashed],
        ]
        knot, part = divmod(x + STRETCH_MAX, 128)
        opinions = 0
        for curve in curves:
            left, right = curve[knot].p24 >> 8, curve[knot + 1].p24 >> 8
            opinions += (left * (128 - part) + right * part) >> 7
        p = max(1, min(65535, (2 * mixed + opinions) >> 2))

        bit = forced if forced is not None else decoder.bit(p) if decoder is not None else 0
        shift = 14 if self._coded < 2048 else 15 if self._coded < 32768 else 16
        teach(weights, inputs, (bit << 16) - mixed, shift, 131071)
        for slot, line in enumerate(lines):
            history = line.histories[node]
            self._maps[slot][history].learn(bit, 255)
            line.histories[node] = observe(history, bit)
        if guess is not None:
            self._trust[match_class].learn(int(bit == guess), 255)
        for curve in curves:
            curve[knot + (part >= 64)].learn(bit, 127)
        return bit

    def _advance(self, byte: int) -> None:
        mask = len(self._past) - 1
        if self._matching:
            hit = self._past[self._match_place] == byte
            self._match_len = min(self._match_len + 1, 65535) if hit else 0
            self._misses = (self._misses << 1 | (not hit)) & MASK32
            self._match_place = (self._match_place + 1) & mask
            if self._misses & 255 == 255:
                self._matching = False
        self._past[self._place] = byte
        self._place = (self._place + 1) & mask
        if self._coded < 6:
            return
        product = (self._recent & 0xFFFFFFFFFFFF) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        key = product >> (64 - (self._match_bits - 2))
        found = self._index.get(key, 0)
        wanted = not self._matching or self._match_len < 6
        followed = self._matching and found == self._match_place
        if wanted and found != self._place and not followed:
            length = 0
            while length < 40 and (
                self._past[(found - 1 - length) & mask]
                == self._past[(self._place - 1 - length) & mask]
            ):
                length += 1
            if length >= 6:
                self._matching = True
                self._match_place, self._match_len, self._misses = found, length, 0
        self._index[key] = self._place
