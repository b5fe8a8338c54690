"""The pure parts of the corpora fetcher: table, layout, digests.  Nothing here uses a network."""

from __future__ import annotations

import hashlib
import io
import struct
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import corpora  # noqa: E402
import corpora_clients  # noqa: E402
import corpora_layout  # noqa: E402
import corpora_sources  # noqa: E402

HEADER = "\t".join(corpora.COLUMNS)
DIGEST = "0123456789abcdef" * 4


def row(**changes: str) -> str:
    cells = {
        "name": "lib",
        "kind": "elf",
        "arch": "amd64",
        "old_path": "lib/1/a.so",
        "new_path": "lib/2/a.so",
        "old_size": "10",
        "new_size": "11",
        "old_sha256": DIGEST,
        "new_sha256": DIGEST,
        "hdiffz_best": "5",
        "zucchini_xz": "",
    }
    return "\t".join({**cells, **changes}.values())


# --- table --------------------------------------------------------------------------------------


def test_table_row_is_read_with_absent_peer_figures() -> None:
    pair = corpora.parse_table([HEADER, row()])["lib"]
    assert pair.new == corpora.End("lib/2/a.so", 11, DIGEST)
    assert (pair.hdiffz_best, pair.zucchini_xz) == (5, None)
    assert not pair.is_bundle


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "columns"),
        (["name\tkind"], "columns"),
        ([HEADER, row() + "\textra"], "cells"),
        ([HEADER, row(old_path="/etc/passwd")], "below the root"),
        ([HEADER, row(new_path="lib/../../x")], "below the root"),
        ([HEADER, row(old_sha256=DIGEST[:-1])], "digest"),
        ([HEADER, row(old_sha256="")], "digest"),
        ([HEADER, row(kind="bundle")], "digest"),
        ([HEADER, row(new_size="-1")], "not a number"),
        ([HEADER, row(hdiffz_best="1.5")], "not a number"),
        ([HEADER, row(), row()], "twice"),
    ],
)
def test_malformed_table_is_refused(lines: list[str], message: str) -> None:
    with pytest.raises(corpora.TableError, match=message):
        corpora.parse_table(lines)


def test_every_path_of_the_checked_in_table_has_a_step() -> None:
    pairs = corpora.load_pairs()
    assert len(pairs) > 50
    assert set(corpora.SMALL) <= set(pairs)
    for pair in pairs.values():
        assert corpora.steps_for(pair.old.path)
        assert corpora.steps_for(pair.new.path)


def test_every_step_serves_some_pair() -> None:
    paths = [end.path for pair in corpora.load_pairs().values() for end in (pair.old, pair.new)]
    assert [s.key for s in corpora_sources.STEPS if not any(s.provides(p) for p in paths)] == []
    keys = [step.key for step in corpora_sources.STEPS]
    assert len(keys) == len(set(keys))


def test_a_shared_directory_takes_only_the_steps_it_needs() -> None:
    one = corpora.steps_for("frameworks-macos/6.9.2/QtPdf.framework/Versions/A/QtPdf")
    assert [step.packages for step in one] == [("PySide6-Addons",)]
    assert len(corpora.steps_for("frameworks-macos/6.9.2")) == 2
    with pytest.raises(corpora.TableError):
        corpora.steps_for("frameworks-macos/6.9.20/QtPdf.framework")


# --- layout -------------------------------------------------------------------------------------


def test_framework_layout_puts_versions_and_links_back() -> None:
    layout = corpora_layout.framework_layout(
        [
            "Versions/A/QtGui",
            "Versions/A/Resources/Info.plist",
            "Versions/A/_CodeSignature/CodeResources",
            "Resources/Info.plist",
            "Resources/extra.pak",
            "Helpers/Tool.app/Contents/MacOS/Tool",
        ]
    )
    assert layout.files == {
        "Versions/A/Helpers/Tool.app/Contents/MacOS/Tool": "Helpers/Tool.app/Contents/MacOS/Tool",
        "Versions/A/QtGui": "Versions/A/QtGui",
        "Versions/A/Resources/Info.plist": "Versions/A/Resources/Info.plist",
        "Versions/A/Resources/extra.pak": "Resources/extra.pak",
        "Versions/A/_CodeSignature/CodeResources": "Versions/A/_CodeSignature/CodeResources",
    }
    assert layout.links == {
        "Versions/Current": "A",
        "Helpers": "Versions/Current/Helpers",
        "QtGui": "Versions/Current/QtGui",
        "Resources": "Versions/Current/Resources",
    }


