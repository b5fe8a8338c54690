"""Which feed a store follows: written once, with the root of trust pinned, changed later."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ExistsError, NotFoundError, StoreDamagedError, UsageError, from_os_error
from ..limits import DEFAULT, Limits
from ..store import durable
from ..store.lock import locked
from . import device_id, tuf_client
from .state import config as configs
from .state import floor as floors
from .state.config import FeedConfig
from .state.floor import Floor

FEED = "feed"


@dataclass(frozen=True, slots=True)
class Following:
    """What a store follows now. root_version: of the pinned root."""

    config: FeedConfig
    device_id: str
    root_version: int
    new: bool


def follow(
    store_root: str | os.PathLike[str],
    config: FeedConfig,
    *,
    root: bytes | None = None,
    name: str | None = None,
    clock: Callable[[], float] = time.time,
    limits: Limits = DEFAULT,
) -> Following:
    """Makes STORE/feed, or changes its settings.

    `root`: the root's metadata, got from the publisher by a way that can be trusted; left out
    to keep the pinned one.  `name`: the device's id, left out for a random one or the present.
    A floor that was lost is made anew, with the clock as its time.  Raises UsageError (no root
    for a new feed), ExistsError (another root is pinned), ConfigError, FeedError, ThresholdError,
    StoreBusyError, SystemCallError.
    """
    folder = Path(os.path.abspath(store_root)) / FEED
    known = configs.check(config, str(folder / configs.CONFIG))
    with durable.system_calls("making the feed's folder", folder):
        made = False
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
            made = True
        if made:
            durable.sync_dir(folder.parent)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with locked(fd, "follow", timeout=limits.lock_timeout, file=str(folder)):
            return _write(fd, folder, known, root, name, clock, limits)
    finally:
        os.close(fd)


def present(store_root: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> FeedConfig | None:
    """How the store follows its feed now; None when it follows none yet.

    Raises ConfigError, SystemCallError.
    """
    folder = Path(os.path.abspath(store_root)) / FEED
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise from_os_error(error, folder) from error
    try:
        return configs.read(dir_fd=fd, file=str(folder / configs.CONFIG), limits=limits)
    except NotFoundError:
        return None
    finally:
        os.close(fd)


def _write(
    fd: int,
    folder: Path,
    config: FeedConfig,
    root: bytes | None,
    name: str | None,
    clock: Callable[[], float],
    limits: Limits,
) -> Following:
    there = set(os.listdir(fd))
    root_file = str(folder / configs.ROOT)
    if configs.ROOT in there:
        pinned = configs.read_root(dir_fd=fd, file=root_file, limits=limits)
        if root is not None and root != pinned:
            raise ExistsError(
                "another root is pinned",
                file=root_file,
                hint="Roots rotate through the feed itself. For another feed, "
                f"remove {folder} first.",
            )
        version = tuf_client.check_root(pinned, root_file)
    elif root is None:
        raise UsageError("a new feed needs its root", hint="Give it with --root.")
    else:
        version = tuf_client.check_root(root, "the given root")
        with durable.system_calls("pinning the root", root_file):
            durable.replace_file(configs.ROOT, root, dir_fd=fd)
    id_file = str(folder / device_id.DEVICE_ID)
    if name is not None or device_id.DEVICE_ID not in there:
        called = device_id.make(fd, id_file, name)
    else:
        called = device_id.read(fd, id_file, limits)
    floor_file = str(folder / floors.FLOOR)
    try:
        floors.read(dir_fd=fd, file=floor_file, limits=limits)
    except StoreDamagedError:
        floors.write(Floor(time=int(clock())), dir_fd=fd, file=floor_file)
    # Last: a feed is followed once its settings are there.
    configs.write(config, dir_fd=fd, file=str(folder / configs.CONFIG))
    return Following(config, called, version, configs.CONFIG not in there)
