"""What the device's owner wants of a trial: STORE/health.toml and STORE/health.d/*.toml.

::

    checks = ["digest", "images", "load"]

    [[commands]]
    run = ["/usr/local/lib/selftest", "--quick"]
    seconds = 20

    [trial]
    starts = 3      # failed starts after which the generation before is back
    blips = 10      # starts that may end for other reasons without being counted

The checks are made beside those of the manifest.  Since their programs run with
our rights, a file that anybody else may write to is refused.
"""

from __future__ import annotations

import os
import stat
import tomllib
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, NotFoundError
from ..limits import Limits
from ..manifest import HEALTH_SETTINGS, HealthCheck, parse_health
from . import durable

FILE = "health.toml"
FOLDER = "health.d"
_TRIAL = ("starts", "blips")
_MOST = 1000


@dataclass(frozen=True, slots=True)
class LocalHealth:
    """checks: in the files' order. starts, blips: see records.Trial."""

    checks: tuple[HealthCheck, ...]
    starts: int
    blips: int


def read(root_fd: int, file: str, limits: Limits) -> LocalHealth:
    """Everything that the owner has written; the later file wins where two speak of the trial.

    `file` is the store's path, for messages.  Raises ConfigError that names the
    file and setting, SystemCallError.
    """
    checks: list[HealthCheck] = []
    numbers = {"starts": limits.trial_starts, "blips": limits.trial_blips}
    for name in (FILE, *_folder(root_fd, file)):
        table = _table(root_fd, name, f"{file}/{name}", limits)
        try:
            checks += [check for check in _parse(table, numbers) if check not in checks]
        except ConfigError as error:
            raise ConfigError(
                error.detail, file=f"{file}/{name}", expected=error.expected, found=error.found
            ) from None
    return LocalHealth(tuple(checks), **numbers)


def _folder(root_fd: int, file: str) -> list[str]:
    with durable.system_calls("reading health checks", f"{file}/{FOLDER}"):
        try:
            fd = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root_fd)
        except FileNotFoundError:
            return []
        try:
            _check_writers(os.fstat(fd), f"{file}/{FOLDER}")
            return sorted(f"{FOLDER}/{name}" for name in os.listdir(fd) if name.endswith(".toml"))
        finally:
            os.close(fd)


def _table(root_fd: int, name: str, shown: str, limits: Limits) -> dict[str, Any]:
    try:
        with durable.system_calls("reading health checks", shown):
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            with os.fdopen(os.open(name, flags, dir_fd=root_fd), "rb") as opened:
                _check_writers(os.fstat(opened.fileno()), shown)
                data = opened.read(limits.max_config_file + 1)
    except NotFoundError:
        return {}
    if len(data) > limits.max_config_file:
        raise ConfigError("too large", file=shown, expected=limits.max_config_file)
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"not TOML: {error}", file=shown) from None


def _check_writers(status: os.stat_result, shown: str) -> None:
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise ConfigError(
            "others may write here, and its programs run with our rights",
            file=shown,
            expected="owned by root or by us, mode 0644 or less",
            found=f"owner {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}",
            hint="Correct its owner and mode.",
        )


def _parse(table: dict[str, Any], numbers: dict[str, int]) -> tuple[HealthCheck, ...]:
    """The checks of one file; `numbers` takes what it says of the trial."""
    for name in table:
        if name not in (*HEALTH_SETTINGS, "trial"):
            raise ConfigError(f"{name} is not a known setting")
    trial = table.get("trial", {})
    if not isinstance(trial, dict) or any(name not in _TRIAL for name in trial):
        raise ConfigError("trial has a setting other than starts and blips")
    for name, value in trial.items():
        least = 1 if name == "starts" else 0
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST:
            raise ConfigError(
                f"trial.{name} must be a whole number from {least} to {_MOST}", found=value
            )
        numbers[name] = value
    checks = parse_health(table)
    for check in checks:
        if not check.command:
            continue
        program = check.command[0]
        if not program.startswith("/"):
            raise ConfigError("a program of the device needs its absolute path", found=program)
        if not os.access(program, os.X_OK):
            # found now, not when a good update is to be judged by it
            raise ConfigError("no such program, or it may not be run", found=program)
    return checks
