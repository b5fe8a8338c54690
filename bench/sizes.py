"""The size table: every public pair's patch against the figures in corpora.tsv.

Sizes are exact and repeatable, so each is made once for each build of the engine and kept
in results/; an interrupted table is taken up where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import corpora, public
from bsipatch.bench import contenders, measure
from bsipatch.bench.machine import commit
from bsipatch.bench.results import geometric_mean

RESULTS = Path(__file__).parent / "results"
PUBLISHED = RESULTS / "published-sizes.json"
PROFILES = ("max", "balanced", "fast")
#: pairs between which much was written anew; all others are small updates
_FEATURE = re.compile(
    r"bun-|node-|swc-|libvips-|jscgtk4\.1-amd64-252-254|webkitgtk4\.1-amd64-252-254|jsc-android-"
)
#: seconds
_TIMEOUT = 4 * 3600.0


def is_feature(name: str) -> bool:
    """Whether a pair is a feature release, not a patch release."""
    return _FEATURE.match(name) is not None


def engine_key() -> str:
    """What patch sizes depend on: the compiled core and the code around it."""
    import bsipatch

    package = Path(bsipatch.__file__).parent
    digest = hashlib.sha256()
    files = [*package.glob("_core/*.so"), *package.glob("_core/*.py"), *package.glob("delta/*.py")]
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


@dataclass
class Sizes:
    """Patch sizes in bytes by profile and pair, and the commit they were made at."""

    commit: str
    engine: str
    sizes: dict[str, dict[str, int]]
    seconds: dict[str, dict[str, float]]

    @classmethod
    def load(cls, path: Path) -> Sizes | None:
        """What a file holds; None when it is not there."""
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None

    def save(self, path: Path) -> None:
        """Replaces the file in one step."""
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        told = {
            "commit": self.commit,
            "engine": self.engine,
            "sizes": self.sizes,
            "seconds": self.seconds,
        }
        temporary.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
        os.replace(temporary, path)


def make(
    wanted: Sequence[str], profiles: Sequence[str], jobs: int, say: Callable[[str], None],
    fetch: bool = True,
) -> Sizes:  # fmt: skip
    """Makes what is missing of the table, the smallest pairs first, and keeps each at once."""
    engine = engine_key()
    path = RESULTS / f"sizes-{engine}.json"
    made = Sizes.load(path) or Sizes(commit(), engine, {}, {})
    table = corpora.load_pairs()
    files = public.obtain(wanted, say, fetch=fetch)
    RESULTS.mkdir(exist_ok=True)
    work = RESULTS / f".sizes-{os.getpid()}.patch.tmp"
    for profile in profiles:
        (contender,) = contenders.select([f"bsipatch-{profile}"])
        sizes = made.sizes.setdefault(profile, {})
        seconds = made.seconds.setdefault(profile, {})
        for name in sorted(files, key=lambda name: table[name].new.size):
            if name in sizes:
                continue
            try:
                steps = contender.make(*files[name], work, jobs)
                cost = measure.total(measure.run(step, timeout=_TIMEOUT)[0] for step in steps)
                sizes[name] = work.stat().st_size
            except measure.RunError as error:
                say(f"{name}  {profile}  failed: {error}")
                continue
            finally:
                work.unlink(missing_ok=True)
            seconds[name] = round(cost.seconds, 2)
            if engine_key() != engine:
                raise RuntimeError("the engine was rebuilt meanwhile: start again")
            made.save(path)
            say(f"{name}  {profile}  {sizes[name]:,} bytes  {cost.seconds:.1f} s")
    return made


def ratio(made: int, other: int | None) -> str:
    """A size as a share of another, for the table."""
    return f"{100 * made / other:.1f} %" if other else ""


def markdown(made: Sizes, profiles: Iterable[str] | None = None) -> list[str]:
    """The table with its geometric means, patch releases first."""
    table = corpora.load_pairs()
    chosen = [profile for profile in profiles or PROFILES if made.sizes.get(profile)]
    if not chosen:
        return ["No sizes yet: `python -m bench sizes`."]
    best = made.sizes[chosen[0]]
    heads = ["pair", "new bytes", *chosen, "HDiffPatch", "ratio", "Zucchini + xz", "ratio"]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for feature, title in ((False, "patch releases"), (True, "feature releases")):
        names = [name for name in table if name in best and is_feature(name) == feature]
        if not names:
            continue
        lines.append(f"| **{title}** |" + " |" * (len(heads) - 1))
        for name in names:
            pair = table[name]
            cells = [name, f"{pair.new.size:,}"]
            for profile in chosen:
                size = made.sizes[profile].get(name)
                cells.append("" if size is None else f"{size:,}")
            for other in (pair.hdiffz_best, pair.zucchini_xz):
                cells += ["" if other is None else f"{other:,}", ratio(best[name], other)]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append(_means(names, best, table, len(chosen)))
    return lines


def _means(
    names: Sequence[str], best: dict[str, int], table: dict[str, corpora.Pair], profiles: int
) -> str:
    """The row of geometric means."""
    cells = ["*geometric mean*", *[""] * (profiles + 1)]
    for value in means(names, best, table):
        cells += ["", "" if value is None else f"**{100 * value:.1f} %**"]
    return "| " + " | ".join(cells) + " |"


def means(
    names: Sequence[str], best: dict[str, int], table: dict[str, corpora.Pair]
) -> tuple[float | None, float | None]:
    """Our sizes against HDiffPatch's and Zucchini's, over the pairs that have theirs."""
    found: list[float | None] = []
    for peer in ("hdiffz_best", "zucchini_xz"):
        ratios = [best[name] / size for name in names if (size := getattr(table[name], peer))]
        found.append(geometric_mean(ratios) if ratios else None)
    return found[0], found[1]
