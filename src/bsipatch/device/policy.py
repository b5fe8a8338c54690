"""The policy in force on a device, and what it says about one update at one moment.

    load(store)                 files -> the effective policy
    deadline(policy, ...)       by when an update must be on
    judge(policy, ...)          may it be installed now, and if not, what is it waiting for

Everything but load() is pure; docs/policy.md states the rules.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from ..errors import NotFoundError, PolicyError, from_os_error
from ..limits import DEFAULT, Limits
from . import policy_files
from .conditions import Answer
from .policy_merge import TOGETHER, Origin, Policy, merge
from .policy_schema import Managed, Settings
from .state import config as feed_config

__all__ = [
    "Managed",
    "Origin",
    "Policy",
    "Settings",
    "Verdict",
    "Wait",
    "allow_change",
    "allow_install",
    "allow_removal",
    "deadline",
    "judge",
    "load",
    "merge",
]

_DAY = 86_400
#: conditions that a deadline sets aside; power and room are never
_COMFORT = frozenset({"quiet-hours", "metered", "idle"})


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that an installation waits for.

    code      as in the feed's reasons: policy, deferred, quiet-hours, metered, battery ...
    text      for people, one sentence without a full stop
    until     when it will be over, seconds since 1970; None when nobody can know
    evidence  what was measured or read
    """

    code: str
    text: str
    until: float | None = None
    evidence: dict[str, Any] = {}


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What policy and conditions say about installing one update now.

    install   go ahead without asking anyone
    by        when it must be on, seconds since 1970; None without a deadline
    enforced  that moment has come
    waits     what it waits for; () when it may go ahead
    set_aside what would hold it, but for the deadline or a person's wish
    """

    install: bool
    by: float | None = None
    enforced: bool = False
    waits: tuple[Wait, ...] = ()
    set_aside: tuple[Wait, ...] = ()


def load(
    store: Path, *, managed: Path | None = None, owner: int = 0, limits: Limits = DEFAULT
) -> Policy:
    """The policy of a store: its owner's settings under the machine's managed files.

    `managed` and `owner` stand for /etc/bsipatch and root in tests.  Raises ConfigError.
    """
    settings = policy_files.read_settings(policy_files.settings_path(store), limits=limits)
    folder = policy_files.MANAGED if managed is None else managed
    files = policy_files.read_managed(folder, owner=owner, limits=limits)
    return merge(settings, files, _feed(store, limits))


def _feed(store: Path, limits: Limits) -> dict[str, Any]:
    """What the store's feed was set up with; {} for a store without one."""
    folder = store / "feed"
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise from_os_error(error, folder) from error
    try:
        config = feed_config.read(dir_fd=fd, file=str(folder / feed_config.CONFIG), limits=limits)
    except NotFoundError:
        return {}
    finally:
        os.close(fd)
    return {
        "channel": config.channel,
        "mirrors": config.mirrors,
        "bandwidth": config.bandwidth,
    }


def deadline(policy: Policy, update: str, published: float) -> float | None:
    """By when an update (its id, and when it was published) must be on; None for never."""
    moments = [policy_files.moment(item.by) for item in policy.enforce if item.id == update]
    if policy.enforce_after_days is not None:
        moments.append(published + policy.enforce_after_days * _DAY)
    return min(moments, default=None)


def judge(
    policy: Policy,
    *,
    update: str,
    published: float,
    now: float,
    answers: Iterable[Answer] = (),
    asked: bool = False,
) -> Verdict:
    """May this update be installed now?

    `answers` are those of the conditions that were asked.  `asked` says that a person
    wants it now: then what protects the device still holds it (power, room), but not what
    protects the person's comfort.  An administrator's deferral or ban stays in force.
    """
    by = deadline(policy, update, published)
    enforced = by is not None and now >= by
    waits: list[Wait] = []
    aside: list[Wait] = []
    for name, wait in _policy_waits(policy, published, now):
        lifted = enforced or (asked and _lifts(policy, name))
        (aside if lifted else waits).append(wait)
    for answer in answers:
        if answer.ok:
            continue
        wait = Wait(
            code=answer.code, text=answer.text, until=answer.until, evidence=answer.evidence
        )
        lifted = (enforced or asked) and answer.code in _COMFORT
        (aside if lifted else waits).append(wait)
    return Verdict(
        install=not waits,
        by=by,
        enforced=enforced,
        waits=tuple(waits),
        set_aside=tuple(aside),
    )


def _lifts(policy: Policy, name: str) -> bool:
    """Whether a person's wish is enough: never against what an administrator forbids or defers."""
    return name == "automatic" or not policy.managed(name)


def _policy_waits(policy: Policy, published: float, now: float) -> list[tuple[str, Wait]]:
    """What of the policy itself holds an update: the value's name, and what to say."""
    said = []
    for name, words in (
        ("install", "installing improvements is forbidden by"),
        ("automatic", "automatic installation is switched off by"),
    ):
        if not getattr(policy, name):
            evidence = {name: False, "origins": list(policy.origins[name].origins)}
            text = f"{words} {_who(policy, name)}"
            said.append((name, Wait(code="policy", text=text, evidence=evidence)))
    due = published + policy.deferral_days * _DAY
    if now < due:
        days = f"{policy.deferral_days} day{'' if policy.deferral_days == 1 else 's'}"
        wait = Wait(
            code="deferred",
            text=f"deferred for {days} after publication by {_who(policy, 'deferral_days')}",
            until=due,
            evidence={
                "deferral_days": policy.deferral_days,
                "published": published,
                "origins": list(policy.origins["deferral_days"].origins),
            },
        )
        said.append(("deferral_days", wait))
    return said


def allow_install(policy: Policy) -> None:
    """Raises PolicyError when an administrator forbids installing improvements."""
    if not policy.install:
        raise PolicyError(
            f"installing improvements is forbidden by {_who(policy, 'install')}",
            file=policy.origins["install"].origins[0],
            hint="Ask whoever manages this device.",
        )


def allow_removal(policy: Policy) -> None:
    """Raises PolicyError when an administrator forbids removing improvements."""
    if not policy.removal:
        raise PolicyError(
            f"removing improvements is forbidden by {_who(policy, 'removal')}",
            file=policy.origins["removal"].origins[0],
            hint="Ask whoever manages this device.",
        )


def allow_change(policy: Policy, name: str) -> None:
    """Raises PolicyError for a setting that an administrator decides on."""
    if policy.managed(name) and name not in TOGETHER:
        origin = policy.origins[name]
        raise PolicyError(
            f"`{name}` is set by {_who(policy, name)}",
            file=origin.origins[0],
            found=getattr(policy, name),
            hint="Ask whoever manages this device.",
        )


def _who(policy: Policy, name: str) -> str:
    if policy.managed(name):
        return policy.organization or "the administrator"
    return "the owner"
