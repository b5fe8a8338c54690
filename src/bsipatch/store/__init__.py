"""The device's store: complete generations of one tree, and one pointer to the live one.

    init(root, baseline, ...)      a new store whose baseline is a copy of a tree
    Store(root)                    an existing one: status, history, revert, collect
    apply(store, update, ...)      verify, build beside the live tree, read back, flip
    check(store, ...)              read every generation again, report what drifted

docs/store.md describes the layout and the protocol.
"""

from __future__ import annotations

from .applying import Applied, apply
from .checking import CheckReport, Drift, check
from .collecting import Collected
from .history import Event
from .live import Reverted
from .making import init
from .records import Generation, Identity
from .store import Status, Store
from .work import Work

__all__ = [
    "Applied",
    "CheckReport",
    "Collected",
    "Drift",
    "Event",
    "Generation",
    "Identity",
    "Reverted",
    "Status",
    "Store",
    "Work",
    "apply",
    "check",
    "init",
]
