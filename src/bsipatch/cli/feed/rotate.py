"""`bsipatch feed rotate`: other keys for a role."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import _output, _passphrase
from .._options import Json
from . import _common

if TYPE_CHECKING:
    from ...publish.feed.keys import KeyRing
    from ...trust import PublicKey


class Role(StrEnum):
    """Whose keys can be changed."""

    root = "root"
    targets = "targets"
    snapshot = "snapshot"
    timestamp = "timestamp"
    developer = "developer"
    beta = "beta"
    release = "release"


def command(
    role: Annotated[
        Role,
        typer.Argument(metavar="ROLE", help=", ".join(Role)),
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
        typer.Option("--out", "-o", metavar="FILE", help="Write the next root here to be signed."),
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
    the old root keys and of the new ones. With --out nothing is published: the next root is
    written there, signed by such keys as are here. Once others have signed it with `bsipatch feed
    sign`, --root publishes it. In between devices see the state of before.

    After the theft of a channel's key, --clear takes everything off that channel's list.

    Examples:

      bsipatch feed rotate beta --new beta-2 --drop all

      bsipatch feed rotate timestamp --new timestamp-2 --drop all --out root-2.json

      bsipatch feed rotate root --root root-2.json
    """
    from ... import trust
    from ...errors import UsageError, from_os_error
    from ...output import OutputFile

    if clear and drop != ["all"]:
        raise UsageError("--clear is for a stolen key: drop it with --drop all")
    if root is not None and (add or new or drop or threshold is not None):
        raise UsageError("--root publishes a root as it is: it excludes the other changes")
    if root is not None and out is not None:
        raise UsageError("--root publishes a root, --out writes one to be signed: name one of them")
    ignore = role.value if clear else None
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
                leaving = opened.key_ids(role.value)
            if new is not None:
                public.append(_key(opened.keys, new, passphrase_file, no_passphrase, dry_run))
            report = opened.rotate(
                role.value,
                add=public,
                drop=leaving,
                threshold=threshold,
                hold=out is not None,
                dry_run=dry_run,
            )
    if report.pending is None:
        _common.show(report, dry_run=dry_run, json=json, more={"root": None, "missing": 0})
        return
    if out is None:
        raise UsageError(
            "the next root needs signatures by keys that are not here",
            hint="Name a file for it with --out, and have it signed.",
        )
    with OutputFile(out) as file:
        file.write(report.pending)
        file.commit()
    lacking = _output.number(report.missing, "more signature")
    lines = [
        f"Wrote {out}; it needs {lacking}:" if report.missing else f"Wrote {out}, signed.",
        *([f"  bsipatch feed sign {out} --key private.pem"] if report.missing else ()),
        "Then publish it:" if report.missing else "Publish it:",
        f"  bsipatch feed rotate root --root {out}",
    ]
    more = {"root": str(out), "missing": report.missing}
    _common.show(report, dry_run=dry_run, json=json, more=more, lines=lines)


def _key(
    keys: KeyRing, name: str, passphrase_file: Path | None, no_passphrase: bool, dry_run: bool
) -> PublicKey:
    """The key of that name, made if need be; in a dry run one that stands for it."""
    found = keys.public(name)
    if found is not None:
        return found
    if dry_run:
        from ...trust import generate

        return generate().public
    return keys.make(name, None if no_passphrase else _passphrase.for_new_key(passphrase_file))
