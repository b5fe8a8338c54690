"""The bench's engine: costs of commands, contenders, one tiny pair from end to end."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from pathlib import Path

import pytest

from bsipatch.bench import contenders, machine, measure, pairs, results
from bsipatch.bench.contenders import CONTENDERS, Contender, select
from bsipatch.bench.measure import Cost, RunError
from bsipatch.cli import main
from bsipatch.errors import CorruptError, MagicError, NotFoundError, VersionError

LINUX = sys.platform == "linux"


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


# --- measure ---


def test_a_command_s_time_memory_and_output() -> None:
    code = "import time; kept = bytearray(b'x') * (64 << 20); time.sleep(.2); print(len(kept))"
    cost, printed = measure.run(python(code))
    assert printed == f"{64 << 20}\n"
    assert cost.seconds >= 0.2
    assert cost.cpu > 0
    assert cost.rss > 64 << 20
    if LINUX:
        assert cost.private is not None
        assert 64 << 20 < cost.private < 160 << 20


@pytest.mark.skipif(not LINUX, reason="needs /proc")
def test_mapped_files_are_not_private_memory(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(48 << 20))
    code = (
        "import mmap, sys, time; f = open(sys.argv[1], 'rb');"
        "m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ); sum(m[::4096]); time.sleep(.1)"
    )
    cost, _ = measure.run((*python(code), str(path)))
    assert cost.private is not None
    assert cost.private < 32 << 20


@pytest.mark.skipif(not LINUX, reason="needs /proc")
def test_children_count() -> None:
    inner = "kept = bytearray(b'x') * (48 << 20); import time; time.sleep(.2)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    cost, _ = measure.run(python(code))
    assert cost.private is not None
    assert cost.private > 48 << 20


@pytest.mark.skipif(not LINUX, reason="needs /proc")
def test_bytes_written(tmp_path: Path) -> None:
    code = "import os, sys; f = open(sys.argv[1], 'wb'); f.write(bytes(8 << 20)); f.flush()"
    cost, _ = measure.run((*python(code), str(tmp_path / "out")))
    assert cost.written is not None  # 0 on a file system in memory
    assert cost.written == 0 or 8 << 20 <= cost.written < 9 << 20


def test_failures_say_why() -> None:
    with pytest.raises(RunError, match=r"exit code 3: last words"):
        measure.run(python("import sys; print('last words', file=sys.stderr); sys.exit(3)"))
    with pytest.raises(RunError, match="cannot be run"):
        measure.run(("/nonexistent/program",))


def test_what_takes_too_long_is_ended_with_its_children() -> None:
    inner = "import time; time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    began = time.monotonic()
    with pytest.raises(RunError, match="longer than"):
        measure.run(python(code), timeout=0.5)
    assert time.monotonic() - began < 20


def test_costs_add_up() -> None:
    one = Cost(1.0, 0.5, 0.25, 100, 200, 10, 1, 2)
    two = Cost(2.0, 1.0, 0.0, 50, 300, 20, 3, 4)
    assert measure.total([one, two]) == Cost(3.0, 1.5, 0.25, 100, 300, 30, 4, 6)
    blind = Cost(2.0, 1.0, 0.0, None, 300, None, 3, 4)
    assert measure.total([one, blind]).private is None


# --- contenders ---


def test_names_select_contenders_and_families() -> None:
    assert [one.name for one in select(["bsipatch"])] == [
        "bsipatch-fast",
        "bsipatch-balanced",
        "bsipatch-max",
    ]
    assert select(None) == CONTENDERS
    with pytest.raises(KeyError):
        select(["nobody"])


def test_names_are_unique_and_commands_name_the_files(tmp_path: Path) -> None:
    assert len({one.name for one in CONTENDERS}) == len(CONTENDERS)
    old, new, patch = (tmp_path / name for name in ("old", "new", "patch"))
    old.write_bytes(b"x")
    for one in CONTENDERS:
        made = " ".join(word for step in one.make(old, new, patch, 2) for word in step)
        applied = " ".join(word for step in one.apply(old, patch, new, 2) for word in step)
        assert str(new) in made
        assert str(patch) in made
        assert str(new) in applied
        assert str(patch) in applied


def test_the_missing_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("BSIPATCH_BENCH_PATH", raising=False)
    (hdiffz,) = select(["hdiffz"])
    assert "hdiffz and hpatchz not on the PATH" in hdiffz.missing()
    for name in ("hdiffz", "hpatchz"):
        (tmp_path / name).write_text("#!/bin/sh\necho HDiffPatch::hdiffz v9\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setenv("BSIPATCH_BENCH_PATH", str(tmp_path))
    assert hdiffz.missing() == ""
    assert hdiffz.version() == "HDiffPatch::hdiffz v9"


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_version_is_found_below_a_usage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BSIPATCH_BENCH_PATH", str(tmp_path))
    (zucchini,) = select(["zucchini"])
    program(
        tmp_path, "zucchini", 'printf "One of:\\n  [-gen, -crc32]\\nVersion: 1.0\\n" >&2; exit 1'
    )
    assert zucchini.version() == "Version: 1.0"
    program(tmp_path, "zucchini", "exit 1")
    assert zucchini.version() == "unknown"


@pytest.mark.skipif(shutil.which("xz") is None, reason="needs xz")
def test_zucchini_s_patch_is_compressed_and_nothing_is_left_between(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, blank: results.Results
) -> None:
    """A program with its command line, whose patch is the new file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    fail = 'echo "no $1" >&2; exit 5'
    script = f'case "$1" in -gen|-apply) cp "$3" "$4";; *) {fail};; esac'
    program(folder, "zucchini", f"sleep 0.05; {script}")
    monkeypatch.setenv("BSIPATCH_BENCH_PATH", str(folder))
    old, new = tmp_path / "an old.bin", tmp_path / "new.bin"
    old.write_bytes(b"old")
    new.write_bytes(bytes(40_000))
    work = tmp_path / "a folder"
    work.mkdir()
    plan = pairs.Plan(repeat=1, work=work, tasks=("diff", "apply"))
    pair = pairs.describe(old, new, kind="elf")
    pairs.run_pair(pair, old, new, select(["zucchini"]), plan, blank)
    assert blank.skipped == []
    diff, apply = blank.runs
    assert diff.size is not None
    assert diff.size < 1000
    assert apply.size == 40_000
    assert list(work.iterdir()) == []
    if LINUX:
        assert diff.private is not None
        assert apply.private is not None
    program(folder, "zucchini", fail)
    again = pairs.describe(old, new, name="again", kind="elf")
    pairs.run_pair(again, old, new, select(["zucchini"]), plan, blank)
    assert [skip.reason for skip in blank.skipped] == ["failed: diff: exit code 5: no -gen"]


