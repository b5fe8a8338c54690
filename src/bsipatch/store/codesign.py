"""Apple code signatures: do the page hashes of a code directory match the file's bytes?

Only that is asked: who signed is the business of the update's own signature.
Every number here comes from the file and is checked before it is used; a
damaged signature is a problem that gets a name, never an exception of Python's.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..errors import CorruptError

_SUPERBLOB, _DIRECTORY = 0xFADE0CC0, 0xFADE0C02
_MAX_BLOBS = 64
_MAX_SIGNATURE = 64 << 20
#: slots of the superblob that hold a code directory
_DIRECTORIES = (0, *range(0x1000, 0x1006))
#: special slots whose blob lies in the signature itself: requirements, entitlements twice
_SPECIAL = (2, 5, 7)
#: hash type -> (algorithm, bytes that are kept)
_HASHES = {1: ("sha1", 20), 2: ("sha256", 32), 3: ("sha256", 20), 4: ("sha384", 48)}
_FIXED = struct.Struct(">IIIIIIIIIBBBBI")
#: version from which a field exists, and where it lies
_SCATTER, _LIMIT64 = (0x20100, 44), (0x20300, 56)

#: reads bytes of the slice: (offset, length)
Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class _CodeDirectory:
    """What a code directory says; offsets in bytes from its own start."""

    blob: bytes
    algorithm: str
    size: int
    hashes: int
    special: int
    pages: int
    limit: int
    page: int

    def slot(self, index: int) -> bytes:
        """The hash of page `index`; special slots are negative."""
        at = self.hashes + index * self.size
        return self.blob[at : at + self.size]

    def hash(self, data: bytes) -> bytes:
        """As the slots have it."""
        return hashlib.new(self.algorithm, data, usedforsecurity=False).digest()[: self.size]


def check(read: Read, offset: int, length: int, slice_size: int) -> int:
    """Compares every page with every code directory; returns how many pages were compared.

    offset, length: where the signature lies in the slice, in bytes.  Raises
    CorruptError that names the first thing that does not match.
    """
    if not 12 <= length <= _MAX_SIGNATURE or offset + length > slice_size:
        raise CorruptError("the code signature does not lie within the file")
    data = read(offset, length)
    blobs = dict(_blobs(data))
    directories = [blobs[kind] for kind in _DIRECTORIES if kind in blobs]
    if not directories:
        raise CorruptError("the code signature has no code directory")
    compared = 0
    for blob in directories:
        directory = _parse(blob, min(offset, slice_size))
        _check_special(directory, blobs)
        compared += _check_pages(directory, read)
    return compared


def _blobs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Every blob of a superblob by its slot."""
    magic, length, count = struct.unpack_from(">III", data)
    if magic != _SUPERBLOB:
        raise CorruptError("not a code signature", expected=f"{_SUPERBLOB:x}", found=f"{magic:x}")
    if length > len(data) or not 0 < count <= _MAX_BLOBS or 12 + 8 * count > length:
        raise CorruptError("the code signature's index does not fit")
    seen, total = set(), 0
    for index in range(count):
        slot, at = struct.unpack_from(">II", data, 12 + 8 * index)
        if slot in seen:
            raise CorruptError(f"the code signature has slot {slot} twice")
        seen.add(slot)
        if at > length - 8:
            raise CorruptError(f"the code signature's slot {slot} lies outside")
        (size,) = struct.unpack_from(">I", data, at + 4)
        total += size
        if not 8 <= size <= length - at or total > length:
            raise CorruptError(f"the code signature's slot {slot} does not fit")
        yield slot, data[at : at + size]


def _parse(blob: bytes, most: int) -> _CodeDirectory:
    """Reads a code directory; `most` bytes of the slice can be signed."""
    if len(blob) < _FIXED.size:
        raise CorruptError("the code directory is too short")
    head = _FIXED.unpack_from(blob)
    magic, _, version, _, hashes, _, special, pages, limit, size, kind, _, shift, _ = head
    if magic != _DIRECTORY:
        raise CorruptError("not a code directory", found=f"{magic:x}")
    if _number(blob, version, _SCATTER, ">I"):
        raise CorruptError("the code directory is scattered, which is not supported")
    limit = _number(blob, version, _LIMIT64, ">Q") or limit
    if kind not in _HASHES or _HASHES[kind][1] != size:
        raise CorruptError("the code directory's hash is unknown", found=kind)
    if not (shift == 0 or 9 <= shift <= 24):
        raise CorruptError("the code directory's page size is unusual", found=shift)
    if limit > most:
        raise CorruptError("the code directory covers itself", expected=most, found=limit)
    page = 1 << shift if shift else max(limit, 1)
    if pages != -(-limit // page):
        raise CorruptError(
            "the code directory has pages too many or too few",
            expected=-(-limit // page),
            found=pages,
        )
    if special * size > hashes or hashes + pages * size > len(blob):
        raise CorruptError("the code directory's hashes lie outside")
    return _CodeDirectory(blob, _HASHES[kind][0], size, hashes, special, pages, limit, page)


def _number(blob: bytes, version: int, field: tuple[int, int], form: str) -> int:
    """A field that only newer versions have; 0 when this one has not."""
    since, at = field
    if version < since:
        return 0
    if at + struct.calcsize(form) > len(blob):
        raise CorruptError("the code directory is too short for its version")
    found: int = struct.unpack_from(form, blob, at)[0]
    return found


def _check_special(directory: _CodeDirectory, blobs: dict[int, bytes]) -> None:
    for number in _SPECIAL:
        if number > directory.special:
            continue
        slot = directory.slot(-number)
        wanted = blobs.get(number)
        if not any(slot):
            continue  # nothing was signed there
        if wanted is None or directory.hash(wanted) != slot:
            raise CorruptError(f"the signature's special slot {number} does not match")


def _check_pages(directory: _CodeDirectory, read: Read) -> int:
    """Pages of one size are hashed one by one; a single huge one in pieces."""
    if directory.page > 1 << 24:
        if _hash_all(directory, read) != directory.slot(0):
            raise CorruptError("the code signature does not match the file")
        return directory.pages
    for index in range(directory.pages):
        at = index * directory.page
        data = read(at, min(directory.page, directory.limit - at))
        if directory.hash(data) != directory.slot(index):
            raise CorruptError(
                f"the code signature does not match page {index} of {directory.pages}", offset=at
            )
    return directory.pages


def _hash_all(directory: _CodeDirectory, read: Read) -> bytes:
    total = hashlib.new(directory.algorithm, usedforsecurity=False)
    for at in range(0, directory.limit, 1 << 20):
        total.update(read(at, min(1 << 20, directory.limit - at)))
    return total.digest()[: directory.size]
