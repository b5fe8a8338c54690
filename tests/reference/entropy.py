"""The entropy coding of docs/entropy.md, decoded in plain Python.

Written from the document, not from the C sources: slow, short, without a shared line.
Nothing here raises on strange bytes; every string of bytes decodes to something.
"""

from __future__ import annotations

from collections.abc import Sequence

MASK32 = 0xFFFFFFFF
STRETCH_MAX = 1408


class RangeDecoder:
    """Bits out of bytes; zeros follow the last byte."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._pos = 0
        self._range = MASK32
        self._code = 0
        for _ in range(4):
            self._code = self._code << 8 | self._next()

    def _next(self) -> int:
        byte = self._data[self._pos] if self._pos < len(self._data) else 0
        self._pos += 1
        return byte

    def bit(self, p: int) -> int:
        """One bit; p is the chance of a 1 in 1/65536."""
        zero = self._range * (65536 - p) >> 16
        if self._code >= zero:
            bit = 1
            self._code -= zero
            self._range -= zero
        else:
            bit = 0
            self._range = zero
        while self._range < 1 << 24:
            self._code = self._code << 8 | self._next()
            self._range <<= 8
        return bit

    def raw(self, bits: int) -> int:
        """A number of `bits` equally likely bits."""
        value = 0
        for _ in range(bits):
            value = value << 1 | self.bit(32768)
        return value

    def done(self) -> bool:
        """Whether the bytes were used to the last and end as an encoder ends them."""
        if self._pos < len(self._data) or self._data.endswith(b"\0"):
            return False
        settled = self._pos - 4
        window = int.from_bytes(self._data[settled : settled + 4].ljust(4, b"\0"), "big")
        low = window - self._code & MASK32
        shortest = 0
        if low and low <= MASK32 - (self._range - 1):
            shortest = low + (1 << 24) - 1 & 0xFF000000
        return window == shortest


RATES = [(2 * 65536 * 2 + (2 * n + 3)) // (2 * (2 * n + 3)) for n in range(256)]


class Adaptive:
    """A probability that is learnt: 24 bits, and how often it was corrected."""

    __slots__ = ("count", "p24")

    def __init__(self, p: int = 32768, count: int = 0) -> None:
        self.p24 = p << 8
        self.count = count

    @property
    def p(self) -> int:
        """In 1/65536, at least 1."""
        return max(self.p24 >> 8, 1)

    def learn(self, bit: int, limit: int) -> None:
        rate = RATES[self.count]
        if bit:
            self.p24 += ((1 << 24) - 1 - self.p24) * rate >> 16
        else:
            self.p24 -= self.p24 * rate >> 16
        if self.count < limit:
            self.count += 1


class AdaptiveBit:
    """A flag with a learnt probability."""

    def __init__(self, p: int = 32768, limit: int = 255) -> None:
        self._word = Adaptive(p)
        self._limit = limit

    def decode(self, decoder: RangeDecoder) -> int:
        bit = decoder.bit(self._word.p)
        self._word.learn(bit, self._limit)
        return bit


# fmt: off
SQUASH_POINTS = [
    32768, 34813, 36843, 38841, 40793, 42687, 44511, 46254, 47911, 49474, 50941, 52310,
    53581, 54754, 55834, 56822, 57724, 58544, 59287, 59959, 60565, 61109, 61598, 62036,
    62428, 62778, 63090, 63368, 63615, 63835, 64030, 64203, 64357, 64494, 64614, 64721,
    64816, 64900, 64974, 65039, 65097, 65149, 65194, 65234, 65269, 65300, 65328, 65352,
    65374, 65393, 65410, 65425, 65438, 65449, 65459, 65468, 65476, 65483, 65489, 65495,
    65500, 65504, 65508, 65511, 65514, 65517, 65519, 65521, 65523, 65524, 65526, 65527,
    65528, 65529, 65530, 65530, 65531, 65532, 65532, 65533, 65533, 65533, 65534, 65534,
    65534, 65534, 65535, 65535, 65535,
]
# fmt: on


def _squash_table() -> list[int]:
    table = [0] * (2 * STRETCH_MAX + 1)
    for x in range(STRETCH_MAX + 1):
        at, part = divmod(x, 16)
        p = SQUASH_POINTS[at]
        if part:
            p += ((SQUASH_POINTS[at + 1] - p) * part + 8) // 16
        table[STRETCH_MAX + x] = p
        table[STRETCH_MAX - x] = 65536 - p
    return table


SQUASH = _squash_table()


def _stretch_table() -> list[int]:
    table = []
    x = -STRETCH_MAX
    for i in range(4096):
        while x < STRETCH_MAX and SQUASH[x + STRETCH_MAX] < i * 16 + 8:
            x += 1
        table.append(x)
    return table


STRETCH = _stretch_table()


def stretch(p: int) -> int:
    return STRETCH[p >> 4]


def clamp(x: int) -> int:
    return max(-STRETCH_MAX, min(STRETCH_MAX, x))


def squash(x: int) -> int:
    return SQUASH[clamp(x) + STRETCH_MAX]


def _teach(weights: list[int], inputs: list[int], error: int, shift: int, most: int) -> None:
    for i, value in enumerate(inputs):
        step = (value * error + (1 << (shift - 1))) >> shift
        weights[i] = max(-most, min(most, weights[i] + step))


# --- whole numbers ---

ZERO, SIGN, BUCKET, TOP, REST, STAGES = 0, 1, 2, 8, 11, 12


def _bucket_tree() -> list[Adaptive]:
    first = {1: 2000, 2: 10000, 4: 20000}
    return [Adaptive(first.get(node, 32768)) for node in range(64)]


class _Nodes:
    def __init__(self) -> None:
        self.nonzero = Adaptive()
        self.negative = Adaptive()
        self.bucket = _bucket_tree()
        self.top = [[Adaptive() for _ in range(8)] for _ in range(64)]
        self.rest = [Adaptive() for _ in range(64)]


class _Guess:
    def __init__(self) -> None:
        self.magnitude = 0
        self.negative = 0
        self.run = 0
        self.trust = [[Adaptive() for _ in range(STAGES)] for _ in range(9)]
        self.holds = False
        self.flipped = False

    def row(self) -> list[Adaptive]:
        return self.trust[8 if self.flipped else self.run]


class _IntContext:
    def __init__(self) -> None:
        self.own = _Nodes()
        self.class_nonzero = [Adaptive() for _ in range(12)]
        self.class_negative = [Adaptive() for _ in range(12)]
        self.class_bucket = [_bucket_tree() for _ in range(12)]
        self.guesses = [_Guess(), _Guess()]
        self.size_class = 0


class IntModel:
    """Decodes numbers, each in one of `contexts` contexts."""

    def __init__(self, contexts: int) -> None:
        self._contexts = [_IntContext() for _ in range(contexts)]
        self._all = _Nodes()
        self._weights = [[[20000] * 5 for _ in range(4)] for _ in range(STAGES)]
        self._coded = 0

    def _step(
        self,
        decoder: RangeDecoder,
        context: _IntContext,
        stage: int,
        sources: tuple[Adaptive, Adaptive, Adaptive | None],
        guessed: tuple[int, int],
    ) -> int:
        inputs = [stretch(s.p) if s is not None else 0 for s in sources]
        chosen = 0
        for g, guess in enumerate(context.guesses):
            if guess.holds:
                x = stretch(guess.row()[stage].p)
                inputs.append(x if guessed[g] else -x)
                chosen |= 1 << g
            else:
                inputs.append(0)
        weights = self._weights[stage][chosen]
        p = squash(sum(i * w for i, w in zip(inputs, weights, strict=True)) >> 16)
        bit = decoder.bit(p)
        _teach(weights, inputs, (bit << 16) - p, 13 if self._coded < 512 else 15, 262143)
        for source, limit in zip(sources, (24, 255, 30), strict=True):
            if source is not None:
                source.learn(bit, limit)
        for g, guess in enumerate(context.guesses):
            if guess.holds:
                guess.row()[stage].learn(int(bit == guessed[g]), 127)
                guess.holds = bit == guessed[g]
        return bit

    def _positive(self, decoder: RangeDecoder, context: _IntContext) -> int:
        own, shared = context.own, self._all
        guesses = [guess.magnitude for guess in context.guesses]
        lengths = [max(value.bit_length() - 1, 0) for value in guesses]
        node = 1
        for i in range(5, -1, -1):
            by_class = context.class_bucket[context.size_class][node]
            sources = (own.bucket[node], shared.bucket[node], by_class)
            guessed = (lengths[0] >> i & 1, lengths[1] >> i & 1)
            node = node << 1 | self._step(decoder, context, BUCKET + 5 - i, sources, guessed)
        below = node - 64
        value = 1
        for i in range(below - 1, -1, -1):
            guessed = (guesses[0] >> i & 1, guesses[1] >> i & 1)
            depth = below - 1 - i
            if depth < 3:
                stage = TOP + depth
                pair = (own.top[below][value], shared.top[below][value], None)
            else:
                stage = REST
                pair = (own.rest[i], shared.rest[i], None)
            value = value << 1 | self._step(decoder, context, stage, pair, guessed)
        return value

    def _decode(self, decoder: RangeDecoder, index: int, signed: bool) -> tuple[int, int]:
        context = self._contexts[min(index, len(self._contexts) - 1)]
        first, second = context.guesses
        for guess in context.guesses:
            guess.holds, guess.flipped = True, False
        sources = (
            context.own.nonzero,
            self._all.nonzero,
            context.class_nonzero[context.size_class],
        )
        guessed = (int(first.magnitude != 0), int(second.magnitude != 0))
        value = negative = 0
        if self._step(decoder, context, ZERO, sources, guessed):
            if signed:
                held = [guess.holds for guess in context.guesses]
                sources = (
                    context.own.negative,
                    self._all.negative,
                    context.class_negative[context.size_class],
                )
                guessed = (first.negative, second.negative)
                negative = self._step(decoder, context, SIGN, sources, guessed)
                for guess, was in zip(context.guesses, held, strict=True):
                    guess.flipped = was and not guess.holds
                    guess.holds = was
            value = self._positive(decoder, context)
        for guess in context.guesses:
            guess.run = min(guess.run + 1, 7) if guess.holds and not guess.flipped else 0
        second.magnitude, second.negative = first.magnitude, first.negative
        first.magnitude, first.negative = value, negative
        bits = value.bit_length()
        context.size_class = bits if bits < 6 else min(6 + (bits - 6) // 4, 11)
        self._coded = min(self._coded + 1, 512)
        return value, negative

    def decode(self, decoder: RangeDecoder, context: int) -> int:
        """0 to 2^64 - 1."""
        return self._decode(decoder, context, False)[0]

    def decode_signed(self, decoder: RangeDecoder, context: int) -> int:
        """-2^63 to 2^63 - 1, modulo 2^64."""
        value, negative = self._decode(decoder, context, True)
        value = -value if negative else value
        return (value + (1 << 63)) % (1 << 64) - (1 << 63)


# --- bytes ---


def _allowed(counts: Sequence[int]) -> bool:
    few, many = sorted(counts)
    return few < 5 and many <= (40, 30, 12, 5, 4)[few]


History = tuple[int, int, int]
NOTHING: History = (0, 0, 0)


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
    def __init__(self, check: int) -> None:
        self.check = check
        self.histories = [NOTHING] * 15


class ByteModel:
    """Decodes bytes, each with `contexts` hashes and a selector."""

    def __init__(self, contexts: int, selectors: int, table_bits: int, match_bits: int) -> None:
        self._contexts = contexts
        self._selectors = selectors
        self._bits = [table_bits] * contexts + [min(table_bits, 14)]
        self._tables: list[dict[int, _Line]] = [{} for _ in self._bits]
        self._maps: list[dict[History, Adaptive]] = [{} for _ in self._bits]
        self._weights: dict[tuple[int, int, int], list[int]] = {}
        self._refine_bits = min(table_bits, 12)
        self._refine_selector: dict[tuple[int, int, int], list[Adaptive]] = {}
        self._refine_context: dict[int, list[Adaptive]] = {}
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

    def _map(self, slot: int, history: History) -> Adaptive:
        zeros, ones, _ = history
        first = ((ones * 5 + 2) << 16) // ((zeros + ones) * 5 + 4)
        return self._maps[slot].setdefault(history, Adaptive(first, 6))

    def _line(self, slot: int, hashed: int) -> _Line:
        table = self._tables[slot]
        at, check = hashed >> (32 - self._bits[slot]), hashed & 255
        group = [table.setdefault(at ^ n, _Line(0)) for n in range(3)]
        for line in group:
            if line.check == check:
                return line
        oldest = min(range(3), key=lambda n: (sum(group[n].histories[0][:2]), n))
        table[at ^ oldest] = _Line(check)
        return table[at ^ oldest]

    @staticmethod
    def _curve() -> list[Adaptive]:
        return [Adaptive(squash((k - 11) * 128), 6) for k in range(24)]

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
                inputs.append(stretch(self._map(slot, history).p))
                seen += 1
        kind = 0
        if guess is None:
            inputs.append(0)
        else:
            x = stretch(self._trust[match_class].p)
            inputs.append(x if guess else -x)
            kind = 1 if self._match_len < 16 else 2
        inputs.append(64)
        weights = self._weights.setdefault(
            (selector, seen, kind), [120000 // (seen + 3)] * len(inputs)
        )
        x = clamp(sum(i * w for i, w in zip(inputs, weights, strict=True)) >> 16)
        mixed = squash(x)

        hashed = (refine_hash ^ _scramble(partial)) >> (32 - self._refine_bits)
        curves = [
            self._refine_selector.setdefault((selector, int(kind == 2), partial), self._curve()),
            self._refine_context.setdefault(hashed, self._curve()),
        ]
        knot, part = divmod(x + STRETCH_MAX, 128)
        opinions = 0
        for curve in curves:
            left, right = curve[knot].p24 >> 8, curve[knot + 1].p24 >> 8
            opinions += (left * (128 - part) + right * part) >> 7
        p = max(1, min(65535, (2 * mixed + opinions) >> 2))

        bit = forced if forced is not None else decoder.bit(p) if decoder is not None else 0
        shift = 14 if self._coded < 2048 else 15 if self._coded < 32768 else 16
        _teach(weights, inputs, (bit << 16) - mixed, shift, 131071)
        for slot, line in enumerate(lines):
            history = line.histories[node]
            self._map(slot, history).learn(bit, 255)
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
