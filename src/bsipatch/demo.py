"""`python -m bsipatch.demo`: an update's whole way on real frameworks, in under two minutes.

Two consecutive builds of small macOS frameworks come through pip.  Offline they
are compiled here by the ziglang cross compiler when that is installed, and
generated otherwise.  Everything after that is done by the `bsipatch` commands
that a person would type, which are shown.

    python -m bsipatch.demo [--folder DIR] [--source pip|compile|generate]

DIR keeps what was made; without it a temporary folder is used and removed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

import zstandard

from .errors import BsipatchError, InternalError, NotFoundError

#: wheels that hold whole frameworks, a few megabytes together
_PACKAGES = ("PyQt6-3D-Qt6", "PyQt6-Charts-Qt6", "PyQt6-DataVisualization-Qt6")
_VERSIONS = ("6.9.1", "6.9.2")
_PIP = [
    *("download", "--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"),
    *("--platform", "macosx_11_0_arm64", "--platform", "macosx_12_0_arm64"),
    *("--platform", "macosx_13_0_arm64", "--python-version", "3.12"),
]
_PIP_SECONDS = 50  # for everything; offline it must not take long to find out
_BSDIFF_MOST = 6 << 20  # bytes of one file: bsdiff takes a second for each megabyte or two
_MEMBER_MOST = 256 << 20


@dataclass(frozen=True)
class Pair:
    """Two builds of some frameworks; `story` says where they come from."""

    old: Path
    new: Path
    product: str
    version: str
    story: str


# --- two builds ---


def fetch(folder: Path) -> Pair:
    """Real frameworks through pip. Raises NotFoundError when that does not work here."""
    if find_spec("pip") is None:
        raise NotFoundError("pip is not installed")
    deadline = time.monotonic() + _PIP_SECONDS
    for version in _VERSIONS:
        wheels = folder / f"wheels-{version}"
        wanted = [f"{name}=={version}" for name in _PACKAGES]
        command = [sys.executable, "-m", "pip", *_PIP, "--dest", str(wheels), *wanted]
        left = max(1.0, deadline - time.monotonic())
        try:
            subprocess.run(command, check=True, timeout=left, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise NotFoundError("pip could not fetch them") from error
        for wheel in sorted(wheels.glob("*.whl")):
            unpack_frameworks(wheel, folder / version)
    return Pair(
        folder / _VERSIONS[0],
        folder / _VERSIONS[1],
        "QtAddons",
        _VERSIONS[0],
        f"frameworks of {', '.join(_PACKAGES)}, {' -> '.join(_VERSIONS)}, macOS arm64",
    )


def unpack_frameworks(wheel: Path, root: Path) -> None:
    """The frameworks in a wheel, in the layout that a wheel cannot hold: with their links."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            place = _place_in_framework(PurePosixPath(member.filename))
            if place is None or member.file_size > _MEMBER_MOST:
                continue
            target = root / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(member))
            target.chmod(0o755 if target.parent.name == "A" else 0o644)
    for bundle in sorted(root.glob("*.framework")):
        link_framework(bundle)


def _place_in_framework(name: PurePosixPath) -> PurePosixPath | None:
    """NAME.framework/Versions/A/..., or None for what belongs to no framework."""
    parts = name.parts
    at = next((i for i, part in enumerate(parts) if part.endswith(".framework")), None)
    if at is None or ".." in parts or len(parts) < at + 2 or name.is_absolute():
        return None
    inside = parts[at + 1 :]
    if inside[0] == "Versions":
        inside = inside[2:]
    return PurePosixPath(parts[at], "Versions", "A", *inside) if inside else None


def link_framework(bundle: Path) -> None:
    """Versions/Current, and the top-level links through it."""
    current = bundle / "Versions/Current"
    if not current.is_symlink():
        current.symlink_to("A")
    for entry in sorted((bundle / "Versions/A").iterdir()):
        if not (bundle / entry.name).is_symlink():
            (bundle / entry.name).symlink_to(f"Versions/Current/{entry.name}")


