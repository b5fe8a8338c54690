"""Where a patch's bytes went: sums that must agree, names, tables, the page."""

from __future__ import annotations

import io
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsipatch import delta, errors
from bsipatch._core import Codec, Patch
from bsipatch.delta import Explanation
from bsipatch.delta._apply import prepare
from bsipatch.delta._explain import SCHEMA, apportion
from bsipatch.delta._kinds import KINDS, kind_name
from bsipatch.delta._names import SectionNames
from bsipatch.limits import DEFAULT
from bsipatch.report import _figures, explain_page, explain_text
from bsipatch.report._svg import Box, columns, treemap
from tests.support.native import CSRC
from tests.support.toy_pairs import PAIRS, arm64, universal, x86_64

PROFILES = ("fast", "balanced", "max")


def explained(name: str, profile: str = "max") -> tuple[bytes, bytes, Explanation]:
    """Patch, new file and explanation of a toy pair."""
    old, new = PAIRS[name](False), PAIRS[name](True)
    made = delta.diff_bytes(old, new, profile=delta.Profile(profile))
    return made, new, delta.explain(made, old, stretches=97)


def check(told: Explanation, patch: bytes, new: bytes) -> None:
    """Everything that must add up does."""
    assert told.patch_size == len(patch)
    assert told.new_size == len(new)
    assert told.shared_bytes == 0
    assert told.header_bytes + sum(s.patch_bytes or 0 for s in told.streams) == len(patch)
    for stream in told.streams:
        in_rows = sum(row.patch_bytes.get(stream.name, 0) for row in told.rows)
        assert in_rows + stream.frame_bytes == stream.patch_bytes
    frame = told.header_bytes + sum(s.frame_bytes for s in told.streams)
    assert sum(s.patch_bytes for s in told.sections) + frame == len(patch)
    assert _figures.total(told).patch_bytes == len(patch)

    assert sum(section.size for section in told.sections) == len(new)
    for section, place in enumerate(told.sections):
        rows = [row for row in told.rows if row.section == section]
        made = sum(r.covered_bytes + r.literal_bytes + r.filled_bytes for r in rows)
        assert made == place.size
    assert sum(sum(msgspec.to_builtins(s)) for s in told.stretches) == len(new)
    for row in told.rows:
        right = row.right + row.overridden + row.fixed + row.corrected
        assert row.references == right
        assert row.moved <= row.references
        assert row.byte_runs <= row.byte_corrections
        if row.kind == 0:
            assert row.references == 0
    entries = {stream.name: stream.entries for stream in told.streams}
    whole = _figures.total(told)
    assert whole.cover_entries == entries.get("cover", 0)
    assert whole.byte_corrections == entries.get("bytes", 0)
    assert whole.fixed == entries.get("references", 0)
    assert whole.literal_bytes == entries.get("literals", 0)
    assert whole.literal_bytes == sum(s.literal for s in told.stretches)
    assert whole.filled_bytes == sum(s.filled for s in told.stretches)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", PAIRS)
def test_everything_adds_up(name: str, profile: str) -> None:
    patch, new, told = explained(name, profile)
    check(told, patch, new)


def test_references_are_seen() -> None:
    _, _, told = explained("macho")
    by_kind = {line.name: line for line in _figures.by_kind(told)}
    assert by_kind["arm64 branch"].moved > 100
    assert by_kind["arm64 branch"].references >= 280
    assert by_kind["chained offset"].references == 150
    _, _, told = explained("elf")
    assert any(row.kind_name == "x86-64 call or jump" and row.moved > 100 for row in told.rows)


def test_sections_have_their_names() -> None:
    _, _, told = explained("macho")
    assert {"__TEXT,__text", "__TEXT,__const", "__DATA,__data"} <= {s.name for s in told.sections}
    _, _, told = explained("elf")
    text = next(s for s in told.sections if s.name == ".text")
    assert (text.format, text.architecture, text.role) == ("ELF", "x86-64", "code")
    _, _, told = explained("fat")
    names = _figures.section_names(told)
    assert "arm64 #0 __TEXT,__text" in names
    assert "arm64 #1 __TEXT,__text" in names
    _, _, told = explained("raw")
    assert [s.name for s in told.sections] == ["outside of all sections"]


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"", b""), (b"abc", b""), (b"", b"abc"), (b"same" * 100, b"same" * 100), (b"a", b"b")],
)
def test_tiny_files(old: bytes, new: bytes) -> None:
    patch = delta.diff_bytes(old, new)
    told = delta.explain(patch, old)
    check(told, patch, new)
    assert f"{len(patch):,} bytes" in explain_page.render(told, "p")


