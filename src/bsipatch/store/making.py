"""Makes a store out of a tree: the tree becomes its baseline."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from .. import trust
from ..errors import ExistsError, NotFoundError, UsageError
from ..limits import DEFAULT, Limits
from ..manifest import check_release_field
from ..tree import Tree, walk
from . import durable, exchange, history, live, records, snapshot
from .beneath import DIRECTORY, Beneath
from .eligibility import without_xattrs
from .importing import import_tree
from .lock import LOCK, locked
from .readback import make_durable, read_back
from .records import Generation, Identity
from .store import Store
from .witness import Notes
from .work import Work

_OWN = {
    records.GENERATIONS,
    records.CURRENT,
    records.TRASH,
    history.HISTORY,
    exchange.LIVE,
    LOCK,
}


def init(
    root: str | os.PathLike[str],
    baseline: str | os.PathLike[str],
    *,
    product: str,
    version: str,
    build: str,
    keys: Iterable[trust.PublicKey],
    threshold: int = 1,
    platform: str = "any",
    architectures: Iterable[str] = (),
    strategy: str = snapshot.AUTO,
    live_path: str | os.PathLike[str] | None = None,
    live_mode: exchange.LiveMode = "symlink",
    work: Work | None = None,
    limits: Limits = DEFAULT,
) -> Store:
    """Copies the tree `baseline` into a new store at `root` and makes it live.

    `root` must not exist, be an empty folder, or hold what an interrupted init
    left.  On any error everything that was made is removed again.

    live_path: where the live tree is shown, beside STORE/current/tree: a symbolic link made
    there, or with live_mode "exchange" a real directory.  A directory that is there already
    is replaced when it is empty or equal to the baseline, and refused otherwise.

    Raises
    ExistsError, NotFoundError, ManifestError (a field's rule), TrustError,
    UnsafePathError (devices and the like in the tree), StoreStateError (a
    strategy that does not work here), NoSpaceError, SystemCallError, CancelledError.
    """
    work = work or Work()
    names = tuple(sorted(set(architectures)))
    for field, value in (("product", product), ("version", version), ("build", build)):
        check_release_field(field, value, limits=limits)
    check_release_field("platform", platform, limits=limits)
    for name in names:
        check_release_field("architecture", name, limits=limits)
    policy = trust.Policy(keys, threshold, limits=limits)
    folder, source = Path(os.path.abspath(root)), Path(baseline)
    _check_places(folder, source)
    shown = None if live_path is None else Path(os.path.abspath(live_path))
    if shown is not None:
        _check_live_path(shown, folder, live_mode)
    with durable.system_calls("making the store"):
        made = _make_folder(folder)
    root_fd = -1
    try:
        with durable.system_calls("making the store", folder):
            if made:  # first, while there is nothing in it yet that a failure would leave behind
                durable.sync_dir(folder.parent)
            root_fd = os.open(folder, DIRECTORY & ~os.O_NOFOLLOW)
            with locked(root_fd, "init", timeout=0.0, file=str(folder)):
                _clear(root_fd, folder)
                chosen = snapshot.choose(strategy, root_fd)
                placed = False
                try:
                    tree, notes = _bring_in(root_fd, source, chosen, work, limits)
                    identity = Identity(
                        format=records.FORMAT,
                        product=product,
                        platform=platform,
                        architectures=names,
                        version=version,
                        build=build,
                        baseline=without_xattrs(tree).digest,
                        trust=tuple(key.pem().decode() for key in policy.keys.values()),
                        threshold=threshold,
                        strategy=strategy,
                        created=records.now(),
                    )
                    _write_records(root_fd, tree, identity, chosen, str(source.absolute()), notes)
                    if shown is not None:
                        placed = _attach(root_fd, folder, shown, live_mode, tree, work, limits)
                    # Last, since before it there is no store: init starts anew after a crash.
                    durable.replace_file(records.IDENTITY, records.encode(identity), dir_fd=root_fd)
                except BaseException:
                    if placed and shown is not None:
                        _take_away(shown)
                    _remove_all(root_fd)
                    raise
        return Store(folder, limits=limits)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                (folder / LOCK).unlink(missing_ok=True)
                folder.rmdir()
        raise
    finally:
        if root_fd >= 0:
            os.close(root_fd)


def _check_places(folder: Path, source: Path) -> None:
    if not source.is_dir():
        raise NotFoundError("no such directory", file=source)
    inner, outer = folder.resolve(), source.resolve()
    if inner == outer or outer in inner.parents:
        raise UsageError("the store would lie inside its own baseline", file=folder)


def _check_live_path(shown: Path, folder: Path, mode: exchange.LiveMode) -> None:
    """Refuses at once what cannot become a live path."""
    own = exchange.link_target(folder)
    if mode == "symlink" and shown.is_symlink() and os.readlink(shown) == own:
        return  # of an init that a crash ended
    if folder.resolve() in (shown.resolve(), *shown.resolve().parents):
        raise UsageError("the live path would lie inside the store", file=shown)
    if not shown.parent.is_dir():
        raise NotFoundError("no such directory", file=shown.parent)
    if not os.path.lexists(shown):
        return
    if mode == "symlink":
        raise ExistsError("something is at the live path already", file=shown)
    if shown.is_symlink() or not shown.is_dir():
        raise ExistsError("the live path is not a directory", file=shown)


def _attach(
    root_fd: int,
    folder: Path,
    shown: Path,
    mode: exchange.LiveMode,
    tree: Tree,
    work: Work,
    limits: Limits,
) -> bool:
    """Shows the baseline at the live path; whether no directory was there before."""
    there = mode == "exchange" and shown.is_dir()
    if there and any(shown.iterdir()):
        found = walk(shown, jobs=work.jobs, limits=limits)
        if found.digest != without_xattrs(tree).digest:
            raise ExistsError("the live path holds something else than the baseline", file=shown)
    exchange.attach(root_fd, folder, shown, mode, same=there)
    return not there


def _take_away(shown: Path) -> None:
    """Removes what an init put at the live path that fails after that."""
    with contextlib.suppress(OSError):
        parent = os.open(shown.parent, DIRECTORY & ~os.O_NOFOLLOW)
        try:
            durable.remove_tree(shown.name, dir_fd=parent)
        finally:
            os.close(parent)


def _make_folder(folder: Path) -> bool:
    """Makes the store's folder; False when it was there already."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(0o755)
    except FileExistsError:
        if not folder.is_dir():
            raise ExistsError("not a folder", file=folder) from None
        return False
    return True


def _clear(root_fd: int, folder: Path) -> None:
    """Removes what an interrupted init left; refuses a folder with anything else in it."""
    os.lseek(root_fd, 0, os.SEEK_SET)
    there = set(os.listdir(root_fd))
    if records.IDENTITY in there:
        raise ExistsError("a store is there already", file=folder)
    strangers = sorted(name for name in there - _OWN if not name.endswith(records.STAGE_SUFFIX))
    if strangers:
        raise ExistsError(f"the folder is not empty: {strangers[0]}", file=folder)
    _remove_all(root_fd)


def _remove_all(root_fd: int) -> None:
    os.lseek(root_fd, 0, os.SEEK_SET)  # btrfs lists what was there when it was opened or rewound
    for name in os.listdir(root_fd):
        if name != LOCK:
            durable.remove_tree(name, dir_fd=root_fd)


def _bring_in(
    root_fd: int, source: Path, strategy: str, work: Work, limits: Limits
) -> tuple[Tree, Notes]:
    """Generation 0's tree, copied, durable and read back."""
    place = records.generation_name(records.BASELINE)
    os.mkdir(records.GENERATIONS, 0o755, dir_fd=root_fd)
    os.mkdir(place, 0o755, dir_fd=root_fd)
    folder = os.open(place, DIRECTORY, dir_fd=root_fd)
    try:
        snapshot.start_tree(strategy, folder, records.TREE)
    finally:
        os.close(folder)
    with Beneath(f"{place}/{records.TREE}", dir_fd=root_fd) as new:
        old = os.open(source, DIRECTORY & ~os.O_NOFOLLOW)
        try:
            import_tree(old, new.fd, strategy=strategy, work=work)
            size = work.total
        finally:
            os.close(old)
        make_durable(new.fd, per_file=False, work=work)
        xattrs = _has_xattrs(new.fd)
        notes = Notes(xattrs=xattrs)
        tree = read_back(new, size, xattrs=xattrs, work=work, limits=limits, notes=notes)
        return tree, notes


def _has_xattrs(fd: int) -> bool:
    """Whether this file system has extended attributes at all."""
    try:
        os.listxattr(fd)
    except (OSError, AttributeError):
        return False
    return True


def _write_records(
    root_fd: int, tree: Tree, identity: Identity, strategy: str, source: str, notes: Notes
) -> None:
    """The records of generation 0, the pointer, the history."""
    generation = Generation(
        number=records.BASELINE,
        product=identity.product,
        version=identity.version,
        letter="",
        build=identity.build,
        tree=identity.baseline,
        strategy=strategy,
        base=None,
        previous=None,
        manifest=None,
        source=source,
        created=identity.created,
    )
    folder = os.open(records.generation_name(records.BASELINE), DIRECTORY, dir_fd=root_fd)
    try:
        entries = msgspec.json.encode(tree.entries, order="sorted")
        durable.replace_file(records.BASELINE_ENTRIES, entries, dir_fd=folder)
        notes.write(folder, identity.baseline)
        durable.replace_file(records.GENERATION, records.encode(generation), dir_fd=folder)
    finally:
        os.close(folder)
    durable.sync_dir(records.GENERATIONS, dir_fd=root_fd)
    live.flip(root_fd, records.BASELINE)
    event = history.event(
        "init",
        records.BASELINE,
        display=generation.display,
        build=generation.build,
        source=source,
    )
    history.append(root_fd, event)
