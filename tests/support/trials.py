"""Updates that are to be tried: with health checks, for a restart, and what a trial leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bsipatch.manifest import Activation, HealthCheck
from bsipatch.store import Applied, Store, Terms, apply
from tests.support.stores import NOW, written
from tests.support.trees import NEW_FRAMEWORK, Content, File
from tests.support.updates import make_update

RESTART = Activation(scope="restart")
PROGRAM = "Versions/A/selftest"


def with_program(script: str) -> dict[str, Content]:
    """The new framework with a program in it that can be a health check."""
    return {**NEW_FRAMEWORK, PROGRAM: File(f"#!/bin/sh\n{script}\n".encode(), 0o755)}


def command(script: str, **more: Any) -> HealthCheck:
    """A health check that is a line of shell."""
    return HealthCheck(kind="command", command=("/bin/sh", "-c", script), **more)


def update_with(path: Path, *health: HealthCheck, **changes: Any) -> Path:
    """An update file with these health checks."""
    return written(path, make_update(health=health, **changes))


def applied(store: Store, path: Path, *health: HealthCheck, **changes: Any) -> Applied:
    """Makes such an update and applies it."""
    return apply(store, update_with(path, *health, **changes), now=NOW)


def automatic(**more: Any) -> Terms:
    """As an agent would apply it."""
    return Terms(automatic=True, **more)


def words(store: Store) -> list[str]:
    """The history's events, oldest first."""
    return [event.event for event in store.history()]
