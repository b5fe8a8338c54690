"""What a device says of itself, in one value: the structs that status, the API and the page show.

Every time is text, ISO 8601 in UTC; sizes are bytes; durations are seconds.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from ..manifest import Activation, SecurityItem

Operation: TypeAlias = Literal["check", "install", "remove"]

#: the device in one word, the first that holds:
#:   no-feed      the store follows no feed
#:   moved        the base was replaced by other means: nothing is installed until `adopt`
#:   withdrawn    what is live was taken back by its publisher, and goes with the next install
#:   available    an improvement can be installed now, by itself or because a person asks for it
#:   waiting      there is an improvement for this device, and it waits for something
#:   restart      what is live takes effect with the next restart
#:   trial        the live improvement has yet to pass its checks
#:   removed      an improvement is offered that its owner took off
#:   unknown      never checked, the last check failed, or what is known has expired
#:   not-offered  the feed lists improvements of which this device can have none
#:   current      checked, and everything that the feed has for this device is on
Standing: TypeAlias = Literal[
    "no-feed",
    "moved",
    "withdrawn",
    "available",
    "waiting",
    "restart",
    "trial",
    "removed",
    "unknown",
    "not-offered",
    "current",
]


class _Struct(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Why(_Struct, frozen=True, kw_only=True):
    """One thing against an improvement. `until`: when it ends by itself, None if unknown."""

    code: str
    text: str
    until: str | None = None
    evidence: dict[str, Any] = {}


class Installed(_Struct, frozen=True, kw_only=True):
    """What is live.

    improvement  False while the baseline is live
    base         what the baseline is called
    removable    `remove` would be done; otherwise why_not_removable says why not
    """

    product: str
    display: str
    version: str
    letter: str
    build: str
    base: str
    improvement: bool
    generation: int
    since: str
    path: str
    removable: bool
    why_not_removable: str
    security: tuple[SecurityItem, ...] = ()
    release_notes: str | None = None
    activation: Activation | None = None


class Listed(_Struct, frozen=True, kw_only=True):
    """An improvement of the feed that is not on.

    standing     available (a person can have it now), waiting (it is for this device, later),
                 removed (its owner took it off, and can have it back) or refused
    installable  install(id) would begin now
    size         bytes to download, all steps; space: bytes of disk
    why          what holds it back from being installed without anyone's doing
    by           when it must be on by policy; enforced: that moment has come
    """

    id: str
    display: str
    build: str
    standing: Literal["available", "waiting", "removed", "refused"]
    installable: bool
    kind: str
    size: int
    space: int
    published: str
    activation: Activation
    security: tuple[SecurityItem, ...] = ()
    release_notes: str | None = None
    why: tuple[Why, ...] = ()
    by: str | None = None
    enforced: bool = False


class Process(_Struct, frozen=True, kw_only=True):
    """A program that still runs with the tree from before the last change."""

    name: str
    pid: int


class Needs(_Struct, frozen=True, kw_only=True):
    """What makes the live tree take effect: "" for nothing, else relaunch or restart.

    processes  what is to be relaunched: those that were running before the last change
    on_trial   it has yet to prove itself
    """

    scope: Literal["", "relaunch", "restart"] = ""
    processes: tuple[Process, ...] = ()
    on_trial: bool = False


class Checks(_Struct, frozen=True, kw_only=True):
    """What is known of checks. `problem`: why what is known cannot be relied on, or ""."""

    last: str | None = None
    last_success: str | None = None
    next: str | None = None
    failures: int = 0
    problem: str = ""


class Feed(_Struct, frozen=True, kw_only=True):
    """Where the answer comes from; `problems` are what mirrors did wrong."""

    channel: str
    mirror: str
    expires: str
    problems: tuple[str, ...] = ()


class Value(_Struct, frozen=True, kw_only=True):
    """One value of the policy in force, and who decided on it."""

    name: str
    value: Any
    managed: bool
    rule: str
    origins: tuple[str, ...]
    passed_over: tuple[tuple[str, Any], ...] = ()


class Happened(_Struct, frozen=True, kw_only=True):
    """One entry of the history, newest first; `source` is "history" or "device"."""

    time: str
    source: str
    event: str
    text: str
    level: str
    update: str = ""


class Progress(_Struct, frozen=True, kw_only=True):
    """How far the operation is.

    phase  "" before the first; downloading, building, checking, ...
    done   of total bytes of this phase; total 0 where that cannot be known
    rate   bytes a second in this phase, None at first
    left   seconds that are left of this phase at that rate
    left_all  seconds that are left of the whole operation, None where nobody can know: what comes
           after the download is taken to last as long as it did here before
    process  id of the other process whose operation it is; 0 for one of this process
    """

    operation: Operation
    update: str
    began: str
    phase: str = ""
    done: int = 0
    total: int = 0
    rate: float | None = None
    left: float | None = None
    left_all: float | None = None
    stopping: bool = False
    process: int = 0


class Outcome(_Struct, frozen=True, kw_only=True):
    """How the last operation ended. `error` is the error's code, "" when it went well.

    changed  something else is live now
    """

    operation: Operation
    update: str
    ok: bool
    time: str
    text: str
    changed: bool = False
    error: str = ""
    hint: str = ""
    notes: tuple[str, ...] = ()


class State(_Struct, frozen=True, kw_only=True):
    """All of it, at one moment.

    withdrawn     why the live improvement was taken back, or ""
    moved         why the base is not the baseline any more, or ""
    listed        what the feed has for this device, the newest first
    busy          which other process holds the store
    progress      of the operation under way, here or in another process
    policy_error  why no policy can be read: then nothing is changed
    """

    time: str
    standing: Standing
    product: str
    store: str
    installed: Installed
    listed: tuple[Listed, ...]
    needs: Needs
    checks: Checks
    withdrawn: str = ""
    moved: str = ""
    feed: Feed | None = None
    automatic: bool = False
    organization: str = ""
    policy: tuple[Value, ...] = ()
    policy_error: str = ""
    history: tuple[Happened, ...] = ()
    busy: str = ""
    progress: Progress | None = None
    outcome: Outcome | None = None

    @property
    def waiting(self) -> bool:
        """Whether anything is there to be installed, now or later."""
        return any(one.standing in ("available", "waiting") for one in self.listed)


class Event(_Struct, frozen=True, kw_only=True):
    """What subscribers are told: progress, or that the state is another one now.

    kind  progress   `progress` has moved
          finished   an operation ended, `outcome` says how
          changed    anything else: ask for the state again
    """

    kind: Literal["progress", "finished", "changed"]
    progress: Progress | None = None
    outcome: Outcome | None = None
