"""What `bsipatch feed pause` and `bsipatch feed resume` are: one command, with another edit."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from .. import _passphrase
from .._options import Json
from . import _common


def command_for(edit: str, help_text: str) -> Callable[..., None]:
    """The command that makes `edit`, one of publish.feed.edits', of a rollout."""

    def command(
        name: _common.Id,
        feed: _common.Place,
        keys: _common.Keys,
        channel: _common.Channel = None,
        passphrase_file: _passphrase.File = None,
        take_over: _common.TakeOver = False,
        dry_run: _common.DryRun = False,
        json: Json = False,
    ) -> None:
        with _common.needing_feed():
            from ...publish.feed import edits
        made = {"pause": edits.pause, "resume": edits.resume}[edit]
        _common.change(
            feed,
            keys,
            passphrase_file,
            take_over,
            lambda draft, now: made(draft, name, now, channel=_common.channel_name(channel)),
            dry_run=dry_run,
            json=json,
        )

    command.__doc__ = inspect.cleandoc(help_text)
    return command