def test_bounds_are_stated() -> None:
    (bsdiff,) = select(["bsdiff"])
    assert bsdiff.declined(1, 1, "elf") == ""
    assert "MiB together" in bsdiff.declined(bsdiff.largest, 1, "elf")
    (zucchini,) = select(["zucchini"])
    assert "kind" in zucchini.declined(1, 1, "macho")


# --- pairs ---


def files(folder: Path) -> tuple[Path, Path]:
    draw = random.Random(3)
    data = bytearray(draw.randbytes(40_000))
    old, new = folder / "old.bin", folder / "new.bin"
    old.write_bytes(data)
    data[500:500] = b"an insertion"
    data[30_000:30_010] = bytes(10)
    new.write_bytes(data)
    return old, new


def fake(name: str, apply: str) -> Contender:
    """A contender whose patch is the new file."""

    def make(old: Path, new: Path, patch: Path, jobs: int) -> contenders.Steps:
        return (("cp", str(new), str(patch)),)

    def run(old: Path, patch: Path, out: Path, jobs: int) -> contenders.Steps:
        return (("sh", "-c", apply, "sh", str(patch), str(out)),)

    return Contender(name=name, label=name, make=make, apply=run)


@pytest.fixture
def blank(tmp_path: Path) -> results.Results:
    return machine.begin((), tmp_path)


def test_a_wrong_result_is_a_failure(tmp_path: Path, blank: results.Results) -> None:
    old, new = files(tmp_path)
    good, bad = fake("good", 'cp "$1" "$2"'), fake("bad", 'tr a b < "$1" > "$2"')
    plan = pairs.Plan(repeat=2, work=tmp_path, tasks=("diff", "apply"))
    pairs.run_pair(pairs.describe(old, new), old, new, [good, bad], plan, blank)
    assert [skip.contender for skip in blank.skipped] == ["bad"]
    assert "another file" in blank.skipped[0].reason
    assert len(blank.select("apply", "new.bin", "good")) == 2
    assert not blank.select("apply", "new.bin", "bad")
    assert {path.name for path in tmp_path.iterdir()} == {"old.bin", "new.bin"}


