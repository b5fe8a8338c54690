"""Hostile patches of one file, through the public verb: a clean error each time, and no output.

Numbers in the section headings are those of the project's threat model.  Cases
that name a `place` must be refused there: a defence that is removed shows even where the
digest check behind all of them would still have caught the result.
"""

from __future__ import annotations

import hashlib
import os
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from bsipatch import delta, limits
from bsipatch._core import Codec
from bsipatch.errors import (
    BsipatchError,
    FormatError,
    LimitError,
    MismatchError,
)
from tests.support import patch_forge as forge
from tests.support.hostile import bit_flips, truncations
from tests.support.patch_forge import (
    BYTES,
    COVER,
    LAYOUT,
    LITERALS,
    OVERRIDES,
    REFS,
    U64,
    Forged,
    toy_pair,
)

NUMBERS = sorted(
    {0, 1, 2, 3, 127, 128, 255, 4096, 65535, 65536}
    | {(1 << bits) + off for bits in (31, 32, 53, 62, 63) for off in (-1, 0)}
    | {U64 - 1, U64}
)
SIGNED = sorted({n for v in NUMBERS if v < 1 << 63 for n in (v, -v)})
KINDS = ("arm64", "elf-x86_64")
#: what any of the small files here may need: far less than the defaults
LIMITS = limits.DEFAULT.but(memory_budget=64 << 20, max_plain=64 << 20)


class Case(NamedTuple):
    """A hostile patch; it must fail at `place` where one is named (a part of the detail)."""

    name: str
    old: bytes
    new: bytes
    patch: bytes
    place: str = ""


class Target(NamedTuple):
    """A pair of builds and a fresh copy of its true patch."""

    kind: str
    old: bytes
    new: bytes

    def forged(self) -> Forged:
        return Forged.of(self.old, self.new)

    def case(self, name: str, forged: Forged, place: str = "") -> Case:
        return Case(f"{self.kind}: {name}", self.old, self.new, forged.build(), place)

    def stream(self, name: str, id_: int, plain: bytes, place: str = "") -> Case:
        return self.case(name, self.forged().put(id_, plain), place)


def targets() -> list[Target]:
    return [Target(kind, *toy_pair(kind, 1)) for kind in KINDS]


def attack(cases: Iterator[Case], folder: Path, few: int = 1) -> None:
    """Applies each case to a file; `few`: at least so many, lest a generator falls silent."""
    old_path, patch_path, new_path = folder / "old", folder / "patch", folder / "new"
    count = 0
    for case in cases:
        count += 1
        refusal: BsipatchError | None
        old_path.write_bytes(case.old)
        patch_path.write_bytes(case.patch)
        try:
            delta.patch(old_path, patch_path, new_path, jobs=1, limits=LIMITS)
        except (FormatError, LimitError, MismatchError) as error:
            refusal = error
        else:
            refusal = None
        if refusal is not None:
            assert case.place in refusal.detail, f"{case.name}: refused elsewhere: {refusal}"
            assert sorted(os.listdir(folder)) == ["old", "patch"], f"{case.name}: left something"
        else:
            assert not case.place, f"{case.name}: accepted"
            assert new_path.read_bytes() == case.new, f"{case.name}: wrong result accepted"
            new_path.unlink()
    assert count >= few


# --- 1. negative, overflowing and outside control values ---


