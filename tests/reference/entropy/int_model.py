"""The model of whole numbers (docs/entropy.md, 4)."""

from __future__ import annotations

from collections import defaultdict

from tests.reference.entropy.coder import Adaptive, RangeDecoder, squash, stretch, teach

ZERO, SIGN, BUCKET, TOP, REST, STAGES = 0, 1, 2, 8, 11, 12


def _bucket_tree() -> list[Adaptive]:
    first = {1: 2000, 2: 10000, 4: 20000}
    return [Adaptive(first.get(node, 32768)) for node in range(64)]


class _Nodes:
    def __init__(self) -> None:
        self.nonzero = Adaptive()
        self.negative = Adaptive()
        self.bucket = _bucket_tree()
        self.top: dict[tuple[int, int], Adaptive] = defaultdict(Adaptive)  # by b and k
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
        self.class_bucket: dict[int, list[Adaptive]] = defaultdict(_bucket_tree)
        self.guesses = [_Guess(), _Guess()]
        self.size_class = 0


class IntModel:
    """Decodes numbers, each in one of `contexts` contexts."""

    def __init__(self, contexts: int) -> None:
        self._context_count = contexts
        self._contexts: dict[int, _IntContext] = {}  # those asked for so far
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
        teach(weights, inputs, (bit << 16) - p, 13 if self._coded < 512 else 15, 262143)
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
                pair = (own.top[below, value], shared.top[below, value], None)
            else:
                stage = REST
                pair = (own.rest[i], shared.rest[i], None)
            value = value << 1 | self._step(decoder, context, stage, pair, guessed)
        return value

    def _decode(self, decoder: RangeDecoder, index: int, signed: bool) -> tuple[int, int]:
        index = min(index, self._context_count - 1)
        context = self._contexts.get(index)
        if context is None:
            context = self._contexts[index] = _IntContext()
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
