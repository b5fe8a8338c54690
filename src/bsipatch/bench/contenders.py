"""Who takes part: how each makes and applies a patch, whether it is here, up to which size.

A contender that is missing is named as missing, with what to do about it; one that is
too slow or too hungry for a pair is named as skipped, with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

MIB = 1 << 20
Steps = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Contender:
    """One program with one setting.

    make and apply give commands to run one after another, from (old, new, patch, jobs)
    and (old, patch, out, jobs).
    """

    name: str
    label: str
    make: Callable[[Path, Path, Path, int], Steps]
    apply: Callable[[Path, Path, Path, int], Steps]
    programs: tuple[str, ...] = ()  #: on the PATH or in BSIPATCH_BENCH_PATH
    module: str = ""  #: a Python package instead
    package: str = ""  #: the Debian package, or the one of the package index
    version_command: tuple[str, ...] = ()
    largest: int = 0  #: bytes of old and new together, 0 for no bound
    why: str = ""  #: the reason for the bound
    kinds: tuple[str, ...] = ()  #: of files, if it is not for all of them
    parallel: bool = False  #: whether `jobs` makes a difference
    verifies: str = "nothing"  #: of what it reads and writes while applying
    durable: bool = False  #: whether it syncs the new file
    ours: bool = False

    def missing(self) -> str:
        """Why it cannot run here; "" when it can."""
        if self.module and find_spec(self.module) is None:
            return f"not installed (pip install {self.package or self.module})"
        absent = [name for name in self.programs if find_program(name) is None]
        if absent:
            hint = f"apt-get install {self.package}" if self.package else "BSIPATCH_BENCH_PATH"
            return f"{' and '.join(absent)} not on the PATH ({hint})"
        return ""

    def declined(self, old_size: int, new_size: int, kind: str) -> str:
        """Why it is not tried on such a pair; "" when it is. Sizes in bytes."""
        if self.kinds and kind not in self.kinds:
            return f"not for this kind of file ({kind})"
        if self.largest and old_size + new_size > self.largest:
            return f"more than {self.largest // MIB} MiB together: {self.why}"
        return ""

    def version(self) -> str:
        """What it says about itself."""
        if self.module:
            return metadata.version(self.package or self.module)
        if self.ours:
            from bsipatch import __version__

            return __version__
        if not self.version_command:
            return _debian_version(self.package)
        program = find_program(self.version_command[0]) or self.version_command[0]
        told = subprocess.run(
            [program, *self.version_command[1:]], capture_output=True, text=True, check=False
        )
        lines = (told.stdout or told.stderr).strip().splitlines() or ["unknown"]
        # Zucchini has no such option: what to call it with comes first, then its version.
        numbered = (line for line in lines if re.search(r"\d\.\d", line))
        return next(numbered, lines[0]).strip("* ")


def _debian_version(package: str) -> str:
    if not package or shutil.which("dpkg-query") is None:
        return "unknown"
    command = ["dpkg-query", "-W", "-f", "${Version}", package]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"Debian {told.stdout}" if told.stdout else "unknown"


def find_program(name: str) -> str | None:
    """A program's path: in BSIPATCH_BENCH_PATH first, then on the PATH."""
    own = os.environ.get("BSIPATCH_BENCH_PATH")
    return (shutil.which(name, path=own) if own else None) or shutil.which(name)


def _program(name: str) -> str:
    return find_program(name) or name


# --- ours ---


def _ours(profile: str) -> Contender:
    def make(old: Path, new: Path, patch: Path, jobs: int) -> Steps:
        return (
            (sys.executable, "-m", "bsipatch", "diff", str(old), str(new), "-o", str(patch),
             "--profile", profile, "--jobs", str(jobs)),
        )  # fmt: skip

    def apply(old: Path, patch: Path, out: Path, jobs: int) -> Steps:
        return (
            (sys.executable, "-m", "bsipatch", "patch", str(old), str(patch), "-o", str(out),
             "--jobs", str(jobs)),
        )  # fmt: skip

    return Contender(
        name=f"bsipatch-{profile}",
        label=f"bsipatch {profile}",
        make=make,
        apply=apply,
        parallel=True,
        verifies="SHA-256 of old and new",
        durable=True,
        ours=True,
    )


# --- the peers ---


def _python(name: str, largest: int, why: str, verifies: str = "nothing") -> Contender:
    def steps(verb: str) -> Callable[[Path, Path, Path, int], Steps]:
        def build(old: Path, second: Path, third: Path, jobs: int) -> Steps:
            script = str(Path(__file__).with_name("peers.py"))
            paths = (str(old), str(second), str(third))
            return ((sys.executable, "-P", script, name, verb, *paths),)

        return build

    return Contender(
        name=name,
        label=name if name != "hdiffpatch" else "hdiffpatch (Python)",
        make=steps("diff"),
        apply=steps("apply"),
        module=name,
        largest=largest,
        why=why,
        verifies=verifies,
    )


def _bsdiff_make(old: Path, new: Path, patch: Path, jobs: int) -> Steps:
    return ((_program("bsdiff"), str(old), str(new), str(patch)),)


def _bsdiff_apply(old: Path, patch: Path, out: Path, jobs: int) -> Steps:
    return ((_program("bspatch"), str(old), str(out), str(patch)),)


def _window(size: int) -> str:
    """xdelta3's source window: the whole old file or more, as a power of two."""
    return str(max(1 << 24, 1 << (size - 1).bit_length()))


def _xdelta_make(old: Path, new: Path, patch: Path, jobs: int) -> Steps:
    window = _window(old.stat().st_size)
    xdelta = _program("xdelta3")
    options = ("-e", "-f", "-9", "-S", "lzma", "-B", window)
    return ((xdelta, *options, "-s", str(old), str(new), str(patch)),)


