"""A rollout's health from the reports that devices send: what a report says, and what many say.

Shared by the device that writes a report and the publisher who reads them; no
network, no file writing.
"""

from __future__ import annotations