def cover_cases() -> Iterator[Case]:
    for t in targets():
        old, new = len(t.old), len(t.new)
        for n in NUMBERS:
            inside = 0 < n <= min(old, new)
            place = "" if inside else "cover.len"
            yield t.stream(f"cover length {n}", COVER, forge.cover([(0, n, 0, 0)]), place)
            place = "" if n < new - 10 else "cover.len"
            yield t.stream(f"cover gap {n}", COVER, forge.cover([(n, 10, 0, -n)]), place)
            yield t.stream(f"candidate {n}", COVER, forge.cover([(0, 10, n, 0), (5, 9, n, 0)]))
            claimed = forge.cover([(0, 10, 0, 0)], count=n)
            place = "" if n == 1 else "stream"
            yield t.stream(f"cover count {n}", COVER, claimed, place)
        for way in SIGNED:
            place = "" if 0 <= way <= old - 10 else "cover.old_off"
            yield t.stream(f"cover way {way}", COVER, forge.cover([(0, 10, 0, way)]), place)
            second = forge.cover([(0, 100, 0, 0), (0, 10, 0, way)])
            place = "" if -100 <= way <= old - 110 else "cover.old_off"
            yield t.stream(f"cover second way {way}", COVER, second, place)
        many = forge.cover([(0, 1, 1, 0)] * (new + 1))
        yield t.stream("more entries than bytes", COVER, many, "stream count")
        cut = forge.cover([(0, 9, 0, 300)])[:-1]
        yield t.stream("cut in its last number", COVER, cut, "stream")
        yield t.stream("bytes behind the cover", COVER, forge.cover([]) + b"\0", "stream length")
        yield t.stream("a number of eleven bytes", COVER, b"\x80" * 10 + b"\1", "stream number")
        yield t.stream("a number beyond 64 bits", COVER, b"\xff" * 9 + b"\2", "stream number")
        yield t.stream("a number with a needless zero", COVER, b"\x80\0", "stream number")


def override_cases() -> Iterator[Case]:
    for t in targets():
        for n in NUMBERS:
            for m in (0, 1, U64 - 1, U64):
                overflows = n + m > U64
                place = "overrides.reach" if overflows else ""
                name = f"override at {n} reaching {m}"
                yield t.stream(name, OVERRIDES, forge.overrides([[(n, m, -1)]]), place)
                second = forge.overrides([[(n, 0, 5), (m, 0, 1 << 62)]])
                place = "overrides.old_addr" if n + m + 1 > U64 else ""
                yield t.stream(f"override at {n} and {m} on", OVERRIDES, second, place)
            claimed = forge.overrides([[(1, 0, 0)]], count=n)
            yield t.stream(f"override count {n}", OVERRIDES, claimed, "" if n == 1 else "stream")
            place = "overrides.chained" if n > 1 else ""
            odd = forge.overrides([[(1, 0, 0)]], chained=n)
            yield t.stream(f"override rule {n}", OVERRIDES, odd, place)
        for n in SIGNED:
            for chained in (0, 1):
                plain = forge.overrides([[(0x40000, 0x4000, n)]], chained)
                yield t.stream(f"override difference {n}", OVERRIDES, plain)
        wide = forge.overrides([[(0, U64, -1)]])
        yield t.stream("an override of all addresses", OVERRIDES, wide)


def correction_cases() -> Iterator[Case]:
    for t in targets():
        new = len(t.new)
        for n in NUMBERS:
            place = "" if n < new else "refs.new_off"
            yield t.stream(f"reference at {n}", REFS, forge.refs([(n, 1)]), place)
            place = "" if n + 5 < new else "refs.new_off"
            yield t.stream(f"reference {n} on", REFS, forge.refs([(4, 1), (n, 1)]), place)
            place = "" if n < new else "bytes.new_off"
            yield t.stream(f"byte at {n}", BYTES, forge.fixes([(n, 1)]), place)
            place = "" if n + 5 < new else "bytes.new_off"
            yield t.stream(f"byte {n} on", BYTES, forge.fixes([(4, 1), (n, 1)]), place)
            place = "" if n == 1 else "stream"
            yield t.stream(f"references {n}", REFS, forge.refs([(4, 1)], count=n), place)
            yield t.stream(f"bytes {n}", BYTES, forge.fixes([(4, 1)], count=n), place)
        yield t.stream("the last byte", REFS, forge.refs([(new - 1, 1)]))
        yield t.stream("behind it", REFS, forge.refs([(new, 1)]), "refs.new_off")
        yield t.stream("more than bytes", REFS, forge.refs([(0, 0)] * (new + 1)), "stream count")
        yield t.stream("more fixes", BYTES, forge.fixes([(0, 1)] * (new + 1)), "stream count")
        yield t.stream("a difference of none", BYTES, forge.fixes([(4, 255)]), "bytes.diff")
        for n in SIGNED:
            everywhere = forge.refs([(8, n)] * 300)
            yield t.stream(f"reference moved by {n}", REFS, everywhere)
        true = forge.plain_streams(t.old, t.new)[LITERALS]
        yield t.stream("a literal too few", LITERALS, true[:-1], "literals")
        yield t.stream("a literal too many", LITERALS, true + b"x", "stream length")
        yield t.stream("no literals", LITERALS, b"", "literals")