def test_windows_and_stretches_at_their_borders() -> None:
    """Corrections around the borders of the windows in which the core works."""
    old = random.Random(1).randbytes(300_000)
    new = bytearray(old)
    for at in (0, 65_535, 65_536, 131_070, 131_073, 262_144, 299_999):
        new[at] ^= 0x55
    new[196_600:196_700] = random.Random(2).randbytes(100)
    patch = delta.diff_bytes(old, bytes(new))
    for stretches in (1, 3, 1000, 65_536):
        told = delta.explain(patch, old, stretches=stretches)
        assert len(told.stretches) == stretches
        check(told, patch, bytes(new))
    last = told.stretches[-1]
    assert last.corrected + last.literal == 1


def test_prices_are_what_the_models_take() -> None:
    old, new = x86_64(False), x86_64(True)
    patch = delta.diff_bytes(old, new)
    with Patch(patch, max_plain=1 << 30) as handle:
        prepare(handle, old, 1, DEFAULT, None)
        account = handle.explain(10)
        shared = max(stream.modelled_len for stream in handle.streams())
    together = 0.0
    for stream in account.streams:
        took = stream.price / 65536 / 8
        if stream.codec == Codec.MODEL:
            together += took
        elif stream.codec == Codec.MODEL_OWN:
            assert abs(took - stream.coded_len) < 1.5
    assert abs(together - shared) < 1.5


def test_without_the_old_file_only_streams_are_told() -> None:
    old, new = arm64(False), arm64(True)
    for profile in PROFILES:
        patch = delta.diff_bytes(old, new, profile=delta.Profile(profile))
        told = delta.explain(patch)
        assert not told.complete
        known = sum(stream.patch_bytes or 0 for stream in told.streams)
        assert told.header_bytes + told.shared_bytes + known == len(patch)
        assert "The patch by stream" in explain_page.render(told, "p")


def test_the_old_file_must_be_the_one() -> None:
    old, new = arm64(False), arm64(True)
    patch = delta.diff_bytes(old, new)
    with pytest.raises(errors.OldMismatchError):
        delta.explain(patch, old[:-1])
    with pytest.raises(errors.OldMismatchError):
        delta.explain(patch, old[:-1] + b"?")
    with pytest.raises(errors.UsageError):
        delta.explain(patch, old, stretches=0)
    with pytest.raises(errors.UsageError):
        delta.explain(patch, old, stretches=65_537)


def test_an_unprepared_patch_cannot_be_explained() -> None:
    patch = delta.diff_bytes(b"a" * 100, b"b" * 100)
    with Patch(patch, max_plain=1000) as handle, pytest.raises(errors.UsageError):
        handle.explain(10)


def test_paths_and_buffers(tmp_path: Path) -> None:
    old, new = x86_64(False), x86_64(True)
    patch = delta.diff_bytes(old, new)
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "p").write_bytes(patch)
    assert delta.explain(tmp_path / "p", tmp_path / "old") == delta.explain(patch, old)


def test_memory_is_bounded() -> None:
    """Whatever allocation is the one refused, that is what the caller is told."""
    old, new = x86_64(False), x86_64(True)
    patch = delta.diff_bytes(old, new)
    told = 0
    for budget in range(10_000, 2_000_000, 10_000):
        limits = DEFAULT.but(memory_budget=budget)
        try:
            delta.explain(patch, old, stretches=50, limits=limits)
            break
        except errors.MemoryLimitError:
            told += 1
    assert 5 < told < 190


# --- the tables of words ---


def test_every_kind_has_words() -> None:
    enum = re.search(
        r"typedef enum bspi_ref_kind \{(.*?)\}", (CSRC / "image/ref.h").read_text(), re.S
    )
    assert enum is not None
    numbers = {int(number) for number in re.findall(r"BSPI_REF_\w+ = (\d+)", enum[1])}
    assert numbers <= set(KINDS)
    assert len(set(KINDS.values())) == len(KINDS)
    assert kind_name(255) == "kind 255"


