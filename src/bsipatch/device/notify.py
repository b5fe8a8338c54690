"""Talks to the service manager: readiness, status, watchdog, sockets that it opened for us.

Our own few lines rather than a library: the protocol is one datagram to the
socket that NOTIFY_SOCKET names, and stable by promise; sd_notify(3) itself
shows implementations of this size.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Self

from ..closing import Closing

#: the first descriptor that a service manager hands over
_FIRST_FD = 3
_MOST_FDS = 64


class Notifier(Closing):
    """Sends states to the service manager; without one every call does nothing.

    Errors are not raised: a service must not fail because its manager does not
    listen.  Every call says whether the datagram was sent.  Safe from several threads.
    """

    def __init__(self, address: str | None) -> None:
        """`address` is NOTIFY_SOCKET's: a path, or @name in Linux's abstract namespace."""
        self._address: str | None = None
        self._socket: socket.socket | None = None
        if address and address[0] in "/@" and len(address) > 1:
            self._address = "\0" + address[1:] if address[0] == "@" else address
            kind = socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0)
            with contextlib.suppress(OSError):
                self._socket = socket.socket(socket.AF_UNIX, kind)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """The one that the service manager asks for."""
        return cls(environ.get("NOTIFY_SOCKET"))

    @property
    def connected(self) -> bool:
        """Whether there is anybody to talk to."""
        return self._socket is not None

    def send(self, **fields: str | int) -> bool:
        """One datagram of FIELD=value lines. Newlines in values become spaces."""
        if self._socket is None or self._address is None:
            return False
        lines = (
            f"{name.upper()}={' '.join(str(value).splitlines())}" for name, value in fields.items()
        )
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except (OSError, UnicodeEncodeError):
            return False
        return True

    def ready(self, status: str = "") -> bool:
        """Start-up is done."""
        return self.send(ready=1, status=status, mainpid=os.getpid())

    def status(self, text: str) -> bool:
        """One line for `systemctl status`."""
        return self.send(status=text)

    def alive(self) -> bool:
        """Feeds the watchdog."""
        return self.send(watchdog=1)

    def extend(self, seconds: float) -> bool:
        """Asks for more time to start or stop."""
        return self.send(extend_timeout_usec=int(seconds * 1_000_000))

    def stopping(self, status: str = "") -> bool:
        """The end has begun."""
        return self.send(stopping=1, status=status)

    def close(self) -> None:
        """Closes the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between two calls of alive(): half of what the manager waits; None without one."""
    pid = environ.get("WATCHDOG_PID")
    if pid is not None and pid != str(os.getpid()):
        return None
    usec = environ.get("WATCHDOG_USEC", "")
    if not usec.isascii() or not usec.isdigit() or int(usec) == 0:
        return None
    return int(usec) / 2_000_000


def activated_sockets(
    environ: Mapping[str, str] = os.environ, *, first_fd: int = _FIRST_FD
) -> dict[str, list[int]]:
    """Descriptors that the manager opened for this process, by name; {} when there are none.

    They are the caller's from then on, and not inherited by programs it starts.
    """
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isascii() or not count.isdigit():
        return {}
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[int]] = {}
    for index in range(min(int(count), _MOST_FDS)):
        fd = first_fd + index
        os.set_inheritable(fd, False)
        name = names[index] if index < len(names) and names[index] else "unknown"
        found.setdefault(name, []).append(fd)
    return found
