"""Results of a bench run, made up: what the pages are shown and tested with."""

from __future__ import annotations

from typing import Any

from bsipatch.bench.results import Machine, Pair, Program, Results, Run, Skipped

MEMORY = 16 * 10**9


def program(name: str, **more: Any) -> Program:
    return Program(name=name, label=name.replace("-", " "), version="1", **more)


def run(task: str, pair: str, contender: str, repeat: int, spent: float, **more: Any) -> Run:
    known = {"jobs": 2, "private": 9_000_000, "written": 1000, "cpu": spent} | more
    return Run(task=task, pair=pair, contender=contender, repeat=repeat, seconds=spent, **known)


def made_up() -> Results:
    """Two pairs of files, three sizes, one by jobs, one tree; one contender missing."""
    made = Results(
        date="2026-01-02T03:04:05+00:00",
        commit="abc123",
        machine=Machine(
            system="Linux", processor="A <fast> one", cores=2, memory=MEMORY,
            file_system="ext4", python="3.12", load=0.5,
        ),
        contenders=[
            program("bsipatch-fast", ours=True, durable=True),
            program("bsipatch-max", ours=True, durable=True),
            program("hdiffz"),
            program("zucchini", missing="zucchini not on the PATH"),
            program("bsdiff"),
        ],
        pairs=[
            Pair(name="one<b>", kind="elf", old_size=10**7, new_size=10**7),
            Pair(name="two", kind="macho", old_size=2 * 10**7, new_size=2 * 10**7),
            *(
                Pair(name=f"g{n}", kind="elf", old_size=n, new_size=n, series="size", nominal=n)
                for n in (10**6, 10**7, 10**8)
            ),
            *(
                Pair(
                    name=f"s{n}", kind="elf", old_size=10**7, new_size=10**7,
                    series="share", share=n,
                )
                for n in (0.1, 0.5)
            ),
            Pair(name="j", kind="elf", old_size=10**7, new_size=10**7, series="jobs"),
            Pair(name="tree", kind="tree", old_size=10**8, new_size=10**8, series="store"),
        ],
        skipped=[Skipped(pair="two", contender="bsdiff", reason="more than 64 MiB: slow")],
        phases={"two/bsipatch-max/diff": {"match": 3.0, "encode": 1.0}},
    )  # fmt: skip
    factor = {"bsipatch-fast": 1.0, "bsipatch-max": 3.0, "hdiffz": 2.0, "bsdiff": 9.0}
    for pair in made.pairs:
        for name, cost in factor.items():
            if pair.series == "store" or (name == "bsdiff" and pair.name == "two"):
                continue
            for repeat in range(3):
                spent = cost * pair.new_size / 10**7 * (1 + 0.1 * repeat)
                patch = int(pair.new_size * 0.02 / (1 + factor[name]) + 1)
                for jobs in (2, 1) if pair.series == "jobs" else (2,):
                    made.runs += [
                        run("diff", pair.name, name, repeat, spent, size=patch, jobs=jobs),
                        run("apply", pair.name, name, repeat, spent / 9, sync=0.01,
                            size=pair.new_size, jobs=jobs),
                    ]  # fmt: skip
        if pair.series == "files":
            made.runs += [
                run("limit", pair.name, way, repeat, spent, sync=0.02)
                for repeat in range(3)
                for way, spent in (("fused", 0.05 + 0.01 * repeat), ("apart", 0.2))
            ]
    for task in ("build", "init", "stage", "activate", "revert"):
        made.runs.append(run(task, "tree", "bsipatch", 0, 0.5))
    made.runs.append(run("start", "bsipatch --version", "bsipatch", 0, 0.03))
    return made
