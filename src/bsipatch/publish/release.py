"""release.toml: what people write about a release, with a default for all but four lines."""

from __future__ import annotations

import datetime
import difflib
import os
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bsipatch import manifest as manifests
from bsipatch.errors import ConfigError, ManifestError
from bsipatch.limits import DEFAULT, Limits
from bsipatch.manifest import Activation, HealthCheck, SecurityItem
from bsipatch.reading import read_small

__all__ = ["DEFAULT_LIFETIME_DAYS", "Release", "load_release", "parse_release"]

#: days after its creation that an update is good for, unless release.toml says otherwise
DEFAULT_LIFETIME_DAYS = 365

_DAY = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What a release says of itself; None means "measured, or the default".

    baseline_version  None: the release's own version
    baseline_build    None: whatever build has the baseline's tree digest
    created, expires  seconds since 1970; created None: SOURCE_DATE_EPOCH or now; expires None:
                      365 days later; expires 0: never
    stacks_on         (letter, build or None) of the improvement that the base tree holds
    xattrs            whether extended attributes are part of the trees
    health            what must hold on a device once the update is live
    supersedes        builds of the same letter that this one mends
    """

    product: str
    version: str
    letter: str
    build: str
    platform: str | None = None
    architectures: tuple[str, ...] | None = None
    baseline_version: str | None = None
    baseline_build: str | None = None
    activation: Activation = field(default_factory=lambda: Activation(scope="restart"))
    security: tuple[SecurityItem, ...] = ()
    release_notes: str | None = None
    created: int | None = None
    expires: int | None = None
    stacks_on: tuple[str, str | None] | None = None
    xattrs: bool = False
    health: tuple[HealthCheck, ...] = ()
    supersedes: tuple[str, ...] = ()

    def times(self) -> tuple[int, int | None]:
        """(created, expires) with the defaults worked out; expires None means never."""
        created = self.created
        if created is None:
            epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
            created = int(epoch) if epoch.isascii() and epoch.isdigit() else int(time.time())
        if self.expires == 0:
            return created, None
        if self.expires is None:
            return created, created + DEFAULT_LIFETIME_DAYS * _DAY
        return created, self.expires


_TOP = [
    *("product", "version", "letter", "build", "platform", "architectures", "release_notes"),
    *("created", "expires", "xattrs", "baseline", "activation", "security", "stacks_on"),
    *("health", "supersedes"),
]
_BASELINE = ["version", "build"]
_ACTIVATION = ["relaunch", "restart"]
_SECURITY = ["component", "impact", "cves", "credit"]
_STACKS_ON = ["letter", "build"]


def load_release(path: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> Release:
    """Reads release.toml.

    Raises NotFoundError, or ConfigError naming the setting (with a suggestion when it is unknown).
    """
    data = read_small(path, limits.max_config_file, what="release file", refusal=ConfigError)
    try:
        text = data.decode("utf-8")
        table = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"not TOML: {error}", file=path) from None
    try:
        return parse_release(table)
    except ConfigError as error:
        raise ConfigError(error.detail, file=path, found=error.found, hint=error.hint) from None


def parse_release(table: Mapping[str, Any]) -> Release:
    """A release from a parsed table. Raises ConfigError."""
    _only(table, _TOP, "")
    for name in ("product", "version", "letter", "build"):
        if name not in table:
            raise ConfigError(f"{name} is missing", hint=f'Add a line such as {name} = "…".')
    baseline = _table(table, "baseline", _BASELINE)
    stacks_on = _table(table, "stacks_on", _STACKS_ON)
    release = Release(
        product=_field(table, "product"),
        version=_field(table, "version"),
        letter=_field(table, "letter"),
        build=_field(table, "build"),
        platform=_optional(table, "platform"),
        architectures=_architectures(table),
        baseline_version=_optional(baseline, "version", "baseline."),
        baseline_build=_optional(baseline, "build", "baseline."),
        activation=_activation(table),
        security=_security(table),
        release_notes=_optional(table, "release_notes"),
        created=_time(table, "created"),
        expires=_expires(table),
        xattrs=_bool(table, "xattrs", "", False),
        stacks_on=(
            (_field(stacks_on, "letter", "stacks_on."), _optional(stacks_on, "build", "stacks_on."))
            if "stacks_on" in table
            else None
        ),
        health=manifests.parse_health(
            _table(table, "health", list(manifests.HEALTH_SETTINGS)), "health."
        ),
        supersedes=_supersedes(table),
    )
    created, expires = release.times()
    if expires is not None and expires <= created:
        raise ConfigError("expires must be later than the creation", found=expires)
    return release


def _only(table: Mapping[str, Any], known: list[str], where: str) -> None:
    for name in table:
        if name in known:
            continue
        close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
        hint = f"Did you mean {where}{close[0]}?" if close else f"Known are: {', '.join(known)}."
        raise ConfigError(f"{where}{name} is not a known setting", hint=hint)


def _table(table: Mapping[str, Any], name: str, known: list[str]) -> Mapping[str, Any]:
    value = table.get(name, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{name} must be a table: [{name}]")
    _only(value, known, f"{name}.")
    return value


def _text(table: Mapping[str, Any], name: str, where: str = "") -> str:
    if name not in table:
        raise ConfigError(f"{where}{name} is missing")
    value = table[name]
    if not isinstance(value, str):
        raise ConfigError(f"{where}{name} must be text in quotes", found=value)
    return value


def _field(table: Mapping[str, Any], name: str, where: str = "") -> str:
    value = _text(table, name, where)
    try:
        manifests.check_release_field(name, value)
    except ManifestError as error:
        detail = where + error.detail
        raise ConfigError(detail, found=error.found, hint=_letter_hint(name, value)) from None
    return value


def _letter_hint(name: str, value: str) -> str | None:
    if name == "version" and "(" in value:
        return 'Keep the letter apart: version = "26.3.1" and letter = "a".'
    return None


def _optional(table: Mapping[str, Any], name: str, where: str = "") -> str | None:
    return _field(table, name, where) if name in table else None


def _bool(table: Mapping[str, Any], name: str, where: str, default: bool) -> bool:
    value = table.get(name, default)
    if not isinstance(value, bool):
        raise ConfigError(f"{where}{name} must be true or false", found=value)
    return value


def _texts(table: Mapping[str, Any], name: str, where: str = "") -> tuple[str, ...]:
    value = table.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"{where}{name} must be a list of texts", found=value)
    return tuple(value)


def _architectures(table: Mapping[str, Any]) -> tuple[str, ...] | None:
    if "architectures" not in table:
        return None
    names = _texts(table, "architectures")
    for name in names:
        try:
            manifests.check_release_field("architecture", name)
        except ManifestError as error:
            raise ConfigError(error.detail, found=error.found) from None
    if not names:
        raise ConfigError("architectures must not be empty; leave it out to have them detected")
    return tuple(sorted(set(names)))


def _supersedes(table: Mapping[str, Any]) -> tuple[str, ...]:
    builds = _texts(table, "supersedes")
    for build in builds:
        try:
            manifests.check_release_field("build", build)
        except ManifestError as error:
            raise ConfigError(f"supersedes: {error.detail}", found=error.found) from None
    if table.get("build") in builds:
        raise ConfigError("supersedes names the release's own build")
    return tuple(dict.fromkeys(builds))


def _activation(table: Mapping[str, Any]) -> Activation:
    value = _table(table, "activation", _ACTIVATION)
    processes = _texts(value, "relaunch", "activation.")
    restart = _bool(value, "restart", "activation.", not processes)
    if restart == bool(processes):
        raise ConfigError("activation: either relaunch names processes, or restart is true")
    if any(not name or not name.isprintable() for name in processes):
        raise ConfigError("activation.relaunch: a process has no printable name")
    return Activation(
        scope="restart" if restart else "relaunch", processes=tuple(dict.fromkeys(processes))
    )


def _security(table: Mapping[str, Any]) -> tuple[SecurityItem, ...]:
    value = table.get("security", [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ConfigError("security must be a list of tables: [[security]]")
    items = []
    for index, item in enumerate(value):
        where = f"security[{index}]."
        _only(item, _SECURITY, where)
        cves = tuple(dict.fromkeys(_texts(item, "cves", where)))
        for cve in cves:
            try:
                manifests.check_release_field("cve", cve)
            except ManifestError as error:
                raise ConfigError(where + error.detail, found=error.found) from None
        items.append(
            SecurityItem(
                component=_text(item, "component", where),
                impact=_text(item, "impact", where),
                cves=cves,
                credit=_text(item, "credit", where) if "credit" in item else "",
            )
        )
    return tuple(items)


def _time(table: Mapping[str, Any], name: str) -> int | None:
    """A TOML date or date-time (UTC unless it says otherwise), or seconds since 1970."""
    value = table.get(name)
    if value is None:
        return None
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    if isinstance(value, datetime.datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        value = int(aware.timestamp())
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"{name} must be a date such as 2026-03-17", found=value)
    return value


def _expires(table: Mapping[str, Any]) -> int | None:
    if table.get("expires") == "never":
        return 0
    return _time(table, "expires")
