"""A live path that is a real directory: what it shows changes by exchanging directories.

The usual live path is STORE/current/tree, which a symbolic link keeps pointing
at the live generation.  Where programs insist on a real directory at a place of
its own, each generation has a *face*: a clone of its tree.  A flip exchanges
the face of the new generation with the live directory in one atomic step
(RENAME_EXCHANGE); the old face goes back to its own generation, for the way back.

Each face says in an extended attribute of its root which generation it is of.
That attribute, and not the pointer, tells which side is live after a crash: it
travels with what programs see.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from ..errors import StoreDamagedError, StoreStateError
from ..limits import DEFAULT, Limits
from . import durable, records, snapshot
from .beneath import DIRECTORY, Beneath
from .importing import import_tree
from .readback import make_durable
from .work import Work

LIVE = "live.json"
FACE = "face"
#: what a face is called while it is made; removed with the generation, or by the next try
_UNFINISHED = "face.tmp"
_MARK = "user.bsipatch.face"
_MOST = 1 << 16

LiveMode: TypeAlias = Literal["symlink", "exchange"]


class LiveRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the live tree is shown beside the store, absolute, and how; fixed at init."""

    path: str
    mode: LiveMode
    #: tells this store's faces from another's
    token: str


def read(root_fd: int) -> LiveRecord | None:
    """The store's live record; None for the usual live path. Raises StoreDamagedError, OSError."""
    try:
        data = durable.read_file(LIVE, dir_fd=root_fd, limit=_MOST)
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(data, type=LiveRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreDamagedError(f"unreadable record: {error}", file=LIVE) from error


def exchanged(root_fd: int) -> LiveRecord | None:
    """The record, when the live path changes by exchange."""
    found = read(root_fd)
    return found if found is not None and found.mode == "exchange" else None


def shown(root_fd: int) -> int | None:
    """Which generation the live directory is of; None when it is not there, or not ours."""
    record = exchanged(root_fd)
    if record is None:
        return None
    with _parent(record) as (parent, name):
        return _marked(record, parent, name)


def show(root_fd: int, number: int) -> None:
    """Makes the live directory that of a generation, in one step that lasts.

    Nothing to do where the live path is the usual one.  Raises StoreStateError
    when something else has taken the directory's place, and OSError.
    """
    record = exchanged(root_fd)
    if record is None:
        return
    with _parent(record) as (parent, name), _generation(root_fd, number) as folder:
        if _marked(record, parent, name) == number:
            return
        if _is_there(parent, name) and _marked(record, parent, name) is None:
            raise StoreStateError(
                "what lies at the live path was not put there by this store",
                file=record.path,
                hint="Move it away, and run `bsipatch recover`.",
            )
        _make_face(record, folder, number)
        _swap(parent, name, folder)
    _put_away(root_fd, record, number)


def settle(root_fd: int, live: int) -> tuple[int, list[str]]:
    """After a crash: which generation the live directory says is live, and what was done.

    `live` is where the pointer leads.  The pointer follows the directory, since
    that is what programs see.  Idempotent.  Raises OSError.
    """
    record = exchanged(root_fd)
    if record is None:
        return live, []
    done: list[str] = []
    numbers = records.generation_numbers(root_fd)
    for number in numbers:
        with _generation(root_fd, number) as folder:
            durable.remove_tree(_UNFINISHED, dir_fd=folder)
        _put_away(root_fd, record, number)
    with _parent(record) as (parent, name):
        found = _marked(record, parent, name)
        if found is not None and found in numbers and found != live:
            durable.replace_link(records.CURRENT, records.generation_name(found), dir_fd=root_fd)
            return found, [f"the live path shows generation {found}, which is live now"]
        stranger = found is None and _is_there(parent, name)
    if stranger:
        done.append(f"{record.path} was not put there by this store: move it away and recover")
    elif found != live:
        show(root_fd, live)
        done.append(f"put generation {live} at {record.path}, where nothing was")
    return live, done


def link_target(root: Path) -> str:
    """Where a live path that is a link leads, for the store at `root`."""
    return str(root / records.CURRENT / records.TREE)


def attach(root_fd: int, root: Path, path: Path, mode: LiveMode, *, same: bool) -> None:
    """Puts the baseline at the live path of a new store; `same`: what lies there is equal to it.

    `root` is the store's own path, for the link.
    Raises StoreStateError where directories cannot be exchanged, and OSError.
    """
    record = LiveRecord(path=str(path), mode=mode, token=secrets.token_hex(8))
    data = msgspec.json.format(msgspec.json.encode(record, order="sorted"), indent=1) + b"\n"
    with _parent(record) as (parent, name):
        if mode == "symlink":
            try:
                os.symlink(link_target(root), name, dir_fd=parent)
            except FileExistsError:
                if os.readlink(name, dir_fd=parent) != link_target(root):
                    raise
            durable.sync_fd(parent)
            durable.replace_file(LIVE, data, dir_fd=root_fd)
            return
        with _generation(root_fd, records.BASELINE) as folder:
            _probe(record, parent, folder)
            _make_face(record, folder, records.BASELINE)
            durable.replace_file(LIVE, data, dir_fd=root_fd)
            try:
                if same:
                    _swap(parent, name, folder)
                else:
                    _place(parent, name, folder)
            except BaseException:
                durable.remove_file(LIVE, dir_fd=root_fd)
                raise
            durable.remove_tree(FACE, dir_fd=folder)


def renew(root_fd: int, number: int) -> None:
    """Makes the live directory anew from its generation, in one step. Raises OSError."""
    record = exchanged(root_fd)
    if record is None:
        return
    with _parent(record) as (parent, name), _generation(root_fd, number) as folder:
        durable.remove_tree(FACE, dir_fd=folder)
        _make_face(record, folder, number)
        _swap(parent, name, folder)
        durable.remove_tree(FACE, dir_fd=folder)


# --- the steps ---


def _make_face(record: LiveRecord, folder: int, number: int, limits: Limits = DEFAULT) -> None:
    """Gives a generation a whole, durable face, when it has none."""
    if _is_there(folder, FACE):
        if _marked(record, folder, FACE) == number:
            return
        durable.remove_tree(FACE, dir_fd=folder)
    durable.remove_tree(_UNFINISHED, dir_fd=folder)
    strategy = records.read(
        records.Generation, records.GENERATION, dir_fd=folder, limits=limits, file=str(number)
    ).strategy
    begun = snapshot.start_tree(strategy, folder, _UNFINISHED, base_dir=folder, base=records.TREE)
    with Beneath(_UNFINISHED, dir_fd=folder) as face:
        if not begun:
            with Beneath(records.TREE, dir_fd=folder) as tree:
                import_tree(
                    tree.fd, face.fd, strategy=strategy, work=Work(), links=strategy == "hardlink"
                )
        os.setxattr(face.fd, _MARK, f"{record.token} {number}".encode())
        make_durable(face.fd, per_file=False)
    durable.rename_new(_UNFINISHED, FACE, dir_fd=folder)
    durable.sync_fd(folder)


def _swap(parent: int, name: str, folder: int) -> None:
    """The one step: the face and what is live change places."""
    try:
        durable.exchange(FACE, name, old_dir=folder, new_dir=parent)
    except FileNotFoundError:
        _place(parent, name, folder)
        return
    durable.sync_fd(parent)
    durable.sync_fd(folder)


def _place(parent: int, name: str, folder: int) -> None:
    """Where nothing was: the face goes there, and replaces nothing."""
    durable.move_new(FACE, name, old_dir=folder, new_dir=parent)
    durable.sync_fd(parent)
    durable.sync_fd(folder)


def _put_away(root_fd: int, record: LiveRecord, number: int) -> None:
    """A face that a flip left with another generation goes to its own, or goes."""
    with _generation(root_fd, number) as folder:
        if not _is_there(folder, FACE):
            return
        owner = _marked(record, folder, FACE)
        if owner == number:
            return
        if owner is None or owner not in records.generation_numbers(root_fd):
            durable.remove_tree(FACE, dir_fd=folder)
            return
        with _generation(root_fd, owner) as home:
            durable.remove_tree(FACE, dir_fd=home)
            durable.move_new(FACE, FACE, old_dir=folder, new_dir=home)
            durable.sync_fd(home)
            durable.sync_fd(folder)


def _probe(record: LiveRecord, parent: int, folder: int) -> None:
    """Tries with empty directories what every flip will do."""
    stem = f".bsipatch.{secrets.token_hex(6)}.tmp"
    try:
        os.mkdir(stem, 0o700, dir_fd=parent)
        os.mkdir(stem, 0o700, dir_fd=folder)
        durable.exchange(stem, stem, old_dir=folder, new_dir=parent)
        fd = os.open(stem, DIRECTORY, dir_fd=folder)
        try:
            os.setxattr(fd, _MARK, b"probe")
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.ENOSPC, errno.EROFS):
            raise
        raise StoreStateError(
            "directories cannot be exchanged between the store and the live path",
            file=record.path,
            found=error.strerror,
            hint="Put the store on the live path's own file system, one with extended attributes.",
        ) from error
    finally:
        for where in (parent, folder):
            with contextlib.suppress(OSError):
                os.rmdir(stem, dir_fd=where)


@contextlib.contextmanager
def _parent(record: LiveRecord) -> Iterator[tuple[int, str]]:
    head, _, name = record.path.rpartition("/")
    fd = os.open(head or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd, name
    finally:
        os.close(fd)


@contextlib.contextmanager
def _generation(root_fd: int, number: int) -> Iterator[int]:
    fd = os.open(records.generation_name(number), DIRECTORY, dir_fd=root_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def _is_there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _marked(record: LiveRecord, folder: int, name: str) -> int | None:
    """The generation that a directory is a face of; None for anything else."""
    try:
        fd = os.open(name, DIRECTORY, dir_fd=folder)
    except OSError:
        return None
    try:
        token, _, number = os.getxattr(fd, _MARK).decode("ascii", "replace").partition(" ")
    except OSError:
        return None
    finally:
        os.close(fd)
    return int(number) if token == record.token and number.isdecimal() else None
