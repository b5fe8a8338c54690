"""The journey on real file systems: what each can share, and that the store finds it out."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bsipatch.tree import walk

from .journey import Journey, prepare, run, told

pytestmark = pytest.mark.root

#: file system -> (how to make one, what the store should choose)
KINDS = {
    "ext4": (["mkfs.ext4", "-q", "-F"], "hardlink"),
    "btrfs": (["mkfs.btrfs", "-q", "-f"], "snapshot"),
    "xfs": (["mkfs.xfs", "-q", "-f", "-m", "reflink=1"], "reflink"),
    "overlay": (["mkfs.xfs", "-q", "-f", "-m", "reflink=1"], "reflink"),
    "tmpfs": ([], "hardlink"),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    return prepare(tmp_path_factory.mktemp("file-systems"))


@pytest.fixture(params=KINDS)
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    kind: str = request.param
    make, _ = KINDS[kind]
    below = "xfs" if kind == "overlay" else kind  # what a container's file system lies on
    place = tmp_path / "mount"
    place.mkdir()
    if make:
        if shutil.which(make[0]) is None:
            pytest.skip(f"{make[0]} is not installed")
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(400 << 20)
        subprocess.run([*make, str(image)], check=True, capture_output=True)
        mount = ["mount", "-t", below, "-o", "loop", str(image), str(place)]
    else:
        mount = ["mount", "-t", kind, kind, str(place)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount {kind} here: {done.stderr.strip()}")
    try:
        if kind == "overlay":
            with _overlaid(place) as merged:
                yield kind, merged
        else:
            yield kind, place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextmanager
def _overlaid(place: Path) -> Iterator[Path]:
    """An overlay whose layers all lie in `place`."""
    layers = {name: place / name for name in ("lower", "upper", "work", "merged")}
    for path in layers.values():
        path.mkdir()
    options = ",".join(f"{name}dir={layers[name]}" for name in ("lower", "upper", "work"))
    merged = str(layers["merged"])
    mount = ["mount", "-t", "overlay", "-o", options, "overlay", merged]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount an overlay here: {done.stderr.strip()}")
    try:
        yield layers["merged"]
    finally:
        subprocess.run(["umount", merged], check=True)


def test_the_whole_way_on(mounted: tuple[str, Path], prepared: Journey) -> None:
    kind, place = mounted
    for name in ("build0", "build1", "build2", "keys"):
        (place / name).symlink_to(prepared.folder / name)
    for letter in "ab":
        shutil.copy(prepared.update(letter), place)
    journey = Journey(place)
    assert journey.init()["strategy"] == KINDS[kind][1]
    assert journey.apply("a")["strategy"] == KINDS[kind][1]
    assert journey.live_build() == 1
    journey.apply("b")
    assert journey.live_build() == 2
    assert told("revert", "--store", journey.store, "--baseline")["generation"] == 0
    assert journey.live_build() == 0
    told("gc", "--store", journey.store)
    assert told("check-store", "--store", journey.store)["sound"]
    if KINDS[kind][1] == "hardlink":
        told("apply", journey.update("a"), "--store", place / "store", "--strategy", "reflink",
             code=62)  # fmt: skip


def test_a_baseline_from_another_file_system(mounted: tuple[str, Path], tmp_path: Path) -> None:
    _, place = mounted
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/file").write_bytes(os.urandom(100_000))
    run("keygen", tmp_path / "keys", "--no-passphrase")
    told(
        *("init", "--store", place / "other", "--baseline", tmp_path / "tree"),
        *("--product", "P", "--version", "1", "--build", "1"),
        *("--trust", tmp_path / "keys/public.pem"),
    )
    assert walk(place / "other/current/tree") == walk(tmp_path / "tree")


def _written(device: str) -> int:
    """Bytes that a block device has written so far."""
    fields = Path(f"/sys/block/{Path(device).name}/stat").read_text().split()
    return int(fields[6]) * 512


def test_ten_bytes_of_a_large_file_cost_some_blocks(
    mounted: tuple[str, Path], small_fix: Path
) -> None:
    kind, place = mounted
    if KINDS[kind][1] not in ("snapshot", "reflink"):
        pytest.skip(f"{kind} shares no blocks between files: the whole file is written there")
    store = place / "store"
    told(
        *("init", "--store", store, "--baseline", small_fix / "old", "--product", "Big"),
        *("--version", "1", "--build", "1", "--trust", small_fix / "keys/public.pem"),
    )
    os.sync()
    on_disk = place.parent if kind == "overlay" else place
    device = subprocess.run(
        ["findmnt", "-no", "SOURCE", str(on_disk)], check=True, capture_output=True, text=True
    ).stdout.strip()
    process, disk = resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock, _written(device)
    told("apply", small_fix / "fix.bsi", "--store", store)
    by_process = (resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock - process) * 512
    # the file system's own records included
    on_return = _written(device) - disk
    os.sync()
    in_the_end = _written(device) - disk
    assert (store / "current/tree/lib").read_bytes() == (small_fix / "new/lib").read_bytes()
    assert by_process < 1 << 20
    # btrfs writes each of its own records twice
    assert on_return < (5 << 18 if kind == "btrfs" else 1 << 20)
    assert in_the_end < 3 << 19
    disk_use = told("status", "--store", store, "--disk")["disk"]
    live = disk_use["generations"][-1]
    assert live["apparent"] == SMALL_FIX
    assert live["exclusive"] < 1 << 20
    assert live["shared"] > SMALL_FIX - (1 << 20)


SMALL_FIX = 24 << 20


@pytest.fixture(scope="module")
def small_fix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of one large file, and an update that changes ten bytes of it."""
    folder = tmp_path_factory.mktemp("small-fix")
    for name in ("old", "new"):
        (folder / name).mkdir()
    data = bytearray(os.urandom(SMALL_FIX))
    (folder / "old/lib").write_bytes(data)
    data[9_000_000:9_000_010] = b"ten bytes!"
    (folder / "new/lib").write_bytes(data)
    run("keygen", folder / "keys", "--no-passphrase")
    (folder / "release.toml").write_text(
        'product = "Big"\nversion = "1"\nletter = "a"\nbuild = "1a"\n'
    )
    told(
        *("build", "--base", folder / "old", "--new", folder / "new", "--profile", "fast"),
        *("--release", folder / "release.toml", "--key", folder / "keys/private.pem"),
        *("-o", folder / "fix.bsi"),
    )
    return folder


def test_a_full_disk_leaves_the_old_tree(tmp_path: Path, prepared: Journey) -> None:
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True
    )
    if done.returncode:
        pytest.skip("cannot mount tmpfs here")
    try:
        for name in ("build0", "build1", "build2", "keys"):
            (place / name).symlink_to(prepared.folder / name)
        shutil.copy(prepared.update("a"), place)
        journey = Journey(place)
        journey.init()
        assert journey.apply("a", 8)["error"] == "no-space"
        assert journey.live_build() == 0
        assert journey.debris() == []
    finally:
        subprocess.run(["umount", str(place)], check=True)
