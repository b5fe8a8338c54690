"""`bsipatch feed rotate`: other keys for a role."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import _passphrase
from .._options import Json
from . import _common

if TYPE_CHECKING:
    from ...publish.feed.keys import KeyRing
    from ...trust import PublicKey


def command(
    role: Annotated[
        str,
        typer.Argument(
            metavar="ROLE", help="root, targets, snapshot, timestamp, developer, beta or release."
        ),
    ],
    feed: _common.Place,
    keys: _common.Keys,
    add: Annotated[
        list[Path] | None,
        typer.Option("--add", metavar="PUB", help="A public key that the role gets."),
    ] = None,
    new: Annotated[
        str | None,
        typer.Option("--new", metavar="NAME", help="A key in the folder of keys, made if need be."),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option("--drop", metavar="KEYID", help="A key that the role loses, or `all`."),
    ] = None,
    threshold: Annotated[
        int | None, typer.Option("--threshold", min=1, max=64, help="How many must sign.")
    ] = None,
    clear: Annotated[
        bool,
        typer.Option("--clear", help="Begin a channel anew: nothing that it lists counts."),
    ] = False,
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="FILE", help="Publish this root, signed elsewhere."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Where an unsigned root is written."),
    ] = None,
    passphrase_file: _passphrase.File = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave a new private key in the clear.")
    ] = False,
    take_over: _common.TakeOver = False,
    dry_run: _common.DryRun = False,
    json: Json = False,
) -> None:
    """Give a role other keys, or renew the root.

    A channel's keys are changed by the targets key; all others by the root, signed by enough of
    the old root keys and of the new ones. Where those are not here, the next root is written to
    --out; once it is signed, --root publishes it. In between devices see the state of before.

    After the theft of a channel's key, --clear takes everything off that channel's list.

    Examples:

      bsipatch feed rotate beta --new beta-2 --drop all

      bsipatch feed rotate timestamp --new timestamp-2 --drop 0123456789abcdef --out root-2.json

      bsipatch feed rotate root --root root-2.json
    """
    from ... import trust
    from ...errors import UsageError, from_os_error
    from ...output import OutputFile

    if clear and drop != ["all"]:
        raise UsageError("--clear is for a stolen key: drop it with --drop all")
    if root is not None and (add or new or drop or threshold is not None):
        raise UsageError("--root publishes a root as it is: it excludes the other changes")
    ignore = role if clear else None
    with _common.publishing() as hook:
        opened = _common.open_feed(feed, keys, passphrase_file, take_over, ignore=ignore, hook=hook)
        if root is not None:
            try:
                data = root.read_bytes()
            except OSError as error:
                raise from_os_error(error, root) from error
            report = opened.publish_root(data, file=str(root), dry_run=dry_run)
        else:
            public = [trust.load_public(path) for path in add or ()]
            leaving = list(drop or ())
            if leaving == ["all"]:
                leaving = opened.key_ids(role)
            if new is not None and not dry_run:
                public.append(_new_key(opened.keys, new, passphrase_file, no_passphrase))
            elif new is not None:
                public.append(trust.generate().public)
            report = opened.rotate(
                role, add=public, drop=leaving, threshold=threshold, dry_run=dry_run
            )
    if report.pending is not None:
        if out is None:
            raise UsageError(
                "the next root needs signatures by keys that are not here",
                hint="Name a file for it with --out, and have it signed.",
            )
        with OutputFile(out) as file:
            file.write(report.pending)
            file.commit()
    written = str(out) if report.pending is not None else None
    _common.show(report, dry_run=dry_run, json=json, more={"root": written})


def _new_key(
    keys: KeyRing, name: str, passphrase_file: Path | None, no_passphrase: bool
) -> PublicKey:
    found = keys.public(name)
    if found is not None:
        return found
    return keys.make(name, None if no_passphrase else _passphrase.for_new_key(passphrase_file))