def test_a_spent_budget_ends_diffs_but_not_applies(tmp_path: Path, blank: results.Results) -> None:
    old, new = files(tmp_path)
    plan = pairs.Plan(repeat=3, work=tmp_path, budget=0.0, tasks=("diff", "apply"))
    pairs.run_pair(pairs.describe(old, new), old, new, [fake("one", 'cp "$1" "$2"')], plan, blank)
    assert len(blank.select("diff", "new.bin")) == 1
    assert len(blank.select("apply", "new.bin")) == 3


def test_a_pair_that_is_there_is_not_measured_again(tmp_path: Path, blank: results.Results) -> None:
    old, new = files(tmp_path)
    kept: list[int] = []
    plan = pairs.Plan(repeat=1, work=tmp_path, tasks=("diff",), keep=lambda: kept.append(1))
    one = fake("one", 'cp "$1" "$2"')
    for _ in range(2):
        pairs.run_pair(pairs.describe(old, new), old, new, [one], plan, blank)
    assert len(blank.runs) == len(blank.pairs) == len(kept) == 1


def test_a_tiny_pair_from_end_to_end(tmp_path: Path) -> None:
    old, new = files(tmp_path)
    chosen = tuple(one for one in CONTENDERS if (one.ours or one.module) and not one.missing())
    made = machine.begin(chosen, tmp_path)
    plan = pairs.Plan(repeat=1, work=tmp_path)
    pairs.run_pair(pairs.describe(old, new), old, new, chosen, plan, made)
    assert made.skipped == []
    for one in chosen:
        (diff,) = made.select("diff", "new.bin", one.name)
        (apply,) = made.select("apply", "new.bin", one.name)
        assert diff.size
        assert diff.size < 45_000
        assert apply.size == new.stat().st_size
        assert apply.durable >= apply.seconds
    assert {run.contender for run in made.select("limit", "new.bin")} == {
        "fused",
        "shared",
        "apart",
        "direct",
    }
    path = tmp_path / "results.json"
    made.save(path)
    assert results.load(path) == made


def test_sniffing(tmp_path: Path) -> None:
    for head, kind in ((b"\x7fELF", "elf"), (b"MZ\0\0", "pe"), (b"", "resource")):
        (tmp_path / "file").write_bytes(head)
        assert pairs.sniff(tmp_path / "file") == kind
    with pytest.raises(NotFoundError):
        pairs.describe(tmp_path / "none", tmp_path / "file")


def test_same(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"a" * 3)
    for other, equal in ((b"a" * 3, True), (b"aab", False), (b"aa", False)):
        two.write_bytes(other)
        assert pairs.same(one, two) is equal


# --- results ---


def test_foreign_results_are_refused(tmp_path: Path, blank: results.Results) -> None:
    path = tmp_path / "results.json"
    for text, error in (
        ("{}", MagicError),
        ("[]", MagicError),
        ("not json", CorruptError),
        ('{"format": "bsipatch-bench", "version": 99}', VersionError),
        ('{"format": "bsipatch-bench", "version": 1}', CorruptError),
    ):
        path.write_text(text)
        with pytest.raises(error):
            results.load(path)
    with pytest.raises(NotFoundError):
        results.load(tmp_path / "none")


def test_statistics() -> None:
    assert results.median([3.0, None, 1.0]) == 2.0
    assert results.median([None]) is None
    assert results.spread([3.0, None, 1.0]) == (1.0, 3.0)
    assert results.geometric_mean([1.0, 4.0]) == pytest.approx(2.0)


# --- the command ---


def test_the_command_measures_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = files(tmp_path)
    out, page = tmp_path / "r.json", tmp_path / "r.html"
    with pytest.raises(SystemExit) as ended:
        main(
            ["bench", str(old), str(new), "--only", "bsipatch-fast", "-o", str(out), "--html",
             str(page), "--work", str(tmp_path)]
        )  # fmt: skip
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "bsipatch fast" in printed
    assert "The machine's limit" in printed
    assert page.read_text().startswith("<!doctype html>")
    again = tmp_path / "again.html"
    with pytest.raises(SystemExit) as ended:
        main(["bench", "report", str(out), "-o", str(again)])
    assert ended.value.code == 0
    assert again.read_text() == page.read_text()


def test_the_command_knows_its_contenders(tmp_path: Path) -> None:
    old, new = files(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["bench", str(old), str(new), "--only", "nobody"])
    assert ended.value.code == 2
