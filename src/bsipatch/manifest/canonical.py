"""The manifest's one spelling: JSON with sorted keys, no white space, defaults left out."""

from __future__ import annotations

import msgspec

from bsipatch.errors import LimitError, ManifestError, VersionError
from bsipatch.limits import DEFAULT, Limits
from bsipatch.manifest.gate import validate
from bsipatch.manifest.model import FORMAT, Manifest

__all__ = ["decode", "encode"]


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(Manifest, strict=True)


class _Head(msgspec.Struct):
    format: int


_head_decoder = msgspec.json.Decoder(_Head, strict=True)


def encode(manifest: Manifest) -> bytes:
    """The manifest's one spelling. Does not validate."""
    return _encoder.encode(manifest)


def decode(data: bytes, *, limits: Limits = DEFAULT) -> Manifest:
    """Reads and validates a manifest; `data` must already be known to be signed.

    Raises VersionError for another format version, ManifestError for anything that breaks the
    rules or is spelled unusually, UnsafePathError for names, LimitError beyond the limits.
    """
    if len(data) > limits.max_manifest:
        raise LimitError("the manifest is too large", expected=limits.max_manifest, found=len(data))
    try:
        version = _head_decoder.decode(data).format
        if version != FORMAT:
            raise VersionError("the manifest's", expected=FORMAT, found=version)
        manifest = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(_reason(error)) from None
    if encode(manifest) != data:
        raise ManifestError("it is not in canonical form")
    validate(manifest, limits=limits)
    return manifest


def _reason(error: Exception) -> str:
    return ascii(str(error))[1:-1]
