"""Hostile update files: a clean error each time, and nothing is touched.

Numbers in the section headings are those of the project's threat model.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import pytest
import zstandard

from bsipatch import manifest, package, trust
from bsipatch.errors import (
    BsipatchError,
    CorruptError,
    InternalError,
    LimitError,
    ManifestError,
    MismatchError,
    SignatureError,
    UsageError,
)
from bsipatch.package import Package
from tests.support.hostile import bit_flips, truncations, variants
from tests.support.trees import Content
from tests.support.updates import (
    jsonable,
    key,
    make_manifest,
    make_update,
    pack,
    policy,
    spelled,
    verifier,
)


def expand_all(opened: Package) -> None:
    for index in range(len(opened.manifest.payloads)):
        fd = os.memfd_create("out")
        try:
            opened.expand(index, fd)
        finally:
            os.close(fd)


def use(data: bytes, trusted: trust.Policy | None = None) -> None:
    """Everything that a device does with an update file short of its store, at random."""
    file = os.memfd_create("update")
    try:
        os.write(file, data)
        with Package.open(file, verifier(trusted)) as opened:
            opened.verify_payloads()
            expand_all(opened)
    finally:
        os.close(file)


def use_stream(file: IO[bytes], trusted: trust.Policy | None = None) -> None:
    """The same in one pass from front to back."""
    with Package.open(file, verifier(trusted)) as opened:
        expand_all(opened)
        opened.finish()


@pytest.fixture
def untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory in which nothing may change, and no descriptor may be left open."""
    (tmp_path / "bystander").write_bytes(b"as it was")
    monkeypatch.chdir(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    yield tmp_path
    assert sorted(os.listdir(tmp_path)) == ["bystander"]
    assert (tmp_path / "bystander").read_bytes() == b"as it was"
    assert len(os.listdir("/proc/self/fd")) == before


def refused(data: bytes, trusted: trust.Policy | None = None) -> BsipatchError:
    with pytest.raises(BsipatchError) as streamed:
        use_stream(io.BytesIO(data), trusted)
    with pytest.raises(BsipatchError) as caught:
        use(data, trusted)
    for error in (streamed.value, caught.value):
        assert error.message
        assert not isinstance(error, UsageError | InternalError)
    return caught.value


def test_a_good_update_passes_all_this(untouched: Path) -> None:
    use(make_update())


def test_every_truncation_and_many_flipped_bits(untouched: Path) -> None:
    data = make_update()
    tried = 0
    for broken in (*truncations(data, 7), *bit_flips(data, 3)):
        refused(broken)
        tried += 1
    assert tried > 1000


def test_every_hostile_field_under_a_good_signature(untouched: Path) -> None:
    """As from a publisher whose key was stolen: what is not refused must decode as it says."""
    old: dict[str, Content] = {"a": b"1", "gone": b"2"}
    new: dict[str, Content] = {"a": b"3" * 300, "b": os.urandom(40)}
    made, bodies = make_manifest(old, new)
    refusals = tried = 0
    for _, broken in variants(jsonable(made)):
        tried += 1
        try:
            use(pack(spelled(broken), bodies))
        except (UsageError, InternalError):
            raise
        except BsipatchError:
            refusals += 1
    assert tried > 1000
    assert refusals > tried * 0.9


# --- 2: sizes, offsets, bombs -------------------------------------------------------------------


def one_file(plain_size: int, body: bytes, kind: str = "zstd") -> bytes:
    """An update of one file whose payload is `body`, whatever that is."""
    made, _ = make_manifest({}, {"a": b"x" * plain_size})
    payload = msgspec.structs.replace(
        made.payloads[0],
        kind=kind,
        length=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
    )
    return pack(msgspec.structs.replace(made, payloads=(payload,)), [body])


def framed(plain: bytes, window_log: int) -> bytes:
    """One zstd frame that says neither its content's size nor its checksum."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        3, window_log=window_log, write_content_size=False
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(plain) + compressor.flush()


def test_a_bomb_stops_at_the_signed_size(untouched: Path) -> None:
    size = 100_000
    bomb = framed(bytes(1 << 28), window_log=17)
    assert len(bomb) < size
    with Package.open(io.BytesIO(one_file(size, bomb)), verifier()) as opened:
        fd = os.memfd_create("out")
        try:
            with pytest.raises(CorruptError):
                opened.expand(0, fd)
            assert os.fstat(fd).st_size <= size
        finally:
            os.close(fd)


def test_a_frame_that_decodes_to_another_size_is_refused(untouched: Path) -> None:
    good = package.compress(b"x" * 1000, 19)
    use(one_file(1000, good))
    for body in (
        package.compress(b"x" * 999, 19),
        package.compress(b"x" * 1001, 19),
        good + b"\0",
        good + good,
        good[:-1],
        good + package.compress(b"", 19),
        b"not a frame at all",
        package.compress(b"", 1),
    ):
        refused(one_file(1000, body))


def test_a_window_beyond_what_the_size_needs_is_refused(untouched: Path) -> None:
    """A frame's window makes the decoder allocate; a small file's needs only a small one."""
    use(one_file(1000, framed(b"x" * 1000, window_log=10)))
    greedy = framed(b"x" * 1000, window_log=27)
    assert zstandard.get_frame_parameters(greedy).window_size == 1 << 27
    refused(one_file(1000, greedy))


def test_a_long_envelope_is_not_allocated_on_its_word(untouched: Path) -> None:
    claimed = package.MAGIC + struct.pack("<II", 1, 300 << 20)
    refused(claimed + b"{}")


@pytest.mark.parametrize("length", [0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1])
def test_a_lying_envelope_length(untouched: Path, length: int) -> None:
    data = make_update()
    refused(data[:12] + struct.pack("<I", length) + data[16:])


# --- 6: overlaps, trailing bytes ----------------------------------------------------------------


def test_bytes_that_belong_to_nothing_are_refused(untouched: Path) -> None:
    made, bodies = make_manifest()
    refused(pack(made, [*bodies, b"more"]))
    refused(pack(made, bodies[:-1]))
    document = jsonable(made)
    document["payloads"].append(
        {**document["payloads"][-1], "offset": made.payload_size, "length": 4, "size": 4}
    )
    refused(pack(spelled(document), [*bodies, b"more"]))


def test_payloads_out_of_their_places_are_refused(untouched: Path) -> None:
    made, bodies = make_manifest()
    error = refused(pack(made, [bodies[1], bodies[0], *bodies[2:]]))
    assert isinstance(error, MismatchError)


# --- 10: signatures -----------------------------------------------------------------------------


def unpacked(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[16 : 16 + length]), data[16 + length :]


def repacked(envelope: dict[str, Any], rest: bytes) -> bytes:
    text = json.dumps(envelope, separators=(",", ":"), sort_keys=True).encode()
    return package.MAGIC + struct.pack("<II", 1, len(text)) + text + rest


def test_stripped_signatures_are_refused(untouched: Path) -> None:
    envelope, rest = unpacked(make_update())
    use(repacked(envelope, rest))
    for signatures in (
        [],
        None,
        [{"keyid": key().key_id, "sig": ""}],
        [{"keyid": "", "sig": envelope["signatures"][0]["sig"]}],
        [{"keyid": key(1).key_id, "sig": envelope["signatures"][0]["sig"]}],
        [{"keyid": key().key_id, "sig": base64.b64encode(bytes(64)).decode()}],
    ):
        refused(repacked({**envelope, "signatures": signatures}, rest))


def test_a_signature_over_a_prefix_is_refused(untouched: Path) -> None:
    """Every byte counts: a signed manifest with anything appended is another one."""
    envelope, rest = unpacked(make_update())
    signed = base64.b64decode(envelope["payload"])
    for payload in (signed + b" ", signed + signed, signed[:-1], b" " + signed):
        text = base64.b64encode(payload).decode()
        assert isinstance(refused(repacked({**envelope, "payload": text}, rest)), SignatureError)


def test_the_same_key_is_not_counted_twice(untouched: Path) -> None:
    made, bodies = make_manifest()
    two = policy(0, 1, threshold=2)
    use(pack(made, bodies, [key(0), key(1)]), two)
    refused(pack(made, bodies, [key(0), key(0)]), two)
    envelope, rest = unpacked(pack(made, bodies, [key(0)]))
    refused(repacked({**envelope, "signatures": envelope["signatures"] * 2}, rest), two)


def test_fields_outside_the_signed_bytes_are_refused(untouched: Path) -> None:
    envelope, rest = unpacked(make_update())
    refused(repacked({**envelope, "product": "Other"}, rest))
    refused(repacked({**envelope, "payloadType": "text/plain"}, rest))
    signature = {**envelope["signatures"][0], "algorithm": "none"}
    refused(repacked({**envelope, "signatures": [signature]}, rest))


def test_a_signature_does_not_carry_over_to_another_manifest(untouched: Path) -> None:
    one, _ = unpacked(make_update())
    other, rest = unpacked(make_update(letter="b"))
    refused(repacked({**other, "signatures": one["signatures"]}, rest))


# --- 12: what an update is for is always said ---------------------------------------------------


@pytest.mark.parametrize(
    "field", ["product", "platform", "architectures", "version", "letter", "build", "baseline"]
)
def test_an_update_must_say_what_it_is_for(untouched: Path, field: str) -> None:
    made, bodies = make_manifest()
    document = jsonable(made)
    del document[field]
    assert isinstance(refused(pack(spelled(document), bodies)), ManifestError)


# --- 14: order of trust -------------------------------------------------------------------------


def test_nothing_is_parsed_or_decompressed_before_it_is_verified(
    untouched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(*_: Any, **__: Any) -> Any:
        raise AssertionError("touched before it was verified")

    data = make_update()
    with monkeypatch.context() as patched:
        patched.setattr(manifest, "decode", touched)
        patched.setattr(zstandard, "ZstdDecompressor", touched)
        assert isinstance(refused(data, policy(1)), SignatureError)
    made, bodies = make_manifest()
    index = next(i for i, p in enumerate(made.payloads) if p.kind == "zstd")
    broken = bodies[index][:-1] + bytes([bodies[index][-1] ^ 1])
    data = pack(made, [*bodies[:index], broken, *bodies[index + 1 :]])
    with Package.open(io.BytesIO(data), verifier()) as opened:
        monkeypatch.setattr(zstandard, "ZstdDecompressor", touched)
        fd = os.memfd_create("out")
        try:
            with pytest.raises(MismatchError):
                opened.expand(index, fd)
        finally:
            os.close(fd)


def test_a_signed_manifest_is_one_bounded_frame(untouched: Path) -> None:
    text = manifest.encode(make_manifest({}, {})[0])
    sealed = package.seal(text)

    def sealed_as(payload: bytes) -> bytes:
        out = io.BytesIO()
        package.write(out, trust.sign(payload, [key()]), [])
        return out.getvalue()

    use(sealed_as(sealed))
    for payload in (
        text,
        b"",
        sealed[:-1],
        sealed + b"x",
        sealed + sealed,
        sealed + package.seal(b""),
    ):
        refused(sealed_as(payload))
    refused(sealed_as(package.compress(bytes(300 << 20), 1)))


# --- 13: endless data ---------------------------------------------------------------------------


class Endless(io.RawIOBase):
    """A stream that never ends."""

    def __init__(self, head: bytes) -> None:
        self._head, self.given = io.BytesIO(head), 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._head.read(size) or bytes(max(size, 1))
        self.given += len(data)
        return data


def test_an_endless_stream_is_left_soon(untouched: Path) -> None:
    whole = make_update()
    for head in (b"", whole[:16], whole[:500], whole):
        stream = Endless(head)
        with pytest.raises(BsipatchError):
            use_stream(stream)
        assert stream.given < len(whole) + (1 << 20)


def test_an_endless_envelope_ends_at_the_limit(untouched: Path) -> None:
    stream = Endless(package.MAGIC + struct.pack("<II", 1, 0xFFFFFFFF))
    with pytest.raises(LimitError):
        use_stream(stream)
    assert stream.given <= 1 << 20
