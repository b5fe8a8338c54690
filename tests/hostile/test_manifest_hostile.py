"""Signed but hostile manifests: whatever one field says, it is refused or entirely sound."""

from __future__ import annotations

from typing import Any

import pytest

from bsipatch import manifest
from bsipatch.errors import BsipatchError, LimitError, ManifestError, UnsafePathError
from bsipatch.limits import Limits
from bsipatch.tree import Tree, check_tree
from tests.support.hostile import bit_flips, truncations, variants
from tests.support.trees import Content, File, Link
from tests.support.updates import jsonable, make_manifest, spelled

#: one of each action, so that every rule is in reach of every field
OLD: dict[str, Content] = {
    "keep": b"kept",
    "mode": b"mode",
    "from": b"content that moves" * 3,
    "gone": b"gone",
    "link": Link("keep"),
    "kind": b"a file that becomes a directory",
    "dir/changed": b"1",
}
NEW: dict[str, Content] = {
    "keep": b"kept",
    "mode": File(b"mode", 0o755),
    "to": b"content that moves" * 3,
    "link": Link("dir"),
    "new": Link("dir/changed"),
    "kind/inside": b"",
    "dir/changed": b"2" * 50,
    "dir/fresh": b"3" * 50,
}

#: what may change without making a manifest unsound: what the publisher says about the update
FREE = {
    *("product", "platform", "architectures", "version", "letter", "build", "created", "expires"),
    *("activation", "security", "release_notes", "stacks_on", "xattrs", "required_space"),
    # With the payload still undecoded, these can only be bounded.
    *("sha256", "memory", "decoded"),
}
#: how long the last payload is only the file can tell
LAST_LENGTH = "payloads/1/length"


@pytest.fixture(scope="module")
def document() -> Any:
    made, _ = make_manifest(OLD, NEW)
    manifest.validate(made)
    assert {a.do for a in made.actions} == {
        *("keep", "chmod", "clone", "remove", "retarget", "symlink", "mkdir", "add")
    }
    return jsonable(made)


def test_every_hostile_value_in_every_field(document: Any) -> None:
    tried = passed = 0
    for name, broken in variants(document):
        tried += 1
        data = spelled(broken)
        try:
            read = manifest.decode(data)
        except BsipatchError:
            continue
        passed += 1
        # What passes must be free to differ, and sound in itself.
        place = name.split(" ")[0]
        assert FREE & set(place.split("/")) or place == LAST_LENGTH, name
        assert manifest.encode(read) == data
        check_tree(read.new_entries())
        assert Tree(read.old_entries()).digest == read.old_digest
        assert read.new_tree().digest == read.result_digest
    assert tried > 2500
    assert passed < tried / 20


def test_every_truncation_and_many_flipped_bits(document: Any) -> None:
    data = spelled(document)
    tried = 0
    for broken in (*truncations(data, 1), *bit_flips(data, 1)):
        tried += 1
        try:
            read = manifest.decode(broken)
        except BsipatchError:
            continue
        assert manifest.encode(read) == broken
    assert tried > 2000


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'"' + b"x" * 100_000,
        b'{"format":1' + b"0" * 5000 + b"}",
        b'{"format":1e999}',
        b'{"format":"1"}',
        b"\xff\xfe{}",
        b'{"format":1,"actions":[' + b"{}," * 10_000 + b"{}]}",
    ],
    ids=range(8),
)
def test_pathological_json(data: bytes) -> None:
    with pytest.raises(BsipatchError):
        manifest.decode(data)


# --- THREATS 2 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["offset", "length", "size", "decoded", "memory"])
@pytest.mark.parametrize("value", [1 << 32, (1 << 32) + 5, (1 << 53) - 1, 1 << 53, (1 << 64) - 1])
def test_sizes_beyond_32_and_53_bits_are_bounded_not_truncated(
    document: Any, field: str, value: int
) -> None:
    """Truncated to 32 bits, (1 << 32) + 5 would be a plausible 5."""
    if field == "memory" and value <= Limits().memory_budget:
        pytest.skip("as much is allowed")
    for index in range(len(document["payloads"])):
        broken = jsonable(make_manifest(OLD, NEW)[0])
        broken["payloads"][index][field] = value
        with pytest.raises((ManifestError, LimitError)):
            manifest.decode(spelled(broken))


# --- THREATS 4 and 5 ----------------------------------------------------------------------------


def test_a_file_both_moved_and_changed_is_a_patch_from_its_old_path() -> None:
    """A clone of other content is refused; saying so openly is the only way."""
    broken = jsonable(make_manifest(OLD, NEW)[0])
    clone = next(a for a in broken["actions"] if a["do"] == "clone")
    clone["new"]["size"] += 1
    with pytest.raises(ManifestError):
        manifest.decode(spelled(broken))


def test_two_files_with_one_new_digest_are_both_made() -> None:
    twin = b"twins" * 20
    made, bodies = make_manifest({"a": b"1", "b": twin}, {"a": twin, "b": twin, "c": twin})
    manifest.validate(made)
    assert bodies == []
    assert {a.path: (a.do, a.source) for a in made.actions} == {
        "a": ("clone", "b"),
        "b": ("keep", None),
        "c": ("clone", "b"),
    }


# --- THREATS 8 ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", ["..", "../x", "dir/../../x", "/x", "x\0y", "x\\y", "kind/up/.."]
)
def test_links_cannot_leave_the_result(target: str) -> None:
    new = {**NEW, "kind/up": Link(".."), "new": Link(target)}
    if target == "kind/up/..":
        new["kind/up"] = Link("../.")
    made, _ = make_manifest(OLD, new)
    with pytest.raises(UnsafePathError):
        manifest.validate(made)


def test_many_entries_cost_time_in_proportion() -> None:
    """No rule is quadratic: 20,000 links through one another are settled quickly."""
    many: dict[str, Content] = {f"l{i:05}": Link(f"l{i + 1:05}") for i in range(20_000)}
    made, _ = make_manifest({}, many)
    with pytest.raises((UnsafePathError, LimitError)):
        manifest.validate(made, limits=Limits())
