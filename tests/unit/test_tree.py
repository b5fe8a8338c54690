"""Trees: safe walking, one digest, comparison, names, links, fs-verity's digest."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import socket
import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsipatch import tree
from bsipatch.errors import (
    CorruptError,
    LimitError,
    NotFoundError,
    TreeDriftError,
    UnsafePathError,
)
from bsipatch.limits import Limits
from bsipatch.tree import Entry, Tree, VerityHasher, check_path, check_tree, fold
from tests.support.trees import (
    NEW_FRAMEWORK,
    OLD_FRAMEWORK,
    File,
    Link,
    dir_entry,
    file_entry,
    link_entry,
    tree_of,
    write_tree,
)

BLOCK = 4096


def pattern(size: int) -> bytes:
    return (bytes(i % 251 for i in range(997)) * (size // 997 + 1))[:size]


# --- fs-verity ----------------------------------------------------------------------------------

# Made with Debian's fsverity 1.5 (`fsverity digest --compact`) over pattern(size).
VECTORS = {
    0: "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95",
    1: "b803429503d95915829b29fdbc8bbad142f3abfd11b1cadf5526582e685c0551",
    4096: "e5cae957e4c6e0631baa4562c03c1f18935a7fba048060a0754b116cba75d2b3",
    4097: "f14de45b62474b3d92adc15470471a5e9ce91f9d6442806739cd2433183f2e01",
    524288: "7805dc8d4d84a2005478174e3e93419c2bd03ebeafcd8eccf942ca4c194d66cd",
    524289: "4aa35c031845908151b43fb756ebf616ff2a3ce4e38d931df369bf04eba0a6c6",
    1228807: "620241067dcb56791843aaefee7f7d7dbaf6bcb327bce9232bc26adf3fe144be",
}


@pytest.mark.parametrize(
    "size", [0, 1, 4095, 4096, 4097, 128 * BLOCK, 128 * BLOCK + 1, 129 * BLOCK, 300 * BLOCK + 7]
)
def test_verity_digest_is_that_of_the_reference_tool(size: int, tmp_path: Path) -> None:
    tool = shutil.which("fsverity")
    if tool is None:
        pytest.skip("fsverity is not installed; the vectors below stand in")
    file = tmp_path / "file"
    file.write_bytes(pattern(size))
    shown = subprocess.run(
        [tool, "digest", "--compact", str(file)], check=True, capture_output=True, text=True
    )
    assert tree.verity_digest(file) == shown.stdout.strip()


@pytest.mark.parametrize(("size", "digest"), VECTORS.items())
def test_verity_digest_vectors(size: int, digest: str) -> None:
    assert tree.verity_digest(io.BytesIO(pattern(size))) == digest


@given(st.lists(st.integers(0, 3 * BLOCK), max_size=12))
def test_verity_digest_does_not_depend_on_the_pieces(cuts: list[int]) -> None:
    data = pattern(sum(cuts))
    hasher, at = VerityHasher(), 0
    for cut in cuts:
        hasher.update(data[at : at + cut])
        assert len(hasher.hexdigest()) == 64  # asking in between disturbs nothing
        at += cut
    assert hasher.hexdigest() == tree.verity_digest(io.BytesIO(data))


# --- walking ------------------------------------------------------------------------------------


def test_walk_finds_what_was_written(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "t", OLD_FRAMEWORK)
    found = tree.walk(root)
    assert found == tree_of(OLD_FRAMEWORK)
    assert found.digest == tree_of(OLD_FRAMEWORK).digest
    assert [e.path for e in found] == sorted((e.path for e in found), key=str.encode)
    assert tree.walk(root, jobs=4) == found
    entry = found.get("Versions/A/Demo")
    assert entry is not None
    assert (entry.mode, entry.kind) == (0o755, "file")


def test_walk_takes_a_descriptor_and_a_link_to_the_root(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "t", OLD_FRAMEWORK)
    (tmp_path / "link").symlink_to("t")
    fd = os.open(root, os.O_RDONLY)
    try:
        assert tree.walk(fd) == tree.walk(fd) == tree.walk(tmp_path / "link") == tree.walk(root)
    finally:
        os.close(fd)


@pytest.mark.parametrize("root", ["missing", "file"])
def test_walk_needs_a_directory(root: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotFoundError):
        tree.walk(tmp_path / root)


def test_walk_refuses_devices_fifos_sockets_and_special_bits(tmp_path: Path) -> None:
    for name, make in {
        "fifo": os.mkfifo,
        "socket": lambda p: socket.socket(socket.AF_UNIX).bind(str(p)),
        "setuid": lambda p: (p.write_bytes(b"x"), p.chmod(0o4755)),
        "setgid": lambda p: (p.mkdir(), p.chmod(0o2755)),
    }.items():
        folder = tmp_path / f"with-{name}"
        folder.mkdir()
        make(folder / "it")
        with pytest.raises(UnsafePathError):
            tree.walk(folder)


def test_walk_counts_hard_links_as_files(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "t", {"a": b"same"})
    os.link(root / "a", root / "b")
    assert tree.walk(root) == tree_of({"a": b"same", "b": b"same"})


@pytest.mark.parametrize("target", ["../out", "/etc/passwd", "sub/../../out", "a/../../x"])
def test_walk_refuses_links_out_of_the_tree(target: str, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "t", {"sub": None, "link": Link(target)})
    with pytest.raises(UnsafePathError):
        tree.walk(root)


def test_walk_refuses_names_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"bad\xff")).write_bytes(b"")
    with pytest.raises(UnsafePathError):
        tree.walk(tmp_path)


def test_walk_notices_a_file_that_changes_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_tree(tmp_path / "t", {"a": b"x" * 10})

    reads: list[int] = []

    def grow(count: int) -> None:
        reads.append(count)
        with open(root / "a", "ab") as file:
            file.write(b"y" * (len(reads) < 50))

    with pytest.raises(TreeDriftError):
        tree.walk(root, progress=grow)
    assert len(reads) < 5  # a file that grows as fast as it is read holds nobody up


def test_walk_notices_a_link_slipped_in_place_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_tree(tmp_path / "t", {"a": b"x"})
    (tmp_path / "secret").write_bytes(b"secret")
    real = os.open

    def racing(path: str, flags: int, *args: int, **kwargs: int) -> int:
        if path == "a":
            (root / "a").unlink()
            (root / "a").symlink_to("../secret")
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", racing)
    with pytest.raises((TreeDriftError, UnsafePathError, Exception)) as caught:
        tree.walk(root)
    assert "too many levels" in str(caught.value).lower() or isinstance(
        caught.value, TreeDriftError
    )


def test_an_exception_of_progress_ends_the_walk(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "t", {f"f{i}": bytes([i]) * 10 for i in range(200)})
    before = len(os.listdir("/proc/self/fd"))

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tree.walk(root, jobs=3, progress=stop)
    assert len(os.listdir("/proc/self/fd")) == before


def test_walk_keeps_known_xattrs_when_asked(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "t", {"a": b"x"})
    try:
        os.setxattr(root / "a", "user.note", b"\0\1")
    except OSError:
        pytest.skip("no extended attributes here")
    plain, full = tree.walk(root), tree.walk(root, xattrs=True)
    entry = full.get("a")
    assert entry is not None
    assert entry.xattrs == (("user.note", b"\0\1"),)
    assert plain == tree_of({"a": b"x"})
    assert plain.digest != full.digest
    (difference,) = tree.compare(plain, full)
    assert difference.kind == "mode"


def test_walk_keeps_to_the_limits(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "t", {"a/b/c": b"12345", "d": b"1"})
    for limits in (
        Limits(max_entries=3),
        Limits(max_depth=2),
        Limits(max_tree_size=5),
        Limits(max_file_size=4),
        Limits(max_path=4),
    ):
        with pytest.raises(LimitError):
            tree.walk(root, limits=limits)


# --- the digest ---------------------------------------------------------------------------------


def test_the_digest_covers_every_part_of_an_entry() -> None:
    base = [dir_entry("d"), file_entry("d/f", b"1"), link_entry("l", "d")]
    variants = [
        base,
        base[:2],
        [dir_entry("d", 0o700), *base[1:]],
        [base[0], file_entry("d/f", b"2"), base[2]],
        [base[0], file_entry("d/f", b"1", 0o755), base[2]],
        [base[0], file_entry("d/g", b"1"), base[2]],
        [*base[:2], link_entry("l", "d/f")],
        [*base[:2], link_entry("m", "d")],
        [*base[:2], dir_entry("l")],
        [base[0], msgspec.structs.replace(base[1], xattrs=(("user.a", b"b"),)), base[2]],
        [base[0], msgspec.structs.replace(base[1], xattrs=(("user.ab", b""),)), base[2]],
    ]
    assert len({Tree(entries).digest for entries in variants}) == len(variants)
    assert Tree(reversed(base)).digest == Tree(base).digest


def test_the_digest_stays_what_it_is() -> None:
    """A change here orphans every baseline in the field."""
    assert (
        tree_of(OLD_FRAMEWORK).digest
        == "087148ca0be1cf52bb9cda65816cc4cbbc7e6bc708865e848edba1bcbb58dc3d"
    )
    assert Tree([]).digest == hashlib.sha256(b"bsipatch tree 1\0" + bytes(8)).hexdigest()


# --- comparing ----------------------------------------------------------------------------------


def test_compare_classifies_each_path_once() -> None:
    old = tree_of(
        {
            "changed": b"1",
            "mode": b"m",
            "link": Link("mode"),
            "kind": b"k",
            "from": b"moved along",
            "stays": b"copied from",
            "gone": b"g",
            "same": b"s",
            "dir/x": b"x",
        }
    )
    new = tree_of(
        {
            "changed": b"2",
            "mode": File(b"m", 0o755),
            "link": Link("same"),
            "kind/inside": b"k",
            "to": b"moved along",
            "stays": b"copied from",
            "copy": b"copied from",
            "same": b"s",
            "fresh": b"f",
            "dir/x": b"x",
        }
    )
    kinds = {d.path: (d.kind, d.source) for d in tree.compare(old, new)}
    assert kinds == {
        "changed": ("changed", None),
        "mode": ("mode", None),
        "link": ("retargeted", None),
        "kind": ("kind", None),
        "kind/inside": ("moved", "kind"),
        "from": ("removed", None),
        "to": ("moved", "from"),
        "copy": ("copied", "stays"),
        "gone": ("removed", None),
        "fresh": ("added", None),
    }
    assert tree.compare(old, old) == []


def test_differences_read_as_sentences() -> None:
    old, new = tree_of({"f": b"1", "g": b"1"}), tree_of({"f": File(b"1", 0o664), "g": b"22"})
    assert [d.sentence for d in tree.compare(old, new)] == [
        "f: mode 0664 for 0644",
        "g: 2 bytes for 1",
    ]


# --- names --------------------------------------------------------------------------------------

GOOD = ["a", "a/b", ".hidden", "aux.h", "a b", "ü", "日本/語", "con1", "a.framework", "-x", "a:b"]
BAD = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/..",
    "a/../b",
    "./a",
    "a\\b",
    "a\0b",
    "a\nb",
    "a\x7fb",
    "a\x9bb",
    "u\u0308",  # decomposed
    "\ud800",
    "CON",
    "x/nul",
    "Lpt1",
    "f/..namedfork/rsrc",
    ".bsipatch",
    "a/.BSIPATCH-x",
]


@pytest.mark.parametrize("path", GOOD)
def test_good_paths_pass(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize("path", BAD, ids=ascii)
def test_bad_paths_are_refused(path: str) -> None:
    with pytest.raises(UnsafePathError):
        check_path(path)


def test_paths_keep_to_the_limits() -> None:
    check_path("a" * 255)
    for path in ("a" * 256, "é" * 128, "/".join("a" * 200), "/".join(["a" * 250] * 20)):
        with pytest.raises(LimitError):
            check_path(path)


@pytest.mark.parametrize(
    ("one", "two"),
    [("a", "A"), ("straße", "STRASSE"), ("é", "É"), ("ﬁ", "fi"), ("d/x", "D/x"), ("ſ", "s")],
)
def test_names_that_a_host_may_take_for_one_are_refused(one: str, two: str) -> None:
    assert fold(one) == fold(two)
    entries = tree_of({one: b"1"}).entries + tree_of({two: b"2"}).entries
    with pytest.raises(UnsafePathError):
        check_tree(entries)


@pytest.mark.parametrize(
    "entries",
    [
        [file_entry("a"), file_entry("a")],
        [file_entry("d/a")],
        [file_entry("d"), file_entry("d/a")],
        [link_entry("d", "e"), dir_entry("e"), file_entry("d/a")],
    ],
)
def test_entries_need_unique_names_and_real_parents(entries: list[Entry]) -> None:
    with pytest.raises(UnsafePathError):
        check_tree(entries)


@pytest.mark.parametrize(
    "entry",
    [
        Entry(path="a", kind="file", mode=0o4755, digest="0" * 64),
        Entry(path="a", kind="file", mode=-1, digest="0" * 64),
        Entry(path="a", kind="file"),
        Entry(path="a", kind="file", digest="A" * 64),
        Entry(path="a", kind="file", digest="0" * 64, size=-1),
        Entry(path="a", kind="file", digest="0" * 64, target="b"),
        Entry(path="a", kind="dir", size=1),
        Entry(path="a", kind="dir", digest="0" * 64),
        Entry(path="a", kind="symlink"),
        Entry(path="a", kind="symlink", target="b", mode=0o777),
        Entry(path="a", kind="symlink", target="b\0c"),
        Entry(path="a", kind="dir", xattrs=(("security.selinux", b""),)),
        Entry(path="a", kind="dir", xattrs=(("user.b", b""), ("user.a", b""))),
        Entry(path="a", kind="dir", xattrs=(("user.a", b""), ("user.a", b""))),
    ],
)
def test_states_must_fit_their_kind(entry: Entry) -> None:
    with pytest.raises((UnsafePathError, CorruptError)):
        check_tree([entry])


# --- links --------------------------------------------------------------------------------------


def test_links_inside_pass_and_dangling_ones_too() -> None:
    check_tree(tree_of(NEW_FRAMEWORK))
    check_tree([dir_entry("d"), link_entry("d/up", ".."), link_entry("x", "d/up/nowhere")])


def test_a_link_cannot_climb_out_through_another() -> None:
    """Lexically a/b/../.. is the root; really it is two above it."""
    entries = [
        dir_entry("a"),
        dir_entry("a/b"),
        link_entry("a/b/up", "../.."),
        link_entry("x", "a/b/up/.."),
    ]
    with pytest.raises(UnsafePathError):
        check_tree(entries)


def test_links_in_circles_are_refused() -> None:
    with pytest.raises(UnsafePathError):
        check_tree([link_entry("a", "b"), link_entry("b", "a")])
    with pytest.raises(UnsafePathError):
        check_tree([link_entry("a", "a/x")])


def test_long_chains_of_links_take_bounded_time() -> None:
    bomb = [link_entry("l0", "/".join(["."] * 2000))]
    bomb += [link_entry(f"l{i}", "/".join([f"l{i - 1}"] * 30)) for i in range(1, 40)]
    with pytest.raises((UnsafePathError, LimitError)):
        check_tree(bomb)
    with pytest.raises(LimitError):
        check_tree([link_entry(f"l{i}", "./" * 2000 + "x") for i in range(20)])


# --- frameworks ---------------------------------------------------------------------------------


def test_frameworks_are_recognised() -> None:
    inside = {f"Lib/Demo.framework/{k}": v for k, v in NEW_FRAMEWORK.items()}
    (one,) = tree.frameworks(tree_of(inside))
    assert (one.path, one.current, one.versions) == ("Lib/Demo.framework", "A", ("A",))
    assert one.links == ("Demo", "Helpers", "Resources")
    assert one.problems == ()
    (root,) = tree.frameworks(tree_of(NEW_FRAMEWORK))
    assert root.path == ""
    assert tree.frameworks(tree_of({"a/b": b""})) == ()


def test_broken_frameworks_are_reported() -> None:
    (one,) = tree.frameworks(
        tree_of(
            {
                "X.framework/Versions/A/X": b"",
                "X.framework/Versions/Current": Link("B"),
                "X.framework/X": Link("Versions/Current/X"),
            }
        )
    )
    assert "Versions/Current names 'B', which is not there" in one.problems
