"""What a device is called in staged rollouts and tickets: a random name of its own.

It says nothing about the machine or its owner, and never leaves the device: a rollout
is computed here, from the id and signed numbers.
"""

from __future__ import annotations

import secrets

from ..errors import ConfigError, FeedError, NotFoundError
from ..feed.names import check_device_id
from ..limits import Limits
from ..store import durable

DEVICE_ID = "device-id"


def make(folder_fd: int, file: str, chosen: str | None = None) -> str:
    """Writes `chosen` or a new random id durably, and returns it.

    Raises ConfigError for one that is not 1 to 255 letters, digits and . _ : @ -, SystemCallError.
    """
    name = secrets.token_hex(16) if chosen is None else chosen
    _check(name, file)
    with durable.system_calls("writing the device's id", file):
        durable.replace_file(DEVICE_ID, f"{name}\n".encode(), dir_fd=folder_fd, mode=0o600)
    return name


def read(folder_fd: int, file: str, limits: Limits) -> str:
    """The device's id. Raises NotFoundError, ConfigError, SystemCallError."""
    with durable.system_calls("reading the device's id", file):
        data = durable.read_file(DEVICE_ID, dir_fd=folder_fd, limit=limits.max_record)
    if not data:
        raise NotFoundError("the device has no id", file=file)
    return _check(data.decode("ascii", "replace").removesuffix("\n"), file)


def _check(name: str, file: str) -> str:
    try:
        return check_device_id(name)
    except FeedError as error:
        raise ConfigError(error.detail, file=file, found=error.found) from None
