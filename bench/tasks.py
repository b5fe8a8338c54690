"""The tasks beyond one pair: growth with size, share and jobs, the store, starting, phases."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from bench import corpora, synthetic
from bsipatch.bench import measure, pairs
from bsipatch.bench.contenders import Contender
from bsipatch.bench.measure import RunError
from bsipatch.bench.results import Pair, Results, Run, Skipped

MB = 1_000_000
#: contenders of which the growth is shown; the others are slow, or grow as these do
GROWING = ("bsipatch-fast", "bsipatch-balanced", "bsipatch-max", "hdiffz", "hdiffpatch", "zstd-9")
#: of the generated executables for growth, how much is new in the newer build
SHARE = 0.01


@dataclass(frozen=True)
class Scale:
    """How far the growth tasks go. Bytes and shares."""

    sizes: tuple[int, ...]
    shares: tuple[float, ...]
    share_size: int
    jobs_size: int


SMALL = Scale(
    sizes=(1 * MB, 4 * MB, 16 * MB),
    shares=(0.001, 0.01, 0.1, 0.5),
    share_size=8 * MB,
    jobs_size=16 * MB,
)
FULL = Scale(
    sizes=(1 * MB, 4 * MB, 16 * MB, 64 * MB, 256 * MB, 1000 * MB),
    shares=(0.0005, 0.001, 0.01, 0.1, 0.5, 1.0),
    share_size=32 * MB,
    jobs_size=64 * MB,
)


def _growing(contenders: Sequence[Contender]) -> list[Contender]:
    return [one for one in contenders if one.name in GROWING and not one.missing()]


def _generated(
    size: int, share: float, series: str, contenders: Sequence[Contender],
    plan: pairs.Plan, results: Results,
) -> None:  # fmt: skip
    name = f"{size / MB:g} MB, {100 * share:g} % new"
    if series == "jobs":
        name += ", by jobs"
    elif series == "share":
        name += ", by share"
    if results.has(name):
        return
    old, new = synthetic.generate(size, share, plan.work)
    pair = in_series(pairs.describe(old, new, name=name), series, share, size)
    try:
        pairs.run_pair(pair, old, new, _growing(contenders), plan, results)
    finally:
        old.unlink()
        new.unlink()


def in_series(pair: Pair, series: str, share: float, nominal: int) -> Pair:
    """A generated pair as part of its series."""
    return msgspec.structs.replace(pair, series=series, share=share, nominal=nominal)


def growth(
    scale: Scale, contenders: Sequence[Contender], plan: pairs.Plan, results: Results
) -> None:
    """Time, memory and patch size from small files to large ones."""
    for size in scale.sizes:
        _generated(size, SHARE, "size", contenders, plan, results)


def share(
    scale: Scale, contenders: Sequence[Contender], plan: pairs.Plan, results: Results
) -> None:
    """The same file, more and more of it new."""
    for part in scale.shares:
        _generated(scale.share_size, part, "share", contenders, plan, results)


def jobs(scale: Scale, contenders: Sequence[Contender], plan: pairs.Plan, results: Results) -> None:
    """The same pair on 1, 2, 4, ... threads, up to twice the cores."""
    most = plan.jobs[0]
    counts = [most]
    count = 1
    while count <= 2 * most and count <= 64:
        counts += [count] if count != most else []
        count *= 2
    counts = counts if len(counts) > 1 else [most, 1]
    _generated(
        scale.jobs_size, SHARE, "jobs", contenders, replace(plan, jobs=tuple(counts)), results
    )


# --- the program itself ---


def _command(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "bsipatch", *arguments)


def _record(
    results: Results, task: str, pair: str, repeat: int, cost: measure.Cost, jobs: int,
    contender: str = "bsipatch", size: int | None = None,
) -> None:  # fmt: skip
    results.runs.append(
        Run(
            task=task,
            pair=pair,
            contender=contender,
            repeat=repeat,
            jobs=jobs,
            seconds=round(cost.seconds, 6),
            cpu=round(cost.cpu, 6),
            private=cost.private,
            rss=cost.rss,
            written=cost.written,
            faults=cost.faults,
            switches=cost.switches,
            size=size,
        )
    )


def start(plan: pairs.Plan, results: Results) -> None:
    """Whole processes that do next to nothing."""
    if any(run.task == "start" for run in results.runs):
        return
    old, new = plan.work / "start.old", plan.work / "start.new"
    patch, out = plan.work / "start.patch", plan.work / "start.out"
    old.write_bytes(bytes(range(256)) * 4)
    new.write_bytes(bytes(range(255, -1, -1)) * 4)
    measure.run(_command("diff", str(old), str(new), "-o", str(patch)))
    commands = {
        "bsipatch --version": _command("--version"),
        "bsipatch patch, 1 KiB": _command("patch", str(old), str(patch), "-o", str(out)),
        "python, nothing": (sys.executable, "-c", "pass"),
    }
    for repeat in range(max(plan.repeat, 5)):
        for name, command in commands.items():
            cost, _ = measure.run(command, watch=False)
            watched, _ = measure.run(command)  # its memory: watching takes time
            cost = replace(cost, private=watched.private)
            _record(results, "start", name, repeat, cost, 1)
    for path in (old, new, patch, out):
        path.unlink(missing_ok=True)
    plan.say("started")


def phases(
    pair: str, old: Path, new: Path, profiles: Sequence[str], plan: pairs.Plan, results: Results
) -> None:
    """Where the time of a diff and an apply goes."""
    patch, out = plan.work / "phases.patch", plan.work / "phases.new"
    module = (sys.executable, "-m", "bsipatch.bench.phases")
    jobs = str(plan.jobs[0])
    for profile in profiles:
        if f"{pair}/bsipatch-{profile}/apply" in results.phases:
            continue
        for verb, files in (("diff", (old, new, patch)), ("apply", (old, patch, out))):
            command = (*module, verb, *(str(path) for path in files), profile, jobs)
            _, printed = measure.run(command, timeout=pairs.TIMEOUT, watch=False)
            results.phases[f"{pair}/bsipatch-{profile}/{verb}"] = json.loads(printed)
        patch.unlink()
        out.unlink()
    plan.say(f"{pair}  phases")


# --- the store ---

_RELEASE = """product = "Bench"
version = "1.0"
letter = "a"
build = "2B2a"
"""


def store(name: str, old: Path, new: Path, plan: pairs.Plan, results: Results) -> None:
    """Build, init, stage and activate, revert, on two trees through the command line."""
    if results.has(name):
        return
    folder = plan.work / "store-task"
    folder.mkdir()
    try:
        _store(name, old, new, folder, plan, results)
    except RunError as error:
        results.skipped.append(Skipped(pair=name, contender="bsipatch", reason=str(error)))
        plan.say(f"{name}  store failed: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _store(
    name: str, old: Path, new: Path, folder: Path, plan: pairs.Plan, results: Results
) -> None:

    kept = {key: value for key, value in os.environ.items() if key != "BSIPATCH_STORE"}
    env = {**kept, "BSIPATCH_CONFIG": os.devnull}
    jobs = str(plan.jobs[0])
    results.pairs.append(
        Pair(
            name=name,
            kind="tree",
            old_size=corpora.tree_size(old),
            new_size=corpora.tree_size(new),
            series="store",
        )
    )

    def run(*arguments: str) -> tuple[measure.Cost, dict[str, object]]:
        cost, printed = measure.run(
            _command(*arguments, "--json"), cwd=folder, env=env, timeout=pairs.TIMEOUT
        )
        return cost, json.loads(printed)

    (folder / "release.toml").write_text(_RELEASE)
    run("keygen", "keys", "--no-passphrase")
    cost, told = run(
        "build", "--base", str(old), "--new", str(new), "--release", "release.toml",
        "--key", "keys/private.pem", "-o", "update.bsi", "--profile", "balanced", "-j", jobs,
    )  # fmt: skip
    _record(results, "build", name, 0, cost, plan.jobs[0], size=_whole(told["size"]))
    for repeat in range(plan.repeat):
        shutil.rmtree(folder / "store", ignore_errors=True)
        cost, _ = run(
            "init", "--store", "store", "--baseline", str(old), "--product", "Bench",
            "--version", "1.0", "--build", "2A1", "--trust", "keys/public.pem", "-j", jobs,
        )  # fmt: skip
        _record(results, "init", name, repeat, cost, plan.jobs[0])
        cost, told = run("apply", "update.bsi", "--store", "store", "-j", jobs)
        _record(results, "stage", name, repeat, cost, plan.jobs[0], size=_whole(told["size"]))
        _moment(results, "activate", name, repeat, told["flip_seconds"])
        cost, told = run("revert", "--store", "store")
        _moment(results, "revert", name, repeat, told["seconds"])
        _record(results, "revert command", name, repeat, cost, 1)
        plan.say(f"{name}  store #{repeat + 1}")


def _whole(value: object) -> int:
    assert isinstance(value, int)
    return value


def _moment(results: Results, task: str, pair: str, repeat: int, value: object) -> None:
    """A time that the program measured itself."""
    assert isinstance(value, float | int)
    results.runs.append(
        Run(task=task, pair=pair, contender="bsipatch", repeat=repeat, jobs=1, seconds=float(value))
    )
