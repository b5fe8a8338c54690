"""Ed25519 keys: made, named by what they are, to and from PEM."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bsipatch.errors import KeyFileError, LimitError, PassphraseError, TrustError
from bsipatch.limits import DEFAULT, Limits
from bsipatch.reading import read_small

__all__ = ["Policy", "PrivateKey", "PublicKey", "generate", "load_private", "load_public"]


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that signatures are checked with.

    key_id  SHA-256 of the key's SubjectPublicKeyInfo (DER), as hex: the same for the same key
            wherever it was loaded from, so that a key can never count twice
    """

    key_id: str
    _key: Ed25519PublicKey = field(repr=False, compare=False)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is this key's over exactly `message`."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def pem(self) -> bytes:
        """SubjectPublicKeyInfo as PEM: the contents of public.pem."""
        return self._key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @classmethod
    def from_pem(cls, data: bytes, *, file: str | os.PathLike[str] | None = None) -> PublicKey:
        """Reads one Ed25519 public key. Raises KeyFileError; `file` is only for its message."""
        if b"PRIVATE KEY" in data:
            raise KeyFileError(
                "this is a private key where a public one belongs",
                file=file,
                hint="Give public.pem, and keep private.pem to yourself.",
            )
        if data.count(b"-----BEGIN ") != 1:
            raise KeyFileError("holds no public key, or more than one", file=file)
        try:
            key = serialization.load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm):
            raise KeyFileError("not a public key in PEM", file=file) from None
        if not isinstance(key, Ed25519PublicKey):
            raise KeyFileError("not an Ed25519 key", file=file)
        return cls._of(key)

    @classmethod
    def _of(cls, key: Ed25519PublicKey) -> PublicKey:
        spki = key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return cls(hashlib.sha256(spki).hexdigest(), key)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key that signs. Its repr never shows it."""

    public: PublicKey
    _key: Ed25519PrivateKey = field(repr=False, compare=False)

    @property
    def key_id(self) -> str:
        """The id of its public half."""
        return self.public.key_id

    def sign(self, message: bytes) -> bytes:
        """64 bytes, the same for the same message every time."""
        return self._key.sign(message)

    def pem(self, passphrase: bytes | None) -> bytes:
        """PKCS#8 as PEM, encrypted with `passphrase`; None leaves it in the clear.

        Raises PassphraseError for an empty pass phrase, LimitError for one that is too long.
        """
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase is not None:
            _check_passphrase(passphrase, DEFAULT)
            encryption = serialization.BestAvailableEncryption(passphrase)
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )

    @classmethod
    def from_pem(
        cls,
        data: bytes,
        passphrase: bytes | None = None,
        *,
        file: str | os.PathLike[str] | None = None,
    ) -> PrivateKey:
        """Reads one Ed25519 private key in PKCS#8.

        Raises PassphraseError when it is encrypted and `passphrase` is None or wrong (one given
        for a key in the clear is ignored), KeyFileError for anything else than such a key.
        """
        if b"PUBLIC KEY" in data:
            raise KeyFileError(
                "this is a public key where a private one belongs",
                file=file,
                hint="Give private.pem.",
            )
        encrypted = b"ENCRYPTED PRIVATE KEY" in data
        if encrypted and passphrase is None:
            raise PassphraseError("the key is encrypted", file=file)
        if passphrase is not None:
            _check_passphrase(passphrase, DEFAULT)
        try:
            key = serialization.load_pem_private_key(data, passphrase if encrypted else None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            if encrypted:
                raise PassphraseError("the pass phrase does not fit", file=file) from None
            raise KeyFileError("not a private key in PEM", file=file) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFileError("not an Ed25519 key", file=file)
        return cls(PublicKey._of(key.public_key()), key)


def _check_passphrase(passphrase: bytes, limits: Limits) -> None:
    if not passphrase:
        raise PassphraseError("the pass phrase is empty")
    if len(passphrase) > limits.max_passphrase:
        raise LimitError("the pass phrase is too long", expected=limits.max_passphrase)


def generate() -> PrivateKey:
    """A new key from the system's random source."""
    key = Ed25519PrivateKey.generate()
    return PrivateKey(PublicKey._of(key.public_key()), key)


def load_public(path: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> PublicKey:
    """Reads public.pem. Raises NotFoundError or KeyFileError."""
    return PublicKey.from_pem(_read(path, limits), file=path)


def load_private(
    path: str | os.PathLike[str],
    passphrase: bytes | None = None,
    *,
    limits: Limits = DEFAULT,
) -> PrivateKey:
    """Reads private.pem. Raises NotFoundError, PassphraseError or KeyFileError."""
    return PrivateKey.from_pem(_read(path, limits), passphrase, file=path)


def _read(path: str | os.PathLike[str], limits: Limits) -> bytes:
    return read_small(path, limits.max_key_file, what="key file", refusal=KeyFileError)


class Policy:
    """Who must have signed: at least `threshold` distinct keys of `keys`.

    Raises TrustError for no keys, or a threshold that is not between 1 and their number; LimitError
    for too many keys.  The same key given twice counts once.
    """

    __slots__ = ("keys", "threshold")

    def __init__(
        self, keys: Iterable[PublicKey], threshold: int = 1, *, limits: Limits = DEFAULT
    ) -> None:
        self.keys: dict[str, PublicKey] = {key.key_id: key for key in keys}
        self.threshold = threshold
        if len(self.keys) > limits.max_keys:
            raise LimitError("too many trusted keys", expected=limits.max_keys)
        if not self.keys:
            raise TrustError("no trusted key is given", hint="Name one with --trust public.pem.")
        if not 1 <= threshold <= len(self.keys):
            raise TrustError(
                "the threshold must be between 1 and the number of distinct keys",
                expected=len(self.keys),
                found=threshold,
                hint="Name more keys with --trust, or lower --threshold.",
            )

    def __repr__(self) -> str:
        return f"<Policy {self.threshold} of {sorted(k[:16] for k in self.keys)}>"
