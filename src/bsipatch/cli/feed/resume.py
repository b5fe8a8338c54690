"""`bsipatch feed resume`: goes on with a rollout."""

from __future__ import annotations

from ._halting import command_for

command = command_for(
    "resume",
    """Go on with a paused rollout, each step as far away as it was then.

    Examples:

      bsipatch feed resume 0123456789ab

      bsipatch feed resume 0123456789ab --channel release --dry-run
    """,
)
