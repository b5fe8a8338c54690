"""`bsipatch boot-begin`: a start of the machine is counted."""

from __future__ import annotations

from . import _health, _signals
from ._options import BootId, Json, Store


def command(store: Store, boot_id: BootId = None, json: Json = False) -> None:
    """Count this start of the machine, early and before any managed program runs.

    For init systems. When an improvement is on trial and its tries are used up, the generation
    before is live again and the improvement is barred; that is no error. Without a trial nothing
    is written. Running it twice in one start counts once.

    Example:

      bsipatch boot-begin --store /var/lib/bsipatch/webkit
    """
    from .. import store as stores

    with stores.Store(store) as opened, _signals.working():
        report = stores.boot_begin(opened, boot_id=boot_id)
    _health.report(json, report)
