"""`bsipatch feed refresh`: renews the metadata's time of validity."""

from __future__ import annotations

from .. import _passphrase
from .._options import Json
from . import _common


def command(
    feed: _common.Place,
    keys: _common.Keys,
    passphrase_file: _passphrase.File = None,
    take_over: _common.TakeOver = False,
    dry_run: _common.DryRun = False,
    json: Json = False,
) -> None:
    """Sign timestamp and snapshot anew, and every role that expires soon. Run it daily.

    Also finishes or discards a publication that died on its way.

    Examples:

      bsipatch feed refresh

      bsipatch feed refresh --feed s3://bucket/feed --keys /secure/keys --json
    """
    with _common.publishing() as hook:
        opened = _common.open_feed(feed, keys, passphrase_file, take_over, hook=hook)
        report = opened.refresh(dry_run=dry_run)
    _common.show(report, dry_run=dry_run, json=json)
