"""The store on a file system that keeps no more than it must, and bugs planted into its syncs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import identity, machine, model, modelled, planted
from .accepted import ACCEPTED
from .kit import Kit, make_kit
from .scenarios import SCENARIOS


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with machine.memory_folder() as made:
        yield made


@pytest.fixture(scope="module")
def kit(folder: Path) -> Kit:
    return make_kit(folder / "kit")


@pytest.mark.parametrize("name", [s.name for s in SCENARIOS.values() if s.modelled])
def test_whole_in_every_state(name: str, kit: Kit, folder: Path) -> None:
    found = modelled.run(kit, SCENARIOS[name], folder, budget=30)
    assert not found.failed
    assert not found.broke
    assert found.states > 5


def test_a_rename_between_folders_is_one_step_in_both(folder: Path) -> None:
    place = folder / "couples"
    for name in ("one", "two", "three"):
        (place / name).mkdir(parents=True)
    (place / "one/file").write_bytes(b"x")
    with model.Tracer(place) as tracer:
        os.rename(place / "one/file", place / "two/file")
        os.rename(place / "two/file", place / "three/file")
        fd = os.open(place / "two", os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    seen: dict[int, set[str]] = {}
    for moment, state in model.pick(tracer.moments, seed=1):
        top = state[tracer.root]
        assert isinstance(top, dict)
        there = [name for name in ("one", "two", "three") if "file" in (state[top[name]] or ())]
        assert len(there) == 1
        seen.setdefault(moment, set()).update(there)
    assert seen[len(tracer.moments) - 3] == {"one", "two", "three"}
    assert seen[len(tracer.moments) - 1] == {"three"}  # a sync of the one in the middle


def test_an_attribute_lasts_with_its_folder(folder: Path) -> None:
    place = folder / "attributes"
    (place / "one").mkdir(parents=True)
    try:
        os.setxattr(place / "one", "user.before", b"\0b")
    except OSError:
        pytest.skip("NOT TESTED: no extended attributes here")
    with model.Tracer(place) as tracer:
        os.setxattr(place / "one", "user.after", b"a")
        changed = len(tracer.moments)
        fd = os.open(place / "one", os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    found: dict[int, set[tuple[str, ...]]] = {}
    for moment, state in model.pick(tracer.moments, seed=1):
        model.clear(place)
        model.lay_out(state, tracer.root, place)
        assert os.getxattr(place / "one", "user.before") == b"\0b"
        found.setdefault(moment, set()).add(tuple(sorted(os.listxattr(place / "one"))))
    assert found[changed - 1] == {("user.before",), ("user.after", "user.before")}
    assert found[len(tracer.moments) - 1] == {("user.after", "user.before")}


@pytest.mark.parametrize("operation", ["boot-begin", "revert"])
def test_every_planted_bug_is_noticed(operation: str, kit: Kit, folder: Path) -> None:
    hunter = planted.OnModel(kit, folder, seed=1)
    bugs = planted.groups(hunter.calls(SCENARIOS[operation]))
    found = list(hunter.hunt_all(SCENARIOS[operation], bugs))
    assert len(found) == len(bugs)
    assert [str(noticed.bug) for noticed in found if not noticed.how] == []


def test_the_list_of_what_may_be_missed_goes_out_of_date_aloud() -> None:
    known = next(iter(ACCEPTED))
    rows = [
        {"operation": "apply", "bug": known, "noticed": {"model": "a torn tree"}},
        {"operation": "revert", "bug": known, "noticed": {}},
        {"operation": "apply", "bug": "another", "noticed": {}},
    ]
    assert planted.judged(rows) == {"missed": ["another"], "stale": [known], "covered": []}
    assert planted.judged(rows[1:2]) == {"missed": [], "stale": [], "covered": [known]}


def test_the_documentation_names_all_that_may_be_missed() -> None:
    page = (Path(__file__).parents[2] / "docs/testing-crashes.md").read_text()
    assert [bug for bug in ACCEPTED if bug not in page] == []


def test_a_copy_of_a_btrfs_gets_an_identity_of_its_own(folder: Path) -> None:
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("NOT TESTED: mkfs.btrfs is not installed")
    image = folder / "image"
    machine.make_file_system(machine.KINDS["btrfs"], image)

    def field(name: str) -> str:
        told = subprocess.run(
            ["btrfs", "inspect-internal", "dump-super", str(image)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        return next(line.split(None, 1)[1] for line in told.splitlines() if line.startswith(name))

    old = field("fsid").strip()
    for byte in (1, 2):
        with image.open("r+b") as file:
            assert identity.rename_btrfs(file.fileno(), bytes([byte]) * 16) == 2
        assert field("fsid").strip() == f"{byte:02x}" * 4 + f"-{byte:02x}{byte:02x}" * 3 + "-" + (
            f"{byte:02x}" * 6
        )
        assert field("metadata_uuid").strip() == old
        assert "[match]" in field("csum\t")
    with image.open("r+b") as file:  # what is damaged stays so
        os.pwrite(file.fileno(), b"x", (64 << 10) + 3000)
        assert identity.rename_btrfs(file.fileno(), bytes(16)) == 1