def layout_cases() -> Iterator[Case]:
    section, layout = forge.section, forge.layout
    for t in targets():

        def put(name: str, plain: bytes, place: str = "layout.sections", t: Target = t) -> Case:
            return t.stream(f"layout: {name}", LAYOUT, plain, place)

        one = section(0, 0, 100, 10, 0, 0)
        yield put("sections overlap", layout([(0, [one, section(0, 0, 100, -50, 0, 0)])]))
        yield put("order", layout([(0, [one, section(0, 4, 100, -100)])]))
        empty = section(0, 0, 0, 0, 8)
        yield put("bytes behind zero-fill", layout([(0, [empty, one])]))
        for n in (-1, 1 << 62, (1 << 63) - 1, -(1 << 63), len(t.new) + 1):
            yield put(f"size {n}", layout([(0, [section(0, 0, n, 10, 0, 0)])]))
        for n in (-1, 1 << 40, (1 << 63) - 1, len(t.new) - 50):
            yield put(f"offset {n}", layout([(0, [section(0, 0, 100, n, 0, 0)])]))
        yield put("address wraps", layout([(0, [section(0, 0, 100, 10, -50, 0)])]))
        yield put("memory wraps", layout([(0, [section(0, 0, 100, 10, 1000, -200)])]))
        for n in NUMBERS:
            place = "" if n == 0 else "layout"
            yield put(f"pair {n}", layout([(0, [section(n, 0, 100, 10, 0, 0)])]), place and "")
            if n > 1 << 30:
                plain = layout([(0, [section(n, 0, 100, 10, 0, 0)])])
                yield put(f"pair out of range {n}", plain, "layout.pair")
            if n > 8:
                plain = layout([(0, [section(0, n, 100, 10, 0, 0)])])
                yield put(f"role {n}", plain, "layout.role")
                yield put(f"same {n}", forge.varint(n) + b"\0", "layout.same")
                yield put(f"old image {n}", layout([(n, [])]), "layout.images")
                plain = b"\0" + forge.varint(n) + forge.varint(0) * 2
                yield put(f"images {n}", plain, "stream count" if n > 64 else "")
                plain = b"\0\1\0" + forge.varint(n) + one
                yield put(f"sections {n}", plain, "stream" if n > 64 else "")
        yield put("two of one image", layout([(0, [one]), (0, [one])]), "layout.images")
        yield put("odd role", layout([(0, [section(0, 7, 100, 10)])]), "layout.role")


