"""STORE/feed/config.toml: which feed a store follows, and how.

::

    mirrors = ["https://updates.example.org/", "file:///media/stick/feed/"]
    channel = "release"
    proxy = "http://proxy.example.org:3128"   # "" for none; left out: what the environment says
    bandwidth = 250000                        # bytes a second; left out: as fast as it goes
    managed = "/System/Library/X.framework"   # a tree that other means update; left out: none

Beside it lie `root.json`, the pinned root of trust, and `device-id`.
"""

from __future__ import annotations

import json
import tomllib
from typing import Any

import msgspec

from ...errors import ConfigError, NotFoundError, UnsafePathError
from ...feed.names import check_channel
from ...limits import Limits
from ...store import durable
from ..mirrors import Mirrors

CONFIG = "config.toml"
ROOT = "root.json"


class FeedConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """mirrors: addresses, asked in this order. bandwidth: bytes a second, None for no limit.

    managed: absolute path of the tree that the baseline is a copy of, where something else
    than bsipatch may replace it.
    """

    mirrors: tuple[str, ...]
    channel: str
    proxy: str | None = None
    bandwidth: int | None = None
    managed: str | None = None


def check(config: FeedConfig, file: str) -> FeedConfig:
    """The same, its addresses, channel and numbers checked. Raises ConfigError."""
    try:
        mirrors = tuple(mirror.base for mirror in Mirrors.of(config.mirrors))
        check_channel(config.channel)
    except UnsafePathError as error:
        raise ConfigError(
            "no such channel", file=file, expected=error.expected, found=error.found
        ) from None
    except ConfigError as error:
        raise ConfigError(
            error.detail, file=file, expected=error.expected, found=error.found
        ) from None
    if config.bandwidth is not None and config.bandwidth < 1:
        raise ConfigError("bandwidth is at least 1 byte a second", file=file)
    if config.proxy and not config.proxy.startswith(("http://", "https://")):
        raise ConfigError("a proxy begins with http:// or https://", file=file, found=config.proxy)
    if config.managed is not None and not config.managed.startswith("/"):
        raise ConfigError("`managed` is an absolute path", file=file, found=config.managed)
    return msgspec.structs.replace(config, mirrors=mirrors)


def write(config: FeedConfig, *, dir_fd: int, file: str) -> None:
    """Writes it durably. Raises ConfigError, SystemCallError."""
    known = check(config, file)
    # JSON's strings, lists and numbers are TOML's.
    values: dict[str, Any] = {"mirrors": list(known.mirrors), "channel": known.channel}
    if known.proxy is not None:
        values["proxy"] = known.proxy
    if known.bandwidth is not None:
        values["bandwidth"] = known.bandwidth
    if known.managed is not None:
        values["managed"] = known.managed
    text = "".join(
        f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items()
    )
    with durable.system_calls("writing the feed's settings", file):
        durable.replace_file(CONFIG, text.encode(), dir_fd=dir_fd)


def read(*, dir_fd: int, file: str, limits: Limits) -> FeedConfig:
    """The settings. Raises NotFoundError, ConfigError, SystemCallError."""
    with durable.system_calls("reading the feed's settings", file):
        data = durable.read_file(CONFIG, dir_fd=dir_fd, limit=limits.max_config_file)
    try:
        found = msgspec.convert(tomllib.loads(data.decode()), FeedConfig)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(str(error), file=file) from None
    return check(found, file)


def read_root(*, dir_fd: int, file: str, limits: Limits) -> bytes:
    """The pinned root's bytes. Raises NotFoundError, SystemCallError."""
    with durable.system_calls("reading the pinned root", file):
        data = durable.read_file(ROOT, dir_fd=dir_fd, limit=limits.max_root)
    if not data:
        raise NotFoundError("the pinned root is empty", file=file)
    return data
