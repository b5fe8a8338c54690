"""The conditions that a policy asks for, on this machine."""

from __future__ import annotations

from pathlib import Path

from ...limits import DEFAULT, Limits
from ..policy_merge import Policy
from ._answer import Condition
from .idle import Idle
from .network import MeteredNetwork
from .power import Power
from .quiet import QuietHours
from .space import FreeSpace


def standard(
    policy: Policy, store: Path, *, need: int = 0, limits: Limits = DEFAULT
) -> list[Condition]:
    """Providers for everything that the policy makes a condition; `need` is in bytes."""
    found: list[Condition] = [
        Power(policy.battery_floor),
        MeteredNetwork(allow=policy.metered == "allow"),
        QuietHours(policy.quiet_hours),
        FreeSpace(store, need, limits),
    ]
    if policy.only_idle:
        found.append(Idle())
    return found
