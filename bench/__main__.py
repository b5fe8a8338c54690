"""`python -m bench`: the whole benchmark; `python -m bench sizes|docs`: the tables.

Without options a few small public pairs, some minutes; --full is every public pair, hours.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench import corpora, documents, public, sizes, tasks
from bsipatch.bench import contenders, machine, pairs
from bsipatch.bench.results import Results, load
from bsipatch.parallel import job_count
from bsipatch.report import bench_page, bench_text

TASKS = ("diff", "apply", "limit", "start", "phases", "store", "growth", "share", "jobs")
_ALIASES = {"sizes": "diff", "roofline": "limit", "size": "growth"}
#: trees for the store task
_SMALL_TREES = {
    "QtCore.framework": (
        "frameworks-macos/6.9.1/QtCore.framework",
        "frameworks-macos/6.9.2/QtCore.framework",
    )
}
_SMALL_TREE_PAIR = "QtCore-fat-6.9.2"
_FULL_TREES = ("bundle-QtWebEngineCore.framework-6.9.2", "bundle-PyQt6-WebEngine-arm64-6.8.2")


def say(words: str) -> None:
    """One line of progress."""
    print(words, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.set_defaults(call=measure)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--small", action="store_true", help="a few small pairs (the default)")
    size.add_argument("--full", action="store_true", help="every public pair")
    size.add_argument("--pairs", nargs="+", default=[], metavar="NAME", help="these pairs")
    parser.add_argument("--tasks", default="", help=f"of {','.join(TASKS)}; all without it")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these contenders")
    parser.add_argument("--repeat", type=int, help="repetitions (3; with --full 5)")
    parser.add_argument("--jobs", type=int, help="threads; one a processor without it")
    parser.add_argument("--budget", type=float, help="seconds a contender may diff one pair")
    parser.add_argument("--uncapped", action="store_true", help="slow ones on large files too")
    parser.add_argument("--no-fetch", action="store_true", help="only pairs that are here")
    parser.add_argument("--work", type=Path, help="a folder for patches and new files")
    parser.add_argument("--out", type=Path, help="the results; else in bench/results/")
    parser.add_argument("--resume", type=Path, help="results that a stopped run left: go on there")
    parser.add_argument("--publish", action="store_true", help="keep as the run the docs quote")
    commands = parser.add_subparsers(metavar="sizes|docs")
    table = commands.add_parser("sizes", help="the size table of all public pairs")
    table.set_defaults(call=make_sizes)
    table.add_argument("--profile", nargs="+", default=["max"], choices=sizes.PROFILES)
    table.add_argument("--pairs", nargs="+", default=[], metavar="NAME")
    table.add_argument("--small", action="store_true", help="the small pairs alone")
    table.add_argument("--jobs", type=int)
    table.add_argument("--no-fetch", action="store_true")
    table.add_argument("--publish", action="store_true", help="keep as the table the docs show")
    commands.add_parser("docs", help="put the published figures into docs/").set_defaults(
        call=fill_docs
    )
    return parser


def chosen_tasks(text: str) -> tuple[str, ...]:
    """The tasks named, comma-separated; all for an empty text. Raises ValueError."""
    if not text:
        return TASKS
    named = [_ALIASES.get(word, word) for word in text.split(",")]
    unknown = [word for word in named if word not in TASKS]
    if unknown:
        raise ValueError(f"no such task: {', '.join(unknown)} (there are {', '.join(TASKS)})")
    return tuple(task for task in TASKS if task in named)


def measure(options: argparse.Namespace) -> int:
    """Measures, saves after every pair, writes the page beside the results."""
    wanted = chosen_tasks(options.tasks)
    chosen = contenders.select(options.only)
    sizes.RESULTS.mkdir(exist_ok=True)
    if options.work is not None:
        options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bsipatch-bench-", dir=options.work) as folder:
        plan = pairs.Plan(
            repeat=options.repeat or (5 if options.full else 3),
            jobs=(job_count(options.jobs, 256),),
            budget=options.budget or (900.0 if options.full else 5.0),
            tasks=tuple(task for task in wanted if task in pairs.TASKS) or pairs.TASKS,
            uncapped=options.uncapped,
            work=Path(folder),
            say=say,
        )
        results = machine.begin(chosen, plan.work)
        stamp = results.date.replace(":", "").partition("+")[0]
        out = options.out or sizes.RESULTS / f"{stamp}-{results.commit.rstrip('+')}.json"
        if options.resume is not None:
            results, out = resumed(options.resume, results), options.out or options.resume
        plan = replace(plan, keep=lambda: results.save(out))
        for one in results.contenders:
            if one.missing:
                say(f"{one.label} is missing: {one.missing}")
        _measure(options, wanted, chosen, plan, results, out)
    page = out.with_suffix(".html")
    page.write_text(bench_page.render(results), encoding="utf-8")
    print("\n".join(bench_text.lines(results)))
    print(f"Results  {out}\nPage     {page}")
    if options.publish:
        shutil.copyfile(out, documents.PUBLISHED)
    return 0


def resumed(path: Path, fresh: Results) -> Results:
    """What a stopped run left, to go on with.

    Raises ValueError when it was of another commit, machine or set of contenders.
    """
    left = load(path)
    for what, had, have in (
        ("commit", left.commit, fresh.commit),
        ("machine", left.machine.processor, fresh.machine.processor),
        ("contenders", [one.name for one in left.contenders],
         [one.name for one in fresh.contenders]),
    ):  # fmt: skip
        if had != have:
            raise ValueError(f"{path} cannot be gone on with: its {what} {had}, here {have}")
    return left


def _measure(
    options: argparse.Namespace, wanted: Sequence[str], chosen: tuple[contenders.Contender, ...],
    plan: pairs.Plan, results: Results, out: Path,
) -> None:  # fmt: skip
    scale = tasks.FULL if options.full else tasks.SMALL
    if "start" in wanted:
        tasks.start(plan, results)
    if {"diff", "apply", "limit", "phases"} & set(wanted):
        _files(options, wanted, chosen, plan, results, out)
    for task, call in (("growth", tasks.growth), ("share", tasks.share), ("jobs", tasks.jobs)):
        if task in wanted:
            call(scale, chosen, plan, results)
            results.save(out)
    if "store" in wanted:
        for name, (old, new) in _trees(options).items():
            tasks.store(name, old, new, plan, results)
    results.save(out)


def _files(
    options: argparse.Namespace, wanted: Sequence[str], chosen: Sequence[contenders.Contender],
    plan: pairs.Plan, results: Results, out: Path,
) -> None:  # fmt: skip
    table = corpora.load_pairs()
    files = public.obtain(
        public.names(options.pairs, everything=options.full), say, fetch=not options.no_fetch
    )
    order = sorted(files, key=lambda name: table[name].new.size)
    if {"diff", "apply", "limit"} & set(wanted):
        for name in order:
            pair = pairs.describe(*files[name], name=name, kind=table[name].kind)
            pairs.run_pair(pair, *files[name], chosen, plan, results)
            results.save(out)
    if "phases" in wanted:
        profiles = [one.name.partition("-")[2] for one in chosen if one.ours]
        for name in order[-3:]:
            tasks.phases(name, *files[name], profiles, plan, results)


def _trees(options: argparse.Namespace) -> dict[str, tuple[Path, Path]]:
    fetch = not options.no_fetch
    if options.full:
        return public.obtain(_FULL_TREES, say, fetch=fetch)
    root = corpora.corpora_root()
    if not public.obtain([_SMALL_TREE_PAIR], say, fetch=fetch):
        return {}
    return {name: (root / old, root / new) for name, (old, new) in _SMALL_TREES.items()}


def make_sizes(options: argparse.Namespace) -> int:
    """Prints the table; resumes what was made before."""
    wanted = public.names(options.pairs, everything=not options.small)
    profiles = [profile for profile in sizes.PROFILES if profile in options.profile]
    jobs = job_count(options.jobs, 256)
    made = sizes.make(wanted, profiles, jobs, say, fetch=not options.no_fetch)
    print("\n".join(sizes.markdown(made, profiles)))
    if options.publish:
        made.save(sizes.PUBLISHED)
    return 0


def fill_docs(options: argparse.Namespace) -> int:
    """Says which documents changed."""
    for path in documents.update():
        print(path)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        code: int = options.call(options)
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except KeyError as error:
        parser.error(f"no contender {error}")
    except (ValueError, corpora.TableError, documents.MarkerError, RuntimeError) as error:
        say(f"bench: {error}")
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
