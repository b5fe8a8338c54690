"""The whole feed as a device would see it: python-tuf's own client, every payload, every offer.

Nothing here shares the publisher's own reading: metadata comes through `tuf.ngclient` from a root
that the caller trusts, and each update file through the device's Package.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import TargetFile, Targets
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from bsipatch import trust
from bsipatch.errors import (
    BsipatchError,
    CorruptError,
    FeedError,
    MismatchError,
    NotFoundError,
    from_os_error,
)
from bsipatch.feed.model import Offer, read_offer
from bsipatch.feed.names import CHANNELS, parse_target
from bsipatch.limits import DEFAULT, Limits
from bsipatch.package import Package
from bsipatch.publish.feed.metadata import parse, when
from bsipatch.publish.feed.offers import compare
from bsipatch.publish.feed.planning import payload_path
from bsipatch.publish.feed.state import METADATA
from bsipatch.publish.feed.storage import Storage
from bsipatch.trust import Policy

__all__ = ["CheckReport", "Finding", "check_feed"]

_BASE = "feed://local/"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and with which file or offer."""

    where: str
    what: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """How much was read (sizes in bytes) and what is wrong; no findings: all is well."""

    offers: int
    payloads: int
    bytes: int
    findings: tuple[Finding, ...]


class _Fetcher(FetcherInterface):
    """The storage as python-tuf's network."""

    def __init__(self, storage: Storage, limits: Limits) -> None:
        self._storage, self._limits = storage, limits

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = unquote(url.removeprefix(_BASE))
        try:
            stored = self._storage.read(path, self._limits.max_targets)
        except BsipatchError as error:
            raise DownloadError(error.message) from error
        if stored is None:
            raise DownloadHTTPError(f"{path} is not there", 404)
        yield stored.data


def check_feed(
    storage: Storage,
    root: bytes,
    *,
    policy: Policy | None = None,
    now: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    limits: Limits = DEFAULT,
) -> CheckReport:
    """Walks everything from the trusted `root`.

    policy: who must have signed the updates; None leaves that to devices and checks the rest.
    now: seconds since 1970 to judge expiry by; None reads the clock.
    progress gets bytes done and in all.  Raises FeedError when not even the metadata can be read;
    everything else that is wrong is a finding.
    """
    with tempfile.TemporaryDirectory(prefix="bsipatch-check-") as folder:
        checker = _Checker(storage, root, Path(folder), policy, limits, now)
        checker.progress = progress
        return checker.run()


