"""The one module that touches python-tuf's client: its errors, its fetching, its idea of now."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import DelegatedRole, Role, Root, TargetFile, Targets
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from ..errors import (
    BsipatchError,
    ExpiredError,
    FeedError,
    MismatchError,
    RollbackError,
    ThresholdError,
    TransferError,
)
from ..limits import Limits
from .state.floor import Mark
from .transport import HttpStatusError, SlowTransferError, Transport

_TOP = ("root", "timestamp", "snapshot", "targets")


@dataclass(frozen=True, slots=True)
class Listed:
    """A target as one role lists it, resolved by TUF's own rules."""

    path: str
    size: int
    sha256: str | None
    custom: dict[str, Any] | None


class Client:
    """One refresh against one mirror, in one folder that is nobody else's meanwhile.

    Everything raises errors of ours: FeedError and its like, TransferError, TrustError,
    MismatchError; OSError of the disk as it is.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        fetcher: FetcherInterface,
        *,
        root: bytes,
        now: int,
        limits: Limits,
    ) -> None:
        """`root`: the pinned root's bytes; `now` in seconds since 1970 judges what has expired."""
        self._url = url
        config = UpdaterConfig(
            max_root_rotations=limits.max_root_rotations,
            max_delegations=limits.max_delegations,
            root_max_length=limits.max_root,
            timestamp_max_length=limits.max_timestamp,
            snapshot_max_length=limits.max_snapshot,
            targets_max_length=limits.max_targets,
        )
        with _our_errors(url):
            # The pinned root starts every walk: what lies in the folder is verified again from it.
            self._updater = Updater(
                str(folder), url, fetcher=fetcher, config=config, bootstrap=root
            )
        # The library reads the clock when it starts; ours cannot be set back.
        self._trusted = self._updater._trusted_set
        self._trusted.reference_time = datetime.fromtimestamp(now, UTC)

    def refresh(self) -> None:
        """Root, timestamp, snapshot and targets, each verified before it is written."""
        with _our_errors(self._url):
            self._updater.refresh()
        self._check_keys()

    def _check_keys(self) -> None:
        """A role that names one key twice would count its signature twice."""
        root, targets = self._trusted.root, self._trusted.targets
        delegations = targets.delegations
        known = [(name, role, root.keys) for name, role in root.roles.items()]
        if delegations is not None:
            known += [(name, role, delegations.keys) for name, role in self._delegations().items()]
        for name, role, keys in known:
            publics = [json.dumps(keys[i].keyval, sort_keys=True) for i in role.keyids if i in keys]
            if len(set(publics)) != len(publics):
                raise ThresholdError("one key stands under two ids", file=self._url, found=name)

    def target(self, path: str) -> TargetFile | None:
        """What the most trusted role that may speak of `path` says; None when none does."""
        with _our_errors(self._url):
            return self._updater.get_targetinfo(path)

    def listed(self, role: str, probe: str) -> tuple[list[Listed], list[str]]:
        """All that a delegated role lists, and the paths that it had no right to list.

        `probe` is any path that is delegated to it.
        """
        self.target(probe)
        targets = self._trusted.get(role)
        if not isinstance(targets, Targets):
            raise FeedError("the feed has no such channel", file=self._url, found=role)
        found, wrong = [], []
        for path, target in sorted(targets.targets.items()):
            # Asked by its path, as TUF means it: a role's own word on another's paths is none.
            if self.target(path) == target:
                sha256 = target.hashes.get("sha256")
                found.append(Listed(path, target.length, sha256, target.custom))
            else:
                wrong.append(path)
        return found, wrong

    @property
    def root_version(self) -> int:
        """Of the newest root that was verified."""
        return self._trusted.root.version

    @property
    def consistent(self) -> bool:
        """Whether the feed's files carry their version or digest in their names."""
        return bool(self._trusted.root.consistent_snapshot)

    def expires(self, role: str) -> tuple[int, str]:
        """The earliest end of life of what is trusted: seconds since 1970, and whose."""
        names = [*_TOP, role]
        ends = [
            (int(self._trusted[name].expires.replace(tzinfo=UTC).timestamp()), name)
            for name in names
            if name in self._trusted
        ]
        return min(ends)

    def marks(self, role: str) -> dict[str, Mark]:
        """Every role's version, and a fingerprint of the keys that could have raised it."""
        root = self._trusted.root
        freshness = _keys(root.roles["timestamp"]) + _keys(root.roles["snapshot"])
        marks = {
            "root": Mark(number=root.version, keys=_print(_keys(root.roles["root"]))),
            "timestamp": Mark(number=self._trusted.timestamp.version, keys=_print(freshness)),
            "snapshot": Mark(number=self._trusted.snapshot.version, keys=_print(freshness)),
        }
        own = _keys(root.roles["targets"])
        marks["targets"] = Mark(number=self._trusted.targets.version, keys=_print(freshness + own))
        delegated = self._delegation(role)
        if delegated is not None and role in self._trusted:
            marks[f"channel:{role}"] = Mark(
                number=self._trusted[role].version, keys=_print(freshness + _keys(delegated))
            )
        return marks

    def channel_keys(self) -> dict[str, str]:
        """Of each channel, a fingerprint of who may speak for it."""
        return {name: _print(_keys(role)) for name, role in self._delegations().items()}

    def _delegation(self, role: str) -> DelegatedRole | None:
        return self._delegations().get(role)

    def _delegations(self) -> dict[str, DelegatedRole]:
        delegations = self._trusted.targets.delegations
        return dict((delegations.roles if delegations is not None else None) or {})