def _xdelta_apply(old: Path, patch: Path, out: Path, jobs: int) -> Steps:
    window = _window(old.stat().st_size)
    xdelta = _program("xdelta3")
    return ((xdelta, "-d", "-f", "-B", window, "-s", str(old), str(patch), str(out)),)


def _zstd(level: int) -> Contender:
    def make(old: Path, new: Path, patch: Path, jobs: int) -> Steps:
        options = ("-q", "-f", "--ultra", f"-{level}", "--long=31")
        return ((_program("zstd"), *options, f"--patch-from={old}", str(new), "-o", str(patch)),)

    def apply(old: Path, patch: Path, out: Path, jobs: int) -> Steps:
        options = ("-q", "-d", "-f", "--long=31")
        return ((_program("zstd"), *options, f"--patch-from={old}", str(patch), "-o", str(out)),)

    return Contender(
        name=f"zstd-{level}",
        label=f"zstd -{level}",
        make=make,
        apply=apply,
        programs=("zstd",),
        package="zstd",
        version_command=("zstd", "--version"),
        largest=(1 << 31) + (1 << 30) if level < 20 else 256 * MIB,
        why="its window ends at 2 GiB" if level < 20 else "some MB a minute",
        verifies="checksum of new",
    )


def _brotli_make(old: Path, new: Path, patch: Path, jobs: int) -> Steps:
    options = ("-f", "-q", "9", "--large_window=28")
    return ((_program("brotli"), *options, str(new), "-o", str(patch)),)


def _brotli_apply(old: Path, patch: Path, out: Path, jobs: int) -> Steps:
    return ((_program("brotli"), "-d", "-f", "--large_window=28", str(patch), "-o", str(out)),)


def _hdiffz_make(old: Path, new: Path, patch: Path, jobs: int) -> Steps:
    options = ("-m-1", "-SD", "-c-lzma2-9-128m", f"-p-{jobs}", "-f")
    return ((_program("hdiffz"), *options, str(old), str(new), str(patch)),)


def _hdiffz_apply(old: Path, patch: Path, out: Path, jobs: int) -> Steps:
    return ((_program("hpatchz"), f"-p-{min(jobs, 5)}", "-f", str(old), str(patch), str(out)),)


# One shell runs Zucchini and xz: their times add up, the greater memory counts, and the plain
# patch between them counts as written. A step of its own for its removal would end before its
# memory has been looked at, and then the whole task's memory is unknown.


def _zucchini_make(old: Path, new: Path, patch: Path, jobs: int) -> Steps:
    plain = patch.with_name(patch.name + ".plain")
    script = '"$1" -gen "$2" "$3" "$4" && "$5" -9e -T1 -c "$4" > "$6" && rm "$4"'
    words = (_program("zucchini"), old, new, plain, _program("xz"), patch)
    return (("sh", "-c", script, "sh", *map(str, words)),)


def _zucchini_apply(old: Path, patch: Path, out: Path, jobs: int) -> Steps:
    plain = patch.with_name(patch.name + ".plain")
    script = '"$5" -d -c "$6" > "$4" && "$1" -apply "$2" "$4" "$3" && rm "$4"'
    words = (_program("zucchini"), old, out, plain, _program("xz"), patch)
    return (("sh", "-c", script, "sh", *map(str, words)),)


CONTENDERS: tuple[Contender, ...] = (
    _ours("fast"),
    _ours("balanced"),
    _ours("max"),
    Contender(
        name="hdiffz",
        label="HDiffPatch",
        make=_hdiffz_make,
        apply=_hdiffz_apply,
        programs=("hdiffz", "hpatchz"),
        version_command=("hdiffz", "-v"),
        parallel=True,
        verifies="fast checksum",
    ),
    Contender(
        name="zucchini",
        label="Zucchini + xz",
        make=_zucchini_make,
        apply=_zucchini_apply,
        programs=("zucchini", "xz"),
        version_command=("zucchini", "-version"),
        kinds=("elf", "pe"),
        verifies="CRC-32 of old and new",
    ),
    _python("bsdiff4", 64 * MIB, "17 bytes of memory a byte, and slow"),
    _python("hdiffpatch", 512 * MIB, "both files and a suffix array in memory"),
    _python("detools", 64 * MIB, "a suffix array, and Python loops"),
    Contender(
        name="bsdiff",
        label="bsdiff",
        make=_bsdiff_make,
        apply=_bsdiff_apply,
        programs=("bsdiff", "bspatch"),
        package="bsdiff",
        largest=64 * MIB,
        why="17 bytes of memory a byte, and slow",
    ),
    Contender(
        name="xdelta3",
        label="xdelta3 -9",
        make=_xdelta_make,
        apply=_xdelta_apply,
        programs=("xdelta3",),
        package="xdelta3",
        version_command=("xdelta3", "-V"),
        verifies="Adler-32 of new",
    ),
    _zstd(9),
    _zstd(22),
    Contender(
        name="brotli",
        label="brotli -9, no delta",
        make=_brotli_make,
        apply=_brotli_apply,
        programs=("brotli",),
        package="brotli",
        version_command=("brotli", "--version"),
    ),
)


def select(names: Sequence[str] | None) -> tuple[Contender, ...]:
    """Those named, by name or family ("bsipatch"); all without names. Raises KeyError."""
    if not names:
        return CONTENDERS
    chosen = []
    for name in names:
        found = [one for one in CONTENDERS if name in (one.name, one.name.split("-")[0])]
        if not found:
            raise KeyError(name)
        chosen += [one for one in found if one not in chosen]
    return tuple(chosen)