def test_the_json_form_is_stable() -> None:
    """A field that goes away or changes its meaning wants another SCHEMA."""
    assert SCHEMA == 1
    fields = {
        cls.__name__: cls.__struct_fields__
        for cls in (
            delta.Explanation,
            delta.ExplainedStream,
            delta.ExplainedSection,
            delta.ExplainedRow,
            delta.Stretch,
        )
    }
    assert fields == {
        "Explanation": (
            "schema", "old_size", "new_size", "patch_size", "header_bytes", "shared_bytes",
            "streams", "sections", "rows", "stretches",
        ),
        "ExplainedStream": (
            "id", "name", "codec", "entries", "plain_bytes", "patch_bytes", "frame_bytes",
        ),
        "ExplainedSection": (
            "image", "format", "architecture", "role", "name", "offset", "size", "address",
            "patch_bytes",
        ),
        "ExplainedRow": (
            "section", "kind", "kind_name", "references", "moved", "right", "overridden",
            "fixed", "corrected", "byte_corrections", "byte_runs", "literal_bytes",
            "cover_entries", "covered_bytes", "filled_bytes", "patch_bytes",
        ),
        "Stretch": ("carried", "predicted", "corrected", "literal", "filled"),
    }  # fmt: skip
    _, _, told = explained("fat")
    assert msgspec.json.decode(msgspec.json.encode(told), type=delta.Explanation) == told


@given(st.integers(0, 1 << 40), st.lists(st.integers(0, 1 << 60), min_size=1, max_size=40))
def test_apportion_gives_away_everything(total: int, weights: list[int]) -> None:
    shares = apportion(total, weights)
    assert sum(shares) == total
    assert min(shares) >= 0
    whole = sum(weights)
    for share, weight in zip(shares, weights, strict=True):
        assert not whole or abs(share * whole - total * weight) < whole


# --- names read from headers ---


@pytest.mark.parametrize("file", [arm64(False), universal(False), x86_64(False), b""])
def test_names_of_damaged_headers(file: bytes) -> None:
    for length in range(0, min(len(file), 3000), 7):
        SectionNames(file[:length])
    draw = random.Random(9)
    for _ in range(300):
        bad = bytearray(file[:6000])
        for _ in range(8):
            if bad:
                bad[draw.randrange(min(len(bad), 1500))] = draw.randrange(256)
        SectionNames(bad).at(draw.randrange(6000))


def test_what_follows_a_section_is_called_after_it() -> None:
    names = SectionNames(x86_64(False))
    assert names.at(0) == "ELF header"
    assert names.at(0x201) == "after .text"
    assert SectionNames(b"no executable").at(5) == ""


# --- what people see ---


class _Balance(HTMLParser):
    """Open and closing tags must match."""

    VOID = frozenset({"meta", "br", "hr", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", PAIRS)
def test_the_page_is_whole_and_needs_nothing_else(name: str) -> None:
    patch, _, told = explained(name)
    page = explain_page.render(told, "<&name>.patch")
    parser = _Balance()
    parser.feed(page)
    parser.close()
    assert not parser.open
    assert {"svg", "table", "title"} <= parser.seen
    assert not parser.seen & {"script", "link", "img", "iframe"}
    assert "{{" not in page
    assert "&lt;&amp;name&gt;.patch" in page
    assert f"{len(patch):,} bytes" in page
    assert not re.search(r"https?:|url\(|@import|\b(?:src|href)=", page)
    for picture in re.findall(r"<svg.*?</svg>", page, re.S):
        ElementTree.fromstring(picture)
    assert len(page) < 200_000


def test_tables_show_totals_of_the_patch() -> None:
    patch, _, told = explained("fat")
    out = io.StringIO()
    explain_text.show(told, out)
    lines = out.getvalue().splitlines()
    totals = [line for line in lines if line.split()[:1] == ["patch"]]
    assert len(totals) == 2
    assert all(f"{len(patch):,}" in line for line in totals)
    assert "…" not in out.getvalue()


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=30))
def test_treemaps_tile_their_box(amounts: list[int]) -> None:
    amounts.sort(reverse=True)
    whole = Box(0, 0, 1000, 400)
    boxes = treemap(amounts, whole)
    unit = 1000 * 400 / sum(amounts)
    for amount, box in zip(amounts, boxes, strict=True):
        assert box.width * box.height == pytest.approx(amount * unit, rel=1e-6)
        assert box.x >= -1e-6
        assert box.x + box.width <= 1000 + 1e-6
        assert box.y >= -1e-6
        assert box.y + box.height <= 400 + 1e-6


def test_columns_stack() -> None:
    drawn = columns([("a", [0.5, 0.5, 0.0]), ("b", [0.5, 0.25, 1.0])], 0, 100)
    assert drawn == (
        '<path class="a" d="M0 100v-50h2v50z"/>'
        '<path class="b" d="M0 50v-50h1v50zM1 50v-25h1v25zM2 100v-100h1v100z"/>'
    )
