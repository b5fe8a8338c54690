"""`bsipatch feed pause`: lets nobody else have an update."""

from __future__ import annotations

from ._halting import command_for

command = command_for(
    "pause",
    """Stop a rollout where it is. Who has been offered the update keeps it.

    What was still to come is set aside until `bsipatch feed resume`.

    Examples:

      bsipatch feed pause 0123456789ab

      bsipatch feed pause 0123456789ab --channel release --dry-run
    """,
)
