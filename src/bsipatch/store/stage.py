"""Builds a new tree from a base tree and an update, beside everything that is live.

Nothing here touches the base: every new file is a name of its own in the stage,
and what is shared (snapshots, clones, hard links) is shared untouched.  A stage
that begins as a snapshot of the base has only what differs removed and made.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import stat
import sys
from collections.abc import Iterator

from .. import delta
from ..errors import (
    BsipatchError,
    OldMismatchError,
    TreeDriftError,
    UnsafePathError,
    from_os_error,
)
from ..limits import Limits
from ..manifest import Action, Manifest, Payload
from ..package import Package
from ..parallel import each
from ..tree import State
from . import snapshot
from .beneath import CREATE, DIRECTORY, READ, Beneath, InOrder
from .eligibility import check_drift
from .seeded import clear_for, drop_strangers
from .sharing import LEAST_RUN, SharingWriter
from .witness import Seen, Witness
from .work import Share, Work

#: files from here on get all threads, one after the other; smaller ones a thread each
_LARGE = 32 << 20
#: payloads from here on go through a private file instead of memory
_SPOOL = 8 << 20
#: streams of a patch that the core reads at a time, given as many threads
_READ_AT_ONCE = 3
#: untouched files that one thread brings in before it looks for more
_BATCH = 256


def patch_budget(payload: Payload, jobs: int, limits: Limits) -> int:
    """Bytes that the core may allocate for a patch, by what the manifest says of one thread.

    Each stream that is read beside another takes no more than that again.  Windows are made by
    one thread more than asked for, and each of these has buffers of its own.
    """
    if not payload.memory:
        return limits.memory_budget
    jobs = max(jobs, 1)
    return payload.memory * min(jobs, _READ_AT_ONCE) + (jobs + 1) * limits.thread_memory


class Stage:
    """One update being laid out: `base` is read, `new` is empty or a snapshot of the base."""

    def __init__(
        self,
        package: Package,
        base: Beneath,
        new: Beneath,
        scratch_fd: int,
        *,
        strategy: str,
        work: Work,
        limits: Limits,
        witness: Witness | None = None,
        is_base: bool = False,
        shown: str = "",
    ) -> None:
        """`scratch_fd` is a private directory for payloads that do not fit into memory.

        is_base: `new` is known to hold the base's entries and nothing else.
        shown: the base's path, for messages.
        """
        self._package, self._manifest = package, package.manifest
        self._base, self._new, self._scratch = base, new, scratch_fd
        self._strategy, self._work, self._limits = strategy, work, limits
        self._witness = witness
        self._old = {a.path: a.old for a in self._manifest.actions if a.old is not None}
        with os.scandir(new.fd) as entries:
            self._seeded = next(entries, None) is not None
        self._is_base, self._shown = is_base, shown
        # what came in from the base one by one, or all at once, and is vouched for as there
        self._intact: dict[str, tuple[Seen, State]] = {}
        self._kept: dict[str, State] = {}
        #: entries beside the signed ones that a snapshot brought along, and that went
        self.dropped = 0
        #: bytes of patched files that refer to the base's blocks, and bytes written
        self.shared = self.written = 0

    def build(self) -> None:
        """Lays out every entry of the result; contents are checked by `read_back`.

        Raises TreeDriftError, NewMismatchError, MismatchError, CancelledError,
        SystemCallError and what reading payloads and patches raises.
        """
        actions = self._manifest.actions  # in path order: parents come first
        folders: list[tuple[str, State]] = []
        if self._seeded:
            if not self._is_base:
                self.dropped = drop_strangers(self._new, self._old, self._work)
            folders += clear_for(self._new, actions)
            self._kept = {a.path: a.old for a in actions if a.do == "keep" and a.old is not None}
            actions = tuple(action for action in actions if action.do != "keep")
        untouched: list[tuple[Action, State]] = []
        made: list[tuple[Action, State]] = []
        for action in actions:
            result = action.result
            if result is None:
                continue
            if result.kind == "file":
                is_shared = action.do in ("keep", "chmod", "clone")
                (untouched if is_shared else made).append((action, result))
            elif self._seeded and action.do == "chmod":
                folders.append((action.path, result))
            else:
                with self._new.parent(action.path) as (fd, name):
                    if result.kind == "dir":
                        os.mkdir(name, 0o700, dir_fd=fd)
                        folders.append((action.path, result))
                    else:
                        os.symlink(result.target, name, dir_fd=fd)
        self._make_files(untouched, made)
        # children first: a folder may become read-only
        for path, state in sorted(dict(folders).items(), reverse=True):
            with self._new.opened(path, DIRECTORY) as fd:
                self._like_base(fd, path)
                _set_xattrs(fd, state, self._manifest)
                os.fchmod(fd, state.mode)
        os.fchmod(self._new.fd, os.fstat(self._base.fd).st_mode & 0o777)

    def known(self, path: str, status: os.stat_result) -> State | None:
        """What a file of the built tree is, when its base's witness vouches for it unread."""
        if path in self._intact:
            seen, state = self._intact[path]
            return state if seen == Seen.of(status) else None
        kept = self._kept.get(path)
        if kept is None or self._witness is None or not self._witness.vouches(path, status):
            return None
        return kept

    def _make_files(
        self, untouched: list[tuple[Action, State]], made: list[tuple[Action, State]]
    ) -> None:
        self._work.begin("building", sum(state.size for _, state in [*untouched, *made]))
        batches = [untouched[at : at + _BATCH] for at in range(0, len(untouched), _BATCH)]
        each(
            len(batches),
            self._work.jobs,
            lambda index: self._share_all(batches[index]),
            tick=self._work.check,
        )
        small = [(action, state) for action, state in made if state.size < _LARGE]
        large = [(action, state) for action, state in made if state.size >= _LARGE]
        small.sort(key=lambda item: -item[1].size)  # stable: equal sizes stay in path order
        each(
            len(small),
            self._work.jobs,
            lambda index: self._make_file(*small[index], jobs=1),
            tick=self._work.check,
        )
        for action, state in large:
            self._make_file(action, state, jobs=self._work.jobs)

    def _make_file(self, action: Action, state: State, *, jobs: int) -> None:
        self._work.check()
        share = Share(self._work, state.size)
        try:
            self._write(action, state, share, jobs)
        except OSError as error:
            raise from_os_error(error, action.path, "cannot make the file") from error
        share.finish()

    def _share_all(self, batch: list[tuple[Action, State]]) -> None:
        """Some files whose bytes the base already has, by one thread."""
        with self._base.in_order() as old, self._new.in_order() as new:
            for action, state in batch:
                self._work.check()
                try:
                    if action.do != "keep" or not self._link(action.path, state, old, new):
                        self._share(action, state, old, new)
                except (OSError, UnsafePathError) as error:
                    # it was not looked at before; the base may be to blame
                    check_drift(self._base, [self._old[action.base].at(action.base)], self._shown)
                    if isinstance(error, UnsafePathError):
                        raise
                    raise from_os_error(error, action.path, "cannot make the file") from error
        self._work.advance(sum(state.size for _, state in batch))

    def _link(self, path: str, state: State, old: InOrder, new: InOrder) -> bool:
        """A file that stays, as a second name where that is the strategy; False if it is not."""
        if self._strategy != "hardlink":
            return False
        old_dir, name = old.at(path)
        new_dir, _ = new.at(path)
        before = os.stat(name, dir_fd=old_dir, follow_symlinks=False)
        if not stat.S_ISREG(before.st_mode):
            return False
        if not snapshot.try_link(old_dir, name, new_dir, name):
            return False
        if self._witness is not None and self._witness.vouches(path, before):
            now = os.stat(name, dir_fd=new_dir, follow_symlinks=False)
            self._intact[path] = (Seen.of(now), state)
        return True

    def _share(self, action: Action, state: State, old: InOrder, new: InOrder) -> None:
        had = self._old[action.base]
        private = (had.mode, had.xattrs) != (state.mode, state.xattrs)
        new_dir, new_name = new.at(action.path)
        if not (self._seeded and action.do == "chmod"):  # a snapshot's file is its own already
            old_dir, old_name = old.at(action.base)
            vouched = self._vouched(action.base, old_dir, old_name)
            how = snapshot.place(
                self._strategy, old_dir, old_name, new_dir, new_name, private=private
            )
            # a clone's attributes were copied as far as that was possible, a link's are the same
            same = how == "hardlink" or (how == "reflink" and not self._manifest.xattrs)
            if vouched and same and not private and had.digest == state.digest:
                now = os.stat(new_name, dir_fd=new_dir, follow_symlinks=False)
                self._intact[action.path] = (Seen.of(now), state)
        if private:
            with self._new.opened(action.path) as fd:
                if self._manifest.xattrs:
                    os.fchmod(fd, 0o600)  # attributes can only be set on what is writable
                    _set_xattrs(fd, state, self._manifest)
                os.fchmod(fd, state.mode)

    def _vouched(self, path: str, folder: int, name: str) -> bool:
        if self._witness is None:
            return False
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return stat.S_ISREG(status.st_mode) and self._witness.vouches(path, status)

    def _write(self, action: Action, state: State, share: Share, jobs: int) -> None:
        """A file with bytes of its own: patched, or from a payload that holds all of it."""
        with self._new.opened(action.path, CREATE, 0o600) as new:
            if action.payload is not None:
                payload = self._manifest.payloads[action.payload]
                if payload.kind == "patch":
                    self._patch(action, new, share, jobs)
                elif payload.length < _SPOOL:
                    self._package.expand(action.payload, new)
                else:
                    with self._scratch_file() as scratch:
                        self._package.expand(action.payload, new, scratch=scratch)
            self._like_base(new, action.base)
            _set_xattrs(new, state, self._manifest)
            os.fchmod(new, state.mode)

    def _patch(self, action: Action, new: int, share: Share, jobs: int) -> None:
        assert action.payload is not None
        payload = self._manifest.payloads[action.payload]
        limits = self._limits.but(
            max_plain=payload.decoded,
            memory_budget=patch_budget(payload, jobs, self._limits),
        )
        with self._read_base(action.base) as old, self._patch_bytes(action.payload) as patch:
            sharing = self._strategy in snapshot.CLONING and payload.size >= LEAST_RUN
            sink = SharingWriter(old, new) if sharing else None
            try:
                delta.apply_to_fd(
                    old,
                    patch,
                    new,
                    new_size=payload.size,
                    jobs=jobs,
                    progress=share,
                    limits=limits,
                    sink=sink,
                )
                if sink is not None:
                    sink.finish()
            except OldMismatchError as error:
                raise TreeDriftError(
                    f"baseline drifted: {action.base}, other content", file=action.base
                ) from error
            except BsipatchError as error:
                if error.file is None:
                    error.file = action.path
                raise

    @contextlib.contextmanager
    def _read_base(self, path: str) -> Iterator[int]:
        """A file of the base, for reading without a trace where that is allowed: unchanged.py."""
        try:
            fd = self._base.open(path, READ | getattr(os, "O_NOATIME", 0))
        except PermissionError:
            fd = self._base.open(path)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _patch_bytes(self, index: int) -> Iterator[bytes | mmap.mmap]:
        """A patch's bytes, verified, where nobody else can change them."""
        if self._manifest.payloads[index].length < _SPOOL:
            yield self._package.payload(index)
            return
        with self._scratch_file() as fd:
            self._package.spool(index, fd)
            with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as mapped:
                yield mapped

    @contextlib.contextmanager
    def _scratch_file(self) -> Iterator[int]:
        """An empty private file without a name."""
        name = f"payload.{secrets.token_hex(6)}"
        fd = os.open(name, CREATE, 0o600, dir_fd=self._scratch)
        try:
            os.unlink(name, dir_fd=self._scratch)
            yield fd
        finally:
            os.close(fd)

    def _like_base(self, fd: int, path: str) -> None:
        """The owner of what the base has at `path`, else of the base's root."""
        status = os.fstat(self._base.fd)
        with contextlib.suppress(OSError):
            status = self._base.stat(path)
        snapshot.keep_owner(fd, status)


def _set_xattrs(fd: int, state: State, manifest: Manifest) -> None:
    """Exactly the extended attributes of the manifest, where it speaks of them."""
    if not manifest.xattrs or sys.platform != "linux":
        return
    wanted = dict(state.xattrs)
    for name in os.listxattr(fd):
        if name.startswith(("user.", "com.apple.")) and name not in wanted:
            os.removexattr(fd, name)
    for name, value in wanted.items():
        os.setxattr(fd, name, value)
