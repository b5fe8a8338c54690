#!/usr/bin/env python3
"""Fetch and check the benchmark corpora: pairs of consecutive releases of real software.

``corpora.tsv`` beside this file lists every pair with the paths, sizes and SHA-256 digests of its
two ends and the patch bytes other tools need for it.  Paths are relative to a corpora root, taken
from the environment variable ``BSIPATCH_CORPORA`` or else ``~/.cache/bsipatch/corpora``::

    python bench/corpora.py list
    python bench/corpora.py fetch --small
    python bench/corpora.py path libcrypto-amd64

``fetch`` exits with 0 when every pair asked for is there and matches, 1 when one does not match
its digest, and 3 when one had to be skipped; ``.corpora.json`` in the root records why, and which
version stands in for one that its archive no longer carries.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from corpora_clients import PrivateApt, download
from corpora_layout import lay_out
from corpora_sources import STEPS, SourceError, Step, VersionGoneError

TABLE = Path(__file__).resolve().parent / "corpora.tsv"
COLUMNS = (
    *("name", "kind", "arch", "old_path", "new_path", "old_size", "new_size"),
    *("old_sha256", "new_sha256", "hdiffz_best", "zucchini_xz"),
)
SMALL = (
    *("libcrypto-amd64", "libssl-amd64", "libxml2-deb12-amd64", "libc6-2.36-amd64"),
    *("libexpat-deb12-arm64", "esbuild-0.25.12", "rollup-4.53.5"),
    *("QtCore-fat-6.9.2", "QtGui-fat-6.9.2"),
)


class TableError(Exception):
    """The table of pairs is malformed."""


class DigestError(Exception):
    """A file of the corpora is not the one the table describes."""


@dataclass(frozen=True)
class End:
    """One end of a pair: a file, or a directory when `sha256` is empty."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Pair:
    """Two consecutive releases of one file or bundle, and the peers' patch sizes where known."""

    name: str
    kind: str
    arch: str
    old: End
    new: End
    hdiffz_best: int | None
    zucchini_xz: int | None

    @property
    def is_bundle(self) -> bool:
        """Tell whether the pair is two directory trees."""
        return self.kind == "bundle"


@dataclass(frozen=True)
class Fetched:
    """What stands in a step's place: usually the version wanted, else its substitute."""

    dest: str
    packages: tuple[str, ...]
    version: str
    wanted: str
    suite: str = ""

    @property
    def substituted(self) -> bool:
        """Tell whether another version than the wanted one had to be taken."""
        return self.version != self.wanted


