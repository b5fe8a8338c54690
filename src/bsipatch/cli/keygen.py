"""`bsipatch keygen`: a new pair of signing keys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import _output, _passphrase
from ._options import Json


def command(
    directory: Annotated[
        Path, typer.Argument(help="The folder that gets both files.", metavar="DIR")
    ],
    passphrase_file: _passphrase.File = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave the private key in the clear.")
    ] = False,
    json: Json = False,
) -> None:
    """Make a key pair: public.pem and private.pem. Never overwrites.

    The private key is encrypted with a pass phrase: from --passphrase-file, from
    BSIPATCH_PASSPHRASE, or asked for on the terminal.

    Examples:

      bsipatch keygen keys

      bsipatch keygen keys --passphrase-file secret.txt

      bsipatch keygen keys --no-passphrase
    """
    from ..errors import ExistsError, UsageError
    from ..publish.keyfiles import write_key_pair

    if no_passphrase and passphrase_file is not None:
        raise UsageError("--no-passphrase and --passphrase-file exclude one another")
    for name in ("private.pem", "public.pem"):  # before anyone types a pass phrase for nothing
        if (directory / name).exists() or (directory / name).is_symlink():
            raise ExistsError("a key is there already", file=directory / name)
    passphrase = None if no_passphrase else _passphrase.for_new_key(passphrase_file)
    made = write_key_pair(directory, passphrase)
    if passphrase is None:
        print(
            "bsipatch: warning: the private key is written in the clear; "
            "whoever reads the file can sign updates",
            file=sys.stderr,
        )
    facts = {
        "public": str(made.public),
        "private": str(made.private),
        "key_id": made.key_id,
        "encrypted": passphrase is not None,
    }
    lines = _output.columns(
        [
            ("Public key", str(made.public)),
            ("Private key", str(made.private)),
            ("Key id", made.key_id),
        ]
    )
    _output.emit(json, facts, lines)