@pytest.mark.parametrize("member", ["Versions/B/QtGui", "Versions/A", "../QtGui", "/QtGui"])
def test_framework_layout_refuses_what_it_does_not_know(member: str) -> None:
    with pytest.raises(corpora_sources.SourceError):
        corpora_layout.framework_layout([member])


def make_wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o755 if name.endswith("/Qt") else 0o644) << 16
            wheel.writestr(info, data)
    return path


def test_frameworks_are_laid_out_from_a_wheel(tmp_path: Path) -> None:
    prefix = "P/Qt/lib/Qt.framework/"
    wheel = make_wheel(
        tmp_path / "w.whl",
        {
            prefix + "Versions/A/Qt": b"code",
            prefix + "Versions/A/Resources/i": b"inside",
            prefix + "Resources/i": b"outside",
            "P/other": b"",
        },
    )
    step = corpora_sources.Step(
        "fw/1", "pip-universal2", ("Q",), "1", "frameworks", sections=("Qt.framework",)
    )
    (tmp_path / "root/fw/1/Other.framework").mkdir(parents=True)
    root = tmp_path / "root"
    corpora_layout.lay_out(step, [wheel], root, step.dest, tmp_path / "scratch")
    framework = root / "fw/1/Qt.framework"
    assert (framework / "Qt").is_symlink()
    assert (framework / "Qt").read_bytes() == b"code"
    assert (framework / "Qt").stat().st_mode & 0o111
    assert (framework / "Resources/i").read_bytes() == b"inside"
    assert sorted(path.name for path in (root / "fw/1").iterdir()) == [
        "Other.framework",
        "Qt.framework",
    ]
    assert corpora.tree_size(root / "fw/1") == len(b"code") + len(b"inside")


def test_member_outside_the_tree_is_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "w.whl", {"../evil": b"x"})
    step = corpora_sources.Step("t/1", "pip-arm64", ("Q",), "1")
    with pytest.raises(corpora_sources.SourceError, match="unsafe"):
        corpora_layout.lay_out(step, [wheel], tmp_path / "root", step.dest, tmp_path / "scratch")
    assert not (tmp_path / "root").exists()