@dataclass
class Record:
    """What earlier runs fetched and skipped, kept in the corpora root."""

    steps: dict[str, Fetched] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, root: Path) -> Record:
        """Read the record of `root`; one that does not exist is empty."""
        try:
            data = json.loads((root / ".corpora.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        steps = {
            key: Fetched(**{**value, "packages": tuple(value["packages"])})
            for key, value in data["steps"].items()
        }
        return cls(steps, dict(data["skipped"]))

    def save(self, root: Path) -> None:
        """Replace the record of `root` in one step."""
        steps = {key: asdict(value) for key, value in sorted(self.steps.items())}
        text = json.dumps({"steps": steps, "skipped": self.skipped}, indent=1) + "\n"
        (root / ".corpora.json.tmp").write_text(text, encoding="utf-8")
        os.replace(root / ".corpora.json.tmp", root / ".corpora.json")


def _number(text: str, what: str) -> int:
    if not re.fullmatch(r"[0-9]+", text):
        raise TableError(f"{what}: not a number: {text!r}")
    return int(text)


def parse_table(lines: Iterable[str]) -> dict[str, Pair]:
    """Parse the tab-separated table of pairs; raises TableError at the first malformed row."""
    reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    if tuple(next(reader, ())) != COLUMNS:
        raise TableError("the table's first line must name the columns: " + " ".join(COLUMNS))
    pairs: dict[str, Pair] = {}
    for number, cells in enumerate(reader, 2):
        if len(cells) != len(COLUMNS):
            raise TableError(f"line {number}: {len(cells)} cells, expected {len(COLUMNS)}")
        row = dict(zip(COLUMNS, cells, strict=True))
        name, kind = row["name"], row["kind"]
        ends: list[End] = []
        for side in ("old", "new"):
            path, digest = row[f"{side}_path"], row[f"{side}_sha256"]
            if not path or path.startswith("/") or ".." in path.split("/"):
                raise TableError(f"{name}: {side} path must lie below the root: {path!r}")
            if not re.fullmatch("" if kind == "bundle" else "[0-9a-f]{64}", digest):
                raise TableError(f"{name}: {side} digest does not fit the kind {kind}: {digest!r}")
            size = _number(row[f"{side}_size"], f"{name}: {side} size")
            ends.append(End(path, size, digest))
        peers = [_number(row[key], f"{name}: {key}") if row[key] else None for key in COLUMNS[-2:]]
        if name in pairs:
            raise TableError(f"line {number}: {name} is listed twice")
        pairs[name] = Pair(name, kind, row["arch"], ends[0], ends[1], peers[0], peers[1])
    return pairs


def load_pairs(table: Path = TABLE) -> dict[str, Pair]:
    """Read the checked-in table."""
    with table.open(encoding="utf-8", newline="") as lines:
        return parse_table(lines)


def corpora_root() -> Path:
    """Return where the corpora lie on this machine."""
    chosen = os.environ.get("BSIPATCH_CORPORA")
    return Path(chosen) if chosen else Path.home() / ".cache" / "bsipatch" / "corpora"


def steps_for(path: str, steps: Sequence[Step] = STEPS) -> list[Step]:
    """Return the steps that make the table's `path`; several when directories are shared."""
    found = [step for step in steps if step.provides(path)]
    if not found:
        raise TableError(f"no package is known to provide {path}")
    return found


def tree_size(folder: Path) -> int:
    """Add up the regular files below `folder`, links not followed."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            status = os.lstat(os.path.join(base, name))
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def check_end(end: End, root: Path) -> None:
    """Compare one end of a pair with the table; raises DigestError on any difference."""
    path = root / end.path
    if not path.exists():
        raise DigestError(f"{end.path} is missing")
    size = tree_size(path) if path.is_dir() else path.stat().st_size
    if size != end.size:
        raise DigestError(f"{end.path} has {size} bytes, expected {end.size}")
    if end.sha256:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != end.sha256:
            raise DigestError(f"{end.path} has SHA-256 {digest}, expected {end.sha256}")


def resolve(path: str, root: Path, record: Record) -> tuple[Path, bool]:
    """Find the table's `path` below `root`: the actual path, and whether it is a substitute.

    A substitute lies under its own version, and its library may carry another version in its
    file name.
    """
    fetched = [record.steps[step.key] for step in steps_for(path) if step.key in record.steps]
    stand_in = next((one for one in fetched if one.substituted), None)
    if stand_in is None:
        return root / path, False
    folder = root / stand_in.dest
    below = path.split("/")[2:]
    actual = folder.joinpath(*below)
    if below and not actual.exists():
        stem, found, _ = below[-1].partition(".so.")
        matches = sorted(actual.parent.glob(f"{stem}.so.*")) if found else []
        files = [match for match in matches if match.is_file() and not match.is_symlink()]
        if len(files) == 1:
            actual = files[0]
    return actual, True


class Fetcher:
    """Fetches pairs into one corpora root, a step at a time."""

    def __init__(self, root: Path, keep_downloads: bool = False) -> None:
        self._root = root
        self._keep = keep_downloads
        self._record = Record.load(root)
        self._apt = PrivateApt(root / ".work" / "apt")
        self._failed: dict[str, str] = {}

    def fetch(self, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, str]]:
        """Fetch and check `pairs` in order; yields each with its problem, "" when it is ready.

        A problem that starts with "mismatch" means that the files are there and wrong.
        """
        pending = [s for pair in pairs for s in self._steps(pair)]
        for pair in pairs:
            for step in self._steps(pair):
                self._ensure(step)
                pending.remove(step)
                if not self._keep:
                    self._drop_downloads(step, pending)
            problem = self._check(pair)
            self._record.skipped.pop(pair.name, None)
            if problem:
                self._record.skipped[pair.name] = problem
            self._record.save(self._root)
            yield pair, problem
        if not self._keep and not self._failed:
            shutil.rmtree(self._root / ".downloads", ignore_errors=True)

    @staticmethod
    def _steps(pair: Pair) -> list[Step]:
        return [*steps_for(pair.old.path), *steps_for(pair.new.path)]

    def _ensure(self, step: Step) -> None:
        done = self._record.steps.get(step.key)
        if step.key in self._failed or (done and (self._root / done.dest).exists()):
            return
        try:
            self._record.steps[step.key] = self._obtain(step)
            self._record.save(self._root)
        except (SourceError, OSError, zipfile.BadZipFile, tarfile.TarError) as error:
            self._failed[step.key] = str(error)

    def _obtain(self, step: Step) -> Fetched:
        try:
            return self._build(step, step.packages, step.version, "")
        except VersionGoneError:
            packages, version, suite = self._apt.substitute(step)
            return self._build(step, packages, version, suite)

    def _build(self, step: Step, packages: tuple[str, ...], version: str, suite: str) -> Fetched:
        cache = self._root / ".downloads"
        archives = [download(step, name, version, cache, self._apt) for name in packages]
        scratch = self._root / ".work" / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        dest = step.dest.replace(f"/{step.version}", f"/{version}")
        try:
            lay_out(step, archives, self._root, dest, scratch)
        except (SourceError, zipfile.BadZipFile, tarfile.TarError):
            for archive in archives:
                shutil.rmtree(archive.parent)
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return Fetched(dest, packages, version, step.version, suite)

    def _drop_downloads(self, step: Step, pending: Sequence[Step]) -> None:
        """Delete a step's package files once no later step of this run needs them."""
        for package in step.packages:
            if not any(package in later.packages for later in pending):
                pattern = re.sub(r"[^A-Za-z0-9.+~-]", "_", package)
                for path in (self._root / ".downloads").glob(f"*-{pattern}-*"):
                    shutil.rmtree(path, ignore_errors=True)

    def _check(self, pair: Pair) -> str:
        for step in self._steps(pair):
            if step.key in self._failed:
                return f"{step.key} {step.version}: {self._failed[step.key]}"
        ends = [(end, *resolve(end.path, self._root, self._record)) for end in (pair.old, pair.new)]
        if ends[0][1] == ends[1][1]:
            return f"both ends are {ends[0][1]}: the archive holds a single version"
        for end, actual, substitute in ends:
            if not substitute:
                try:
                    check_end(end, self._root)
                except DigestError as error:
                    self._forget(end)
                    return f"mismatch: {error}"
            elif not actual.exists():
                return f"the substitute version has no {actual}"
        return ""

    def _forget(self, end: End) -> None:
        """Have the next run fetch again what did not match."""
        for step in steps_for(end.path):
            self._record.steps.pop(step.key, None)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Let one fetch at a time work in `root`, and clear what an interrupted one left."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(root / ".work" / "scratch", ignore_errors=True)
        for part in (root / ".downloads").glob("*.part"):
            shutil.rmtree(part, ignore_errors=True)
        yield


def _select(names: Sequence[str], pairs: dict[str, Pair]) -> list[Pair]:
    unknown = [name for name in names if name not in pairs]
    if unknown:
        raise TableError(f"no such pair: {', '.join(unknown)} (see `list`)")
    return [pairs[name] for name in dict.fromkeys(names)]


def _command_list(pairs: dict[str, Pair], root: Path) -> int:
    record = Record.load(root)
    for pair in pairs.values():
        ends = [resolve(end.path, root, record) for end in (pair.old, pair.new)]
        if pair.name in record.skipped:
            state = "skipped: " + record.skipped[pair.name]
        elif all(actual.exists() for actual, _ in ends):
            state = "substituted" if any(substitute for _, substitute in ends) else "here"
        else:
            state = "-"
        print(f"{pair.name}\t{pair.kind}\t{pair.arch}\t{pair.new.size}\t{state}")
    return 0


def _command_fetch(chosen: Sequence[Pair], root: Path, keep_downloads: bool) -> int:
    code = 0
    with _locked(root):
        for pair, problem in Fetcher(root, keep_downloads).fetch(chosen):
            print(
                f"skipped {pair.name}: {problem}" if problem else f"ready {pair.name}", flush=True
            )
            if problem.startswith("mismatch"):
                code = 1
            elif problem:
                code = code or 3
    return code


def _command_path(pair: Pair, root: Path) -> int:
    record = Record.load(root)
    ends = [resolve(end.path, root, record) for end in (pair.old, pair.new)]
    missing = [actual for actual, _ in ends if not actual.exists()]
    if missing:
        print(f"{missing[0]} is not here: `fetch {pair.name}` first", file=sys.stderr)
        return 1
    for actual, substitute in ends:
        print(actual)
        if substitute:
            print(f"note: {actual} stands in for a version that is gone", file=sys.stderr)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description="Fetch and check the benchmark corpora.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the pairs and which are here")
    fetch = commands.add_parser("fetch", help="fetch pairs and check them against the table")
    fetch.add_argument("names", nargs="*", metavar="NAME")
    fetch.add_argument("--small", action="store_true", help="a few small pairs")
    fetch.add_argument("--all", action="store_true", help="every pair (about 10 GB)")
    fetch.add_argument("--keep-downloads", action="store_true", help="keep the package files")
    path = commands.add_parser("path", help="print a pair's old and new path")
    path.add_argument("name", metavar="NAME")
    options = parser.parse_args(arguments)
    root = corpora_root()
    try:
        pairs = load_pairs()
        if options.command == "list":
            return _command_list(pairs, root)
        if options.command == "path":
            return _command_path(_select([options.name], pairs)[0], root)
        names = [*options.names, *(SMALL if options.small else ()), *(pairs if options.all else ())]
        if not names:
            fetch.error("name a pair, or give --small or --all")
        return _command_fetch(_select(names, pairs), root, options.keep_downloads)
    except TableError as error:
        print(f"corpora: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
