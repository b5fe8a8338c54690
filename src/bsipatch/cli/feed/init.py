"""`bsipatch feed init`: a new feed and its keys."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from .. import _output, _passphrase
from .._options import Json
from . import _common


def command(
    feed: _common.Place,
    keys: _common.Keys,
    root_keys: Annotated[
        int, typer.Option("--root-keys", min=1, max=16, help="How many root keys to make.")
    ] = 1,
    root_key: Annotated[
        list[Path] | None,
        typer.Option(
            "--root-key", metavar="PUB", help="A root key that lies elsewhere; repeat for several."
        ),
    ] = None,
    root_threshold: Annotated[
        int, typer.Option("--root-threshold", min=1, max=16, help="How many of them must sign.")
    ] = 1,
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="FILE", help="The first root, signed elsewhere."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write the root here to be signed."),
    ] = None,
    expires: Annotated[
        list[str] | None,
        typer.Option(
            "--expires", metavar="ROLE=TIME", help="How long a role stays valid: timestamp=3d."
        ),
    ] = None,
    passphrase_file: _passphrase.File = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave the private keys in the clear.")
    ] = False,
    json: Json = False,
) -> None:
    """Make a feed: a key for each role, and empty channels developer, beta and release.

    Keys that are in the folder already are used. With root keys that lie elsewhere (--root-key)
    the root is written to --out first, and nothing is published; once `bsipatch feed sign` has
    been run by enough of their holders, the same command with --root publishes the feed.

    Examples:

      bsipatch feed init --feed /srv/feed --keys keys --root-keys 3 --root-threshold 2

      bsipatch feed init -f s3://bucket/feed --keys keys --root-key a.pem --root-key b.pem
      --root-threshold 2 --out root.json

      bsipatch feed init -f s3://bucket/feed --keys keys --root root.json
    """
    from ... import trust
    from ...errors import UsageError, from_os_error
    from ...output import OutputFile

    with _common.needing_feed():
        from ...publish.feed import roots, setup
        from ...publish.feed.metadata import to_bytes
        from ...publish.feed.repository import check_vacant, create
        from ...publish.feed.storage import open_storage

    def load(path: Path) -> trust.PrivateKey:
        return _passphrase.load(path, passphrase_file)

    def passphrase() -> bytes | None:
        return None if no_passphrase else _passphrase.for_new_key(passphrase_file)

    made: tuple[str, ...] = ()
    periods = _periods(expires or [])
    if out is None:  # before there are keys for a feed that cannot be
        check_vacant(open_storage(feed))
    if root is not None:
        if out is not None:
            raise UsageError("--root publishes a root, --out writes one: name one of them")
        try:
            first = roots.read(root.read_bytes(), str(root))
        except OSError as error:
            raise from_os_error(error, root) from error
        ring = setup.open_keys(keys, load)
    else:
        prepared = setup.prepare(
            keys,
            load,
            passphrase,
            int(time.time()),
            root_keys=[trust.load_public(path) for path in root_key or ()],
            root_count=root_keys,
            root_threshold=root_threshold,
            periods=periods,
        )
        first, ring, made = prepared.root, prepared.keys, prepared.made
        if out is not None or not prepared.complete:
            if out is None:
                raise UsageError(
                    "the root needs signatures by keys that are not here",
                    hint="Name a file for it with --out, and have it signed.",
                )
            with OutputFile(out) as file:
                file.write(to_bytes(first))
                file.commit()
            _output.emit(
                json,
                {"published": False, "root": str(out), "made": list(made)},
                [
                    *(f"Made the key {name}." for name in made),
                    *_to_sign(out, prepared.complete),
                    f"  bsipatch feed init --feed {feed} --keys {keys} --root {out}",
                ],
            )
            return
    with _common.publishing() as hook:
        opened = create(open_storage(feed), ring, first, setup.channel_keys(ring), hook=hook)
    facts = {
        "published": True,
        "feed": feed,
        "root": str(keys / "root.json"),
        "made": list(made),
        "channels": list(opened.state.channels),
    }
    lines = [
        *(f"Made the key {name}." for name in made),
        f"Published: {feed}",
        f"Devices need {keys / 'root.json'}: hand it out with your product.",
        "Take the root keys off this machine, and run `bsipatch feed refresh` daily.",
    ]
    _output.emit(json, facts, lines)


def _to_sign(out: Path, complete: bool) -> list[str]:
    if complete:
        return [f"Wrote {out}, signed. Publish it:"]
    return [
        f"Wrote {out}. Have it signed by the root keys' holders, then publish it:",
        f"  bsipatch feed sign {out} --key private.pem",
    ]


def _periods(texts: list[str]) -> dict[str, int]:
    from ...errors import UsageError

    found = {}
    for text in texts:
        role, separator, time_text = text.partition("=")
        if not separator:
            raise UsageError("expected ROLE=TIME, such as timestamp=3d", found=text)
        found[role] = _common.duration(time_text)
    return found
