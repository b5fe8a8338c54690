"""What applying, reverting and collecting cost on a tree of many files.

    python -m bench.store_scale FOLDER [--files 100000] [--changed 10] [--profile]

Makes a tree of small files in FOLDER, an update that changes a few of them, and a
store beside them; prints one JSON object with seconds.  FOLDER chooses the file
system that is measured.  A revert is little more than its syncs, so it is measured
several times, in turn with a bare fsync of a new small file beside it.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bsipatch import publish, store, trust
from bsipatch.store import durable, live

PER_FOLDER = 100


def make_trees(folder: Path, files: int, changed: int) -> tuple[Path, Path]:
    """Two builds of a tree; the second differs in `changed` files, spread evenly."""
    old, new = folder / "old", folder / "new"
    step = max(1, files // changed) if changed else files + 1
    for root in (old, new):
        for number in range(files):
            if number % PER_FOLDER == 0:
                below = root / f"part{number // 10_000:02}" / f"folder{number // PER_FOLDER:04}"
                below.mkdir(parents=True)
            different = root is new and number % step == 0 and number // step < changed
            text = f"file {number}{' changed' if different else ''}\n"
            (below / f"file{number:06}.txt").write_text(text * 8)
    return old, new


def timed(name: str, seconds: dict[str, float], call: Callable[[], Any]) -> Any:
    """Runs `call` and notes the wall clock's seconds."""
    began = time.perf_counter()
    result = call()
    seconds[name] = round(time.perf_counter() - began, 4)
    return result


def reverts(opened: store.Store, times: int) -> dict[str, list[float]]:
    """Milliseconds of single reverts and of bare fsyncs, taken in turn; medians first."""
    found: dict[str, list[float]] = {"revert": [], "fsync": []}
    number = opened.live().number
    for _ in range(times):
        began = time.perf_counter()
        opened.revert()
        found["revert"].append(time.perf_counter() - began)
        with opened.writing("bench"):  # what the revert left to the next writer, untimed
            live.flip(opened.fd, number)
        with opened.writing("bench"):
            pass
        name = "fsync.tmp"
        durable.write_new(name, b"x" * 1024, dir_fd=opened.fd)
        fd = os.open(name, os.O_RDWR, dir_fd=opened.fd)
        began = time.perf_counter()
        os.fsync(fd)
        found["fsync"].append(time.perf_counter() - began)
        os.close(fd)
        os.unlink(name, dir_fd=opened.fd)
    return {
        name: [round(1000 * value, 2) for value in (statistics.median(values), *sorted(values))]
        for name, values in found.items()
    }


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench.store_scale")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--changed", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--reverts", type=int, default=9, help="how often a revert is measured")
    parser.add_argument("--profile", action="store_true", help="where apply's time goes")
    options = parser.parse_args(arguments)
    folder: Path = options.folder / "store-scale"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        print(json.dumps(measure(folder, options), indent=1))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything once, in the order in which a device does it."""
    seconds: dict[str, float] = {}
    old, new = timed(
        "make_trees", seconds, lambda: make_trees(folder, options.files, options.changed)
    )
    key = trust.generate()
    release = publish.Release(product="Scale", version="1", letter="a", build="1a")
    update = folder / "update.bsi"
    timed(
        "build",
        seconds,
        lambda: publish.build(old, new, release, [key], update, jobs=options.jobs),
    )
    work = store.Work(jobs=options.jobs)
    with timed(
        "init",
        seconds,
        lambda: store.init(
            folder / "store",
            old,
            product="Scale",
            version="1",
            build="1",
            keys=[key.public],
            work=work,
        ),
    ) as opened:
        profile = cProfile.Profile()
        if options.profile:
            profile.enable()
        done = timed("apply", seconds, lambda: store.apply(opened, update, work=work))
        if options.profile:
            profile.disable()
            pstats.Stats(profile, stream=sys.stderr).sort_stats("cumulative").print_stats(45)
        milliseconds = reverts(opened, options.reverts)
        timed("revert", seconds, opened.revert)
        timed("apply_again", seconds, lambda: store.apply(opened, update, work=work))
        timed("revert_again", seconds, opened.revert)
        timed("collect", seconds, opened.collect)
        timed("apply_after_collect", seconds, lambda: store.apply(opened, update, work=work))
        report = timed("check_store", seconds, lambda: store.check(opened, work=work))
        assert report.sound
        return {
            "files": options.files,
            "changed": options.changed,
            "strategy": done.generation.strategy,
            "flip": round(done.flip, 6),
            "cpu": os.cpu_count(),
            "seconds": seconds,
            "milliseconds": milliseconds,
        }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
