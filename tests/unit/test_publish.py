"""Publishing: release.toml, plans, targets, and whole builds read back by the device's side."""

from __future__ import annotations

import io
import os
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from bsipatch import delta, manifest, publish
from bsipatch.errors import (
    CancelledError,
    ConfigError,
    NotFoundError,
    PublishError,
    SignatureError,
    TreeDriftError,
    UsageError,
)
from bsipatch.manifest import Activation
from bsipatch.package import Package
from bsipatch.publish import platform
from bsipatch.publish.plan import plan
from bsipatch.publish.release import Release, parse_release
from bsipatch.tree import walk
from tests.support.rebuild import rebuilt
from tests.support.trees import (
    NEW_FRAMEWORK,
    OLD_FRAMEWORK,
    Content,
    File,
    Link,
    tree_of,
    write_tree,
)
from tests.support.updates import key, policy, verifier

try:
    import bsipatch._core._bsipatch  # noqa: F401

    HAVE_CORE = True
except ImportError:
    HAVE_CORE = False

needs_core = pytest.mark.skipif(not HAVE_CORE, reason="the native core is not built")

LEAST = 'product = "Demo"\nversion = "26.3.1"\nletter = "a"\nbuild = "25D771280a"\n'
RELEASE = Release(
    product="Demo", version="26.3.1", letter="a", build="25D771280a", created=1_773_700_000
)

# --- release.toml -------------------------------------------------------------------------------


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "release.toml"
    path.write_text(text)
    return path


def test_four_lines_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1773700000")
    release = publish.load_release(toml(tmp_path, LEAST))
    assert release == Release(product="Demo", version="26.3.1", letter="a", build="25D771280a")
    assert release.activation.scope == "restart"
    assert release.times() == (1_773_700_000, 1_773_700_000 + 365 * 86400)


def test_everything_can_be_said(tmp_path: Path) -> None:
    release = publish.load_release(
        toml(
            tmp_path,
            LEAST
            + """
            platform = "macos"
            architectures = ["x86_64", "arm64"]
            release_notes = "https://example.org/notes"
            created = 2026-03-17
            expires = 2026-09-17T10:00:00Z
            xattrs = true
            [baseline]
            version = "26.3"
            build = "25D1"
            [activation]
            relaunch = ["Safari"]
            [[security]]
            component = "WebKit"
            impact = "It was bad."
            cves = ["CVE-2026-20643"]
            credit = "someone"
            [stacks_on]
            letter = "a"
            """,
        )
    )
    assert release.architectures == ("arm64", "x86_64")
    assert (release.created, release.expires) == (1_773_705_600, 1_789_639_200)
    assert (release.baseline_version, release.baseline_build) == ("26.3", "25D1")
    assert release.activation == Activation(scope="relaunch", processes=("Safari",))
    assert release.security[0].cves == ("CVE-2026-20643",)
    assert release.stacks_on == ("a", None)
    assert release.xattrs


