"""How a downloaded package becomes a directory tree of the corpora.

Archives are untrusted: no member may leave its directory, and a tree appears under its final
name only when all of it is there.
"""

from __future__ import annotations

import mmap
import shutil
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

from corpora_sources import SourceError, Step, run


def safe_member(name: str) -> PurePosixPath:
    """Return an archive member's path, refusing one that would leave the target directory."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name:
        raise SourceError(f"archive member has an unsafe path: {name!r}")
    return path


@dataclass(frozen=True)
class FrameworkLayout:
    """Files and links of one restored ``NAME.framework``, both relative to it."""

    files: dict[str, str]
    links: dict[str, str]


def framework_layout(members: Iterable[str]) -> FrameworkLayout:
    """Restore the usual framework layout from a wheel's members (relative to the framework).

    Wheels cannot hold links, so a framework in a wheel either lacks its top-level entries or
    carries copies of them.  Everything belongs in ``Versions/A``; what is found outside only
    fills gaps there, since the copies inside are the ones that were signed.
    """
    inside: dict[str, str] = {}
    outside: dict[str, str] = {}
    for member in members:
        parts = safe_member(member).parts
        if parts[0] != "Versions":
            outside["/".join(parts)] = member
        elif len(parts) < 3 or parts[1] not in ("A", "Current"):
            raise SourceError(f"unexpected file in a framework: {member}")
        elif parts[1] == "A":
            inside["/".join(parts[2:])] = member
        else:
            outside.setdefault("/".join(parts[2:]), member)
    merged = {**outside, **inside}
    links = {"Versions/Current": "A"}
    for top in sorted({rest.split("/")[0] for rest in merged} - {"_CodeSignature"}):
        links[top] = f"Versions/Current/{top}"
    return FrameworkLayout({f"Versions/A/{rest}": merged[rest] for rest in sorted(merged)}, links)


def cut_fat_files(data: bytes | mmap.mmap) -> dict[int, tuple[int, int]]:
    """Find whole fat Mach-O files stored inside `data`.

    Returns the (start, length) of each by the file type of its first slice (2 is an executable,
    6 a shared library).  Only plausible headers count: at most eight slices, all of a known CPU
    family, none past the end of `data`.
    """
    found: dict[int, tuple[int, int]] = {}
    start = data.find(b"\xca\xfe\xba\xbe\0\0\0")
    while start >= 0:
        measured = _fat_length(data, start)
        if measured is not None:
            file_type, length = measured
            found[file_type] = (start, length)
        start = data.find(b"\xca\xfe\xba\xbe\0\0\0", start + (measured[1] if measured else 4))
    return found


def _fat_length(data: bytes | mmap.mmap, start: int) -> tuple[int, int] | None:
    count = data[start + 7] if start + 8 <= len(data) else 0
    if not 1 <= count <= 8 or start + 8 + 20 * count > len(data):
        return None
    slices = [struct.unpack_from(">5I", data, start + 8 + 20 * i) for i in range(count)]
    length = max(offset + size for _, _, offset, size, _ in slices)
    if start + length > len(data) or any(cpu & 0xFF not in (7, 12) for cpu, *_ in slices):
        return None
    first = start + slices[0][2]
    if data[first : first + 4] != b"\xcf\xfa\xed\xfe":
        return None
    return int.from_bytes(data[first + 12 : first + 16], "little"), length


def _rename(step: Step, name: str) -> str | None:
    """Return the path that member `name` gets in the step's directory, None to leave it out."""
    if not step.keep:
        return name
    for glob, new_name in step.keep:
        if fnmatchcase(name, glob):
            return new_name or name
    return None


