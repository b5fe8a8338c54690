"""`bsipatch auto on|off`: the one switch."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from . import _output
from ._options import Json, Store


class Switch(StrEnum):
    """Of automatic installation."""

    on = "on"
    off = "off"


def command(
    store: Store,
    switch: Annotated[
        Switch | None, typer.Argument(help="on or off; without it the switch is only shown.")
    ] = None,
    json: Json = False,
) -> None:
    """Switch automatic installation of improvements on or off.

    Where an administrator manages the switch it cannot be changed: exit code 54.

    Examples:

      bsipatch auto on --store /var/lib/bsipatch/webkit

      bsipatch auto --json
    """
    from ..device import policy as policies
    from ..device import policy_files
    from ..store import Store as Opened

    with Opened(store):
        pass
    policy = policies.load(store)
    if switch is not None:
        policies.allow_change(policy, "automatic")
        policy_files.write_settings(store, {"automatic": switch is Switch.on})
        policy = policies.load(store)
    managed = policy.managed("automatic")
    facts = {
        "store": str(store),
        "automatic": policy.automatic,
        "managed": managed,
        "organization": policy.organization,
    }
    state = "on" if policy.automatic else "off"
    who = f", set by {policy.organization or 'the administrator'}" if managed else ""
    _output.emit(json, facts, [f"Automatic installation is {state}{who}"])
