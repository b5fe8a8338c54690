"""The config file: options that one does not want to type each time.

TOML, from BSIPATCH_CONFIG or the platform's config folder::

    store = "/var/lib/bsipatch/webkit"   # for every command that has --store
    jobs = 4

    [build]                              # for one command alone
    profile = "max"
    key = "/secure/private.pem"

Names are those of the options, with "-" or "_".  An option on the command line
or in its environment variable wins.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping

from ..errors import ConfigError
from ..limits import DEFAULT, Limits

TYPE_CHECKING = False  # typing loads slowly
if TYPE_CHECKING:
    from typing import Any

VARIABLE = "BSIPATCH_CONFIG"

#: option -> commands that have it; what may stand at the top of the file
SHARED: Mapping[str, tuple[str, ...]] = {
    "store": (
        *("init", "rehearse", "apply", "revert", "remove", "allow", "status", "history"),
        *("check-store", "gc", "recover", "boot-begin", "boot-mark", "boot-ok", "auto", "policy"),
        *("agent", "log", "telemetry", "settings", "serve", "follow", "check", "fetch"),
        *("install", "why-not", "adopt", "ticket"),
    ),
    "jobs": (
        *("diff", "patch", "convert", "build", "init", "rehearse", "apply", "check-store"),
        *("recover", "group", "boot-ok", "install", "adopt"),
    ),
    "profile": ("diff", "convert", "build"),
    "trust": ("verify", "init"),
    "threshold": ("verify", "init"),
    "strategy": ("init", "rehearse", "apply"),
    "key": ("build",),
    "passphrase_file": ("keygen", "build"),
}


def path() -> str:
    """Where the config file is looked for."""
    named = os.environ.get(VARIABLE)
    if named:
        return named
    base = os.environ.get("XDG_CONFIG_HOME", "") if os.name == "posix" else ""
    if not base and sys.platform == "linux" and "HOME" in os.environ:
        base = os.path.join(os.environ["HOME"], ".config")  # what platformdirs says there, slowly
    if not base:
        import platformdirs

        base = platformdirs.user_config_dir("bsipatch", appauthor=False)
        return os.path.join(base, "config.toml")
    return os.path.join(base, "bsipatch", "config.toml")


def defaults(commands: Iterable[str], *, limits: Limits = DEFAULT) -> dict[str, dict[str, Any]]:
    """For each command, option name -> value from the config file; {} without one.

    Raises ConfigError for a file that is unreadable, no TOML, or names what does not exist.
    """
    file = path()
    try:
        with open(file, "rb") as opened:
            data = opened.read(limits.max_config_file + 1)
    except FileNotFoundError:
        if os.environ.get(VARIABLE):
            raise ConfigError(f"{VARIABLE} names a file that is not there", file=file) from None
        return {}
    except NotADirectoryError:
        return {}
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", file=file) from error
    if len(data) > limits.max_config_file:
        raise ConfigError("the config file is too large", file=file)
    return _read(data, file, set(commands)) if data else {}


def _read(data: bytes, file: str, commands: set[str]) -> dict[str, dict[str, Any]]:
    import tomllib

    try:
        document = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not TOML: {error}", file=file) from error
    found: dict[str, dict[str, Any]] = {}
    own: dict[str, dict[str, Any]] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            if name not in commands:
                raise ConfigError(f"[{name}] is not a command", file=file)
            own[name] = {_parameter(key): inner for key, inner in value.items()}
            continue
        users = SHARED.get(_parameter(name))
        if users is None:
            raise ConfigError(f"`{name}` is not an option that commands share", file=file)
        for command in users:
            found.setdefault(command, {})[_parameter(name)] = value
    for command, options in own.items():
        found.setdefault(command, {}).update(options)
    return found


def _parameter(option: str) -> str:
    return option.replace("-", "_")
