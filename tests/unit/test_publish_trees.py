"""Whole trees: what was renamed, moved, copied or divided costs what really changed."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bsipatch import delta, publish
from bsipatch.errors import MemoryLimitError, UsageError
from bsipatch.limits import DEFAULT, GIB, MIB
from bsipatch.manifest import Payload
from bsipatch.package import Package
from bsipatch.publish import payloads
from bsipatch.publish.build import BuildReport
from bsipatch.publish.plan import plan
from bsipatch.publish.release import Release
from bsipatch.publish.similarity import Finder
from bsipatch.store.stage import patch_budget
from bsipatch.tree import walk
from tests.support.rebuild import rebuilt
from tests.support.trees import Content, File, write_tree
from tests.support.updates import key, verifier

RELEASE = Release(
    product="Demo", version="26.3.1", letter="a", build="25D771280a", created=1_773_700_000
)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def changed(data: bytes, seed: int = 5) -> bytes:
    """A few bytes put in, a few others."""
    draw = random.Random(seed)
    made = bytearray(data)
    for _ in range(5):
        made[draw.randrange(len(made))] ^= 0x55
    at = draw.randrange(len(made))
    return bytes(made[:at] + draw.randbytes(7) + made[at:])


def built(
    tmp_path: Path, old: dict[str, Content], new: dict[str, Content], **options: Any
) -> BuildReport:
    """Builds the update, reads it back and applies it."""
    roots = write_tree(tmp_path / "old", old), write_tree(tmp_path / "new", new)
    options = {"profile": "fast", "jobs": 2, **options}
    report = publish.build(*roots, RELEASE, [key()], tmp_path / "u.bsi", **options)
    with Package.open(tmp_path / "u.bsi", verifier()) as opened:
        assert walk(rebuilt(opened, roots[0], tmp_path / "result")) == walk(roots[1])
    return report


def deeds(report: BuildReport) -> dict[str, tuple[str, str | None]]:
    return {a.path: (a.do, a.source) for a in report.manifest.actions if a.do != "keep"}


# --- renamed, moved, divided ----------------------------------------------------------------------


def test_a_renamed_and_changed_framework_is_patched_from_its_old_name(tmp_path: Path) -> None:
    parts = {name: noise(40_000 + 999 * i, i) for i, name in enumerate("abc")}
    old: dict[str, Content] = {f"Old.framework/Versions/A/{n}": d for n, d in parts.items()}
    new: dict[str, Content] = {
        f"Renewed.framework/Versions/B/New{n.upper()}": changed(d) for n, d in parts.items()
    }
    report = built(tmp_path, old, new)
    for name in "abc":
        assert deeds(report)[f"Renewed.framework/Versions/B/New{name.upper()}"] == (
            "patch",
            f"Old.framework/Versions/A/{name}",
        )
    assert report.size < 5000


def test_moved_files_cost_a_line(tmp_path: Path) -> None:
    data = {name: noise(30_000, seed) for seed, name in enumerate(("x", "y"))}
    report = built(
        tmp_path, {f"a/{n}": d for n, d in data.items()}, {f"b/c/{n}2": d for n, d in data.items()}
    )
    assert deeds(report)["b/c/x2"] == ("clone", "a/x")
    assert deeds(report)["b/c/y2"] == ("clone", "a/y")
    assert report.files == ()


def test_identical_new_files_share_one_payload_whatever_their_modes(tmp_path: Path) -> None:
    fresh = noise(20_000)
    report = built(
        tmp_path,
        {"keep": b"1"},
        {"keep": b"1", "a/f": fresh, "b/f": File(fresh, 0o755), "c": fresh, "d": fresh[1:]},
    )
    assert {f.paths for f in report.files} == {("a/f", "b/f", "c"), ("d",)}
    by_path = {action.path: action.payload for action in report.manifest.actions}
    assert by_path["a/f"] == by_path["b/f"] == by_path["c"] != by_path["d"]


def test_identical_changed_files_share_one_patch(tmp_path: Path) -> None:
    one, other = noise(30_000, 1), noise(30_000, 2)
    fresh = changed(one)
    # Both paths get the same bytes, though only the first resembles them.
    report = built(tmp_path, {"a": one, "b": other}, {"a": fresh, "b": fresh})
    assert len(report.files) == 1
    assert (report.files[0].paths, report.files[0].source) == (("a", "b"), "a")
    assert report.files[0].payload_size < 300


def test_a_copy_that_was_changed_comes_from_the_original(tmp_path: Path) -> None:
    one = noise(30_000)
    report = built(tmp_path, {"a": one}, {"a": one, "other": changed(one)})
    assert deeds(report)["other"] == ("patch", "a")


def test_a_file_divided_in_two_is_patched_from_the_whole(tmp_path: Path) -> None:
    whole = noise(90_000)
    report = built(
        tmp_path,
        {"whole.dylib": whole},
        {"core.dylib": changed(whole[:50_000]), "rest.dylib": changed(whole[50_000:])},
    )
    assert deeds(report)["core.dylib"] == ("patch", "whole.dylib")
    assert deeds(report)["rest.dylib"] == ("patch", "whole.dylib")
    assert report.size < 5000


def test_two_files_made_one_are_patched_from_the_larger(tmp_path: Path) -> None:
    one, other = noise(70_000, 1), noise(30_000, 2)
    report = built(tmp_path, {"one": one, "other": other}, {"both": changed(one + other)})
    assert deeds(report)["both"] == ("patch", "one")


def test_content_that_changed_places_is_found_behind_the_same_names(tmp_path: Path) -> None:
    one, other = noise(30_000, 1), noise(30_000, 2)
    report = built(tmp_path, {"a": one, "b": other}, {"a": changed(other), "b": changed(one)})
    assert deeds(report) == {"a": ("patch", "b"), "b": ("patch", "a")}
    assert report.size < 4000


def test_a_file_that_became_a_directory_can_still_be_a_source(tmp_path: Path) -> None:
    data = noise(30_000)
    report = built(tmp_path, {"lib": data}, {"lib/A": changed(data)})
    assert deeds(report)["lib/A"] == ("patch", "lib")


def test_of_two_likely_sources_the_smaller_payload_wins(tmp_path: Path) -> None:
    whole = noise(60_000)
    near, nearer = bytearray(whole), bytearray(whole)
    for at in range(0, 60_000, 600):
        near[at] ^= 1
    nearer[5] ^= 1
    tried = len(
        plan_of(tmp_path, {"1": bytes(near), "2": bytes(nearer)}, {"x": whole}).jobs[0].sources
    )
    assert tried == 2
    report = built(tmp_path / "b", {"1": bytes(near), "2": bytes(nearer)}, {"x": whole})
    assert deeds(report)["x"] == ("patch", "2")
    assert report.files[0].payload_size < 100


def test_a_file_like_no_other_is_sent_whole(tmp_path: Path) -> None:
    report = built(tmp_path, {"a": noise(9000, 1)}, {"b": noise(9000, 2)})
    assert deeds(report)["b"] == ("add", None)


# --- plans ----------------------------------------------------------------------------------------


def plan_of(tmp_path: Path, old: dict[str, Content], new: dict[str, Content]) -> Any:
    roots = write_tree(tmp_path / "po", old), write_tree(tmp_path / "pn", new)
    return plan(walk(roots[0]), walk(roots[1]), Finder(*roots))


def sources(tmp_path: Path, old: dict[str, Content], new: dict[str, Content]) -> dict[str, Any]:
    jobs = plan_of(tmp_path, old, new).jobs
    return {job.paths[0]: [source.path for source in job.sources] for job in jobs}


def test_a_file_that_resembles_itself_is_not_looked_for_elsewhere(tmp_path: Path) -> None:
    data = noise(30_000)
    old: dict[str, Content] = {"a": data, "better": changed(data, 2)}
    assert sources(tmp_path, old, {"a": changed(data, 2) + b"x"}) == {"a": ["a"]}


def test_a_path_stays_a_base_beside_what_the_content_says(tmp_path: Path) -> None:
    one, other = noise(30_000, 1), noise(30_000, 2)
    assert sources(tmp_path, {"a": one, "b": other}, {"a": changed(other)}) == {"a": ["b", "a"]}


def test_a_name_gives_way_to_content(tmp_path: Path) -> None:
    data = noise(30_000)
    old: dict[str, Content] = {"lib.1.so": noise(30_000, 4), "program": data}
    assert sources(tmp_path, old, {"lib.2.so": changed(data)}) == {"lib.2.so": ["program"]}
    # Where content says nothing the name does.
    assert sources(tmp_path / "x", {"lib.1.so": noise(30_000, 4)}, {"lib.2.so": noise(30_000)}) == {
        "lib.2.so": ["lib.1.so"]
    }


def test_a_path_that_is_gone_goes_before_one_that_stays(tmp_path: Path) -> None:
    data = noise(30_000)
    old: dict[str, Content] = {"a": data, "z": data + b"1"}
    assert sources(tmp_path, old, {"a": data, "n": data + b"2"})["n"][0] == "z"


# --- memory and order -----------------------------------------------------------------------------


def mixed(new: bool) -> dict[str, Content]:
    found: dict[str, Content] = {}
    for seed in range(12):
        data = noise(2000 << (seed % 6), seed)
        found[f"{'n' if new and seed % 2 else 'o'}{seed}"] = changed(data) if new else data
    return found


def test_jobs_and_memory_beyond_need_never_change_the_update(tmp_path: Path) -> None:
    made = set()
    for number, (jobs, memory) in enumerate(((1, 0), (4, 0), (4, 32 * MIB), (2, GIB))):
        built(tmp_path / str(number), mixed(False), mixed(True), jobs=jobs, memory=memory)
        made.add((tmp_path / str(number) / "u.bsi").read_bytes())
    assert len(made) == 1


def test_what_a_budget_did_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = delta.diff
    budgets = []

    def diff(*args: Any, **named: Any) -> Any:
        budgets.append(named["memory_budget"])
        made = real(*args, **{**named, "profile": "fast", "raw": True})
        return replace(made, short_of_memory=True)

    monkeypatch.setattr(delta, "diff", diff)
    data = noise(30_000)
    report = built(tmp_path, {"a": data}, {"a": changed(data)}, profile="max", memory=64 * MIB)
    assert report.files[0].way == "fast, raw"
    assert 32 * MIB <= budgets[0] <= 64 * MIB


def test_a_patch_that_does_not_fit_gives_way_to_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diff(*args: Any, **named: Any) -> Any:
        raise MemoryLimitError("x")

    monkeypatch.setattr(delta, "diff", diff)
    data = noise(30_000)
    report = built(tmp_path, {"a": data}, {"a": changed(data)}, memory=64 * MIB)
    assert report.files[0].kind == "plain"
    with pytest.raises(MemoryLimitError):
        built(tmp_path / "x", {"a": data}, {"a": changed(data)})


@pytest.mark.parametrize("limit", [{"max_plain": 20_000}, {"memory_budget": 512 * 1024}])
def test_a_patch_that_devices_would_refuse_gives_way_to_the_whole_file(
    limit: dict[str, int], tmp_path: Path
) -> None:
    shared = noise(30_000)
    old: dict[str, Content] = {"a": shared}
    new: dict[str, Content] = {"a": shared + noise(30_000, 2)}
    assert built(tmp_path / "1", old, new).files[0].kind == "patch"
    report = built(tmp_path / "2", old, new, limits=DEFAULT.but(**limit))
    assert report.files[0].kind == "plain"


@pytest.mark.parametrize(
    ("size", "memory", "level"),
    [(MIB, 0, 22), (MIB, 64 * MIB, 22), (40 * MIB, 128 * MIB, 17), (40 * MIB, 32 * MIB, None)],
)
def test_whole_files_are_compressed_within_the_budget(
    size: int, memory: int, level: int | None
) -> None:
    assert payloads._affordable(22, size, memory) == level


def test_too_small_a_budget_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="memory"):
        built(tmp_path, {"a": b"1"}, {"a": b"2"}, memory=MIB)


# --- what the manifest says of memory ---


def laborious(folder: Path) -> tuple[Path, Path]:
    """Two trees of a file whose patch has several streams that are read at the same time."""
    draw = random.Random(1)
    old = draw.randbytes(100_000)
    new = bytearray(old)
    for at in range(0, len(new), 32):  # pieces that go on matching, with a wrong byte in each
        new[at] = (new[at] + draw.randrange(1, 3)) % 256
    literals = bytes(draw.choices(b"etaoin", k=20_000))
    return (
        write_tree(folder / "old", {"file": old}),
        write_tree(folder / "new", {"file": bytes(new[:50_000]) + literals + bytes(new[50_000:])}),
    )


@pytest.mark.parametrize("profile", ["balanced", "max"])
def test_the_memory_of_a_patch_is_no_matter_of_how_threads_take_turns(
    tmp_path: Path, profile: str
) -> None:
    old, new = (root / "file" for root in laborious(tmp_path))
    patch = tmp_path / "patch"
    peaks = [
        delta.diff(old, new, patch, profile=profile, jobs=jobs).peak_memory
        for jobs in (1, 2, 4) * 3
    ]
    assert len(set(peaks)) == 1
    # so that threads have something to take turns at
    assert {"model-own"} == {stream.codec for stream in delta.inspect(patch).streams}


def test_the_same_trees_give_the_same_update_whatever_the_jobs(tmp_path: Path) -> None:
    roots, update = laborious(tmp_path), tmp_path / "u.bsi"
    made = set()
    for jobs in (1, 2, 4) * 4:
        publish.build(*roots, RELEASE, [key()], update, profile="balanced", jobs=jobs)
        made.add(update.read_bytes())
    assert len(made) == 1


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_what_the_manifest_says_suffices_for_any_number_of_threads(
    tmp_path: Path, jobs: int
) -> None:
    old, new = (root / "file" for root in laborious(tmp_path))
    patch = tmp_path / "patch"
    made = delta.diff(old, new, patch, profile="balanced")
    payload = Payload(
        kind="patch",
        offset=0,
        length=made.patch_size,
        sha256="",
        size=made.new_size,
        decoded=made.plain_bytes,
        memory=made.peak_memory,
    )
    scarce = DEFAULT.but(thread_memory=MIB // 4)
    limits = scarce.but(memory_budget=patch_budget(payload, jobs, scarce))
    for _ in range(8):
        delta.patch(old, patch, tmp_path / "out", jobs=jobs, limits=limits)
    below = limits.but(memory_budget=made.peak_memory - 1)
    with pytest.raises(MemoryLimitError):
        delta.patch(old, patch, tmp_path / "out", jobs=jobs, limits=below)
