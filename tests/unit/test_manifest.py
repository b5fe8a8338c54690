"""Manifests: one spelling, and a gate that leaves nothing to check later."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsipatch import manifest
from bsipatch.errors import (
    BsipatchError,
    LimitError,
    ManifestError,
    UnsafePathError,
    VersionError,
)
from bsipatch.limits import Limits
from bsipatch.manifest import Action, Activation, Baseline, Manifest, SecurityItem, StacksOn
from bsipatch.tree import State
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, File, Link, file_entry, tree_of
from tests.support.updates import jsonable, make_manifest, spelled

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def good() -> Manifest:
    return make_manifest()[0]


def test_a_good_manifest_passes_and_comes_back(good: Manifest) -> None:
    data = manifest.encode(good)
    assert manifest.decode(data) == good
    assert manifest.encode(manifest.decode(data)) == data
    assert good.old_tree() == tree_of(OLD_FRAMEWORK)
    assert good.new_tree() == tree_of(NEW_FRAMEWORK)


def test_the_framework_update_uses_each_kind_of_action(good: Manifest) -> None:
    deeds = {action.path: action.do for action in good.actions}
    assert deeds["Versions/A/Demo"] == "add"
    assert deeds["Versions/A/Resources/same.dat"] == "keep"
    assert deeds["Versions/A/Resources/fr.lproj/strings"] == "clone"
    assert deeds["Versions/A/Resources/gone.txt"] == "remove"
    assert deeds["Versions/A/Helpers"] == "mkdir"
    assert deeds["Helpers"] == "symlink"
    assert sum(good.count().values()) == len(good.actions)


def test_the_letter_stays_out_of_the_version(good: Manifest) -> None:
    assert (good.version, good.letter, good.display_version) == ("26.3.1", "a", "26.3.1 (a)")
    with pytest.raises(ManifestError):
        manifest.validate(replace(good, version="26.3.1 (a)"))


def test_kind_changes_are_one_action() -> None:
    old = {"a": b"file", "b/c": b"1", "l": Link("a"), "m": b"2"}
    new = {"a/x": b"1", "b": b"file", "l": File(b"now a file" * 9), "m": Link("b")}
    made, _ = make_manifest(old, new)
    manifest.validate(made)
    assert {a.path: a.do for a in made.actions} == {
        "a": "mkdir",
        "a/x": "clone",
        "b": "clone",
        "b/c": "remove",
        "l": "add",
        "m": "symlink",
    }


def test_paths_with_the_same_new_content_share_one_payload() -> None:
    twin = b"the same new content twice" * 10
    made, bodies = make_manifest({"a": b"1", "b": b"2"}, {"a": twin, "b": twin, "c": twin})
    manifest.validate(made)
    assert len(bodies) == 1
    assert [a.payload for a in made.actions] == [0, 0, 0]


def test_an_empty_file_needs_no_payload() -> None:
    made, bodies = make_manifest({"a": b"1"}, {"a": b"", "b": b""})
    manifest.validate(made)
    assert bodies == []


def test_stacking_starts_from_the_parents_tree(good: Manifest) -> None:
    parent = StacksOn(letter="a", build="X", digest=good.baseline.digest)
    stacked = replace(
        good, letter="b", stacks_on=parent, baseline=replace(good.baseline, digest="0" * 64)
    )
    manifest.validate(stacked)
    assert stacked.old_digest == parent.digest
    with pytest.raises(ManifestError):
        manifest.validate(replace(stacked, stacks_on=replace(parent, digest="0" * 64)))


# --- one spelling -------------------------------------------------------------------------------


def test_other_spellings_of_the_same_manifest_are_refused(good: Manifest) -> None:
    data = manifest.encode(good)
    document = jsonable(good)
    unsorted = dict(reversed(document.items()))
    variants = [
        b" " + data,
        data + b"\n",
        data.replace(b'":', b'": ', 1),
        data.replace(b"Demo", b"\\u0044emo", 1),
        msgspec.json.encode(unsorted),
        spelled({**document, "xattrs": False}),
        spelled({**document, "stacks_on": None}),
        data.replace(b'"format":1', b'"format":1,"format":1'),
        b"\xef\xbb\xbf" + data,
        data.replace(b'"format":1', b'"format":1.0'),
        data.replace(b'"created":1', b'"created":01'),
    ]
    for variant in variants:
        assert variant != data
        with pytest.raises(ManifestError):
            manifest.decode(variant)


def test_unknown_fields_are_refused_everywhere(good: Manifest) -> None:
    def places(value: Any) -> list[dict[str, Any]]:
        inner = value.values() if isinstance(value, dict) else value
        found = [value] if isinstance(value, dict) else []
        for item in inner if isinstance(value, dict | list) else []:
            found += places(item)
        return found

    count = len(places(jsonable(good)))
    assert count > 20
    for index in range(count):
        document = jsonable(good)
        places(document)[index]["surprise"] = 1
        with pytest.raises(ManifestError):
            manifest.decode(spelled(document))


def test_another_format_version_is_named_as_such(good: Manifest) -> None:
    document = {**jsonable(good), "format": 2, "something": "new"}
    with pytest.raises(VersionError):
        manifest.decode(spelled(document))
    with pytest.raises(VersionError):
        manifest.validate(replace(good, format=2))


@given(st.binary(max_size=200))
def test_no_bytes_but_a_manifest_pass(data: bytes) -> None:
    with pytest.raises(BsipatchError):
        manifest.decode(data)


# --- the gate -----------------------------------------------------------------------------------


def refused(made: Manifest) -> BsipatchError:
    with pytest.raises((ManifestError, UnsafePathError, LimitError)) as caught:
        manifest.validate(made)
    assert caught.value.message
    return caught.value


@pytest.mark.parametrize(
    "changes",
    [
        {"product": ""},
        {"product": "../x"},
        {"product": "a/b"},
        {"product": " a"},
        {"product": "a\n"},
        {"product": "x" * 256},
        {"platform": "mac os"},
        {"architectures": ()},
        {"architectures": ("x86_64", "arm64")},
        {"architectures": ("arm64", "arm64")},
        {"version": "26.3.1(a)"},
        {"letter": ""},
        {"letter": "A"},
        {"letter": "abcd"},
        {"build": "a b"},
        {"created": -1},
        {"created": 1 << 60},
        {"expires": 0},
        {"required_space": 0},
        {"required_space": -1},
        {"required_space": 1 << 60},
        {"release_notes": "javascript:alert(1)"},
        {"release_notes": "https://x y"},
        {"result_digest": "0" * 64},
        {"result_digest": "x"},
        {"baseline": Baseline(version="1", digest="0" * 64)},
        {"baseline": Baseline(version="1", digest="0" * 63 + "G")},
        {"activation": Activation(scope="relaunch")},
        {"activation": Activation(scope="restart", processes=("Safari",))},
        {"activation": Activation(scope="relaunch", processes=("A", "A"))},
        {"activation": Activation(scope="relaunch", processes=("A\x1b[2J",))},
        {"security": (SecurityItem(component="", impact="x"),)},
        {"security": (SecurityItem(component="x", impact=""),)},
        {"security": (SecurityItem(component="x", impact="x", cves=("CVE-1-2",)),)},
        {"security": (SecurityItem(component="x", impact="x", cves=("cve-2026-20643",)),)},
        {"security": (SecurityItem(component="x", impact="x", cves=("CVE-2026-20643",) * 2),)},
        {"security": (SecurityItem(component="x", impact="\x9b31m"),)},
    ],
    ids=str,
)
def test_fields_must_be_well_formed(good: Manifest, changes: dict[str, Any]) -> None:
    refused(replace(good, **changes))


def test_nothing_may_be_larger_than_the_limits(good: Manifest) -> None:
    manifest.validate(good, limits=Limits())
    for limits in (
        Limits(max_payloads=1),
        Limits(max_entries=3),
        Limits(max_file_size=10),
        Limits(max_package_size=10),
        Limits(max_security_items=0),
        Limits(max_tree_size=10),
        Limits(memory_budget=1),
    ):
        with pytest.raises(LimitError):
            manifest.validate(good, limits=limits)
    with pytest.raises(LimitError):
        manifest.decode(manifest.encode(good), limits=Limits(max_manifest=100))


def with_payload(made: Manifest, index: int, **changes: Any) -> Manifest:
    payloads = list(made.payloads)
    payloads[index] = replace(payloads[index], **changes)
    return replace(made, payloads=tuple(payloads))


def test_payloads_tile_exactly(good: Manifest) -> None:
    last = len(good.payloads) - 1
    first = good.payloads[0]
    for broken in (
        with_payload(good, 0, offset=1),
        with_payload(good, 0, offset=-1),
        with_payload(good, 1, offset=0),
        with_payload(good, 1, offset=good.payloads[1].offset + 1),
        with_payload(good, 0, length=first.length + 1),
        with_payload(good, 0, length=first.length - 1),
        with_payload(good, last, length=0),
        with_payload(good, last, length=1 << 60),
        with_payload(good, last, length=-1),
        with_payload(good, 0, size=first.size + 1),
        with_payload(good, 0, decoded=first.decoded + 1),
        with_payload(good, 0, memory=-1),
        with_payload(good, 0, memory=1 << 50),
        with_payload(good, 0, sha256="0" * 63),
        with_payload(good, 0, kind="patch"),
        replace(good, payloads=good.payloads[:-1]),
        replace(good, payloads=tuple(reversed(good.payloads))),
    ):
        refused(broken)


def action_at(made: Manifest, path: str) -> int:
    return next(i for i, a in enumerate(made.actions) if a.path == path)


def with_action(made: Manifest, at: str, /, **changes: Any) -> Manifest:
    index = action_at(made, at)
    actions = list(made.actions)
    actions[index] = replace(actions[index], **changes)
    return replace(made, actions=tuple(actions))


KEPT = "Versions/A/Resources/same.dat"
CLONED = "Versions/A/Resources/fr.lproj/strings"
ADDED = "Versions/A/Demo"


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        (KEPT, {"new": file_entry("x", b"1").state}),
        (KEPT, {"do": "remove"}),
        (KEPT, {"do": "chmod"}),
        (KEPT, {"do": "retarget"}),
        (KEPT, {"payload": 0}),
        (KEPT, {"source": ADDED}),
        (KEPT, {"old": None}),
        (CLONED, {"source": None}),
        (CLONED, {"source": "../../etc/passwd"}),
        (CLONED, {"source": "/etc/passwd"}),
        (CLONED, {"source": "nowhere"}),
        (CLONED, {"source": "Versions/A"}),
        (CLONED, {"source": "Versions/Current"}),
        (CLONED, {"source": CLONED}),
        (CLONED, {"source": KEPT}),
        (CLONED, {"payload": 0}),
        (CLONED, {"do": "patch"}),
        (CLONED, {"do": "add"}),
        (CLONED, {"new": None}),
        (ADDED, {"payload": None}),
        (ADDED, {"payload": -1}),
        (ADDED, {"payload": 99}),
        (ADDED, {"payload": 1}),
        (ADDED, {"source": KEPT}),
        (ADDED, {"do": "patch"}),
        (ADDED, {"do": "mkdir"}),
        (ADDED, {"do": "keep"}),
        (ADDED, {"path": "Versions/A/Other"}),
        ("Helpers", {"do": "mkdir"}),
        ("Helpers", {"new": State(kind="symlink", target="../out")}),
        ("Versions/A/Helpers", {"do": "symlink"}),
        ("Versions/A/Resources/gone.txt", {"do": "keep"}),
    ],
    ids=str,
)
def test_actions_must_make_sense(good: Manifest, path: str, changes: dict[str, Any]) -> None:
    refused(with_action(good, path, **changes))


def test_a_payload_cannot_make_two_files() -> None:
    made, _ = make_manifest({}, {"a": b"1" * 40, "b": b"2" * 40})
    one, two = made.actions
    broken = replace(made, actions=(one, replace(two, payload=0)), payloads=made.payloads[:1])
    assert "another file" in refused(broken).message


def test_every_payload_belongs_to_an_action(good: Manifest) -> None:
    last = good.payloads[-1]
    spare = replace(
        last, kind="plain", offset=last.offset + last.length, length=4, size=4, decoded=4, memory=0
    )
    assert (
        "belongs to no action" in refused(replace(good, payloads=(*good.payloads, spare))).message
    )


@pytest.mark.parametrize("source", ["Versions/A", "Versions/Current", "Versions/A/none", ADDED])
def test_a_patch_reads_another_file_of_the_baseline(good: Manifest, source: str) -> None:
    index = good.actions[action_at(good, ADDED)].payload
    assert index is not None
    patching = with_payload(with_action(good, ADDED, do="patch"), index, kind="patch")
    manifest.validate(patching)
    manifest.validate(with_action(patching, ADDED, source=KEPT))
    refused(with_action(patching, ADDED, source=source))


def test_each_path_has_one_action_in_order(good: Manifest) -> None:
    first, second, *rest = good.actions
    refused(replace(good, actions=(second, first, *rest)))
    refused(replace(good, actions=(first, first, second, *rest)))
    refused(replace(good, actions=tuple(good.actions[1:])))
    refused(replace(good, actions=()))


def digests_mended(actions: list[Action]) -> Manifest:
    """A manifest whose tree digests fit its actions, so that nothing else gives them away."""
    made, _ = make_manifest({}, {})
    draft = replace(
        made, actions=tuple(sorted(actions, key=lambda a: a.path.encode("utf-8", "surrogatepass")))
    )
    return replace(
        draft,
        baseline=replace(made.baseline, digest=draft.old_tree().digest),
        result_digest=draft.new_tree().digest,
    )


def keep(path: str, data: bytes = b"x") -> Action:
    return Action(do="keep", path=path, old=file_entry(path, data).state)


def test_mended_digests_alone_pass() -> None:
    manifest.validate(digests_mended([keep("a"), keep("b")]))


@pytest.mark.parametrize(
    "actions",
    [
        [keep("../a")],
        [keep("/a")],
        [keep("a\\b")],
        [keep("a\0b")],
        [keep("con")],
        [keep("u\u0308")],
        [keep("a"), keep("A")],
        [keep("é"), keep("É")],
        [keep("a/b")],
        [keep("a"), keep("a/b")],
        [Action(do="keep", path="a", old=State(kind="file", mode=0o4755, digest="0" * 64))],
        [Action(do="keep", path="l", old=State(kind="symlink", target="../x"))],
        [Action(do="keep", path="l", old=State(kind="symlink", target="/x"))],
        [Action(do="symlink", path="l", new=State(kind="symlink", target=".."))],
        [Action(do="keep", path="a", old=State(kind="dir", xattrs=(("user.a", b""),)))],
        [Action(do="mkdir", path="a")],
        [Action(do="add", path="a")],
        [Action(do="chmod", path="a", old=file_entry("a").state)],
        [Action(do="remove", path="a")],
        # Two baseline files may not become one name in the result, nor the other way round.
        [
            keep("a"),
            Action(do="add", path="A", new=file_entry("A").state),
        ],
    ],
    ids=ascii,
)
def test_unsafe_entries_are_refused_even_with_fitting_digests(actions: list[Action]) -> None:
    refused(digests_mended(actions))


def test_a_name_may_change_its_case() -> None:
    """Gone from one tree and new in the other, the two never meet in one."""
    made, _ = make_manifest({"readme": b"x" * 9}, {"README": b"x" * 9})
    manifest.validate(made)
    assert [a.do for a in made.actions] == ["clone", "remove"]