def _write(source: IO[bytes], target: Path, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
    target.chmod(0o755 if mode & stat.S_IXUSR else 0o644)


def _unpack_wheel(step: Step, archive: Path, out: Path) -> None:
    with zipfile.ZipFile(archive) as wheel:
        for info in wheel.infolist():
            name = None if info.is_dir() else _rename(step, str(safe_member(info.filename)))
            if name is not None:
                with wheel.open(info) as source:
                    _write(source, out / name, info.external_attr >> 16)


def _unpack_frameworks(archive: Path, out: Path) -> None:
    with zipfile.ZipFile(archive) as wheel:
        members: dict[str, dict[str, zipfile.ZipInfo]] = {}
        for info in wheel.infolist():
            head, found, rest = info.filename.partition(".framework/")
            if found and rest and not info.is_dir():
                members.setdefault(head.split("/")[-1] + ".framework", {})[rest] = info
        for framework, infos in members.items():
            layout = framework_layout(infos)
            for target, member in layout.files.items():
                with wheel.open(infos[member]) as source:
                    _write(source, out / framework / target, infos[member].external_attr >> 16)
            for link, points_to in layout.links.items():
                (out / framework / link).symlink_to(points_to)


def _unpack_frida(archive: Path, out: Path, scratch: Path) -> None:
    """Cut the agent and the helper, two whole fat files, out of the extension module."""
    with zipfile.ZipFile(archive) as wheel:
        module = max(wheel.infolist(), key=lambda info: info.file_size)
        with wheel.open(module) as source:
            _write(source, scratch / "module", 0)
    with (
        (scratch / "module").open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        found = cut_fat_files(data)
        for file_type, name in ((6, "frida-agent.dylib"), (2, "frida-helper")):
            if file_type not in found:
                raise SourceError(f"{archive.name}: no {name} inside")
            start, length = found[file_type]
            (out / name).write_bytes(data[start : start + length])
            (out / name).chmod(0o755)


def _unpack_npm(step: Step, archive: Path, out: Path, scratch: Path) -> None:
    """Lay out an npm package; a `keep` glob ``OUTER!INNER`` reaches into a zip file inside it."""
    nested = {glob.split("!")[0] for glob, _ in step.keep if "!" in glob}
    with tarfile.open(archive) as tar:
        for member in tar:
            source = tar.extractfile(member) if member.isfile() else None
            if source is None:
                continue
            path = safe_member(member.name)
            name = "/".join(path.parts[1:])
            if name in nested:
                _write(source, scratch / "nested.zip", 0)
                with zipfile.ZipFile(scratch / "nested.zip") as inner:
                    for info in inner.infolist():
                        inner_name = _rename(step, f"{name}!{info.filename}")
                        if inner_name is not None:
                            with inner.open(info) as file:
                                _write(file, out / inner_name, info.external_attr >> 16)
                continue
            wanted = _rename(step, name)
            if wanted is not None:
                _write(source, out / wanted, member.mode)


def _unpack_deb(step: Step, archive: Path, out: Path, scratch: Path) -> None:
    """Lay out a Debian package without its documentation, which the table's sizes leave out."""
    target = scratch / "deb" if step.keep else out
    run(["dpkg-deb", "-x", str(archive), str(target)])
    shutil.rmtree(target / "usr/share/doc", ignore_errors=True)
    if not step.keep:
        return
    for path in sorted(target.rglob("*")):
        if path.is_file() and not path.is_symlink():
            name = _rename(step, path.relative_to(target).as_posix())
            if name is not None:
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                path.rename(out / name)
    shutil.rmtree(target)


def lay_out(step: Step, archives: Sequence[Path], root: Path, dest: str, scratch: Path) -> None:
    """Unpack `archives` and put the result at ``root/dest``, whole or not at all."""
    out = scratch / "out"
    out.mkdir(parents=True)
    for archive in archives:
        if step.client == "npm":
            _unpack_npm(step, archive, out, scratch)
        elif step.client == "apt":
            _unpack_deb(step, archive, out, scratch)
        elif step.layout == "frameworks":
            _unpack_frameworks(archive, out)
        elif step.layout == "frida":
            _unpack_frida(archive, out, scratch)
        else:
            _unpack_wheel(step, archive, out)
    if not any(out.iterdir()):
        raise SourceError(f"{step.key}: nothing to lay out in the package")
    target = root / dest
    if not step.sections:
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        out.rename(target)
        return
    target.mkdir(parents=True, exist_ok=True)
    for entry in out.iterdir():
        shutil.rmtree(target / entry.name, ignore_errors=True)
        entry.rename(target / entry.name)
