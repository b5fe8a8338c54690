"""What a tree is for, as its executables say: platform and architectures from their headers."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HEAD", "Target", "combine", "detect", "detect_file"]

#: bytes of a file's beginning that detection looks at
HEAD = 32768

_ELF_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "arm64", 243: "riscv64", 258: "loong64"}
_MACHO_CPUS = {7: "i386", 12: "arm", 0x01000007: "x86_64", 0x0100000C: "arm64"}
_MACHO_PLATFORMS = {
    1: "macos",
    2: "ios",
    3: "tvos",
    4: "watchos",
    6: "maccatalyst",
    7: "ios-simulator",
    11: "visionos",
}
_LC_BUILD_VERSION = 0x32
_LC_VERSION_MIN = {0x24: "macos", 0x25: "ios", 0x2F: "tvos", 0x30: "watchos"}
_CPU_ARM64 = 0x0100000C
_MAX_SLICES = 16
_MAX_COMMANDS = 4096


@dataclass(frozen=True, slots=True)
class Target:
    """What one executable file runs on; platform "" where only its slices could tell."""

    platform: str
    architectures: frozenset[str]


def detect(head: bytes) -> Target | None:
    """The target of a file that begins with `head`; None when it is no executable we know."""
    if head[:4] == b"\x7fELF":
        return _elf(head)
    if head[:4] in (b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"):
        return _fat(head)
    if head[:4] in (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe"):
        return _macho(head)
    return None


def combine(targets: Iterable[Target]) -> tuple[str, tuple[str, ...]]:
    """(platform, architectures) of all of them; "any" where there is nothing to go by.

    Executables of several platforms give the one that most of them name.
    """
    votes: dict[str, int] = {}
    architectures: set[str] = set()
    for target in targets:
        architectures |= target.architectures
        if target.platform:
            votes[target.platform] = votes.get(target.platform, 0) + 1
    platform = min(votes, key=lambda name: (-votes[name], name)) if votes else "any"
    return platform, tuple(sorted(architectures)) or ("any",)


def _elf(head: bytes) -> Target | None:
    if len(head) < 20 or head[5] not in (1, 2):
        return None
    machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    name = _ELF_MACHINES.get(machine)
    return Target("linux", frozenset([name])) if name else None


def _fat(head: bytes) -> Target | None:
    if len(head) < 8:
        return None
    wide = head[3] == 0xBF
    count = int.from_bytes(head[4:8], "big")
    step = 32 if wide else 20
    # A Java class file begins with the same four bytes; its "count" is a version of 45 or more.
    if not 0 < count <= _MAX_SLICES or len(head) < 8 + count * step:
        return None
    names = set()
    for index in range(count):
        cpu, subtype = struct.unpack_from(">II", head, 8 + index * step)
        name = _cpu_name(cpu, subtype)
        if name is None:
            return None
        names.add(name)
    return Target("", frozenset(names))


def _cpu_name(cpu: int, subtype: int) -> str | None:
    if cpu == _CPU_ARM64 and subtype & 0xFF == 2:
        return "arm64e"
    return _MACHO_CPUS.get(cpu)


def _macho(head: bytes) -> Target | None:
    if len(head) < 28:
        return None
    cpu, subtype, _, count, _ = struct.unpack_from("<5I", head, 4)
    name = _cpu_name(cpu, subtype)
    if name is None:
        return None
    at = 32 if head[0] == 0xCF else 28
    for _ in range(min(count, _MAX_COMMANDS)):
        if at + 12 > len(head):
            break
        command, size, value = struct.unpack_from("<III", head, at)
        if command == _LC_BUILD_VERSION:
            return Target(_MACHO_PLATFORMS.get(value, ""), frozenset([name]))
        if command in _LC_VERSION_MIN:
            return Target(_LC_VERSION_MIN[command], frozenset([name]))
        if size < 8:
            break
        at += size
    return Target("", frozenset([name]))


def detect_file(path: Path) -> Target | None:
    """As detect(), for a file; of a fat one, the first slice tells the platform.

    A file that cannot be read is no executable.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            target = detect(head)
            if target is None or target.platform or head[:3] != b"\xca\xfe\xba":
                return target
            wide = head[3] == 0xBF
            file.seek(int.from_bytes(head[16:24] if wide else head[16:20], "big"))
            inner = detect(file.read(HEAD))
    except (OSError, OverflowError, ValueError):
        return None
    return Target(inner.platform if inner else "", target.architectures)
