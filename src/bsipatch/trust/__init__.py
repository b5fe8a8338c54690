"""Whose word counts: Ed25519 keys, and signed envelopes (DSSE) with a threshold of k of n keys.

Nothing here writes a file: keys become PEM bytes, and the publisher's side stores them.
"""

from __future__ import annotations

from bsipatch.trust.envelope import (
    PAYLOAD_TYPE,
    Signature,
    Verified,
    add_signatures,
    pae,
    sign,
    verify,
)
from bsipatch.trust.keys import Policy, PrivateKey, PublicKey, generate, load_private, load_public

__all__ = [
    "PAYLOAD_TYPE",
    "Policy",
    "PrivateKey",
    "PublicKey",
    "Signature",
    "Verified",
    "add_signatures",
    "generate",
    "load_private",
    "load_public",
    "pae",
    "sign",
    "verify",
]
