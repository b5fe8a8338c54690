"""Obtain packages through pip, npm and apt as the machine has them configured.

No index or mirror is named here: pip and npm use their own configuration, and apt gets a private
set of suites on the mirrors found in the machine's sources.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from corpora_sources import SourceError, Step, VersionGoneError, run


def _only_file(folder: Path, what: str) -> Path:
    files = [path for path in folder.iterdir() if path.is_file()]
    if len(files) != 1:
        raise SourceError(f"{what}: expected one file, the client left {len(files)}")
    return files[0]


def _download_wheel(step: Step, package: str, folder: Path) -> None:
    kind = "universal2" if step.client == "pip-universal2" else "arm64"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    command += ["--retries", "8", "--timeout", "60", "--python-version", "3.12"]
    for system in (11, 12, 13):
        command += ["--platform", f"macosx_{system}_0_{kind}"]
    if kind == "universal2":
        command += ["--implementation", "cp", "--abi", "abi3"]
    run([*command, "--dest", str(folder), f"{package}=={step.version}"])


def _download_npm(package: str, version: str, folder: Path) -> None:
    cache = folder / "cache"
    command = ["npm", "pack", "--silent", "--cache", str(cache), "--pack-destination", str(folder)]
    run([*command, f"{package}@{version}"], cwd=folder)
    shutil.rmtree(cache, ignore_errors=True)


@dataclass(frozen=True)
class _Mirror:
    uri: str
    keyring: str


def machine_mirrors(sources_dir: Path = Path("/etc/apt/sources.list.d")) -> dict[str, _Mirror]:
    """Read the Debian mirrors this machine uses: keys "main" and "security"."""
    mirrors: dict[str, _Mirror] = {}
    for file in sorted(sources_dir.glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", file.read_text(encoding="utf-8")):
            lines = [line for line in stanza.splitlines() if not line.startswith("#")]
            split = (line.partition(":") for line in lines if line[:1].strip())
            fields = {name.strip().lower(): value.strip() for name, _, value in split}
            suites = fields.get("suites", "").split()
            if "main" in fields.get("components", "").split() and suites and fields.get("uris"):
                kind = "security" if suites[0].endswith("-security") else "main"
                uri = fields["uris"].split()[0]
                mirrors.setdefault(kind, _Mirror(uri, fields.get("signed-by", "")))
    return mirrors


_SUITES = ("bookworm", "bookworm-security", "trixie", "trixie-security", "forky", "sid")


class PrivateApt:
    """An apt configuration of its own: the suites the corpora need, nothing of the machine's.

    The mirror is read from the machine's sources at run time.  `folder` holds the list files.
    """

    def __init__(self, folder: Path, suites: Sequence[str] = _SUITES) -> None:
        self._folder = folder
        self._suites = suites
        self._updated = False

    def _options(self) -> list[str]:
        base = self._folder
        settings = [
            f"Dir::Etc::sourcelist={base / 'sources.list'}",
            "Dir::Etc::sourceparts=/dev/null",
            f"Dir::State={base}",
            f"Dir::State::lists={base / 'lists'}",
            f"Dir::State::status={base / 'status'}",
            f"Dir::Cache={base / 'cache'}",
            "Dir::Cache::pkgcache=pkgcache.bin",
            "Dir::Cache::srcpkgcache=srcpkgcache.bin",
            "APT::Architectures::=amd64",
            "APT::Architectures::=arm64",
            "APT::Sandbox::User=",
            "Acquire::Languages=none",
            "Acquire::Retries=5",
        ]
        return [part for setting in settings for part in ("-o", setting)]

    def update(self) -> None:
        """Write the private sources and fetch their lists, once a run."""
        if self._updated:
            return
        mirrors = machine_mirrors()
        lines: list[str] = []
        for suite in self._suites:
            mirror = mirrors.get("security" if suite.endswith("-security") else "main")
            if mirror is None:
                raise SourceError(f"no Debian mirror for {suite} is configured on this machine")
            signed = f" signed-by={mirror.keyring}" if mirror.keyring else ""
            lines.append(f"deb [arch=amd64,arm64{signed}] {mirror.uri} {suite} main\n")
        for name in ("lists/partial", "cache/archives/partial"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        (self._folder / "status").touch()
        (self._folder / "sources.list").write_text("".join(lines), encoding="utf-8")
        run(["apt-get", "-q", *self._options(), "update"])
        self._updated = True

    def versions(self, package: str) -> list[tuple[str, str]]:
        """List the (version, suite) of `package` that the archive holds today."""
        self.update()
        rows = run(["apt-cache", *self._options(), "madison", package]).splitlines()
        cells = [[cell.strip() for cell in row.split("|")] for row in rows]
        held = [(row[1], row[2].split()[1].split("/")[0]) for row in cells if len(row) == 3]
        return [(version, suite) for version, suite in held if suite in self._suites]

    def names(self, pattern: str) -> list[str]:
        """List the package names that match the whole regular expression `pattern`."""
        self.update()
        known = run(["apt-cache", *self._options(), "pkgnames"]).split()
        return sorted(name for name in set(known) if re.fullmatch(pattern, name))

    def download(self, package: str, version: str, folder: Path) -> None:
        """Put the .deb of one package version into `folder`."""
        if version not in [held for held, _ in self.versions(package)]:
            raise VersionGoneError(f"{package} {version} is in no suite any more")
        run(["apt-get", "-q", *self._options(), "download", f"{package}={version}"], cwd=folder)

    def substitute(self, step: Step) -> tuple[tuple[str, ...], str, str]:
        """Choose what stands in for a step whose version is gone: packages, version, suite.

        A new end gets the newest version that its suites hold; an old end the newest one below
        the version that the new end has or will get, so that a pair never runs backwards.
        """
        names = self.names(step.pattern) if step.pattern else [step.packages[0]]
        held: dict[str, tuple[str, str]] = {}
        for name in names:
            for version, suite in self.versions(name):
                if suite in step.suites:
                    held.setdefault(version, (name, suite))
        order = sorted(held, key=functools.cmp_to_key(compare_debian))
        if step.role == "old" and order:
            new = step.partner if step.partner in held else order[-1]
            order = [version for version in order if compare_debian(version, new) < 0]
        if not order:
            raise SourceError(f"{step.packages[0]}: the suites hold nothing to stand in")
        name, suite = held[order[-1]]
        return ((name,) if step.pattern else step.packages), order[-1], suite


def compare_debian(left: str, right: str) -> int:
    """Order two Debian versions, as dpkg does."""
    if left == right:
        return 0
    less = subprocess.run(["dpkg", "--compare-versions", left, "lt", right], check=False)
    return -1 if less.returncode == 0 else 1


def download(step: Step, package: str, version: str, cache: Path, apt: PrivateApt) -> Path:
    """Obtain one package file, from `cache` when an earlier run completed it there."""
    kind = step.client.partition("-")[0]
    name = re.sub(r"[^A-Za-z0-9.+~-]", "_", f"{kind}-{package}-{version}")
    done = cache / name
    if done.is_dir():
        return _only_file(done, name)
    part = cache / f"{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        if kind == "npm":
            _download_npm(package, version, part)
        elif kind == "apt":
            apt.download(package, version, part)
        else:
            _download_wheel(step, package, part)
        _only_file(part, name)
        os.rename(part, done)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return _only_file(done, name)