def test_an_update_may_never_expire(tmp_path: Path) -> None:
    release = publish.load_release(toml(tmp_path, LEAST + 'expires = "never"\n'))
    assert release.times()[1] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LEAST + 'lettre = "a"', "Did you mean letter?"),
        (LEAST + 'relase_notes = "x"', "Did you mean release_notes?"),
        (LEAST + "zzz = 1", "Known are: product"),
        (LEAST + '[baseline]\nbild = "x"', "Did you mean baseline.build?"),
        (
            LEAST + '[[security]]\ncomponent="a"\nimpact="b"\ncve="c"',
            "Did you mean security[0].cves",
        ),
        (LEAST.replace("version", "vers", 1), "vers is not a known setting"),
        (LEAST.replace('letter = "a"\n', ""), "letter is missing"),
        (LEAST.replace("26.3.1", "26.3.1 (a)"), "Keep the letter apart"),
        (LEAST.replace('"a"', '"A"'), "lower-case"),
        (LEAST.replace('"a"', "1"), "text in quotes"),
        (LEAST + "architectures = []", "must not be empty"),
        (LEAST + 'architectures = ["x y"]', "architecture must be"),
        (LEAST + "created = true", "created must be a date"),
        (LEAST + "created = 2026-03-17\nexpires = 2026-03-16", "later"),
        (LEAST + 'security = "none"', "list of tables"),
        (LEAST + '[[security]]\nimpact = "x"', "component is missing"),
        (LEAST + '[[security]]\ncomponent="a"\nimpact="b"\ncves=["CVE-1"]', "a CVE id such as"),
        (LEAST + '[activation]\nrestart = true\nrelaunch = ["Safari"]', "either"),
        (LEAST + "[activation]\nrestart = false", "either"),
        (LEAST + "activation = 1", "must be a table"),
        (LEAST + 'release_notes = "ftp://x"', "http"),
        (LEAST + "a = [", "not TOML"),
    ],
)
def test_mistakes_are_named_with_a_suggestion(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        publish.load_release(toml(tmp_path, text))
    assert message in str(caught.value)
    assert caught.value.file is not None


def test_a_release_file_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        publish.load_release(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"#" * (2 << 20))
    os.mkfifo(tmp_path / "fifo")  # that nobody writes to: nothing may wait for it
    for name in ("binary", "large", ".", "fifo"):
        with pytest.raises(ConfigError):
            publish.load_release(tmp_path / name)


def test_dates_without_a_zone_are_utc() -> None:
    least = {"product": "x", "version": "1", "letter": "a", "build": "1"}
    assert parse_release({**least, "created": 5}).created == 5


# --- plans --------------------------------------------------------------------------------------


def planned(old: dict[str, Content], new: dict[str, Content]) -> dict[str, Any]:
    made = plan(tree_of(old), tree_of(new))
    deeds: dict[str, Any] = {a.path: (a.do, a.source) for a in made.actions}
    for job in made.jobs:
        for path in job.paths:
            deeds[path] = ("payload", job.sources[0].path if job.sources else None)
    return deeds


def test_a_changed_file_is_patched_from_itself() -> None:
    assert planned({"a": b"1"}, {"a": b"2"}) == {"a": ("payload", "a")}


def test_a_file_that_moved_and_changed_is_patched_from_where_it_was() -> None:
    assert planned(
        {"1/lib": b"x" * 99, "0/lib": b"y" * 90}, {"0/lib": b"y" * 90, "2/lib": b"z" * 98}
    ) == {
        "0": ("keep", None),
        "0/lib": ("keep", None),
        "1": ("remove", None),
        "1/lib": ("remove", None),
        "2": ("mkdir", None),
        "2/lib": ("payload", "1/lib"),
    }


def test_a_name_with_another_number_counts_as_alike() -> None:
    deeds = planned({"libvips.8.17.2.so": b"x" * 90}, {"libvips.8.17.3.so": b"y" * 91})
    assert deeds["libvips.8.17.3.so"] == ("payload", "libvips.8.17.2.so")
    deeds = planned({"a.txt": b"x" * 90}, {"b.txt": b"y" * 91})
    assert deeds["b.txt"] == ("payload", None)
    deeds = planned({"d/a": b"x"}, {"e/a": b"y" * 100})
    assert deeds["e/a"] == ("payload", None)  # too different in size


def test_swapped_files_are_cloned_both_ways() -> None:
    deeds = planned({"a": b"1", "b": b"2"}, {"a": b"2", "b": b"1"})
    assert deeds == {"a": ("clone", "b"), "b": ("clone", "a")}


def test_files_made_empty_need_nothing() -> None:
    assert planned({"a": b"1"}, {"a": b""}) == {"a": ("add", None)}
    assert planned({"a": b""}, {"a": b"1"}) == {"a": ("payload", None)}


# --- targets ------------------------------------------------------------------------------------


def macho(cpu: int, subtype: int, os_platform: int) -> bytes:
    command = struct.pack("<6I", 0x32, 24, os_platform, 0, 0, 0)
    return struct.pack("<8I", 0xFEEDFACF, cpu, subtype, 2, 1, len(command), 0, 0) + command


def elf(machine: int) -> bytes:
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, machine) + bytes(40)


