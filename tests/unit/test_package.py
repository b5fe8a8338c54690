"""Update files: read at random or as a stream, verified before anything is believed."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bsipatch import manifest, package, trust
from bsipatch.errors import (
    CorruptError,
    LimitError,
    MagicError,
    ManifestError,
    MismatchError,
    NotFoundError,
    SignatureError,
    SystemCallError,
    TruncatedError,
    UsageError,
    VersionError,
)
from bsipatch.limits import Limits
from bsipatch.package import Package
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, File, tree_of
from tests.support.updates import make_manifest, make_update, pack, policy, verifier


@pytest.fixture
def update(tmp_path: Path) -> Path:
    path = tmp_path / "update.bsi"
    path.write_bytes(make_update())
    return path


class Pipe(io.RawIOBase):
    """A file object that cannot seek and gives a few bytes at a time."""

    def __init__(self, data: bytes, step: int = 1000) -> None:
        self._inner, self._step = io.BytesIO(data), step

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._inner.read(min(size, self._step) if size >= 0 else self._step)


def contents_of(opened: Package) -> Iterator[tuple[str, bytes]]:
    """Every file that is written from a payload, in the payloads' order."""
    by_payload = {a.payload: a.path for a in opened.manifest.actions if a.payload is not None}
    for index in range(len(opened.manifest.payloads)):
        fd = os.memfd_create("out")
        try:
            opened.expand(index, fd)
            yield by_payload[index], os.pread(fd, 1 << 24, 0)
        finally:
            os.close(fd)


def wanted(path: str) -> bytes:
    content = NEW_FRAMEWORK[path]
    assert isinstance(content, bytes | File)
    return content if isinstance(content, bytes) else content.data


def test_a_path_a_descriptor_and_a_stream_give_the_same(update: Path) -> None:
    fd = os.open(update, os.O_RDONLY)
    os.lseek(fd, 7, os.SEEK_SET)
    try:
        sources: list[Any] = [update, str(update), fd, Pipe(update.read_bytes())]
        for source in sources:
            with Package.open(source, verifier()) as opened:
                found = dict(contents_of(opened))
                opened.finish()
                assert opened.size == update.stat().st_size
            assert len(found) > 3
            assert all(found[path] == wanted(path) for path in found)
        assert os.lseek(fd, 0, os.SEEK_CUR) == 7  # the descriptor's position is left alone
    finally:
        os.close(fd)


def test_payloads_come_in_any_order_at_random_and_in_theirs_from_a_stream(update: Path) -> None:
    with Package.open(update, verifier()) as opened:
        last = len(opened.manifest.payloads) - 1
        both = [opened.payload(last), opened.payload(0), opened.payload(last)]
        assert both[0] == both[2]
    with Package.open(Pipe(update.read_bytes()), verifier()) as streamed:
        assert streamed.payload(last) == both[0]  # skipping is allowed
        with pytest.raises(UsageError):
            streamed.payload(0)


def test_spooling_copies_verified_bytes(update: Path) -> None:
    with Package.open(update, verifier()) as opened:
        fd = os.memfd_create("spool")
        opened.spool(0, fd)
        assert os.pread(fd, 1 << 20, 0) == opened.payload(0)
        scratch, out = os.memfd_create("scratch"), os.memfd_create("out")
        opened.expand(0, out, scratch=scratch)
        path = next(a.path for a in opened.manifest.actions if a.payload == 0)
        assert os.pread(out, 1 << 20, 0) == wanted(path)
        for each in (fd, scratch, out):
            os.close(each)


def test_there_is_no_other_payload(update: Path) -> None:
    with Package.open(update, verifier()) as opened:
        for index in (-1, len(opened.manifest.payloads)):
            with pytest.raises(UsageError):
                opened.payload(index)


def test_verifying_everything_reports_its_progress(update: Path) -> None:
    seen: list[int] = []
    with Package.open(update, verifier()) as opened:
        opened.verify_payloads(seen.append)
        assert sum(seen) == opened.manifest.payload_size


def test_the_manifest_is_not_parsed_before_its_signature_is_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def parsed(*_: Any, **__: Any) -> Any:
        raise AssertionError("parsed before it was verified")

    monkeypatch.setattr(manifest, "decode", parsed)
    for data in (make_update(), pack(b"{ not a manifest", [])):
        with pytest.raises(SignatureError):
            Package.open(io.BytesIO(data), verifier(policy(1)))


def test_a_refused_signature_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "u.bsi").write_bytes(make_update())
    with pytest.raises(SignatureError) as caught:
        Package.open(tmp_path / "u.bsi", verifier(policy(1)))
    assert caught.value.file == str(tmp_path / "u.bsi")


