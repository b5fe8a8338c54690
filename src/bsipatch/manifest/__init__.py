"""What an update says: frozen structs, their one canonical spelling, and the gate they pass.

The manifest lists every path of the baseline and of the result, each with exactly one action, so
that it can be checked completely on its own: both tree digests are recomputed from it.  Its bytes
are JSON with sorted keys, no insignificant white space, UTF-8, integers only; what equals its
default is left out.  A document spelled in any other way is refused, so equal bytes and equal
meaning are one.
"""

from __future__ import annotations

from bsipatch.manifest.canonical import decode, encode
from bsipatch.manifest.gate import check_release_field, validate, written_bytes
from bsipatch.manifest.health import BUILT_IN, HEALTH_SETTINGS, check_health, parse_health
from bsipatch.manifest.model import (
    FORMAT,
    Action,
    Activation,
    Baseline,
    Deed,
    HealthCheck,
    HealthKind,
    Manifest,
    Payload,
    SecurityItem,
    StacksOn,
)

__all__ = [
    "BUILT_IN",
    "FORMAT",
    "HEALTH_SETTINGS",
    "Action",
    "Activation",
    "Baseline",
    "Deed",
    "HealthCheck",
    "HealthKind",
    "Manifest",
    "Payload",
    "SecurityItem",
    "StacksOn",
    "check_health",
    "check_release_field",
    "decode",
    "encode",
    "parse_health",
    "validate",
    "written_bytes",
]
