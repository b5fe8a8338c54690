"""`bsipatch bench`: bsipatch beside other programs, on two files of one's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from . import _output
from ._options import Jobs, Json, threads

if TYPE_CHECKING:
    from ..bench.results import Results


def command(
    old: Annotated[
        Path, typer.Argument(help="The old file; or the word report.", metavar="OLD|report")
    ],
    new: Annotated[
        Path, typer.Argument(help="The new file; or results to show.", metavar="NEW|RESULTS")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", dir_okay=False, metavar="FILE", help="Write the results; or the page."
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", dir_okay=False, metavar="PAGE", help="Write a page with plots."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="A contender; repeat for several."),
    ] = None,
    repeat: Annotated[int, typer.Option("--repeat", "-n", min=1, help="Repetitions.")] = 1,
    budget: Annotated[
        float, typer.Option("--budget", min=0, help="Seconds a contender may go on diffing.")
    ] = 60.0,
    uncapped: Annotated[
        bool, typer.Option("--uncapped", help="Try slow contenders on large files too.")
    ] = False,
    work: Annotated[
        Path | None,
        typer.Option("--work", file_okay=False, metavar="DIR", help="Where to write files."),
    ] = None,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Measure bsipatch and its peers on two files, side by side.

    Each makes the patch and applies it in processes of its own; every result is
    compared with NEW. With the word report the page of earlier results is written.

    Examples:

      bsipatch bench old.dylib new.dylib --html bench.html

      bsipatch bench old.dylib new.dylib --only bsipatch --only hdiffz -n 5 -o results.json

      bsipatch bench report results.json -o bench.html
    """
    if str(old) == "report":
        from ..bench import results as loading

        page = out or html or new.with_suffix(".html")
        _write_page(loading.load(new), page)
        _output.emit(json, {"page": str(page)}, [f"Page  {page}"])
        return
    results = _measure(old, new, only, repeat, budget, uncapped, work, threads(jobs), json)
    if out is not None:
        results.save(out)
    if html is not None:
        _write_page(results, html)
    if json:
        import msgspec

        _output.emit(True, msgspec.to_builtins(results), ())
        return
    from ..report import bench_text

    _output.emit(False, {}, bench_text.lines(results))
    for what, path in (("Results", out), ("Page", html)):
        if path is not None:
            print(f"{what}  {path}")


def _measure(
    old: Path,
    new: Path,
    only: list[str] | None,
    repeat: int,
    budget: float,
    uncapped: bool,
    work: Path | None,
    jobs: int,
    json: bool,
) -> Results:
    import tempfile

    from ..bench import contenders, machine, pairs

    try:
        chosen = contenders.select(only)
    except KeyError as error:
        names = ", ".join(one.name for one in contenders.CONTENDERS)
        raise UsageError(f"no contender {error}", hint=f"There are {names}.") from None
    pair = pairs.describe(old, new)

    def say(words: str) -> None:
        if not json and sys.stderr.isatty():
            print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix=".bsipatch-bench-", dir=work) as folder:
        results = machine.begin(chosen, Path(folder))
        plan = pairs.Plan(
            repeat=repeat,
            jobs=(jobs,),
            budget=budget,
            uncapped=uncapped,
            work=Path(folder),
            say=say,
        )
        pairs.run_pair(pair, old, new, chosen, plan, results)
    if not json and sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return results


def _write_page(results: Results, path: Path) -> None:
    from ..output import OutputFile
    from ..report import bench_page

    with OutputFile(path) as file:
        file.write(bench_page.render(results).encode())
        file.commit()