def compile_pair(folder: Path) -> Pair:
    """Two builds of a library, by a cross compiler. Raises NotFoundError without one."""
    if find_spec("ziglang") is None:
        raise NotFoundError("ziglang is not installed")
    for build in (1, 2):
        source = folder / f"demo-{build}.c"
        source.write_text(_c_source(build))
        main = folder / f"build{build}/Demo.framework/Versions/A"
        (main / "Resources").mkdir(parents=True)
        command = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-macos", "-O2"]
        command += ["-shared", "-o", str(main / "Demo"), str(source)]
        try:
            subprocess.run(command, check=True, timeout=90, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise NotFoundError("the cross compiler failed") from error
        (main / "Resources/Info.plist").write_text(f"<plist><string>{build}</string></plist>\n")
        link_framework(main.parents[1])
    story = "a library compiled for macOS arm64 by ziglang, twice"
    return Pair(folder / "build1", folder / "build2", "Demo", "1.0", story)


def _c_source(build: int) -> str:
    """A few thousand functions that call one another; the second build mends one of them."""
    lines = ["static volatile int sink;"]
    for number in range(3000):
        call = f"f{number - 1 - number % 7}(x / 3);" if number > 7 else ""
        check = "if (x < 0) return -1;" if build == 2 and number == 1500 else ""
        lines.append(
            f"__attribute__((noinline)) int f{number}(int x) "
            f"{{ {check} sink = x; {call} return x * {number % 13 + 1} ^ {number}; }}"
        )
    return "\n".join(lines) + "\n"


def generate(folder: Path) -> Pair:
    """Two builds of something like code, made of nothing."""
    draw = random.Random(26)  # noqa: S311 - repeatable data, no secret
    words = [draw.randbytes(draw.randrange(4, 9)) for _ in range(6000)]
    code = bytearray(b"".join(draw.choice(words) for _ in range(400_000)))
    for build in (1, 2):
        main = folder / f"build{build}/Demo.framework/Versions/A"
        (main / "Resources").mkdir(parents=True)
        (main / "Demo").write_bytes(code)
        (main / "Demo").chmod(0o755)
        (main / "Resources/Info.plist").write_text(f"<plist><string>{build}</string></plist>\n")
        link_framework(main.parents[1])
        for _ in range(60):
            at = draw.randrange(len(code))
            code[at : at + 4] = draw.randbytes(draw.randrange(12))
    return Pair(folder / "build1", folder / "build2", "Demo", "1.0", "generated data")


SOURCES: dict[str, Callable[[Path], Pair]] = {
    "pip": fetch,
    "compile": compile_pair,
    "generate": generate,
}


def get_pair(folder: Path, wanted: str | None, say: Callable[[str], None]) -> Pair:
    """The best pair that can be had here."""
    for name, source in SOURCES.items():
        if wanted not in (None, name):
            continue
        place = folder / name
        place.mkdir()
        try:
            return source(place)
        except NotFoundError as error:
            if wanted is not None:
                raise
            say(f"[dim]no pair by {name}: {error.detail}[/dim]")
    raise InternalError("no source gave a pair")


# --- what others make of it ---


def changed_files(pair: Pair) -> Iterator[tuple[bytes, bytes]]:
    """(old, new) of every file that is new or differs; old is empty for a new one."""
    for path in sorted(pair.new.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        twin = pair.old / path.relative_to(pair.new)
        old = twin.read_bytes() if twin.is_file() else b""
        new = path.read_bytes()
        if old != new:
            yield old, new


def compare(pair: Pair) -> list[tuple[str, int, float]]:
    """(name, bytes, seconds) of other ways to ship the changed files."""
    files = list(changed_files(pair))
    rows = [_measured("changed files, zstd -19", files, _zstd)]
    rows.append(_measured("zstd -19 --patch-from", files, _zstd_patch))
    if find_spec("bsdiff4") is not None and max(len(new) for _, new in files) <= _BSDIFF_MOST:
        rows.append(_measured("bsdiff", files, _bsdiff))
    return rows


def _measured(
    name: str, files: list[tuple[bytes, bytes]], make: Callable[[bytes, bytes], int]
) -> tuple[str, int, float]:
    began = time.perf_counter()
    return name, sum(make(old, new) for old, new in files), time.perf_counter() - began


def _zstd(old: bytes, new: bytes) -> int:
    return len(zstandard.ZstdCompressor(level=19).compress(new))


def _zstd_patch(old: bytes, new: bytes) -> int:
    if not old:
        return _zstd(old, new)
    window = max(20, (len(old) + len(new)).bit_length())
    parameters = zstandard.ZstdCompressionParameters.from_level(
        19, window_log=min(window, 27), enable_ldm=True
    )
    known = zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    compressor = zstandard.ZstdCompressor(dict_data=known, compression_params=parameters)
    return len(compressor.compress(new))


def _bsdiff(old: bytes, new: bytes) -> int:
    import bsdiff4  # an optional dependency

    return len(bsdiff4.diff(old, new))


# --- the journey ---


@dataclass(frozen=True)
class Step:
    """One command of the journey: what it said, and its seconds with the program's start."""

    told: dict[str, Any]
    seconds: float


def bsipatch(say: Callable[[str], None], folder: Path, *arguments: str) -> Step:
    """Shows and runs one command in `folder`. Raises InternalError when it fails."""
    say(f"[bold]$ bsipatch {shlex.join(arguments)}[/bold]")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BSIPATCH_")}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "bsipatch", *arguments, "--json"],
        cwd=folder,
        env={**kept, "BSIPATCH_CONFIG": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise InternalError(f"bsipatch {arguments[0]} failed: {done.stdout}{done.stderr}")
    return Step(json.loads(done.stdout), seconds)


def journey(pair: Pair, folder: Path, say: Callable[[str], None]) -> dict[str, Step]:
    """Keygen, build, init, apply, status, revert and apply again; checks every step's tree."""
    from .tree import walk

    (folder / "release.toml").write_text(
        f'product = "{pair.product}"\nversion = "{pair.version}"\nletter = "a"\n'
        'build = "2B2a"\n\n[[security]]\ncomponent = "Demo"\n'
        'cves = ["CVE-2026-20643"]\nimpact = "Shown by `bsipatch status`."\n'
    )
    old, new = walk(pair.old), walk(pair.new)
    store = ("--store", "store")
    trees = ("--base", str(pair.old), "--new", str(pair.new))
    steps: dict[str, Step] = {}

    def step(name: str, *arguments: str) -> None:
        steps[name] = bsipatch(say, folder, *arguments)

    def live_is(expected: object, what: str) -> None:
        if walk(folder / "store/current/tree") != expected:
            raise InternalError(f"the live tree is not the {what}")

    step("keygen", "keygen", "keys", "--no-passphrase")
    step("build", "build", *trees, "--release", "release.toml", "--key", "keys/private.pem",
         "-o", "update.bsi")  # fmt: skip
    step("verify", "verify", "update.bsi", "--trust", "keys/public.pem")
    step("init", "init", *store, "--baseline", str(pair.old), "--product", pair.product,
         "--version", pair.version, "--build", "2A1", "--trust", "keys/public.pem")  # fmt: skip
    live_is(old, "old one")
    step("apply", "apply", "update.bsi", *store)
    live_is(new, "new one")
    step("status", "status", *store)
    say(
        f"  live: {steps['status'].told['display']} at {steps['status'].told['live']}, "
        f"by {steps['status'].told['strategy']}"
    )
    step("revert", "revert", *store)
    live_is(old, "old one")
    step("apply again", "apply", "update.bsi", *store)
    live_is(new, "new one")
    step("check-store", "check-store", *store)
    return steps


def show(
    console: Any, pair: Pair, steps: dict[str, Step], others: list[tuple[str, int, float]]
) -> None:
    """The table of what happened."""
    from rich.table import Table

    from .cli._output import seconds, short_size

    built = steps["build"].told
    whole, update = built["new_size"], built["size"]
    sizes = Table(title=f"What an update costs: {pair.story}", title_justify="left")
    for name in ("", "bytes", "of the whole", "time to make"):
        sizes.add_column(name, justify="left" if not name else "right")
    sizes.add_row("the new tree as it is", f"{whole:,}", "100 %", "")
    for name, size, taken in others:
        sizes.add_row(name, f"{size:,}", f"{100 * size / whole:.2f} %", seconds(taken))
    share = f"{100 * update / whole:.2f} %"
    sizes.add_row(
        "[bold]bsipatch, signed update[/bold]",
        f"[bold]{update:,}[/bold]",
        f"[bold]{share}[/bold]",
        seconds(steps["build"].seconds),
    )
    console.print(sizes)
    times = Table(title="What a device does", title_justify="left")
    for name in ("", "work", "whole command", "result"):
        times.add_column(name, justify="left" if name in ("", "result") else "right")
    for name in ("init", "apply", "revert", "apply again", "check-store"):
        step = steps[name]
        work = step.told.get("seconds")
        result = step.told.get("display") or step.told.get("version") or "sound"
        times.add_row(
            name, "" if work is None else seconds(work), seconds(step.seconds), str(result)
        )
    console.print(times)
    payloads = sum(payload["size"] for payload in built["payloads"])
    console.print(
        f"{whole / update:,.0f} times smaller than the tree ({short_size(whole)}); "
        f"{update - payloads:,} bytes of it are the signed manifest."
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the demo; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bsipatch.demo", description=(__doc__ or "").partition("\n\n")[2]
    )
    parser.add_argument("--folder", type=Path, help="keep everything in this new folder")
    parser.add_argument("--source", choices=SOURCES, help="take the pair from here alone")
    options = parser.parse_args(argv)
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    began = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="bsipatch-demo-") as temporary:
            folder = Path(temporary)
            if options.folder is not None:
                folder = options.folder.absolute()
                folder.mkdir(parents=True)
            console.print("Getting two builds of some frameworks ...")
            pair = get_pair(folder, options.source, console.print)
            console.print(f"  {pair.story}")
            steps = journey(pair, folder, console.print)
            console.print("Comparing with other ways to ship it ...")
            show(console, pair, steps, compare(pair))
    except KeyboardInterrupt:
        return 130
    except BsipatchError as error:
        console.print(f"[red]{error}[/red]")
        return error.exit_code
    except FileExistsError:
        console.print(f"[red]{options.folder} is there already[/red]")
        return 5
    console.print(f"The demo took {time.perf_counter() - began:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
