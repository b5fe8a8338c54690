"""Where policy lies on the disk: reading and checking its files, and writing the owner's.

``STORE/settings.toml`` is the owner's; bsipatch writes it whole or not at all and keeps the
comments in it.  The managed files are ``/etc/bsipatch/managed.{toml,json}`` and everything of
those kinds in ``/etc/bsipatch/managed.d``, read in the order of their names.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ..errors import ConfigError, from_os_error
from ..limits import DEFAULT, Limits
from ..output import OutputFile
from .policy_schema import Hours, Managed, Settings

SETTINGS = "settings.toml"
#: where administrators put their files
MANAGED = Path("/etc/bsipatch")
_NAMES = ("managed.toml", "managed.json")
_FOLDER = "managed.d"
_KINDS = (".toml", ".json")
_MOST_FILES = 64
_Policy = TypeVar("_Policy", Settings, Managed)


@dataclass(frozen=True, slots=True)
class ManagedFile:
    """A managed policy, and the file it came from."""

    path: Path
    policy: Managed


def settings_path(store: Path) -> Path:
    """Where the owner's settings of a store lie."""
    return store / SETTINGS


def read_settings(path: Path, *, limits: Limits = DEFAULT) -> Settings:
    """The owner's settings; all defaults when there is no file. Raises ConfigError."""
    try:
        data = _read(path, limits.max_config_file)
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", file=path) from error
    settings = _parse(data, path, Settings)
    _check_hours(settings.quiet_hours, path)
    return settings


def read_managed(
    folder: Path = MANAGED, *, owner: int = 0, limits: Limits = DEFAULT
) -> list[ManagedFile]:
    """Every managed file, in the order in which they count; [] when there is none.

    Each file, and every folder above it, must belong to `owner` (or to root) and be
    writable by nobody else: whoever could write it could otherwise pass for the
    administrator.

    Raises ConfigError for a file that is not so, or breaks its schema.  There is no
    going on without it: a device that ignored a broken policy would do what its
    administrator forbade.
    """
    found = []
    for path in _managed_paths(folder):
        try:
            data = _read(path, limits.max_config_file, owner=owner)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigError(f"cannot read it: {error.strerror}", file=path) from error
        found.append(ManagedFile(path, check_managed(data, path)))
    return found


def check_managed(data: bytes, path: Path) -> Managed:
    """A managed file's bytes against its schema and its own rules. Raises ConfigError."""
    managed = _parse(data, path, Managed)
    _check_hours(managed.quiet_hours, path)
    for item in managed.enforce or ():
        try:
            moment(item.by)
        except ValueError as error:
            raise ConfigError(f"enforce.by: {error}", file=path, found=item.by) from None
    return managed


