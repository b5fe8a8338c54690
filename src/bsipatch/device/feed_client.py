"""What a feed says now: refreshed through untrusted mirrors, held to what was seen before.

    with FeedClient(store_root / "feed") as feed:
        view = feed.refresh(transport)      # or feed.cached()
        view.offers, view.wanted(offer)

Every mirror is asked; each works on a copy of its own, and the newest set that verifies
is swapped in whole.  Roots are the exception: a verified newer root is kept even when
nothing else of its mirror is, for it may be what revokes a stolen key.  What is known of the
feed is read without a lock, and outlasts a refresh that broke off.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from ..closing import Closing
from ..errors import (
    BsipatchError,
    CancelledError,
    FeedError,
    MismatchError,
    NotFoundError,
    RollbackError,
    TrustError,
)
from ..feed.model import Offer, read_offer
from ..feed.names import by_id, target_path
from ..limits import DEFAULT, Limits
from ..store import durable
from . import device_id
from .downloading import Wanted
from .metadata_store import MetadataStore, lay_out, roots_of
from .mirrors import Mirror, Mirrors, Problem
from .state import config as configs
from .state import floor as floors
from .state.floor import Floor, Mark
from .transport import Pace, Transport
from .tuf_client import CachedFetcher, Client, Fetcher

DOWNLOADS = "downloads"
#: what a mirror can do wrong; errors of this device are none of these
_MIRRORS_FAULT = (FeedError, TrustError, MismatchError)
#: seconds for all of one metadata file, however it arrives
_METADATA_TIME = 60.0
#: seconds that a further mirror gets once one has answered well
_PATIENCE = 5.0
_PROBE = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedView:
    """A feed at one moment, verified.

    offers    what the channel lists, of every product
    expires   when the first of the metadata does, seconds since 1970
    now       the moment that it was judged by
    versions  of each role
    mirror    that gave it; "" when it comes from this device's own copy
    keys      of each channel, a fingerprint of the keys that speak for it
    problems  what mirrors did wrong, and entries that were left out
    """

    channel: str
    offers: tuple[Offer, ...]
    paths: dict[str, str]
    digests: dict[str, str]
    expires: int
    now: int
    versions: dict[str, int]
    mirror: str
    keys: dict[str, str]
    problems: tuple[Problem, ...]

    def offer(self, name: str) -> Offer:
        """By its id or its end, of six digits or more. Raises NotFoundError, UsageError."""
        found = by_id(name, self.offers, lambda offer: offer.id)
        if not found:
            raise NotFoundError(
                "the feed lists no such update",
                file=name,
                hint="`bsipatch check` shows what is offered.",
            )
        return found[0]

    def reached(self, tree: str, series: tuple[str, str]) -> int:
        """The sequence of the improvement whose result is this tree; 0 when none is listed."""
        return max(
            (o.sequence for o in self.offers if (o.result_digest, o.series) == (tree, series)),
            default=0,
        )

    def wanted(self, offer: Offer) -> Wanted:
        """What to download for an offer."""
        return Wanted(path=self.paths[offer.id], size=offer.size, sha256=self.digests[offer.id])


class FeedClient(Closing):
    """A store's feed: its settings, floor, metadata. Use it as a context manager.

    clock: seconds since 1970.  Methods that change something hold the lock of what they change.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        clock: Callable[[], float] = time.time,
        limits: Limits = DEFAULT,
    ) -> None:
        """Raises NotFoundError (no feed is followed), ConfigError, SystemCallError."""
        self.limits, self._clock = limits, clock
        self.store = MetadataStore(folder, limits=limits)
        try:
            fd = self.store.fd
            self.config = configs.read(dir_fd=fd, file=self._name(configs.CONFIG), limits=limits)
            self.device_id = device_id.read(fd, self._name(device_id.DEVICE_ID), limits)
        except BaseException:
            self.store.close()
            raise

    def close(self) -> None:
        """Lets go of the feed's folder. Safe to call twice."""
        self.store.close()

    @property
    def folder(self) -> Path:
        """STORE/feed."""
        return self.store.folder

    def heed(
        self, *, channel: str, mirrors: tuple[str, ...] = (), bandwidth: int | None = None
    ) -> None:
        """What a policy says in place of the settings, for as long as this is open.

        No mirrors: the settings' own.  Raises ConfigError.
        """
        changed = msgspec.structs.replace(
            self.config,
            channel=channel,
            mirrors=mirrors or self.config.mirrors,
            bandwidth=bandwidth,
        )
        self.config = configs.check(changed, "the policy in force")

    def mirrors(self) -> Mirrors:
        """The configured mirrors, none of them tried yet."""
        return Mirrors.of(self.config.mirrors)

    def transport(self, *, stop: threading.Event | None = None) -> Transport:
        """For payloads: as the settings say."""
        pace = Pace.of(self.limits, max_rate=self.config.bandwidth)
        return Transport(pace, proxy=self.config.proxy, stop=stop, limits=self.limits)

    # --- the floor ---

    def floor(self) -> Floor:
        """What the device never goes back behind. Raises StoreDamagedError, SystemCallError."""
        file = self._name(floors.FLOOR)
        return floors.read(dir_fd=self.store.fd, file=file, limits=self.limits)

    def raise_floor(self, change: Callable[[Floor], Floor]) -> Floor:
        """Reads, changes and durably writes the floor, under its own lock.

        Works while another process refreshes: what went live is not to be forgotten for that.
        """
        return self._rewrite_floor(change)

    def _rewrite_floor(self, change: Callable[[Floor], Floor]) -> Floor:
        with self.store.changing_floor():
            floor = change(self.floor())
            floors.write(floor, dir_fd=self.store.fd, file=self._name(floors.FLOOR))
            return floor

    # --- reading the feed ---

    def refresh(self, product: str, *, stop: threading.Event | None = None) -> FeedView:
        """The feed as it is now.

        Raises what the mirrors' fault was when none gave a sound set: FeedError, TransferError,
        ExpiredError, RollbackError, ThresholdError, MismatchError; StoreBusyError,
        StoreDamagedError, SystemCallError, CancelledError.
        """
        with self.store.changing("refresh"):
            floor = self.floor()
            now = floor.now(self._clock())
            run = _Refresh(self, product, floor, now, stop)
            try:
                view, marks = run.over(self.mirrors())
            finally:
                run.clean()
            # Written before anyone acts on the view: what was seen once is never forgotten.
            self._rewrite_floor(lambda newest: newest.seen(marks, self._clock()))
            return view

    def cached(self, product: str) -> FeedView:
        """The feed as it was at the last refresh, without any network or lock.

        After one that broke off, as it was before, which `problems` then tells.  Raises
        NotFoundError before the first refresh, ExpiredError when it has expired since,
        StoreBusyError, StoreDamagedError, SystemCallError.
        """
        # The floor first: a refresh swaps the sets and raises it afterwards.
        floor = self.floor()
        known = self.store.known()
        if known is None:
            raise NotFoundError(
                "nothing is known of the feed yet", file=self.folder, hint="Run `bsipatch check`."
            )
        accepted, consistent = known
        run = _Refresh(self, product, floor, floor.now(self._clock()), None)
        try:
            return run.offline(accepted)
        except _MIRRORS_FAULT as error:
            if consistent is None:
                raise
            # Under the newest roots all the same: a key that they revoke says nothing any more.
            view = run.offline({**consistent, **dict(roots_of(accepted))})
            reason = f"the last refresh broke off, this is from before it: {error.message}"
            problem = Problem("", error.code, reason)
            return replace(view, problems=(*view.problems, problem))

    def root(self) -> bytes:
        """The pinned root."""
        file = self._name(configs.ROOT)
        return configs.read_root(dir_fd=self.store.fd, file=file, limits=self.limits)

    def _name(self, name: str) -> str:
        return str(self.store.folder / name)


