"""Who is at the other end of a local connection, by the kernel's word."""

from __future__ import annotations

import os
import pwd
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

_UCRED = struct.Struct("=iII")
#: struct xucred of macOS and the BSDs: version, uid, count of groups, 16 groups
_XUCRED = struct.Struct("=IIh2x16I")
_SOL_LOCAL, _LOCAL_PEERCRED = 0, 1
_TABLES = {socket.AF_INET: Path("/proc/net/tcp"), socket.AF_INET6: Path("/proc/net/tcp6")}


@dataclass(frozen=True, slots=True)
class Peer:
    """A process' user, and its id where the system tells it."""

    uid: int
    pid: int | None = None

    @property
    def name(self) -> str:
        """For people and logs."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"uid {self.uid}"


def of_unix(connection: socket.socket) -> Peer | None:
    """Who connected to a Unix socket; None where the system does not tell.

    The kernel noted it when the connection was made: it cannot be forged, and
    stays true when the process drops its rights later.
    """
    try:
        if hasattr(socket, "SO_PEERCRED"):
            told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            pid, uid, _ = _UCRED.unpack(told)
            return Peer(uid, pid or None)
        if sys.platform == "darwin" or "bsd" in sys.platform:
            told = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size)
            return Peer(_XUCRED.unpack(told)[1])
    except (OSError, struct.error):
        pass
    return None


def of_loopback(
    connection: socket.socket, *, tables: dict[socket.AddressFamily, Path] | None = None
) -> Peer | None:
    """Whose process holds the other end of a TCP connection on this machine.

    None where the system does not tell (there is no /proc/net), or when the other
    end has been closed already.
    """
    try:
        ours, theirs = connection.getsockname(), connection.getpeername()
        wanted = f"{_address(theirs)} {_address(ours)}"
        with (_TABLES if tables is None else tables)[socket.AddressFamily(connection.family)].open(
            "rb"
        ) as table:
            for line in table:
                # sl local remote state queues timer retransmits uid ...
                fields = line.decode("ascii", "replace").split()
                if len(fields) > 7 and f"{fields[1]} {fields[2]}" == wanted:
                    return Peer(int(fields[7]))
    except (OSError, ValueError, KeyError, IndexError):
        pass
    return None


def _address(name: tuple[str, int]) -> str:
    """As /proc/net/tcp writes it: words of 32 bits as this machine reads them, in hex."""
    family = socket.AF_INET6 if ":" in name[0] else socket.AF_INET
    packed = socket.inet_pton(family, name[0])
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{name[1]:04X}"


def trusted_uids(store_root: Path) -> frozenset[int]:
    """Who may change things: root, the store's owner, who runs this, and who ran sudo for it."""
    found = {0, os.stat(store_root).st_uid, os.geteuid()}
    behind = os.environ.get("SUDO_UID", "")
    if os.geteuid() == 0 and behind.isascii() and behind.isdigit():
        found.add(int(behind))
    return frozenset(found)
