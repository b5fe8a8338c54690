"""The feed's shared half: what an update's offer says, and which offer a device takes.

Pure functions and frozen structs for the publisher's side and the device's: no network, no files.

Offer, read_offer     what stands in a target's signed metadata, and the gate it passes
names                 channels, ids and target paths
rollout               who is in at which percentage
decide                offers and a device's facts in, a plan and every refusal's reason out
ticket                a device's personal, signed permission
"""

from __future__ import annotations

from bsipatch.feed.decide import Decision, DeviceFacts, Plan, Reason, decide
from bsipatch.feed.model import KEY, Offer, Rollout, Withdrawal, read_offer, to_custom
from bsipatch.feed.names import CHANNELS

__all__ = [
    "CHANNELS",
    "KEY",
    "Decision",
    "DeviceFacts",
    "Offer",
    "Plan",
    "Reason",
    "Rollout",
    "Withdrawal",
    "decide",
    "read_offer",
    "to_custom",
]