@dataclass(frozen=True, slots=True)
class _Good:
    """A stage whose contents verified."""

    stage: Path
    view: FeedView
    marks: dict[str, Mark]


class _Refresh:
    """One refresh, under the feed's lock; offline() needs none."""

    def __init__(
        self,
        feed: FeedClient,
        product: str,
        floor: Floor,
        now: int,
        stop: threading.Event | None,
    ) -> None:
        self._feed, self._product, self._floor, self._now = feed, product, floor, now
        self._stop, self._limits = stop, feed.limits
        self._store, self._root = feed.store, feed.root()
        self._stages: list[Path] = []
        self._roots: dict[str, bytes] = {}

    def over(self, mirrors: Mirrors) -> tuple[FeedView, dict[str, Mark]]:
        """Asks every mirror; keeps the newest sound set. Raises when there is none."""
        best: _Good | None = None
        failed: tuple[Path, BsipatchError] | None = None
        served: list[tuple[Mirror, int]] = []
        for mirror in mirrors:
            base = best.stage if best is not None else self._store.current()
            stage = self._stage(base)
            try:
                good = self._ask(mirror, stage, hurry=best is not None)
            except CancelledError:
                raise
            except _MIRRORS_FAULT as error:
                stale = isinstance(error, RollbackError)
                mirrors.failed(mirror, error, "stale" if stale else None)
                failed = failed or (stage, error)
                self._roots.update(self._store.roots(stage))
                continue
            served.append((mirror, good.marks["timestamp"].number))
            # One that adds nothing leaves the first that had it as where it came from.
            if best is None or good.view.versions != best.view.versions:
                best = good
        problems = [*mirrors.problems, *self._lagging(served)]
        if best is None:
            assert failed is not None
            # Verified parts are kept: a newer root or timestamp binds this device from now on.
            self._store.adopt(failed[0], consistent=False)
            raise _with_all(failed[1], mirrors.problems)
        best = self._with_newer_roots(best)
        self._store.adopt(best.stage)
        found = (*problems, *best.view.problems)
        return replace(best.view, problems=found), best.marks

    def offline(self, files: dict[str, bytes]) -> FeedView:
        """The same verification over what is here already; writes nothing into the store."""
        with (
            durable.system_calls("reading the feed's metadata", self._store.folder),
            tempfile.TemporaryDirectory(prefix="bsipatch-feed-") as folder,
        ):
            stage = Path(folder) / "set"
            lay_out(stage, files)
            client = self._client(stage, "file:///", CachedFetcher(stage))
            return self._verified(client, stage, "").view

    def clean(self) -> None:
        """Removes the stages that were not kept."""
        for stage in self._stages:
            self._store.discard(stage)

    def _stage(self, base: Path | None) -> Path:
        stage = self._store.copy(base, self._roots)
        self._stages.append(stage)
        return stage

    def _ask(self, mirror: Mirror, stage: Path, *, hurry: bool) -> _Good:
        pace = Pace.of(self._limits, total=_METADATA_TIME)
        if hurry:
            pace = replace(pace, connect_timeout=_PATIENCE, read_timeout=_PATIENCE)
        with Transport(
            pace, proxy=self._feed.config.proxy, stop=self._stop, limits=self._limits
        ) as transport:
            client = self._client(stage, mirror.metadata, Fetcher(transport))
            try:
                return self._verified(client, stage, mirror.base)
            finally:
                self._store.prune_roots(stage, client.root_version)

    def _client(self, stage: Path, url: str, fetcher: Fetcher | CachedFetcher) -> Client:
        return Client(stage, url, fetcher, root=self._root, now=self._now, limits=self._limits)

    def _verified(self, client: Client, stage: Path, mirror: str) -> _Good:
        channel = self._feed.config.channel
        client.refresh()
        listed, wrong = client.listed(channel, target_path(channel, self._product, _PROBE))
        marks = client.marks(channel)
        self._floor.check_roles(marks)
        problems = [
            Problem(mirror, "wrong-role", f"{channel} lists {path!a}, which is not its own")
            for path in wrong
        ]
        offers, paths, digests = [], {}, {}
        for entry in listed:
            try:
                offer = read_offer(
                    entry.path,
                    length=entry.size,
                    sha256=entry.sha256,
                    custom=entry.custom,
                    limits=self._limits,
                )
            except BsipatchError as error:
                # One that a newer publisher wrote must not hide the others.
                problems.append(Problem(mirror, error.code, error.message))
                continue
            offers.append(offer)
            paths[offer.id] = entry.path
            digests[offer.id] = entry.sha256 or ""
        view = FeedView(
            channel=channel,
            offers=tuple(offers),
            paths=paths,
            digests=digests,
            expires=client.expires(channel)[0],
            now=self._now,
            versions={name: mark.number for name, mark in marks.items()},
            mirror=mirror,
            keys=client.channel_keys(),
            problems=tuple(problems),
        )
        return _Good(stage, view, marks)

    def _with_newer_roots(self, best: _Good) -> _Good:
        """The same set under the newest verified root, which may no longer allow it."""
        have = self._store.roots(best.stage)
        if all(have.get(name) == data for name, data in self._roots.items()):
            return best
        stage = self._stage(best.stage)
        try:
            client = self._client(stage, "file:///", CachedFetcher(best.stage))
            good = self._verified(client, stage, best.view.mirror)
        except _MIRRORS_FAULT:
            self._store.adopt(stage, consistent=False)
            raise
        return good

    @staticmethod
    def _lagging(served: list[tuple[Mirror, int]]) -> Iterator[Problem]:
        newest = max((version for _, version in served), default=0)
        for mirror, version in served:
            if version < newest:
                reason = f"it serves version {version} of the feed, another mirror has {newest}"
                yield Problem(mirror.base, "stale", reason)


def _with_all(error: BsipatchError, problems: list[Problem]) -> BsipatchError:
    """The first mirror's error, which also names what the others did."""
    if len(problems) > 1:
        rest = "; ".join(map(str, problems[1:]))
        error.detail = f"{error.detail}; no other mirror helps: {rest}"
    return error


@contextmanager
def opened(
    store_root: Path, *, clock: Callable[[], float] = time.time, limits: Limits = DEFAULT
) -> Iterator[FeedClient]:
    """The feed of the store at `store_root`."""
    with FeedClient(store_root / "feed", clock=clock, limits=limits) as feed:
        yield feed