class _Checker:
    def __init__(
        self,
        storage: Storage,
        root: bytes,
        folder: Path,
        policy: Policy | None,
        limits: Limits,
        now: int | None,
    ) -> None:
        self._storage, self._folder, self._policy = storage, folder, policy
        self._limits = limits
        self._findings: list[Finding] = []
        self._offers: dict[str, Offer] = {}
        self._checked: dict[str, str] = {}
        self._bytes = 0
        self.progress: Callable[[int, int], None] | None = None
        (folder / "metadata").mkdir()
        config = UpdaterConfig(
            max_root_rotations=limits.max_root_rotations,
            max_delegations=limits.max_delegations,
            root_max_length=limits.max_root,
            timestamp_max_length=limits.max_timestamp,
            snapshot_max_length=limits.max_snapshot,
            targets_max_length=limits.max_targets,
        )
        try:
            self._updater = Updater(
                str(folder / "metadata"),
                _BASE + METADATA,
                target_base_url=_BASE + "targets/",
                fetcher=_Fetcher(storage, limits),
                config=config,
                bootstrap=root,
            )
            if now is not None:
                # The library reads the clock when it starts and offers no other way to set it.
                self._updater._trusted_set.reference_time = when(now)
            self._updater.refresh()
        except (RepositoryError, DownloadError) as error:
            raise FeedError(
                f"a device could not read it: {error}",
                file=storage.name,
                hint="See `bsipatch feed status`; `bsipatch feed refresh` renews what expired.",
            ) from None

    def run(self) -> CheckReport:
        for channel in CHANNELS:
            self._channel(channel)
        total = sum(offer.size for offer in self._offers.values())
        for path, offer in sorted(self._offers.items()):
            self._payload(path, offer)
            if self.progress is not None:
                self.progress(self._bytes, total)
        self._order()
        return CheckReport(
            len(self._offers), len(self._checked), self._bytes, tuple(self._findings)
        )

    def _channel(self, channel: str) -> None:
        # Any path below a channel makes the client load and verify that channel's role.
        probe = f"{channel}/-/-"
        try:
            self._updater.get_targetinfo(probe)
        except (RepositoryError, DownloadError, ValueError) as error:
            self._find(channel, f"a device could not read it: {error}")
            return
        try:
            data = (self._folder / "metadata" / f"{channel}.json").read_bytes()
        except FileNotFoundError:
            self._find(channel, "the targets role does not delegate to it")
            return
        except OSError as error:
            raise from_os_error(error) from error
        for path in parse(data, Targets, channel).signed.targets:
            self._target(channel, path)

    def _target(self, channel: str, path: str) -> None:
        try:
            if parse_target(path).channel != channel:
                raise CorruptError(f"listed by {channel}, which may not")
            found: TargetFile | None = self._updater.get_targetinfo(path)
            if found is None:
                raise CorruptError("no delegation leads a device to it")
            self._offers[path] = read_offer(
                path,
                length=found.length,
                sha256=found.hashes.get("sha256"),
                custom=found.custom,
                limits=self._limits,
            )
        except BsipatchError as error:
            self._find(path, error.message)
        except (RepositoryError, DownloadError) as error:
            self._find(path, str(error))

    def _payload(self, path: str, offer: Offer) -> None:
        spool = self._folder / "payload"
        digest, size = hashlib.sha256(), 0
        try:
            with spool.open("wb") as out:
                for chunk in self._storage.stream(payload_path(path)):
                    digest.update(chunk)
                    size += len(chunk)
                    self._bytes += len(chunk)
                    if size > offer.size:
                        break
                    out.write(chunk)
            expected = parse_target(path).sha256
            if size != offer.size or digest.hexdigest() != expected:
                raise MismatchError(
                    "the file is not the one that is offered",
                    expected=expected,
                    found=digest.hexdigest(),
                )
            self._manifest(path, offer, spool, digest.hexdigest())
        except NotFoundError:
            self._find(path, f"its file {payload_path(path)} is not there")
        except BsipatchError as error:
            self._find(path, error.message)
        except OSError as error:
            raise from_os_error(error, os.fspath(spool)) from error
        else:
            self._checked[path] = digest.hexdigest()

    def _manifest(self, path: str, offer: Offer, file: Path, sha256: str) -> None:
        def verify(envelope: bytes) -> bytes:
            if self._policy is None:
                # TUF has just vouched for every byte; who must sign updates is the device's to say.
                return _payload_of(envelope)
            return trust.verify(envelope, self._policy, limits=self._limits).payload

        with Package.open(file, verify, limits=self._limits) as package:
            package.verify_payloads()
            wrong = compare(offer, package.manifest, sha256, package.size)
        if wrong:
            self._find(path, "the offer and the update's manifest differ in " + ", ".join(wrong))

    def _order(self) -> None:
        """One result, one sequence: else a device could be led in a circle."""
        seen: dict[tuple[tuple[str, str], int], tuple[str, str]] = {}
        for path, offer in sorted(self._offers.items()):
            key = (offer.series, offer.sequence)
            digest, first = seen.setdefault(key, (offer.result_digest, path))
            if digest != offer.result_digest:
                self._find(path, f"has the sequence of {first}, and another result")

    def _find(self, where: str, what: str) -> None:
        self._findings.append(Finding(where, what))


def _payload_of(envelope: bytes) -> bytes:
    try:
        return base64.b64decode(json.loads(envelope)["payload"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CorruptError("not an envelope") from None