def write_settings(store: Path, changes: Mapping[str, Any]) -> Settings:
    """Sets (or with None removes) settings, keeping everything else in the file as it is.

    The new file is checked by the same gate before it replaces the old one.
    Returns what is set afterwards.  Raises ConfigError, SystemCallError, NotFoundError.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    path = settings_path(store)
    read_settings(path)  # a broken file is the owner's to mend, not ours to overwrite
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        text = ""
    except OSError as error:
        raise from_os_error(error, path) from error
    try:
        document = tomlkit.parse(text)
        for name, value in changes.items():
            if value is None:
                document.pop(name, None)
            else:
                document[name] = value
        data = tomlkit.dumps(document).encode()
    except (TOMLKitError, ValueError) as error:
        raise ConfigError(f"cannot set it: {error}", file=path) from error
    settings = _parse(data, path, Settings)
    _check_hours(settings.quiet_hours, path)
    with OutputFile(path, mode=0o644) as out:
        out.write(data)
        out.commit()
    return settings


def moment(text: str) -> float:
    """Seconds since 1970 of "2026-03-17" (the end of that day, UTC) or of a moment with its zone.

    Raises ValueError.
    """
    if len(text) == 10:
        day = datetime.fromisoformat(text).replace(tzinfo=UTC)
        return (day + timedelta(days=1)).timestamp()
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("a moment needs its zone, such as Z or +01:00")
    return found.timestamp()


def _managed_paths(folder: Path) -> list[Path]:
    paths = [folder / name for name in _NAMES]
    below = folder / _FOLDER
    try:
        names = sorted(entry.name for entry in os.scandir(below))
    except (FileNotFoundError, NotADirectoryError):
        names = []
    except OSError as error:
        raise ConfigError(f"cannot list it: {error.strerror}", file=below) from error
    more = [below / name for name in names if name.endswith(_KINDS) and not name.startswith(".")]
    if len(more) > _MOST_FILES:
        raise ConfigError("too many managed files", file=below, expected=_MOST_FILES)
    return [*paths, *more]


def _read(path: Path, most: int, owner: int | None = None) -> bytes:
    """A small regular file, whole; with an `owner`, only one that nobody else can change.

    Raises OSError, ConfigError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ConfigError("not a regular file", file=path)
        if owner is not None:
            _trusted(fd, path, owner)
        with os.fdopen(fd, "rb", closefd=False) as file:
            data = file.read(most + 1)
    finally:
        os.close(fd)
    if len(data) > most:
        raise ConfigError("the file is too large", file=path, expected=most)
    return data


def _trusted(fd: int, path: Path, owner: int) -> None:
    """Refuses a file, or a folder above it, that others could change."""
    _owned(os.fstat(fd), path, path, owner, sticky_ok=False)
    above = Path(os.path.abspath(path)).parent
    for folder in (above, *above.parents):
        info = os.lstat(folder)
        if stat.S_ISLNK(info.st_mode):
            raise ConfigError(
                f"a managed policy below a link: {folder}",
                file=path,
                hint="Put the policy into real folders.",
            )
        _owned(info, folder, path, owner, sticky_ok=folder != above)


def _owned(info: os.stat_result, checked: Path, path: Path, owner: int, *, sticky_ok: bool) -> None:
    what = "it" if checked == path else f"the folder {checked}"
    if info.st_uid not in (owner, 0):
        raise ConfigError(
            f"a managed policy that is not its administrator's: {what} belongs to someone else",
            file=path,
            expected=f"user {owner}",
            found=f"user {info.st_uid}",
            hint=f"chown {owner} {checked}",
        )
    others = info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if others and not (sticky_ok and info.st_mode & stat.S_ISVTX):
        raise ConfigError(
            f"a managed policy that others can change: {what} is writable by group or others",
            file=path,
            expected="mode without 0022",
            found=f"mode {stat.S_IMODE(info.st_mode):04o}",
            hint=f"chmod go-w {checked}",
        )


def _parse(data: bytes, path: Path, kind: type[_Policy]) -> _Policy:
    try:
        if path.suffix == ".json":
            return msgspec.json.decode(data, type=kind)
        return msgspec.convert(_plain(tomllib.loads(data.decode())), kind)
    except msgspec.ValidationError as error:
        name = "settings" if kind is Settings else "managed"
        raise ConfigError(
            str(error),
            file=path,
            hint=f"`bsipatch policy --schema {name}` prints what such a file may say.",
        ) from None
    except (msgspec.DecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as e:
        language = "JSON" if path.suffix == ".json" else "TOML"
        raise ConfigError(f"not {language}: {e}", file=path) from None


def _plain(value: Any) -> Any:
    """TOML's own dates as the text that JSON would have."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, date) else value


def _check_hours(hours: tuple[Hours, ...] | None, path: Path) -> None:
    for one in hours or ():
        if one.start == one.end:
            raise ConfigError(
                "quiet hours that begin and end at the same time",
                file=path,
                found=one.start,
                hint="To install nothing at any hour set automatic instead.",
            )
        if len(set(one.days)) != len(one.days):
            raise ConfigError("a day is named twice", file=path, found=", ".join(one.days))
