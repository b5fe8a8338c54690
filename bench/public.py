"""The public pairs as files on this machine, fetched when they are not here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import corpora

Say = Callable[[str], None]


def names(chosen: Sequence[str], *, everything: bool = False, bundles: bool = False) -> list[str]:
    """The pairs asked for, else the small ones, or all of them. Raises corpora.TableError."""
    pairs = corpora.load_pairs()
    unknown = [name for name in chosen if name not in pairs]
    if unknown:
        raise corpora.TableError(f"no such pair: {', '.join(unknown)}")
    wanted = list(chosen) or (list(pairs) if everything else list(corpora.SMALL))
    return [name for name in wanted if bundles or not pairs[name].is_bundle]


def here(pair: corpora.Pair, root: Path) -> str:
    """Why a pair cannot be used; "" when both ends are as the table says, or stand in."""
    record = corpora.Record.load(root)
    for end in (pair.old, pair.new):
        actual, substitute = corpora.resolve(end.path, root, record)
        if not actual.exists():
            return f"{end.path} is not here"
        if not substitute:
            try:
                corpora.check_end(end, root)
            except corpora.DigestError as error:
                return str(error)
    return ""


def obtain(wanted: Sequence[str], say: Say, *, fetch: bool = True) -> dict[str, tuple[Path, Path]]:
    """The files of the pairs that are here, or can be fetched; says which are not, and why."""
    root = corpora.corpora_root()
    pairs = corpora.load_pairs()
    missing = [name for name in wanted if here(pairs[name], root)]
    if missing and fetch:
        say(f"fetching {', '.join(missing)} into {root}")
        script = str(Path(corpora.__file__))
        subprocess.run([sys.executable, script, "fetch", *missing], check=False)
    found: dict[str, tuple[Path, Path]] = {}
    record = corpora.Record.load(root)
    for name in wanted:
        pair = pairs[name]
        problem = here(pair, root) if name in missing else ""
        if problem:
            say(f"without {name}: {problem}")
            continue
        ends = [corpora.resolve(end.path, root, record)[0] for end in (pair.old, pair.new)]
        found[name] = (ends[0], ends[1])
    return found
