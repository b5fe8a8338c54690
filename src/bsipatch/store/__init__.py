"""The device's store: complete generations of one tree, and one pointer to the live one.

    init(root, baseline, ...)      a new store whose baseline is a copy of a tree
    Store(root)                    an existing one: status, history, revert, collect
    apply(store, update, ...)      verify, build beside the live tree, read back, flip
    rehearse(store, update, ...)   all of that on a throw-away copy, and back
    check(store, ...)              read every generation again, report or repair what drifted
    recover(store, ...)            finish or undo what was interrupted, end a trial that is due
    Group(root)                    several stores that are updated in one step, all or none
    boot_begin, boot_mark, boot_ok what an init system tells of the machine's starts

docs/store.md describes the layout and the protocol.
"""

from __future__ import annotations

from .applying import Applied, Terms, apply
from .boot import BootReport, boot_begin, boot_mark, boot_ok
from .checking import CheckReport, Drift, check
from .collecting import Collected
from .group import Group
from .health import Result
from .history import Event
from .making import init
from .records import Bar, Generation, Identity, Trial
from .recovering import Recovered, recover
from .rehearsing import Rehearsal, rehearse
from .repairing import Repaired
from .reverting import Reverted
from .store import Status, Store
from .work import Work

__all__ = [
    "Applied",
    "Bar",
    "BootReport",
    "CheckReport",
    "Collected",
    "Drift",
    "Event",
    "Generation",
    "Group",
    "Identity",
    "Recovered",
    "Rehearsal",
    "Repaired",
    "Result",
    "Reverted",
    "Status",
    "Store",
    "Terms",
    "Trial",
    "Work",
    "apply",
    "boot_begin",
    "boot_mark",
    "boot_ok",
    "check",
    "init",
    "recover",
    "rehearse",
]
