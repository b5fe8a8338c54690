"""Where a private key's pass phrase comes from; never from the command line itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import NotFoundError, PassphraseError, from_os_error
from ..limits import DEFAULT

if TYPE_CHECKING:
    from ..trust import PrivateKey

VARIABLE = "BSIPATCH_PASSPHRASE"
_HINT = f"Use --passphrase-file, set {VARIABLE}, or run it on a terminal."

File = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        envvar="BSIPATCH_PASSPHRASE_FILE",
        metavar="FILE",
        help=f"Read the pass phrase from the first line of FILE; {VARIABLE} works too.",
    ),
]


def for_new_key(file: Path | None) -> bytes:
    """The pass phrase of a key that is being made; on a terminal it is asked for twice."""
    given = _given(file)
    if given is not None:
        return given
    first = _ask("Pass phrase for the new private key: ")
    if first != _ask("The same again: "):
        raise PassphraseError("the two pass phrases differ", hint="Try again.")
    return first


def load(key: Path, file: Path | None) -> PrivateKey:
    """A private key, decrypted; asks for the pass phrase only when the key needs one."""
    from .. import trust

    given = _given(file)
    try:
        return trust.load_private(key, given)
    except PassphraseError:
        if given is not None:
            raise
    return trust.load_private(key, _ask(f"Pass phrase for {key}: "))


def _given(file: Path | None) -> bytes | None:
    if file is None:
        told = os.environ.get(VARIABLE)
        return None if told is None else _usable(os.fsencode(told), VARIABLE)
    try:
        with file.open("rb") as opened:
            line = opened.readline(DEFAULT.max_passphrase + 2)
    except FileNotFoundError:
        raise NotFoundError("no such pass phrase file", file=file) from None
    except OSError as error:
        raise from_os_error(error, file, "cannot read the pass phrase") from error
    return _usable(line.rstrip(b"\r\n"), str(file))


def _usable(passphrase: bytes, source: str) -> bytes:
    if not passphrase:
        raise PassphraseError("the pass phrase is empty", file=source, hint=_HINT)
    return passphrase


def _ask(prompt: str) -> bytes:
    if not sys.stdin.isatty():
        raise PassphraseError("no pass phrase is given", hint=_HINT)
    import getpass

    try:
        return _usable(getpass.getpass(prompt).encode(), "terminal")
    except EOFError:
        raise PassphraseError("no pass phrase was typed", hint=_HINT) from None
