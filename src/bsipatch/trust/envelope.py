"""Signed envelopes (DSSE): what is signed is the type and every byte of the payload.

Verification looks at nothing inside the payload.  The envelope itself is the least that has to be
parsed before: one object of three known members, in one spelling, with bounded sizes.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from bsipatch.errors import CorruptError, LimitError, SignatureError, ThresholdError
from bsipatch.limits import DEFAULT, Limits
from bsipatch.trust.keys import Policy, PrivateKey

__all__ = [
    "PAYLOAD_TYPE",
    "Signature",
    "Verified",
    "add_signatures",
    "max_envelope_size",
    "pae",
    "sign",
    "verify",
]

PAYLOAD_TYPE = "application/vnd.bsipatch.manifest+json+zstd"

_SIGNATURE_SIZE = 64


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One signature; keyid only says which key to try, and is not itself signed."""

    keyid: str
    sig: str


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    payload: str
    payloadType: str
    signatures: tuple[Signature, ...]


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(_Envelope, strict=True)


@dataclass(frozen=True, slots=True)
class Verified:
    """A payload that enough trusted keys have signed.

    signers  ids of the trusted keys whose signatures are valid, sorted, each once
    unknown  signatures by keys that are not trusted; they count for nothing
    invalid  signatures that claim a trusted key and are not its; they count for nothing
    """

    payload: bytes
    signers: tuple[str, ...]
    unknown: int
    invalid: int


def pae(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """The bytes that are signed (DSSE's pre-authentication encoding)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, keys: Sequence[PrivateKey], *, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """The envelope of `payload` with one signature by each distinct key, in the order of key ids.

    Raises SignatureError without any key: an unsigned envelope is never made.
    """
    distinct = {key.key_id: key for key in keys}
    if not distinct:
        raise SignatureError("no key to sign with is given")
    message = pae(payload, payload_type)
    return _encoder.encode(
        _Envelope(
            payload=_b64(payload),
            payloadType=payload_type,
            signatures=tuple(
                Signature(key_id, _b64(key.sign(message)))
                for key_id, key in sorted(distinct.items())
            ),
        )
    )


def add_signatures(envelope: bytes, keys: Sequence[PrivateKey]) -> bytes:
    """The same envelope with signatures by `keys` added, so that key holders can sign in turn.

    Nothing is verified here.  Raises CorruptError or LimitError for a malformed envelope.
    """
    read = _read(envelope, DEFAULT)
    message = pae(_unb64(read.payload, "payload"), read.payloadType)
    signatures = {signature.keyid: signature for signature in read.signatures}
    for key in keys:
        signatures[key.key_id] = Signature(key.key_id, _b64(key.sign(message)))
    return _encoder.encode(
        _Envelope(
            payload=read.payload,
            payloadType=read.payloadType,
            signatures=tuple(signatures[key_id] for key_id in sorted(signatures)),
        )
    )


def verify(
    envelope: bytes,
    policy: Policy,
    *,
    payload_type: str = PAYLOAD_TYPE,
    limits: Limits = DEFAULT,
) -> Verified:
    """Hands out the payload once `policy.threshold` distinct trusted keys have signed it.

    Raises CorruptError (malformed, or of another type), LimitError (too large, too many
    signatures), SignatureError (none at all, or none by a trusted key), ThresholdError (some valid
    signatures, but too few).
    """
    read = _read(envelope, limits)
    if read.payloadType != payload_type:
        raise CorruptError(
            "the envelope holds another type of payload",
            expected=payload_type,
            found=ascii(read.payloadType[:80]),
        )
    if not read.signatures:
        raise SignatureError("the envelope carries no signature")
    payload = _unb64(read.payload, "payload")
    message = pae(payload, read.payloadType)
    signers: set[str] = set()
    unknown = invalid = 0
    for signature in read.signatures:
        raw = _unb64(signature.sig, "signature")
        key = policy.keys.get(signature.keyid)
        if key is None:
            unknown += 1
        elif len(raw) == _SIGNATURE_SIZE and key.verifies(raw, message):
            # A set: the same key signing twice counts once.
            signers.add(key.key_id)
        else:
            invalid += 1
    if len(signers) < policy.threshold:
        found = f"{len(signers)} valid, {invalid} invalid, {unknown} by unknown keys"
        if signers:
            raise ThresholdError("too few signatures", expected=policy.threshold, found=found)
        raise SignatureError("no trusted key has signed it", found=found)
    return Verified(payload, tuple(sorted(signers)), unknown, invalid)


def _read(envelope: bytes, limits: Limits) -> _Envelope:
    if len(envelope) > max_envelope_size(limits):
        raise LimitError("the envelope is too large", found=len(envelope))
    try:
        read = _decoder.decode(envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptError(f"not an envelope: {ascii(str(error))[1:-1]}") from None
    if _encoder.encode(read) != envelope:
        raise CorruptError("the envelope is not in canonical form")
    if len(read.signatures) > limits.max_signatures:
        raise LimitError(
            "too many signatures", expected=limits.max_signatures, found=len(read.signatures)
        )
    return read


def max_envelope_size(limits: Limits = DEFAULT) -> int:
    """Most bytes an envelope can have: its payload in base64 and everything around it."""
    return (limits.max_manifest + 2) // 3 * 4 + limits.max_envelope


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unb64(text: str, what: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise CorruptError(f"a {what} is not base64") from None
    if _b64(data) != text:
        raise CorruptError(f"a {what} is not in the one spelling of its base64")
    return data
