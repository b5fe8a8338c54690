"""The feed of a service's device, opened as the policy wants it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MissingDependencyError
from ..limits import Limits
from .policy import Policy

if TYPE_CHECKING:
    from .feed_client import FeedClient


@contextlib.contextmanager
def followed(
    root: Path, policy: Policy | None, clock: Callable[[], float], limits: Limits
) -> Iterator[FeedClient]:
    """Open; with its own settings where there is no policy.

    Raises NotFoundError (no feed is followed), ConfigError, MissingDependencyError.
    """
    try:
        from .feed_client import opened
    except ImportError as error:
        raise MissingDependencyError(
            f"following a feed needs {error.name}", hint="pip install 'bsipatch[feed]'"
        ) from error
    with opened(root, clock=clock, limits=limits) as feed:
        if policy is not None:
            feed.heed(
                channel=policy.channel,
                mirrors=policy.mirrors,
                bandwidth=policy.bandwidth or None,
            )
        yield feed
