"""Health checks: the rules they keep, and how people write them down.

The same few lines of TOML stand in a release's `[health]` and in the file in
which a device's owner adds checks of their own::

    checks = ["digest", "images", "load"]

    [[commands]]
    run = ["bin/selftest", "--quick"]
    seconds = 20
    name = "self-test"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

import msgspec

from bsipatch.errors import BsipatchError, ConfigError, LimitError, ManifestError
from bsipatch.limits import DEFAULT, Limits
from bsipatch.manifest.model import HealthCheck, HealthKind
from bsipatch.tree import check_path

__all__ = ["BUILT_IN", "HEALTH_SETTINGS", "check_health", "parse_health"]

#: the checks that need no program
BUILT_IN = tuple(kind for kind in get_args(HealthKind) if kind != "command")
#: the settings that parse_health reads
HEALTH_SETTINGS = ("checks", "commands")
_COMMAND = ("run", "seconds", "name")


def check_health(
    checks: Iterable[HealthCheck],
    *,
    limits: Limits = DEFAULT,
    programs: Mapping[str, bool] | None = None,
) -> None:
    """Passes a list of checks.

    programs: the files of the tree, and whether each may be run; None: programs of the tree are
    refused.  Raises ManifestError with the rule that is broken, LimitError.
    """
    checks = tuple(checks)
    if len(checks) > limits.max_health_checks:
        raise LimitError(
            "too many health checks", expected=limits.max_health_checks, found=len(checks)
        )
    built_in = [check.kind for check in checks if check.kind != "command"]
    if len(set(built_in)) != len(built_in):
        raise ManifestError("a built-in health check is named twice")
    for check in checks:
        if not 1 <= check.seconds <= limits.max_health_seconds:
            raise ManifestError(
                f"health check {check.title!a}: seconds must be from 1 to "
                f"{limits.max_health_seconds}",
                found=check.seconds,
            )
        if len(check.name) > limits.max_text or not check.name.isprintable():
            raise ManifestError("a health check's name is too long or not printable")
        if (check.kind == "command") != bool(check.command):
            raise ManifestError("a health check of kind command, and only that, has a command")
        if check.command:
            _check_command(check.command, limits, programs)


def _check_command(
    command: tuple[str, ...], limits: Limits, programs: Mapping[str, bool] | None
) -> None:
    if len(command) > limits.max_list:
        raise LimitError("too many arguments", expected=limits.max_list, found=len(command))
    for argument in command:
        if "\0" in argument or len(argument) > limits.max_path:
            raise ManifestError("a health command's argument is too long or contains NUL")
    program = command[0]
    if program.startswith("/"):
        return
    if programs is None:
        raise ManifestError("the program must be named by its absolute path", found=program[:80])
    check_path(program, limits=limits)
    if not programs.get(program, False):
        raise ManifestError(
            "a health command's program is no executable file of the result", file=program
        )


def parse_health(table: Mapping[str, Any], where: str = "") -> tuple[HealthCheck, ...]:
    """The checks of a parsed table, whose other settings are the caller's; built-in ones first.

    `where` goes before names in messages ("health.").  Raises ConfigError.
    """
    checks = []
    for kind in _texts(table.get("checks", []), f"{where}checks"):
        if kind not in BUILT_IN:
            raise ConfigError(
                f"{where}checks: no such check", expected=", ".join(BUILT_IN), found=kind
            )
        checks.append(msgspec.convert({"kind": kind}, HealthCheck))
    commands = table.get("commands", [])
    if not isinstance(commands, list) or not all(isinstance(item, dict) for item in commands):
        raise ConfigError(f"{where}commands must be a list of tables: [[{where}commands]]")
    for index, item in enumerate(commands):
        here = f"{where}commands[{index}]"
        for name in item:
            if name not in _COMMAND:
                raise ConfigError(
                    f"{here}.{name} is not a known setting",
                    hint=f"Known are: {', '.join(_COMMAND)}.",
                )
        run, seconds, name = item.get("run"), item.get("seconds", 60), item.get("name", "")
        if not isinstance(seconds, int) or isinstance(seconds, bool):
            raise ConfigError(f"{here}.seconds must be a whole number", found=seconds)
        if not isinstance(name, str):
            raise ConfigError(f"{here}.name must be text in quotes", found=name)
        command = _texts(run, f"{here}.run")
        if not command:
            raise ConfigError(f"{here}.run must name a program")
        checks.append(HealthCheck(kind="command", command=command, seconds=seconds, name=name))
    try:
        check_health(checks, programs=_Any())
    except BsipatchError as error:
        raise ConfigError(f"{where.rstrip('.') or 'health'}: {error.detail}") from None
    return tuple(checks)


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"{where} must be a list of texts", found=value)
    return tuple(value)


class _Any(dict[str, bool]):
    """Every program is there: what the tree holds is not known yet."""

    def get(self, key: str, default: Any = None) -> Any:
        return True
