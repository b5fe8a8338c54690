"""Bits, learnt probabilities and mixing (docs/entropy.md, 1 to 3)."""

from __future__ import annotations

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


def teach(weights: list[int], inputs: list[int], error: int, shift: int, most: int) -> None:
    for i, value in enumerate(inputs):
        step = (value * error + (1 << (shift - 1))) >> shift
        weights[i] = max(-most, min(most, weights[i] + step))