def test_what_is_signed_but_no_manifest_is_refused() -> None:
    with pytest.raises(ManifestError):
        Package.open(io.BytesIO(pack(b"{}", [])), verifier())


def test_a_payload_is_verified_before_it_is_decompressed_or_handed_out(tmp_path: Path) -> None:
    made, bodies = make_manifest()
    index = next(i for i, p in enumerate(made.payloads) if p.kind == "zstd")
    for at in range(len(bodies[index])):
        broken = bytearray(bodies[index])
        broken[at] ^= 0x10
        data = pack(made, [*bodies[:index], bytes(broken), *bodies[index + 1 :]])
        opened = Package.open(io.BytesIO(data), verifier())
        out = os.memfd_create("out")
        try:
            with pytest.raises(MismatchError):
                opened.expand(index, out)
            assert os.fstat(out).st_size == 0
        finally:
            os.close(out)
        if at > 20:
            break


def test_a_file_replaced_under_its_path_is_not_noticed_nor_needed(
    update: Path, tmp_path: Path
) -> None:
    """One descriptor is used from the signature to the last payload."""
    with Package.open(update, verifier()) as opened:
        (tmp_path / "other").write_bytes(b"evil" * 10_000)
        (tmp_path / "other").rename(update)
        opened.verify_payloads()


def test_a_file_changed_in_place_is_noticed(update: Path) -> None:
    with Package.open(update, verifier()) as opened:
        with update.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\0")
        with pytest.raises(MismatchError):
            opened.verify_payloads()
        os.truncate(update, opened.size - 10)
        with pytest.raises(TruncatedError):
            opened.payload(len(opened.manifest.payloads) - 1)


def test_what_is_no_update_is_refused(update: Path, tmp_path: Path) -> None:
    data = update.read_bytes()
    (tmp_path / "link").symlink_to(update)
    os.mkfifo(tmp_path / "fifo")
    cases: list[tuple[Any, type[Exception]]] = [
        (tmp_path / "missing", NotFoundError),
        (tmp_path / "link", SystemCallError),
        (tmp_path / "fifo", MagicError),
        (tmp_path, MagicError),
        (io.BytesIO(b""), TruncatedError),
        (io.BytesIO(b"x" * 100), MagicError),
        (io.BytesIO(data.replace(b"\r\n", b"\n", 1)), MagicError),
        (io.BytesIO(data[:8] + struct.pack("<I", 2) + data[12:]), VersionError),
        (io.BytesIO(data[:12] + struct.pack("<I", 0xFFFFFFFF) + data[16:]), LimitError),
        (io.BytesIO(data[:12] + struct.pack("<I", len(data)) + data[16:]), TruncatedError),
        (io.BytesIO(data[:12] + struct.pack("<I", 0) + data[16:]), CorruptError),
    ]
    before = len(os.listdir("/proc/self/fd"))
    for source, error in cases:
        with pytest.raises(error):
            Package.open(source, verifier())
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_file_ends_with_its_last_payload(tmp_path: Path) -> None:
    data = make_update()
    longer, shorter = tmp_path / "longer", tmp_path / "shorter"
    longer.write_bytes(data + b"\0")
    shorter.write_bytes(data[:-1])
    with pytest.raises(CorruptError):
        Package.open(longer, verifier())
    with pytest.raises(TruncatedError):
        Package.open(shorter, verifier())
    with pytest.raises(CorruptError):
        Package.open(io.BytesIO(data + b"\0"), verifier()).verify_payloads()


def test_whole_files_are_coded_and_decoded_within_their_memory() -> None:
    for size in (1, 1000, 1 << 20):
        plain = (b"abcdefgh%d" % size) * (size // 8)
        packed = package.compress(plain, 19)
        assert len(packed) < max(len(plain), 32)
        assert package.expand_memory(len(plain)) >= min(len(plain), 1 << 27)


def test_limits_reach_the_manifest() -> None:
    with pytest.raises(LimitError):
        Package.open(io.BytesIO(make_update()), verifier(), limits=Limits(max_payloads=1))


def test_update_files_of_released_formats_stay_readable() -> None:
    folder = Path(__file__).parents[1] / "vectors" / "updates"
    trusted = trust.Policy([trust.load_public(folder / "public.pem")])
    with Package.open(folder / "framework-1.bsi", verifier(trusted)) as opened:
        assert opened.manifest.display_version == "26.3.1 (a)"
        assert opened.manifest.old_tree() == tree_of(OLD_FRAMEWORK)
        assert opened.manifest.new_tree() == tree_of(NEW_FRAMEWORK)
        found = dict(contents_of(opened))
        opened.verify_payloads()
    assert len(found) == len(opened.manifest.payloads)
    assert all(found[path] == wanted(path) for path in found)
