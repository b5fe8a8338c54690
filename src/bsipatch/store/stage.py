"""Builds a new tree from a base tree and an update, beside everything that is live.

Nothing here touches the base: every new file is a name of its own in the stage,
and what is shared (hard links, clones) is shared untouched.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import replace

from .. import delta
from ..errors import BsipatchError, OldMismatchError, TreeDriftError, from_os_error
from ..limits import Limits
from ..manifest import Action, Manifest
from ..package import Package
from ..parallel import each
from ..tree import State
from . import snapshot
from .beneath import CREATE, DIRECTORY, Beneath
from .work import Share, Work

#: files from here on get all threads, one after the other; smaller ones a thread each
_LARGE = 32 << 20
#: payloads from here on go through a private file instead of memory
_SPOOL = 8 << 20


class Stage:
    """One update being laid out: `base` is read, `new` is an empty directory to fill."""

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
    ) -> None:
        """`scratch_fd` is a private directory for payloads that do not fit into memory."""
        self._package, self._manifest = package, package.manifest
        self._base, self._new, self._scratch = base, new, scratch_fd
        self._strategy, self._work, self._limits = strategy, work, limits
        self._old = {a.path: a.old for a in self._manifest.actions if a.old is not None}

    def build(self) -> None:
        """Lays out every entry of the result; contents are checked by `read_back`.

        Raises TreeDriftError, NewMismatchError, MismatchError, CancelledError,
        SystemCallError and what reading payloads and patches raises.
        """
        folders: list[tuple[str, State]] = []
        files: list[tuple[Action, State]] = []
        for action in self._manifest.actions:  # in path order: parents come first
            result = action.result
            if result is None:
                continue
            if result.kind == "file":
                files.append((action, result))
                continue
            with self._new.parent(action.path) as (fd, name):
                if result.kind == "dir":
                    os.mkdir(name, 0o700, dir_fd=fd)
                    folders.append((action.path, result))
                else:
                    os.symlink(result.target, name, dir_fd=fd)
        self._make_files(files)
        for path, state in reversed(folders):  # children first: a folder may become read-only
            with self._new.opened(path, DIRECTORY) as fd:
                self._like_base(fd, path)
                _set_xattrs(fd, state, self._manifest)
                os.fchmod(fd, state.mode)
        os.fchmod(self._new.fd, os.fstat(self._base.fd).st_mode & 0o777)

    def _make_files(self, files: list[tuple[Action, State]]) -> None:
        self._work.begin("building", sum(state.size for _, state in files))
        small = [(action, state) for action, state in files if state.size < _LARGE]
        large = [(action, state) for action, state in files if state.size >= _LARGE]
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
            if action.do in ("keep", "chmod", "clone"):
                self._share(action, state)
            else:
                self._write(action, state, share, jobs)
        except OSError as error:
            raise from_os_error(error, action.path, "cannot make the file") from error
        share.finish()

    def _share(self, action: Action, state: State) -> None:
        """A file whose bytes the base already has."""
        old = self._old[action.base]
        private = (old.mode, old.xattrs) != (state.mode, state.xattrs)
        with (
            self._base.parent(action.base) as (old_dir, old_name),
            self._new.parent(action.path) as (new_dir, new_name),
        ):
            snapshot.place(self._strategy, old_dir, old_name, new_dir, new_name, private=private)
        if private:
            with self._new.opened(action.path) as fd:
                if self._manifest.xattrs:
                    os.fchmod(fd, 0o600)  # attributes can only be set on what is writable
                    _set_xattrs(fd, state, self._manifest)
                os.fchmod(fd, state.mode)

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
        limits = replace(
            self._limits,
            max_plain=payload.decoded,
            memory_budget=payload.memory or self._limits.memory_budget,
        )
        with self._base.opened(action.base) as old, self._patch_bytes(action.payload) as patch:
            try:
                delta.apply_to_fd(
                    old,
                    patch,
                    new,
                    new_size=payload.size,
                    jobs=jobs,
                    progress=share,
                    limits=limits,
                )
            except OldMismatchError as error:
                raise TreeDriftError(
                    f"baseline drifted: {action.base}, other content", file=action.base
                ) from error
            except BsipatchError as error:
                if error.file is None:
                    error.file = action.path
                raise

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
