"""`bsipatch remove`: no improvement at all, as its users say it."""

from __future__ import annotations

from ._options import Json, Store
from .revert import Reason, go_back


def command(store: Store, reason: Reason = "", json: Json = False) -> None:
    """Remove the improvement: the baseline is live again, as `revert --baseline`.

    What was removed is not installed again by itself; `bsipatch apply` and `bsipatch allow`
    bring it back.

    Examples:

      bsipatch remove --store /var/lib/bsipatch/webkit

      bsipatch remove --store /var/lib/bsipatch/webkit --reason "a page does not print"
    """
    go_back(store, baseline=True, remove=True, reason=reason, json=json)
