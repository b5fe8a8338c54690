"""From the owner's settings and the managed files to one policy, by stated rules.

Pure: no file is read here.  Every value remembers where it came from, the rule
that decided, and what else was asked for; `bsipatch policy --explain` shows it.

Rules, first among managed files, then between them and the owner:

=============== ==================================================================
all-allow       every file must allow it: one "off" or "forbidden" is enough
longest         the largest number of days
shortest        the smallest number of days
earliest        for each update the earliest moment
most-tried      the channel nearest to release
strictest       "wait" rather than "allow", true rather than false
all-agree       reports are sent only when everyone who says anything agrees
largest         the largest number
smallest        the smallest limit; 0 means none and is the largest
union           all hours that any file names
in-order        all mirrors, in the order of the files, each once
first           the first file's that names one
managed-wins    what a managed file says replaces what the owner says
owner           nothing managed: the owner's choice
feed            neither: what the feed was set up with (`bsipatch follow`)
default         nobody says anything
=============== ==================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from .policy_files import ManagedFile, moment
from .policy_schema import CHANNELS, Channel, Enforcement, Hours, Metered, Settings

OWNER = "owner"
FEED = "feed"
DEFAULT_ORIGIN = "default"


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a value is what it is.

    `origins` are the files that ask for it (or "owner", "feed", "default"); `passed_over`
    is what else was asked for, as (origin, value).
    """

    rule: str
    origins: tuple[str, ...]
    passed_over: tuple[tuple[str, Any], ...] = ()

    @property
    def managed(self) -> bool:
        """Whether an administrator decided."""
        return not set(self.origins) <= {OWNER, FEED, DEFAULT_ORIGIN}


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The effective policy. Bandwidth in bytes a second, floors in percent, times in days."""

    automatic: bool
    install: bool
    removal: bool
    channel: Channel
    deferral_days: int
    #: days after publication by which an improvement must be on; None for never
    enforce_after_days: int | None
    #: updates and the moment by which each must be on, by id
    enforce: tuple[Enforcement, ...]
    #: feeds that replace the device's own; () for its own
    mirrors: tuple[str, ...]
    quiet_hours: tuple[Hours, ...]
    metered: Metered
    bandwidth: int
    battery_floor: int
    only_idle: bool
    reports: bool
    #: where reports go; "" for nowhere
    report_to: str
    #: who signs this device's tickets; "" for nobody
    ticket_service: str
    organization: str
    #: why each value is what it is
    origins: dict[str, Origin]

    def managed(self, name: str) -> bool:
        """Whether an administrator decided on this value."""
        return self.origins[name].managed


#: what holds when nobody says anything
DEFAULTS: dict[str, Any] = {
    "automatic": True,
    "install": True,
    "removal": True,
    "channel": "release",
    "deferral_days": 0,
    "enforce_after_days": None,
    "enforce": (),
    "mirrors": (),
    "quiet_hours": (),
    "metered": "wait",
    "bandwidth": 0,
    "battery_floor": 10,
    "only_idle": False,
    "reports": False,
    "report_to": "",
    "ticket_service": "",
    "organization": "",
}

_Said = tuple[str, Any]


def _earliest(lists: Sequence[Sequence[Enforcement]]) -> tuple[Enforcement, ...]:
    first: dict[str, Enforcement] = {}
    for item in (item for one in lists for item in one):
        known = first.get(item.id)
        if known is None or moment(item.by) < moment(known.by):
            first[item.id] = item
    return tuple(first[name] for name in sorted(first))


def _once(lists: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(item for one in lists for item in one))


#: value -> (rule among managed files, how it chooses)
_AMONG: dict[str, tuple[str, Callable[[Sequence[Any]], Any]]] = {
    "automatic": ("all-allow", all),
    "install": ("all-allow", all),
    "removal": ("all-allow", all),
    "channel": ("most-tried", lambda said: max(said, key=CHANNELS.index)),
    "deferral_days": ("longest", max),
    "enforce_after_days": ("shortest", min),
    "enforce": ("earliest", _earliest),
    "mirrors": ("in-order", _once),
    "quiet_hours": ("union", _once),
    "metered": ("strictest", lambda said: "wait" if "wait" in said else "allow"),
    "bandwidth": ("smallest", lambda said: min(said, key=lambda most: most or float("inf"))),
    "battery_floor": ("largest", max),
    "only_idle": ("strictest", any),
    "reports": ("all-agree", all),
    "report_to": ("first", lambda said: said[0]),
    "ticket_service": ("first", lambda said: said[0]),
    "organization": ("in-order", lambda said: ", ".join(_once([[one] for one in said if one]))),
}
#: where the owner's wish counts beside a managed value: by the same rule
TOGETHER = frozenset({"bandwidth", "reports"})
#: written as words in managed files, true or false in the effective policy
_WORDS = frozenset({"automatic", "install", "removal"})


def merge(
    settings: Settings,
    managed: Sequence[ManagedFile] = (),
    feed: Mapping[str, Any] | None = None,
) -> Policy:
    """The effective policy of an owner's settings under managed files, in their order.

    `feed` is what the device's feed was set up with: channel, mirrors, bandwidth.
    """
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for name in DEFAULTS:
        ours = getattr(settings, name, None)
        theirs = [
            (str(file.path), said)
            for file in managed
            if (said := _said(name, getattr(file.policy, name))) is not None
        ]
        values[name], origins[name] = _decide(name, ours, theirs, (feed or {}).get(name))
    return Policy(**values, origins=origins)


def _said(name: str, value: Any) -> Any:
    """A managed value in the effective policy's terms; None for one that is absent."""
    if name == "organization":
        return value or None
    words = {"on": True, "off": False, "allowed": True, "forbidden": False}
    return words.get(value, value) if name in _WORDS else value


def _decide(name: str, ours: Any, theirs: Sequence[_Said], configured: Any) -> tuple[Any, Origin]:
    if not theirs:
        if ours is not None:
            return ours, Origin("owner", (OWNER,))
        if configured is not None:
            return configured, Origin("feed", (FEED,))
        return DEFAULTS[name], Origin("default", (DEFAULT_ORIGIN,))
    rule, choose = _AMONG[name]
    said = list(theirs)
    if ours is not None and name in TOGETHER:
        said.append((OWNER, ours))
    value = choose([one for _, one in said])
    asked = tuple(origin for origin, one in said if _asks(one, value))
    passed = [(origin, one) for origin, one in said if not _asks(one, value)]
    if name not in TOGETHER and ours is not None:
        passed.append((OWNER, ours))
    if len(said) == 1:
        rule = "managed-wins"
    return value, Origin(rule, asked, tuple(passed))


def _asks(said: Any, value: Any) -> bool:
    """Whether what one file said is (part of) the value."""
    if isinstance(value, tuple):
        return any(item in value for item in said) or said == value
    return bool(said == value) or (isinstance(value, str) and said in value.split(", "))