ARM64, X86_64 = 0x0100000C, 0x01000007


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (elf(62), ("linux", ("x86_64",))),
        (elf(183), ("linux", ("arm64",))),
        (macho(ARM64, 0, 1), ("macos", ("arm64",))),
        (macho(ARM64, 0x80000002, 2), ("ios", ("arm64e",))),
        (macho(X86_64, 3, 1), ("macos", ("x86_64",))),
        (b"", ("any", ("any",))),
        (b"#!/bin/sh\n", ("any", ("any",))),
        (b"\xca\xfe\xba\xbe\0\0\0\x41" + bytes(40), ("any", ("any",))),  # a Java class
        (b"\x7fELF", ("any", ("any",))),
        (b"\xcf\xfa\xed\xfe", ("any", ("any",))),
    ],
)
def test_targets_are_read_from_headers(
    head: bytes, expected: tuple[str, tuple[str, ...]], tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(head)
    target = platform.detect_file(tmp_path / "f")
    assert platform.combine([target] if target else []) == expected


def test_a_fat_file_names_all_its_slices(tmp_path: Path) -> None:
    slices = [macho(X86_64, 3, 1), macho(ARM64, 0, 1)]
    head = struct.pack(">II", 0xCAFEBABE, 2)
    head += struct.pack(">5I", X86_64, 3, 4096, len(slices[0]), 12)
    head += struct.pack(">5I", ARM64, 0, 8192, len(slices[1]), 12)
    data = head.ljust(4096, b"\0") + slices[0].ljust(4096, b"\0") + slices[1]
    (tmp_path / "fat").write_bytes(data)
    target = platform.detect_file(tmp_path / "fat")
    assert target is not None
    assert platform.combine([target]) == ("macos", ("arm64", "x86_64"))
    for end in range(0, 60, 3):
        (tmp_path / "cut").write_bytes(data[:end])
        platform.detect_file(tmp_path / "cut")


# --- whole builds -------------------------------------------------------------------------------


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    return write_tree(tmp_path / "old", OLD_FRAMEWORK), write_tree(tmp_path / "new", NEW_FRAMEWORK)


@needs_core
def test_a_build_turns_one_tree_into_the_other(trees: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = trees
    output = tmp_path / "out" / "update.bsi"
    phases: list[str] = []
    report = publish.build(
        old,
        new,
        RELEASE,
        [key(0), key(1)],
        output,
        jobs=2,
        progress=lambda phase, done, total: phases.append(phase),
    )
    assert os.listdir(output.parent) == ["update.bsi"]
    assert report.size == output.stat().st_size
    assert list(dict.fromkeys(phases)) in (
        ["walk", "compare", "diff", "verify"],
        ["walk", "diff", "verify"],
    )
    trusted = policy(0, 1, threshold=2)
    with Package.open(output, verifier(trusted)) as opened:
        assert opened.manifest == report.manifest
        result = rebuilt(opened, old, tmp_path / "result")
        assert opened.manifest.required_space >= manifest.written_bytes(opened.manifest)
    assert walk(result) == walk(new)
    assert report.new_digest == report.manifest.result_digest == walk(new).digest
    assert report.old_digest == report.manifest.baseline.digest == walk(old).digest
    assert report.counts["patch"] >= 1
    assert report.counts["keep"] > 5
    assert report.ratio > 0
    assert report.warnings == ()
    assert {f.kind for f in report.files} <= {"patch", "zstd", "plain"}


@needs_core
def test_an_update_never_lies_within_its_trees(trees: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(trees[1])
    for folder in (*trees, trees[0] / "deeper", tmp_path / "link"):
        with pytest.raises(UsageError, match="within the tree"):
            publish.build(*trees, RELEASE, [key()], folder / "u.bsi")
    assert not (trees[0] / "deeper").exists()
    publish.build(*trees, RELEASE, [key()], trees[0].with_name("beside") / "u.bsi")


@needs_core
def test_a_build_does_not_depend_on_the_number_of_jobs(
    trees: tuple[Path, Path], tmp_path: Path
) -> None:
    outputs = []
    for jobs in (1, 2, 5):
        output = tmp_path / f"{jobs}.bsi"
        publish.build(*trees, RELEASE, [key()], output, jobs=jobs)
        outputs.append(output.read_bytes())
    assert outputs[0] == outputs[1] == outputs[2]


@needs_core
def test_a_patch_that_is_no_smaller_than_the_file_is_not_used(tmp_path: Path) -> None:
    old = write_tree(tmp_path / "old", {"f": os.urandom(5000)})
    new = write_tree(tmp_path / "new", {"f": os.urandom(5000), "g": b"text " * 1000})
    report = publish.build(old, new, RELEASE, [key()], tmp_path / "u.bsi")
    assert {f.paths[0]: f.kind for f in report.files} == {"f": "plain", "g": "zstd"}
    with Package.open(tmp_path / "u.bsi", verifier()) as opened:
        assert walk(rebuilt(opened, old, tmp_path / "result")) == walk(new)


@needs_core
def test_every_kind_of_change_survives(tmp_path: Path) -> None:
    old_contents: dict[str, Content] = {
        "a": b"file to directory" * 9,
        "b/c": b"directory to file" * 9,
        "l": Link("b/c"),
        "m": b"to link",
        "mode": b"mode only",
        "1/lib": bytes(range(256)) * 40,
        "swap1": b"one" * 50,
        "swap2": b"two" * 50,
        "shrunk": b"x" * 100,
    }
    new_contents: dict[str, Content] = {
        "a/x": b"directory to file" * 9,
        "b": b"file to directory" * 9,
        "l": File(b"a file now" * 5, 0o600),
        "m": Link("mode"),
        "mode": File(b"mode only", 0o700),
        "2/lib": bytes(range(256)) * 39 + b"changed and moved",
        "swap1": b"two" * 50,
        "swap2": b"one" * 50,
        "shrunk": b"",
        "twin1": b"both new" * 30,
        "twin2": File(b"both new" * 30, 0o755),
        "empty-dir": None,
    }
    old, new = (
        write_tree(tmp_path / "old", old_contents),
        write_tree(tmp_path / "new", new_contents),
    )
    report = publish.build(old, new, RELEASE, [key()], tmp_path / "u.bsi")
    actions = {a.path: a for a in report.manifest.actions}
    assert (actions["2/lib"].do, actions["2/lib"].source) == ("patch", "1/lib")
    assert actions["twin1"].payload == actions["twin2"].payload
    assert actions["mode"].do == "chmod"
    with Package.open(tmp_path / "u.bsi", verifier()) as opened:
        assert walk(rebuilt(opened, old, tmp_path / "result")) == walk(new)


@needs_core
def test_progress_never_goes_back(
    trees: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Looked at all the time, so that the shares of running files count too.
    monkeypatch.setattr(sys.modules["bsipatch.parallel"], "TICK", 0.0005)
    seen: list[tuple[str, int, int]] = []
    publish.build(
        *trees, RELEASE, [key()], tmp_path / "u.bsi", progress=lambda *step: seen.append(step)
    )
    for phase in ("walk", "diff", "verify"):
        steps = [(done, total) for name, done, total in seen if name == phase]
        done = [step[0] for step in steps]
        if phase != "walk":  # two trees, one after the other
            assert done == sorted(done)
            assert steps[-1][0] == steps[-1][1]


@needs_core
def test_stacking_takes_the_baseline_as_well(trees: tuple[Path, Path], tmp_path: Path) -> None:
    stacked = parse_release(
        {"product": "D", "version": "1", "letter": "b", "build": "2", "stacks_on": {"letter": "a"}}
    )
    baseline = write_tree(tmp_path / "baseline", {"x": b"1"})
    with pytest.raises(UsageError):
        publish.build(*trees, stacked, [key()], tmp_path / "u.bsi")
    with pytest.raises(UsageError):
        publish.build(*trees, RELEASE, [key()], tmp_path / "u.bsi", baseline=baseline)
    report = publish.build(*trees, stacked, [key()], tmp_path / "u.bsi", baseline=baseline)
    assert report.manifest.baseline.digest == walk(baseline).digest
    assert report.manifest.stacks_on is not None
    assert report.manifest.stacks_on.digest == walk(trees[0]).digest == report.manifest.old_digest


@needs_core
def test_a_failed_or_stopped_build_leaves_nothing(trees: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = trees
    out = tmp_path / "out"
    out.mkdir()
    (out / "update.bsi").write_bytes(b"the one before")

    def left() -> None:
        assert os.listdir(out) == ["update.bsi"]
        assert (out / "update.bsi").read_bytes() == b"the one before"

    with pytest.raises(SignatureError):
        publish.build(old, new, RELEASE, [], out / "update.bsi")
    left()
    with pytest.raises(PublishError):
        publish.build(old, old, RELEASE, [key()], out / "update.bsi")
    left()
    with pytest.raises(UsageError):
        publish.build(old, new, RELEASE, [key()], out / "update.bsi", profile="tiny")
    left()
    for stop_at in ("walk", "diff", "verify"):

        def stop(phase: str, done: int, total: int, at: str = stop_at) -> None:
            if phase == at:
                raise CancelledError

        with pytest.raises(CancelledError):
            publish.build(old, new, RELEASE, [key()], out / "update.bsi", progress=stop)
        left()


@needs_core
@pytest.mark.parametrize("which", [0, 1])
def test_a_tree_that_changes_meanwhile_is_noticed(
    trees: tuple[Path, Path], tmp_path: Path, which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = delta.diff

    def meddle(*args: Any, **kwargs: Any) -> Any:
        (trees[which] / "Versions/A/Demo").write_bytes(b"other bytes")
        return real(*args, **kwargs)

    monkeypatch.setattr(delta, "diff", meddle)
    with pytest.raises(TreeDriftError):
        publish.build(*trees, RELEASE, [key()], tmp_path / "u.bsi", jobs=1)
    assert not (tmp_path / "u.bsi").exists()


@needs_core
def test_the_update_is_also_readable_as_a_stream(trees: tuple[Path, Path], tmp_path: Path) -> None:
    publish.build(*trees, RELEASE, [key()], tmp_path / "u.bsi")
    data = io.BytesIO((tmp_path / "u.bsi").read_bytes())
    with Package.open(data, verifier()) as opened:
        assert walk(rebuilt(opened, trees[0], tmp_path / "result")) == walk(trees[1])
        opened.finish()
