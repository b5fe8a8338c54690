"""`bsipatch follow`: from which feed a store gets its updates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _output
from ._options import ChannelName, Json, Store


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
        ChannelName | None, typer.Option("--channel", help="Whose updates; release at first.")
    ] = None,
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
    defaults: Annotated[
        bool,
        typer.Option("--defaults", help="Set back what is not named here, instead of keeping it."),
    ] = False,
    json: Json = False,
) -> None:
    """Follow a feed, or change how. Its root must come from somewhere that can be trusted.

    Of a feed that is followed already the channel and whatever else is not named stay as they
    are; --defaults sets them back.

    Examples:

      bsipatch follow https://updates.example.org/ --root root.json --store STORE

      bsipatch follow file:///media/stick/feed --channel beta --store STORE

      bsipatch follow https://mirror.example.net/ --store STORE
    """
    import msgspec

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
        given = {
            "channel": None if channel is None else channel.value,
            "proxy": proxy,
            "bandwidth": bandwidth,
            "managed": None if managed is None else str(managed.absolute()),
        }
        named = {name: value for name, value in given.items() if value is not None}
        # Another mirror in the middle of the night must not take a device off its channel.
        known = None if defaults else following.present(opened.root, limits=opened.limits)
        known = known or FeedConfig(mirrors=(), channel="release")
        done = following.follow(
            opened.root,
            msgspec.structs.replace(known, mirrors=tuple(feed), **named),
            root=data,
            name=device_id,
            limits=opened.limits,
        )
    facts = {
        "store": str(opened.root),
        "mirrors": list(done.config.mirrors),
        "channel": done.config.channel,
        "proxy": done.config.proxy,
        "bandwidth": done.config.bandwidth,
        "managed": done.config.managed,
        "device_id": done.device_id,
        "root_version": done.root_version,
        "new": done.new,
    }
    limit = done.config.bandwidth
    rows = [
        ("Feed", ", ".join(done.config.mirrors)),
        ("Channel", done.config.channel),
        ("Proxy", "none" if done.config.proxy == "" else done.config.proxy or ""),
        ("Bandwidth", "" if limit is None else f"{_output.number(limit, 'byte')} a second"),
        ("Managed", done.config.managed or ""),
        ("Device", done.device_id),
        ("Root", f"version {done.root_version}, pinned"),
    ]
    _output.emit(json, facts, _output.columns(rows))