def fill_cases() -> Iterator[Case]:
    for t in targets():
        new = len(t.new)
        page = 4096

        def put(name: str, items: list[tuple[int, int, int, int, int]], place: str = "fills",
                t: Target = t) -> Case:  # fmt: skip
            forged = t.forged().put(COVER, b"").put(OVERRIDES, b"").put(REFS, b"").put(BYTES, b"")
            forged.put(LITERALS, bytes(len(t.new)))
            forged.put(LAYOUT, forge.same_layout(forge.fills(items)))
            return t.case(f"fills: {name}", forged, place)

        yield put("hash 0", [(0, 12, 0, page, 100)])
        yield put("page of 2^18", [(1, 18, 0, 0, 100)])
        yield put("whole, over a block's end", [(1, 17, 0, 65530, 100)])
        yield put("whole, beyond the file", [(1, 17, 0, new - 50, 51)])
        yield put("whole, no data", [(1, 17, 0, 50, 0)])
        yield put("whole, data that wraps", [(1, 17, 0, (1 << 64) - 50, 100)])
        yield put("whole, hashes itself", [(1, 17, 0, 19, 100)], "fills.data_off")
        yield put("page of 2^60", [(1, 60, 0, 0, 100)])
        yield put("unaligned data", [(1, 12, 0, 1, 100)])
        yield put("no data", [(1, 12, 0, page, 0)])
        yield put("overlap", [(1, 12, 0, page, 100), (1, 12, -1, page, 100)])
        yield put("hashes itself", [(1, 12, 10, 0, 100)], "fills.data_off")
        yield put("hashes another", [(1, 12, 100, page, 9), (1, 12, 0, 0, 200)], "fills.data_off")
        yield put("stands in the data of the one before",
                  [(1, 12, 0, page, 1000), (2, 12, page, page, 10)], "fills.data_off")  # fmt: skip
        for n in NUMBERS:
            if n > new:
                yield put(f"data at {n}", [(1, 12, 0, n & ~0xFFF, 100)])
                yield put(f"data of {n}", [(1, 12, 0, 0, n)])
                yield put(f"place {n}", [(1, 12, n if n < 1 << 63 else n - (1 << 64), page, 9)])
        crowd = [(1, 12, 0, page, 1)] * 513
        yield t.stream("513 fills", LAYOUT, forge.same_layout(forge.fills(crowd)), "fill count")
        often = [(2, 12, 0, page, new - page)] * 40
        yield put("hash the file forty times", often)
        for n in NUMBERS:
            plain = forge.same_layout(forge.fills([], count=n))
            if n:
                yield t.stream(f"fill count {n}", LAYOUT, plain, "stream count")
        over = t.forged().put(LAYOUT, forge.same_layout(forge.fills([(1, 12, 8, page, 9)])))
        over.put(COVER, forge.cover([(0, 9, 0, 0)]))
        yield t.case("fills: over the cover", over, "overlap the cover")


# --- 2. sizes, truncation, codecs ---


def header_cases() -> Iterator[Case]:
    for t in targets():
        for n in NUMBERS:
            forged = t.forged()
            forged.old_size = n
            yield t.case(f"old size {n}", forged)
            forged = t.forged()
            forged.new_size = n
            yield t.case(f"new size {n}", forged)
        for n in SIGNED:
            forged = t.forged()
            forged.growth = n
            yield t.case(f"growth {n}", forged, "size" if n < -len(t.old) else "")
        for n in (0, *range(2, 256, 7), 255):
            yield t.case(f"version {n}", replace(t.forged(), version=n), "version")
        for n in range(256):
            if n != len(t.forged().streams):
                place = "stream" if n > 6 else ""
                yield t.case(f"streams {n}", replace(t.forged(), count=n), place)
        yield t.case("no magic", replace(t.forged(), magic=b"BSIQ"), "magic")
        yield t.case("another old file", replace(t.forged(), old_check=bytes(8)), "SHA-256")
        yield t.case("another new file", replace(t.forged(), new_check=bytes(8)), "SHA-256")


def directory_cases() -> Iterator[Case]:
    for t in targets():
        for at in range(6):
            for id_ in range(16):
                forged = t.forged()
                if id_ != forged.streams[at].id:
                    forged.streams[at].id = id_
                    place = "stream id" if id_ in (0, *range(7, 16)) else ""
                    yield t.case(f"id {id_} for stream {at + 1}", forged, place)
            for codec in range(16):
                forged = t.forged()
                forged.streams[at].codec = codec
                yield t.case(f"codec {codec}", forged, "stream codec" if codec > 4 else "")
            for n in NUMBERS:
                forged = t.forged()
                forged.streams[at].plain_len = n
                yield t.case(f"plain length {n}", forged)
                for codec in (Codec.ZSTD, Codec.LZMA, Codec.MODEL_OWN):
                    forged = t.forged()
                    forged.streams[at].codec = codec
                    forged.streams[at].encoded_len = n
                    yield t.case(f"{codec.name} of {n} bytes", forged)
            for other in range(at):
                forged = t.forged()
                a, b = forged.streams[at], forged.streams[other]
                a.plain, b.plain = b.plain, a.plain
                yield t.case(f"streams {at + 1} and {other + 1} swapped", forged)
                forged = t.forged()
                forged.streams[at], forged.streams[other] = (
                    forged.streams[other],
                    forged.streams[at],
                )
                yield t.case(f"streams {at + 1} and {other + 1} out of order", forged, "stream id")
            forged = t.forged()
            forged.streams.insert(at, replace(forged.streams[at]))
            yield t.case("a stream twice", forged, "stream")
            forged = t.forged()
            forged.streams[at].plain = b""
            yield t.case("an empty stream", forged, "stream length")


