"""The publisher's keys: one folder for each, named by its role, and how TUF sees them.

::

    KEYS/root-1/private.pem   KEYS/root-1/public.pem     as `bsipatch keygen` writes them
    KEYS/targets/...          KEYS/snapshot/...          KEYS/timestamp/...
    KEYS/developer/...        KEYS/beta/...              KEYS/release/...
    KEYS/root.json                                       the root that this publisher trusts

Folder names are for people; a key counts for whatever role the metadata gives it.
A private key is decrypted only when something is signed with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.signer import Key, SecretsHandler, Signature, Signer, SSlibKey

from bsipatch import trust
from bsipatch.errors import KeyFileError, NotFoundError, SignatureError, UsageError, from_os_error
from bsipatch.publish.keyfiles import write_key_pair
from bsipatch.trust import PrivateKey, PublicKey

__all__ = ["KeyRing", "KeySigner", "check_key", "from_tuf", "to_tuf"]

#: gives a private key from its file, asking for a pass phrase where one is needed
Load = Callable[[Path], PrivateKey]

_MOST_FOLDERS = 256
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def to_tuf(key: PublicKey) -> SSlibKey:
    """A key as TUF writes it. Its id is ours, so that one key never counts under two."""
    return SSlibKey(key.key_id, "ed25519", "ed25519", {"public": _raw(key).hex()})


def from_tuf(key: Key) -> PublicKey:
    """A key that metadata names. Raises KeyFileError unless it is an Ed25519 key."""
    if key.keytype != "ed25519" or key.scheme != "ed25519":
        raise KeyFileError("not an Ed25519 key", found=f"{key.keytype}/{key.scheme}")
    try:
        raw = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.keyval["public"]))
    except (ValueError, KeyError):
        raise KeyFileError("not an Ed25519 key", found=key.keyid) from None
    return PublicKey.from_pem(
        raw.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def check_key(key: Key) -> PublicKey:
    """The key, whose id must be its digest: else one key could count as two. Raises KeyFileError"""
    public = from_tuf(key)
    if public.key_id != key.keyid:
        raise KeyFileError(
            "a key stands under an id that is not its own",
            expected=public.key_id,
            found=ascii(key.keyid[:80]),
            hint="Do not trust this metadata.",
        )
    return public


class KeySigner(Signer):
    """One of our private keys as TUF signs with it."""

    def __init__(self, key: PrivateKey) -> None:
        self._key = key
        self._public = to_tuf(key.public)

    @property
    def public_key(self) -> Key:
        """Its public half."""
        return self._public

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> Signer:
        """Not used: keys come from a KeyRing."""
        raise NotImplementedError

    def sign(self, payload: bytes) -> Signature:
        """The signature over exactly `payload`."""
        return Signature(self._key.key_id, self._key.sign(payload).hex())


class KeyRing:
    """The key pairs in a folder. Reads public halves at once, private ones when they sign."""

    def __init__(self, folder: Path, load: Load) -> None:
        """Raises NotFoundError, KeyFileError; KeyFileError too for one key in two folders."""
        self.folder = folder
        self._load = load
        self._files: dict[str, Path] = {}
        self._names: dict[str, str] = {}
        self._signers: dict[str, KeySigner] = {}
        try:
            found = sorted(entry for entry in folder.iterdir() if (entry / "public.pem").is_file())
        except FileNotFoundError:
            raise NotFoundError(
                "no such folder of keys", file=folder, hint="Name it with --keys."
            ) from None
        except OSError as error:
            raise from_os_error(error, folder) from error
        for entry in found[:_MOST_FOLDERS]:
            self._add(entry)

    @classmethod
    def of(cls, folder: Path, keys: Iterable[PrivateKey]) -> KeyRing:
        """A ring of keys that are at hand already, with a folder for the trusted root."""
        ring = cls.__new__(cls)
        ring.folder, ring._files, ring._names = folder, {}, {}
        ring._load = trust.load_private
        ring._signers = {key.key_id: KeySigner(key) for key in keys}
        return ring

    def _add(self, entry: Path) -> None:
        key = trust.load_public(entry / "public.pem")
        if key.key_id in self._names:
            raise KeyFileError(
                f"the same key as in {self._names[key.key_id]}",
                file=entry / "public.pem",
                hint="Each role needs a key of its own.",
            )
        self._names[key.key_id] = entry.name
        if (entry / "private.pem").is_file():
            self._files[key.key_id] = entry / "private.pem"

    def make(self, name: str, passphrase: bytes | None) -> PublicKey:
        """Makes the pair of a new key in the folder `name`. Raises ExistsError, UsageError."""
        pair = write_key_pair(self._at(name), passphrase)
        self._add(self._at(name))
        return trust.load_public(pair.public)

    def public(self, name: str) -> PublicKey | None:
        """The public key in the folder `name`. Raises UsageError for a name that is a path."""
        path = self._at(name) / "public.pem"
        return trust.load_public(path) if path.is_file() else None

    def _at(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise UsageError("a key's name is letters, digits and . _ -", found=ascii(name[:80]))
        return self.folder / name

    def has(self, key_id: str) -> bool:
        """Whether the private half is here."""
        return key_id in self._files or key_id in self._signers

    def name_of(self, key_id: str) -> str:
        """What people call the key."""
        return self._names.get(key_id, key_id[:16])

    def signer(self, key_id: str) -> KeySigner:
        """Decrypts a private key, once. Raises SignatureError when it is not here."""
        if key_id not in self._signers:
            file = self._files.get(key_id)
            if file is None:
                raise SignatureError("a private key is not here", file=self.folder, found=key_id)
            key = self._load(file)
            if key.key_id != key_id:
                raise KeyFileError("not the private half of public.pem beside it", file=file)
            self._signers[key_id] = KeySigner(key)
        return self._signers[key_id]

    def available(self, key_ids: Iterable[str]) -> list[KeySigner]:
        """Signers of those that are here, in the order of their ids."""
        return [self.signer(key_id) for key_id in sorted(set(key_ids)) if self.has(key_id)]


def _raw(key: PublicKey) -> bytes:
    loaded: Any = serialization.load_pem_public_key(key.pem())
    raw: bytes = loaded.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return raw
