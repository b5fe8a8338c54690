"""What the surroundings say: power, network, quiet hours, idleness, room on the disk.

Each provider answers one question through the Condition protocol, with the evidence
it found, and can be replaced by any object that has `name` and `ask`.

    ask_all(standard(policy, path, need=...), now)      every answer
"""

from __future__ import annotations

from ._answer import Answer, Condition, Runner, ask_all, run_command
from .idle import Idle
from .network import MeteredNetwork
from .power import Power
from .quiet import QuietHours
from .space import FreeSpace
from .standard import standard

__all__ = [
    "Answer",
    "Condition",
    "FreeSpace",
    "Idle",
    "MeteredNetwork",
    "Power",
    "QuietHours",
    "Runner",
    "ask_all",
    "run_command",
    "standard",
]
