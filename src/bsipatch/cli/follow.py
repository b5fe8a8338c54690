"""`bsipatch follow`: from which feed a store gets its updates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _output
from ._options import Json, Store


def command(
    feed: Annotated[
        list[str],
        typer.Argument(help="The feed's address, then its mirrors'.", metavar="URL..."),
    ],
    store: Store,
    root: Annotated[
        Path | None,
        typer.Option("--root", dir_okay=False, help="The feed's root.json, to be pinned."),
    ] = None,
    channel: Annotated[
        str, typer.Option("--channel", help="release, beta or developer.")
    ] = "release",
    device_id: Annotated[
        str | None,
        typer.Option("--device-id", help="For staged rollouts; default: a random one, kept."),
    ] = None,
    proxy: Annotated[
        str | None,
        typer.Option("--proxy", help='Its address; "" for none; default: the environment.'),
    ] = None,
    bandwidth: Annotated[
        int | None, typer.Option("--bandwidth", min=1, help="At most so many bytes a second.")
    ] = None,
    managed: Annotated[
        Path | None,
        typer.Option("--managed", help="The tree that something else may update as well."),
    ] = None,
    json: Json = False,
) -> None:
    """Follow a feed, or change how. Its root must come from somewhere that can be trusted.

    Examples:

      bsipatch follow https://updates.example.org/ --root root.json --store STORE

      bsipatch follow file:///media/stick/feed --channel beta --store STORE
    """
    from .. import store as stores
    from ..device import following
    from ..device.state.config import FeedConfig
    from ..errors import LimitError

    with stores.Store(store) as opened:
        data = None
        if root is not None:
            with _output.opening(root) as file:
                data = file.read(opened.limits.max_root + 1)
            if len(data) > opened.limits.max_root:
                raise LimitError("the root", file=root, expected=opened.limits.max_root)
        done = following.follow(
            opened.root,
            FeedConfig(
                mirrors=tuple(feed),
                channel=channel,
                proxy=proxy,
                bandwidth=bandwidth,
                managed=None if managed is None else str(managed.absolute()),
            ),
            root=data,
            name=device_id,
            limits=opened.limits,
        )
    facts = {
        "store": str(opened.root),
        "mirrors": list(done.config.mirrors),
        "channel": done.config.channel,
        "device_id": done.device_id,
        "root_version": done.root_version,
        "new": done.new,
    }
    rows = [
        ("Feed", ", ".join(done.config.mirrors)),
        ("Channel", done.config.channel),
        ("Device", done.device_id),
        ("Root", f"version {done.root_version}, pinned"),
    ]
    _output.emit(json, facts, _output.columns(rows))