def test_npm_package_loses_its_top_folder_and_a_nested_zip_is_reached(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as zipped:
        zipped.writestr("jni/a/lib.so", b"library")
        zipped.writestr("jni/b/lib.so", b"another")
    with tarfile.open(tmp_path / "p.tgz", "w:gz") as tar:
        for name, data in {"package/x.aar": inner.getvalue(), "package/README": b"r"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    keep = (("x.aar!jni/a/lib.so", "a/lib.so"),)
    step = corpora_sources.Step("n/1", "npm", ("p",), "1", keep=keep)
    corpora_layout.lay_out(step, [tmp_path / "p.tgz"], tmp_path, step.dest, tmp_path / "s1")
    files = [p.relative_to(tmp_path / "n/1").as_posix() for p in (tmp_path / "n/1").rglob("*.*")]
    assert files == ["a/lib.so"]
    whole = replace(step, dest="n/2", keep=())
    corpora_layout.lay_out(whole, [tmp_path / "p.tgz"], tmp_path, whole.dest, tmp_path / "s2")
    assert (tmp_path / "n/2/README").read_bytes() == b"r"


def fat_file(file_type: int) -> bytes:
    slice_bytes = struct.pack("<8I", 0xFEEDFACF, 0x0100000C, 0, file_type, 0, 0, 0, 0)
    header = struct.pack(">2I", 0xCAFEBABE, 1)
    header += struct.pack(">5I", 0x0100000C, 0, 64, len(slice_bytes), 6)
    return header.ljust(64, b"\0") + slice_bytes


def test_fat_files_are_cut_out_of_a_larger_file() -> None:
    java_class = b"\xca\xfe\xba\xbe\0\0\0\x34" + bytes(40)
    tool, library = fat_file(2), fat_file(6)
    data = b"junk" + java_class + tool + b"between" + library + b"\xca\xfe\xba\xbe\0\0\0\x01"
    found = corpora_layout.cut_fat_files(data)
    assert {kind: data[start : start + size] for kind, (start, size) in found.items()} == {
        2: tool,
        6: library,
    }
    assert corpora_layout.cut_fat_files(tool[:-1]) == {}


# --- digests ------------------------------------------------------------------------------------


def test_matching_file_passes_and_any_difference_is_loud(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    end = corpora.End("f", 7, hashlib.sha256(b"content").hexdigest())
    corpora.check_end(end, tmp_path)
    (tmp_path / "f").write_bytes(b"c0ntent")
    with pytest.raises(corpora.DigestError, match="SHA-256"):
        corpora.check_end(end, tmp_path)
    (tmp_path / "f").write_bytes(b"conten")
    with pytest.raises(corpora.DigestError, match="6 bytes, expected 7"):
        corpora.check_end(end, tmp_path)
    (tmp_path / "f").unlink()
    with pytest.raises(corpora.DigestError, match="missing"):
        corpora.check_end(end, tmp_path)


def test_bundle_size_counts_files_and_not_links(tmp_path: Path) -> None:
    (tmp_path / "b/sub").mkdir(parents=True)
    (tmp_path / "b/sub/file").write_bytes(b"12345")
    (tmp_path / "b/link").symlink_to("sub/file")
    corpora.check_end(corpora.End("b", 5, ""), tmp_path)
    with pytest.raises(corpora.DigestError):
        corpora.check_end(corpora.End("b", 10, ""), tmp_path)


def test_fetch_reports_a_mismatch_and_forgets_the_tree(tmp_path: Path) -> None:
    """Files laid out earlier that no longer match: reported, and fetched again next time."""
    pair = corpora.load_pairs()["esbuild-0.25.12"]
    record = corpora.Record()
    for end in (pair.old, pair.new):
        (tmp_path / end.path).parent.mkdir(parents=True)
        (tmp_path / end.path).write_bytes(b"wrong")
        (step,) = corpora.steps_for(end.path)
        record.steps[step.key] = corpora.Fetched(
            step.dest, step.packages, step.version, step.version
        )
    record.save(tmp_path)
    ((_, problem),) = corpora.Fetcher(tmp_path).fetch([pair])
    assert problem.startswith("mismatch")
    after = corpora.Record.load(tmp_path)
    assert after.skipped == {pair.name: problem}
    assert len(after.steps) == 1


# --- substitutes --------------------------------------------------------------------------------


def test_substitute_version_is_found_under_its_own_directory(tmp_path: Path) -> None:
    pair = corpora.load_pairs()["webkitgtk4.1-amd64-252-254"]
    (step,) = corpora.steps_for(pair.new.path)
    record = corpora.Record()
    dest = "webkitgtk-4.1-amd64/2.56.0-1"
    record.steps[step.key] = corpora.Fetched(dest, step.packages, "2.56.0-1", step.version, "sid")
    folder = tmp_path / dest / "usr/lib/x86_64-linux-gnu"
    folder.mkdir(parents=True)
    (folder / "libwebkit2gtk-4.1.so.0.26.1").write_bytes(b"")
    (folder / "libwebkit2gtk-4.1.so.0").symlink_to("libwebkit2gtk-4.1.so.0.26.1")
    assert corpora.resolve(pair.new.path, tmp_path, record) == (
        folder / "libwebkit2gtk-4.1.so.0.26.1",
        True,
    )
    assert corpora.resolve(pair.old.path, tmp_path, record) == (tmp_path / pair.old.path, False)


class FakeApt(corpora_clients.PrivateApt):
    """Answers from a table instead of an archive."""

    def __init__(self, held: dict[str, list[tuple[str, str]]]) -> None:
        super().__init__(Path("unused"))
        self._held = held

    def versions(self, package: str) -> list[tuple[str, str]]:
        return self._held.get(package, [])

    def names(self, pattern: str) -> list[str]:
        return sorted(self._held)


@pytest.fixture
def text_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Order versions as text, so that the tests need no dpkg."""
    monkeypatch.setattr(corpora_clients, "compare_debian", lambda a, b: (a > b) - (a < b))


BOTH = ("bookworm", "bookworm-security")


@pytest.mark.usefixtures("text_order")
def test_newest_two_versions_of_the_suites_stand_in_when_both_ends_are_gone() -> None:
    apt = FakeApt({"p": [("9", "sid"), ("3", "bookworm"), ("4", "bookworm-security")]})
    new = corpora_sources.Step("p/2", "apt", ("p",), "2", suites=BOTH, partner="1")
    old = replace(new, dest="p/1", version="1", role="old", partner="2")
    assert apt.substitute(new) == (("p",), "4", "bookworm-security")
    assert apt.substitute(old) == (("p",), "3", "bookworm")
    with pytest.raises(corpora_sources.SourceError, match="nothing to stand in"):
        apt.substitute(replace(old, suites=("sid",)))


@pytest.mark.usefixtures("text_order")
def test_an_old_end_that_is_gone_stays_below_a_new_end_that_is_not() -> None:
    versions = [("1", "bookworm"), ("3", "bookworm"), ("5", "bookworm")]
    old = corpora_sources.Step("p/2", "apt", ("p",), "2", suites=BOTH, role="old", partner="3")
    assert FakeApt({"p": versions}).substitute(old) == (("p",), "1", "bookworm")
    with pytest.raises(corpora_sources.SourceError, match="nothing to stand in"):
        FakeApt({"p": versions[1:]}).substitute(old)


@pytest.mark.usefixtures("text_order")
def test_package_that_carries_its_version_is_substituted_by_name() -> None:
    apt = FakeApt({"image-55": [("6.2", "s")], "image-56": [("6.3", "s")]})
    step = corpora_sources.Step(
        "p/6.1", "apt", ("image-54",), "6.1", suites=("s",), pattern=r"image-\d+"
    )
    assert apt.substitute(step) == (("image-56",), "6.3", "s")


def test_debian_steps_know_the_other_end() -> None:
    steps = {step.dest: step for step in corpora_sources.STEPS if step.client == "apt"}
    for step in steps.values():
        partner = steps[step.dest.replace(step.version, step.partner)]
        assert {step.role, partner.role} == {"old", "new"}


def test_mirrors_are_read_from_the_machine_configuration(tmp_path: Path) -> None:
    (tmp_path / "debian.sources").write_text(
        "Types: deb\n# a comment\nURIs: http://mirror.invalid/debian\nSuites: bookworm\n"
        "Components: main\nSigned-By: /keys/a.gpg\n\n"
        "Types: deb\nURIs: http://mirror.invalid/security\nSuites: bookworm-security\n"
        "Components: main\n\nTypes: deb\nURIs: http://other.invalid\nSuites: x\nComponents: y\n",
        encoding="utf-8",
    )
    mirrors = corpora_clients.machine_mirrors(tmp_path)
    assert {kind: (mirror.uri, mirror.keyring) for kind, mirror in mirrors.items()} == {
        "main": ("http://mirror.invalid/debian", "/keys/a.gpg"),
        "security": ("http://mirror.invalid/security", ""),
    }


# --- command line -------------------------------------------------------------------------------


def test_unknown_pair_and_absent_files_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BSIPATCH_CORPORA", str(tmp_path))
    assert corpora.main(["path", "nonesuch"]) == 1
    assert "no such pair" in capsys.readouterr().err
    assert corpora.main(["path", "libssl-amd64"]) == 1
    assert "fetch libssl-amd64" in capsys.readouterr().err
    assert corpora.main(["list"]) == 0
    assert "libssl-amd64\telf\tamd64\t688160\t-" in capsys.readouterr().out
