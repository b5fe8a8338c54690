"""Where a feed lies: one or several mirrors, none of them trusted, and what each did wrong.

A mirror may fail, lag behind, lie or be empty.  None of that is fatal while another
answers; all of it is remembered for whoever asks why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from ..errors import BsipatchError, ConfigError

MOST_MIRRORS = 16
_SCHEMES = ("https", "http", "file")


@dataclass(frozen=True, slots=True)
class Mirror:
    """One copy of a feed. `base` is its address, ending in "/"."""

    base: str

    @property
    def metadata(self) -> str:
        """Where its metadata lies."""
        return f"{self.base}metadata/"

    def payload(self, path: str, sha256: str) -> str:
        """The address of a target: TUF prefixes the file's name with its digest."""
        folder, _, name = path.rpartition("/")
        return f"{self.base}targets/{quote(f'{folder}/{sha256}.{name}'.lstrip('/'))}"


@dataclass(frozen=True, slots=True)
class Problem:
    """What one mirror did wrong, for the record. `code` is the error's, or "stale"."""

    mirror: str
    code: str
    reason: str

    @classmethod
    def of(cls, mirror: Mirror, error: BsipatchError, code: str | None = None) -> Problem:
        """From an error."""
        return cls(mirror.base, code or error.code, error.message)

    def __str__(self) -> str:
        return self.reason if self.mirror in self.reason else f"{self.mirror}: {self.reason}"


def check_address(address: str) -> str:
    """The address of a mirror with a "/" at its end. Raises ConfigError."""
    parts = urlsplit(address)
    if parts.scheme not in _SCHEMES or (parts.scheme != "file" and not parts.hostname):
        raise ConfigError(
            "a feed's address begins with https://, http:// or file://", found=address
        )
    if parts.query or parts.fragment or not address.isprintable() or " " in address:
        raise ConfigError("a feed's address has no query, fragment or blanks", found=address)
    if parts.scheme == "file" and (parts.netloc or ".." in parts.path.split("/")):
        raise ConfigError("a feed in a folder is file:// and an absolute path", found=address)
    if parts.password is not None or parts.username is not None:
        raise ConfigError("a feed's address holds no password", found=parts.hostname)
    return address if address.endswith("/") else f"{address}/"


@dataclass(slots=True)
class Mirrors:
    """The mirrors in the order in which they are asked; one that failed goes to the end."""

    all: list[Mirror]
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def of(cls, addresses: Sequence[str]) -> Mirrors:
        """Raises ConfigError."""
        if not 1 <= len(addresses) <= MOST_MIRRORS:
            raise ConfigError(f"a feed has 1 to {MOST_MIRRORS} mirrors", found=len(addresses))
        return cls([Mirror(check_address(address)) for address in dict.fromkeys(addresses)])

    def __iter__(self) -> Iterator[Mirror]:
        return iter(list(self.all))

    def failed(self, mirror: Mirror, error: BsipatchError, code: str | None = None) -> None:
        """Remembers why, and asks the others first from now on."""
        self.problems.append(Problem.of(mirror, error, code))
        self.all.remove(mirror)
        self.all.append(mirror)

    def worked(self, mirror: Mirror) -> None:
        """Asks this one first from now on."""
        self.all.remove(mirror)
        self.all.insert(0, mirror)
