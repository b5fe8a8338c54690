"""The base moves on: a tree that came by other means becomes the store's new baseline.

A new store is made beside the old one, given everything of the old that still counts
(the feed and its floor, the history, bars, settings), and put in its place by exchanging two
folders: one rename, so that there is the old store or the new one.  What either leaves
behind has the same name beside the store, and is removed by the next adoption.

An improvement of the old baseline is *contained* when everything it changed is in the new
base as it made it; it is retired, and never offered again.  One that is not contained is
retired as well, for it was built for another tree, and said so: its fixes may be missing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import store as stores
from .. import trust
from ..errors import BsipatchError, StoreStateError, from_os_error
from ..manifest import Manifest
from ..store import Store, Work, durable, exchange, history, records
from ..tree import Tree
from .following import FEED
from .state import adopted
from .state.adopted import Adopted, Contained

#: what a store makes for itself and a new one therefore has already
_OWN = frozenset(
    {
        records.IDENTITY,
        records.CURRENT,
        records.PENDING,
        records.MOVED,
        records.TRIAL,
        records.GENERATIONS,
        records.TRASH,
        "lock",
    }
)
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Retired:
    """An improvement of the old baseline.

    contained  everything it changed is in the new base
    missing    paths that are not as it made them, the first few; what it fixed may be open again
    changes    how many paths it changed
    """

    display: str
    build: str
    result: str
    live: bool
    contained: bool
    missing: tuple[str, ...]
    changes: int


@dataclass(frozen=True, slots=True)
class Adoption:
    """What became of the store. already: the tree is the baseline; nothing was done."""

    version: str
    build: str
    digest: str
    was: str
    already: bool
    retired: tuple[Retired, ...]
    notes: tuple[str, ...]


def adopt(
    root: str | os.PathLike[str],
    tree: str | os.PathLike[str],
    *,
    version: str,
    build: str,
    work: Work | None = None,
) -> Adoption:
    """Makes `tree` the baseline of the store at `root`, live at once.

    Raises StoreStateError (a store whose live path is exchanged), NotFoundError, ManifestError,
    UnsafePathError, StoreBusyError, NoSpaceError, SystemCallError, CancelledError.  On any
    error the old store is as it was.
    """
    place = Path(os.path.abspath(root))
    beside = place.parent / f".{place.name}.adopting"
    with Store(place) as old, old.writing("adopt"):
        if exchange.exchanged(old.fd) is not None:
            raise StoreStateError(
                "its live path changes by exchange, which cannot adopt another base yet",
                file=place,
                hint="Make a new store with `bsipatch init`.",
            )
        _clear(beside)
        in_place = False
        try:
            with _make(old, beside, tree, version, build, work) as made:
                was, now = old.live().display, made.identity
                before = old.identity
                if (now.baseline, version, build) == (
                    before.baseline,
                    before.version,
                    before.build,
                ):
                    return Adoption(version, build, now.baseline, was, True, (), ())
                retired = tuple(_judge(old, made.expected_tree(records.BASELINE)[0]))
                with durable.system_calls("carrying over", beside):
                    _carry(old, made, retired)
            _put_in_place(place, beside)
            in_place = True
        finally:
            # Once in place, the old store is what lies beside, its lock held until here.
            if not in_place:
                _clear(beside)
    return Adoption(version, build, now.baseline, was, False, retired, _remove(beside))


def _clear(beside: Path) -> None:
    with durable.system_calls("clearing", beside):
        fd = os.open(beside.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            durable.remove_tree(beside.name, dir_fd=fd)
        finally:
            os.close(fd)


def _make(
    old: Store,
    beside: Path,
    tree: str | os.PathLike[str],
    version: str,
    build: str,
    work: Work | None,
) -> Store:
    identity = old.identity
    keys = [trust.PublicKey.from_pem(pem.encode()) for pem in identity.trust]
    return stores.init(
        beside,
        tree,
        product=identity.product,
        version=version,
        build=build,
        keys=keys,
        threshold=identity.threshold,
        platform=identity.platform,
        architectures=identity.architectures,
        strategy=identity.strategy,
        work=work,
        limits=old.limits,
    )


# --- what becomes of the improvements ---


def _judge(old: Store, base: Tree) -> Iterator[Retired]:
    live = old.live().number
    for number in records.generation_numbers(old.fd):
        try:
            manifest = old.manifest(number)
        except BsipatchError:
            continue  # one whose record is damaged says nothing about the new base
        if manifest is None:
            continue
        missing, changes = _compare(manifest, base)
        yield Retired(
            display=manifest.display_version,
            build=manifest.build,
            result=manifest.result_digest,
            live=number == live,
            contained=not missing,
            missing=tuple(missing[:_SHOWN]),
            changes=changes,
        )


def _compare(manifest: Manifest, base: Tree) -> tuple[list[str], int]:
    """Which of the paths that an improvement changed are otherwise in the base."""
    missing, changes = [], 0
    for action in manifest.actions:
        if action.do == "keep":
            continue
        changes += 1
        entry = base.get(action.path)
        wanted = None if action.result is None else action.result.at(action.path)
        if wanted is None:
            same = entry is None
        else:
            same = entry is not None and (entry.kind, entry.digest, entry.target) == (
                wanted.kind,
                wanted.digest,
                wanted.target,
            )
        if not same:
            missing.append(action.path)
    return missing, changes


# --- from the old store into the new one ---


def _carry(old: Store, made: Store, retired: tuple[Retired, ...]) -> None:
    for entry in sorted(os.scandir(old.fd), key=lambda entry: entry.name):
        if entry.name in _OWN or entry.name.endswith(records.STAGE_SUFFIX):
            continue
        _copy(Path(old.root / entry.name), Path(made.root / entry.name))
    live = made.live()
    words = [
        f"{item.display}: " + ("contained in it" if item.contained else "not in it")
        for item in retired
    ]
    history.append(
        made.fd,
        history.event(
            "adopt",
            live.number,
            display=live.display,
            build=live.build,
            source=live.source,
            reason=f"the base moved on from {old.live().display}; " + ("; ".join(words) or "-"),
        ),
    )
    feed = made.root / FEED
    if feed.is_dir():
        fd = os.open(feed, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            record = Adopted(
                format=adopted.FORMAT,
                time=records.now(),
                contained=tuple(
                    Contained(display=item.display, build=item.build, result=item.result)
                    for item in retired
                    if item.contained
                ),
            )
            adopted.write(record, dir_fd=fd, file=str(feed / adopted.ADOPTED))
        finally:
            os.close(fd)
    if not durable.sync_file_system(made.fd):
        _sync_all(made.root)


def _copy(old: Path, new: Path) -> None:
    """A record, a link or a folder of them. Payloads are hard-linked, for nobody changes them."""
    if old.is_symlink():
        os.symlink(os.readlink(old), new)
    elif old.is_dir():
        new.mkdir(mode=old.stat().st_mode & 0o777)
        for below in sorted(old.iterdir()):
            if not below.name.endswith(records.STAGE_SUFFIX) and below.name != "lock":
                _copy(below, new / below.name)
    elif old.is_file():
        if old.suffix == ".bsi":
            os.link(old, new)
            return
        new.unlink(missing_ok=True)  # the history that init has begun
        new.write_bytes(old.read_bytes())
        new.chmod(old.stat().st_mode & 0o777)


def _sync_all(root: Path) -> None:
    for folder, _, files in os.walk(root):
        for name in files:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    durable.sync_fd(fd)
                finally:
                    os.close(fd)
        durable.sync_dir(folder)


def _put_in_place(place: Path, beside: Path) -> None:
    with durable.system_calls("putting the new store in place", place):
        parent = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                durable.exchange(place.name, beside.name, old_dir=parent, new_dir=parent)
            except OSError as error:
                if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EBUSY):
                    raise StoreStateError(
                        f"the store's folder cannot be exchanged here: {error.strerror}",
                        file=place,
                        hint="It must be an ordinary folder, no mount point; "
                        "or make a new store with `bsipatch init`.",
                    ) from error
                raise from_os_error(error, place) from error
            durable.sync_fd(parent)
        finally:
            os.close(parent)


def _remove(beside: Path) -> tuple[str, ...]:
    """The old store; what cannot go now goes at the next adoption."""
    try:
        _clear(beside)
    except BsipatchError as error:
        return (f"the old store could not be removed: {error.message}",)
    return ()
