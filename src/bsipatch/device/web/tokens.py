"""One-time tokens, and the sessions that they are exchanged for."""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

#: seconds in which a token must be used
LIFE = 600.0
#: seconds after which a session that is not used ends
_IDLE = 12 * 3600.0
_MOST = 16
_BYTES = 32


@dataclass(slots=True)
class Session:
    """One browser. csrf: what its page must say with every change. used: a monotonic time."""

    key: str
    csrf: str
    used: float

    def says(self, csrf: str) -> bool:
        """Whether that is its CSRF token."""
        return _same(self.csrf, csrf)


class Sessions:
    """Tokens that were given out and sessions that live, in memory only. Safe from threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: dict[str, float] = {}
        self._sessions: dict[str, Session] = {}

    def token(self) -> str:
        """A new token, good once and not for long."""
        made = secrets.token_urlsafe(_BYTES)
        with self._lock:
            self._tokens[made] = self._clock() + LIFE
            while len(self._tokens) > _MOST:
                del self._tokens[next(iter(self._tokens))]
        return made

    def exchange(self, token: str) -> Session | None:
        """The session for a token; None for one that is unknown, used or too old."""
        with self._lock:
            now = self._clock()
            found = next((known for known in self._tokens if _same(known, token)), None)
            if found is None or self._tokens.pop(found) < now:
                return None
            made = Session(secrets.token_urlsafe(_BYTES), secrets.token_urlsafe(_BYTES), now)
            self._sessions[made.key] = made
            while len(self._sessions) > _MOST:
                del self._sessions[next(iter(self._sessions))]
            return made

    def session(self, key: str) -> Session | None:
        """The session of a cookie; None when it has ended or never was."""
        with self._lock:
            now = self._clock()
            found = next((one for one in self._sessions.values() if _same(one.key, key)), None)
            if found is None:
                return None
            if now - found.used > _IDLE:
                del self._sessions[found.key]
                return None
            found.used = now
            return found


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "replace"))
