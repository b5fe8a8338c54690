"""Writes a new key pair: public.pem and private.pem, never over anything that is there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bsipatch import trust
from bsipatch.errors import ExistsError, from_os_error

__all__ = ["KeyFiles", "write_key_pair"]


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """Where a new pair lies; key_id names it in envelopes and trust policies."""

    public: Path
    private: Path
    key_id: str


def write_key_pair(
    directory: str | os.PathLike[str],
    passphrase: bytes | None,
    *,
    key: trust.PrivateKey | None = None,
) -> KeyFiles:
    """Makes a key (or takes `key`) and writes public.pem (0644) and private.pem (0600).

    The private key is encrypted with `passphrase`; None writes it in the clear.  The directory is
    made, for its owner alone, when it is missing.
    Raises ExistsError when either file is there, PassphraseError, SystemCallError.
    """
    folder = Path(directory)
    made = trust.generate() if key is None else key
    private_pem, public_pem = made.pem(passphrase), made.public.pem()
    files = KeyFiles(folder / "public.pem", folder / "private.pem", made.key_id)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise ExistsError("is a file, not a directory", file=folder) from None
    except OSError as error:
        raise from_os_error(error, folder, "cannot make the directory") from error
    _write_new(files.private, private_pem, 0o600)
    try:
        _write_new(files.public, public_pem, 0o644)
    except BaseException:
        # Half a pair helps nobody; what is removed was made a moment ago, right here.
        files.private.unlink(missing_ok=True)
        raise
    return files


def _write_new(path: Path, data: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, mode)
    except FileExistsError:
        raise ExistsError("a key is there already", file=path) from None
    except OSError as error:
        raise from_os_error(error, path, "cannot write") from error
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(data)
            file.flush()
            os.fsync(fd)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise from_os_error(error, path, "cannot write") from error
        raise
