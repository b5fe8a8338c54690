"""What the tests of the settings page share: a browser, the page in it, and a device behind it."""

from __future__ import annotations

import contextlib

import pytest

# Without a browser each module says so itself, by the same import; here it would end the run.
with contextlib.suppress(pytest.skip.Exception):
    from tests.support.browsers import browser, running, show, shown, store
    from tests.support.followed import device, repository, server
    from tests.support.served import managed, says, service
    from tests.support.stores import base

__all__ = [
    "base",
    "browser",
    "device",
    "managed",
    "repository",
    "running",
    "says",
    "server",
    "service",
    "show",
    "shown",
    "store",
]