def model_cases() -> Iterator[Case]:
    rng = random.Random(7)
    for t in targets():
        for number in range(160):
            forged = t.forged()
            for entry in forged.streams:
                if number >> (entry.id - 1) & 1:
                    entry.codec = Codec.MODEL if number % 3 else Codec.MODEL_OWN
                    entry.plain_len = len(entry.plain) * rng.choice((1, 1, 2, 100))
                    entry.encoded = rng.randbytes(rng.randrange(60))
            if any(entry.codec == Codec.MODEL for entry in forged.streams):
                forged.model = rng.randbytes(rng.choice((0, 1, 4, 50, 400)))
            yield t.case(f"models of noise {number}", forged)
        for size in (1 << 20, 1 << 25, (64 << 20) - 600):
            for id_ in range(1, 7):
                forged = t.forged()
                entry = forged.stream(id_)
                entry.codec, entry.plain_len, forged.model = Codec.MODEL, size, b"\x7f" * 40
                yield t.case(f"{size} bytes of stream {id_} from 40", forged, " ")


def small_patches() -> Iterator[tuple[bytes, bytes, bytes]]:
    for kind in ("raw", *KINDS):
        old, new = toy_pair(kind, 1)
        yield old, new, delta.diff_bytes(old, new, jobs=1)
        yield old, new, delta.diff_bytes(old, new, profile="fast", jobs=1)
    old, new = b"one two three " * 9, b"one two four three " * 9
    yield old, new, Forged.of(old, new).build()


def truncation_cases() -> Iterator[Case]:
    for old, _, patch in small_patches():
        for cut in truncations(patch, 1):
            yield Case(f"{len(cut)} of {len(patch)} bytes", old, b"never", cut)


def bit_flip_cases() -> Iterator[Case]:
    for old, new, patch in small_patches():
        for number, flipped in enumerate(bit_flips(patch, 1)):
            yield Case(f"bit flipped in byte {number} of {len(patch)}", old, new, flipped)


# --- 6. trailing bytes ---


def trailing_cases() -> Iterator[Case]:
    for old, _, patch in small_patches():
        for tail in (b"\0", b"\xff", b"BSIP", patch):
            yield Case(f"{len(tail)} bytes behind the end", old, b"never", patch + tail)


# --- 7. a hostile old file ---


def old_file_cases() -> Iterator[Case]:
    for t in targets():
        words = range(0, 1200, 4)
        for number, at in enumerate(words):
            old = bytearray(t.old)
            value = NUMBERS[number % len(NUMBERS)] & 0xFFFFFFFF
            struct.pack_into("<I", old, at, value)
            forged = t.forged()
            forged.old_check = hashlib.sha256(old).digest()[:8]
            patch = forged.build()
            yield Case(f"{t.kind}: {value:#x} at {at} of the old file", bytes(old), t.new, patch)


FAMILIES: dict[str, Callable[[], Iterator[Case]]] = {
    "1_cover": cover_cases,
    "1_overrides": override_cases,
    "1_corrections": correction_cases,
    "1_layout": layout_cases,
    "1_fills": fill_cases,
    "2_header": header_cases,
    "2_directory": directory_cases,
    "2_models": model_cases,
    "2_truncation": truncation_cases,
    "2_bit_flips": bit_flip_cases,
    "6_trailing": trailing_cases,
    "7_old_file": old_file_cases,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_threat(family: str, tmp_path: Path) -> None:
    attack(FAMILIES[family](), tmp_path, few=20)


def test_there_are_enough() -> None:
    assert sum(1 for cases in FAMILIES.values() for _ in cases()) >= 1500


@pytest.mark.parametrize("kind", KINDS)
def test_the_forge_writes_true_patches(kind: str) -> None:
    old, new = toy_pair(kind, 1)
    forged = Forged.of(old, new)
    assert [entry.id for entry in forged.streams] == [1, 2, 3, 4, 5, 6]
    assert delta.patch_bytes(old, forged.build(), limits=LIMITS) == new
