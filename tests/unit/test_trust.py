"""Keys and envelopes: who signed, how many of them, over exactly which bytes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from bsipatch import trust
from bsipatch.errors import (
    BsipatchError,
    CorruptError,
    ExistsError,
    KeyFileError,
    LimitError,
    NotFoundError,
    PassphraseError,
    SignatureError,
    ThresholdError,
    TrustError,
)
from bsipatch.limits import Limits
from bsipatch.publish import write_key_pair
from bsipatch.trust import PAYLOAD_TYPE, Policy, PrivateKey, PublicKey
from tests.support.updates import key, policy

# --- keys ---------------------------------------------------------------------------------------


def test_a_key_pair_is_written_encrypted_and_read_back(tmp_path: Path) -> None:
    files = write_key_pair(tmp_path / "keys", b"correct horse")
    assert files.private.stat().st_mode & 0o777 == 0o600
    assert files.public.stat().st_mode & 0o777 == 0o644
    assert files.private.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    private = trust.load_private(files.private, b"correct horse")
    public = trust.load_public(files.public)
    assert private.key_id == public.key_id == files.key_id
    assert public.verifies(private.sign(b"message"), b"message")
    assert not public.verifies(private.sign(b"message"), b"massage")
    for passphrase in (None, b"wrong", b""):
        with pytest.raises(PassphraseError):
            trust.load_private(files.private, passphrase)


def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files = write_key_pair(tmp_path / "keys", None)
    finally:
        os.umask(before)
    assert files.private.stat().st_mode & 0o777 == 0o600
    assert files.private.parent.stat().st_mode & 0o777 == 0o700
    assert trust.load_private(files.private).key_id == files.key_id


@pytest.mark.parametrize("name", ["public.pem", "private.pem"])
def test_keys_are_never_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(ExistsError):
        write_key_pair(tmp_path, b"pass phrase")
    assert (tmp_path / name).read_bytes() == b"precious"
    assert os.listdir(tmp_path) == [name]


def test_keys_are_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "private.pem").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ExistsError):
        write_key_pair(tmp_path / "k", b"pass phrase")
    assert not (tmp_path / "elsewhere").exists()


def test_the_key_id_is_the_digest_of_the_public_key_info() -> None:
    seed = bytes(range(32))
    raw = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    pem = raw.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    der = raw.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert PublicKey.from_pem(pem).key_id == hashlib.sha256(der).hexdigest()
    # The same key in another coat of white space is the same key.
    assert PublicKey.from_pem(b"# comment\n" + pem + b"\n").key_id == PublicKey.from_pem(pem).key_id


def test_files_that_hold_no_such_key_are_refused(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    other_public = other.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    other_private = other.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    mine = key().public.pem()
    for data in (b"", b"junk", other_public, key().pem(None), mine + mine, mine[:-40]):
        with pytest.raises(KeyFileError):
            PublicKey.from_pem(data)
    for data in (b"", b"junk", other_private, mine):
        with pytest.raises(KeyFileError):
            PrivateKey.from_pem(data)
    with pytest.raises(NotFoundError):
        trust.load_public(tmp_path / "missing")
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(KeyFileError):
            trust.load_public(path)
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    with pytest.raises(KeyFileError):
        trust.load_public(tmp_path / "large")


def test_no_secret_shows_in_a_repr() -> None:
    assert "Private" in repr(key())
    assert base64.b64encode(key().pem(None)).decode() not in repr(key())
    assert len(repr(key())) < 200


def test_a_policy_needs_keys_and_a_reachable_threshold() -> None:
    one = key().public
    for keys, threshold in (([], 1), ([one], 0), ([one], -1), ([one], 2), ([one, one], 2)):
        with pytest.raises(TrustError):
            Policy(keys, threshold)
    with pytest.raises(LimitError):
        Policy([key(n).public for n in range(3)], limits=Limits(max_keys=2))


# --- envelopes ----------------------------------------------------------------------------------


def test_the_envelope_is_standard_dsse() -> None:
    """Checked by hand, as the specification says it."""
    envelope = json.loads(trust.sign(b'{"hello":"world"}', [key()]))
    assert sorted(envelope) == ["payload", "payloadType", "signatures"]
    payload = base64.b64decode(envelope["payload"])
    (signature,) = envelope["signatures"]
    assert signature["keyid"] == key().key_id
    message = b"DSSEv1 43 application/vnd.bsipatch.manifest+json+zstd 17 " + payload
    assert trust.pae(payload) == message
    assert key().public.verifies(base64.b64decode(signature["sig"]), message)


def test_pae_matches_the_specifications_example() -> None:
    message = trust.pae(b"hello world", "http://example.com/HelloWorld")
    assert message == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


@given(st.binary(max_size=300))
def test_what_is_signed_comes_back(payload: bytes) -> None:
    verified = trust.verify(trust.sign(payload, [key()]), policy())
    assert verified.payload == payload
    assert verified.signers == (key().key_id,)
    assert (verified.unknown, verified.invalid) == (0, 0)


def test_signing_needs_a_key() -> None:
    with pytest.raises(SignatureError):
        trust.sign(b"x", [])


def test_a_threshold_needs_distinct_keys() -> None:
    two_of_three = policy(0, 1, 2, threshold=2)
    trust.verify(trust.sign(b"x", [key(0), key(2)]), two_of_three)
    for keys in ([key(0)], [key(0), key(0)], [key(0), key(3)]):
        with pytest.raises(ThresholdError):
            trust.verify(trust.sign(b"x", keys), two_of_three)


def document(envelope: bytes) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(envelope)
    return loaded


def spelled(envelope: dict[str, Any]) -> bytes:
    return json.dumps(envelope, separators=(",", ":"), sort_keys=True).encode()


def test_the_same_key_counts_once() -> None:
    envelope = document(trust.sign(b"x", [key(0)]))
    envelope["signatures"] *= 2
    with pytest.raises(ThresholdError):
        trust.verify(spelled(envelope), policy(0, 1, threshold=2))
    # Nor under another key's name.
    envelope["signatures"][1] = {**envelope["signatures"][0], "keyid": key(1).key_id}
    with pytest.raises(ThresholdError):
        trust.verify(spelled(envelope), policy(0, 1, threshold=2))


def test_no_or_foreign_signatures_are_refused() -> None:
    envelope = document(trust.sign(b"x", [key(0)]))
    with pytest.raises(SignatureError):
        trust.verify(spelled({**envelope, "signatures": []}), policy())
    with pytest.raises(SignatureError):
        trust.verify(trust.sign(b"x", [key(1)]), policy(0))
    missing = {name: envelope[name] for name in ("payload", "payloadType")}
    with pytest.raises(CorruptError):
        trust.verify(spelled(missing), policy())


def test_unknown_and_invalid_signatures_count_for_nothing_but_are_reported() -> None:
    envelope = document(trust.sign(b"x", [key(0), key(1), key(2)]))
    for signature in envelope["signatures"]:
        if signature["keyid"] == key(1).key_id:
            signature["sig"] = base64.b64encode(bytes(64)).decode()
    verified = trust.verify(spelled(envelope), policy(0, 1))
    assert verified.signers == (key(0).key_id,)
    assert (verified.unknown, verified.invalid) == (1, 1)


def test_key_holders_can_sign_in_turn() -> None:
    first = trust.sign(b"x", [key(0)])
    both = trust.add_signatures(first, [key(1)])
    assert both == trust.sign(b"x", [key(1), key(0)])
    assert trust.add_signatures(both, [key(1)]) == both


def test_the_type_is_signed_too() -> None:
    envelope = trust.sign(b"x", [key()], payload_type="text/plain")
    with pytest.raises(CorruptError):
        trust.verify(envelope, policy())
    relabelled = {**document(envelope), "payloadType": PAYLOAD_TYPE}
    with pytest.raises(SignatureError):
        trust.verify(spelled(relabelled), policy())
    assert trust.verify(envelope, policy(), payload_type="text/plain").payload == b"x"


def test_other_spellings_of_an_envelope_are_refused() -> None:
    envelope = trust.sign(b"xy", [key()])
    parsed = document(envelope)
    signature = parsed["signatures"][0]
    variants = [
        b"",
        b"null",
        b"[]",
        envelope + b" ",
        envelope.replace(b'":', b'": ', 1),
        envelope.replace(b"{", b'{"extra":1,', 1),
        spelled({**parsed, "extra": 1}),
        spelled({**parsed, "signatures": [{**signature, "extra": 1}]}),
        spelled({**parsed, "payload": parsed["payload"].rstrip("=")}),
        spelled({**parsed, "payload": "eHl="}),  # unused bits set
        spelled({**parsed, "payload": "e H k="}),
        spelled({**parsed, "payload": 1}),
        spelled({**parsed, "signatures": [{**signature, "sig": "-_" * 43}]}),
        b"[" * 10_000,
        b'{"payload":"\xff"}',
    ]
    for variant in variants:
        with pytest.raises(CorruptError):
            trust.verify(variant, policy())


def test_size_and_count_are_limited() -> None:
    envelope = trust.sign(b"x" * 1000, [key(n) for n in range(3)])
    with pytest.raises(LimitError):
        trust.verify(envelope, policy(), limits=Limits(max_signatures=2))
    with pytest.raises(LimitError):
        trust.verify(envelope, policy(), limits=Limits(max_manifest=999, max_envelope=0))


def test_every_flipped_bit_of_an_envelope_is_noticed() -> None:
    envelope = trust.sign(b'{"a":1}', [key()])
    for at in range(len(envelope)):
        for bit in (0, 3, 7):
            broken = bytearray(envelope)
            broken[at] ^= 1 << bit
            with pytest.raises(BsipatchError):
                trust.verify(bytes(broken), policy())
    for end in range(len(envelope)):
        with pytest.raises(BsipatchError):
            trust.verify(envelope[:end], policy())