class Fetcher(FetcherInterface):
    """python-tuf's fetching over our transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def _fetch(self, url: str) -> Iterator[bytes]:
        # Opened here and not at the first chunk: a 404 must be one before anyone iterates.
        stack = contextlib.ExitStack()
        try:
            reply = stack.enter_context(self._transport.open(url))
        except HttpStatusError as error:
            raise tuf_errors.DownloadHTTPError(error.message, error.status) from error

        def chunks() -> Iterator[bytes]:
            with stack:
                yield from reply.chunks()

        return chunks()

    def fetch(self, url: str) -> Iterator[bytes]:
        """As the base class, but errors of ours stay as they are."""
        return self._fetch(url)


class CachedFetcher(FetcherInterface):
    """Serves a folder of accepted metadata to itself: everything offline, nothing newer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        # Kept without their versions; what is there may be old, and TUF then says how.
        name = url.rpartition("/")[2]
        name = name.partition(".")[2] if name.partition(".")[0].isdigit() else name
        if name != "root.json":
            with contextlib.suppress(FileNotFoundError):
                return iter([(self._folder / name).read_bytes()])
        raise tuf_errors.DownloadHTTPError("not kept here", 404)


_MEANINGS: tuple[tuple[type[Exception], type[BsipatchError], str], ...] = (
    (tuf_errors.ExpiredMetadataError, ExpiredError, "the feed's metadata has expired"),
    (tuf_errors.BadVersionNumberError, RollbackError, "the feed's metadata went back"),
    (tuf_errors.UnsignedMetadataError, ThresholdError, "the feed's metadata"),
    (
        tuf_errors.LengthOrHashMismatchError,
        MismatchError,
        "the feed's metadata do not fit together",
    ),
    (tuf_errors.DownloadLengthMismatchError, TransferError, "more data than there may be"),
    (tuf_errors.SlowRetrievalError, SlowTransferError, "too slow"),
    (tuf_errors.DownloadError, TransferError, "metadata cannot be had"),
    (tuf_errors.RepositoryError, FeedError, "unusable metadata"),
    # What its parser lets through on input that no publisher makes.
    (ValueError, FeedError, "unusable metadata"),
    (KeyError, FeedError, "unusable metadata"),
    (TypeError, FeedError, "unusable metadata"),
    (AttributeError, FeedError, "unusable metadata"),
    (RecursionError, FeedError, "unusable metadata"),
)

_HINTS: dict[type[BsipatchError], str] = {
    ExpiredError: "Its publisher has stopped renewing it, this mirror is stale, "
    "or this clock is wrong.",
    RollbackError: "Use another mirror; this one serves old metadata.",
    ThresholdError: "Do not trust this mirror; the publisher's keys did not sign that.",
}


@contextlib.contextmanager
def _our_errors(url: str) -> Iterator[None]:
    try:
        yield
    except BsipatchError:
        raise
    except tuf_errors.DownloadHTTPError as error:
        if isinstance(error.__cause__, HttpStatusError):
            raise error.__cause__ from None  # ours, which only travelled in theirs
        raise HttpStatusError(str(error), status=error.status_code, file=url) from error
    except (tuf_errors.RepositoryError, tuf_errors.DownloadError) as error:
        raise _meaning(error, url) from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _meaning(error, url) from error


def _meaning(error: Exception, url: str) -> BsipatchError:
    for theirs, ours, words in _MEANINGS:
        if isinstance(error, theirs):
            text = ascii(" ".join(str(error).split())[:300])[1:-1]
            return ours(f"{words}: {text}" if text else words, file=url, hint=_HINTS.get(ours))
    return FeedError(type(error).__name__, file=url)


def _keys(role: Role) -> list[Any]:
    return [sorted(role.keyids), role.threshold]


def _print(keys: list[Any]) -> str:
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()


def check_root(data: bytes, file: str) -> int:
    """The version of a root that is to be pinned. Raises FeedError, ThresholdError."""
    from tuf.api.metadata import Metadata

    with _our_errors(file):
        root = Metadata[Root].from_bytes(data)
        if not isinstance(root.signed, Root):
            raise FeedError("not a root", file=file)
        root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
        if not root.signed.consistent_snapshot:
            raise FeedError("the feed has no consistent snapshots", file=file)
        return root.signed.version
