"""Gives a copy of a btrfs image an identity of its own, so that copies can be mounted side by side.

The kernel knows a btrfs by its UUID and refuses a second one of the same.  The
UUID stands in every block of the tree; a superblock may name another one for
the outside (the feature METADATA_UUID), as `btrfstune -m` makes it.
"""

from __future__ import annotations

import functools
import os
import struct

#: where the superblock and its copies lie, and its length
_PLACES = (64 << 10, 64 << 20, 256 << 30)
_SIZE = 4096
_SUM, _FSID, _MAGIC_AT, _INCOMPAT, _SUM_TYPE, _METADATA = 32, 32, 64, 188, 196, 571
_MAGIC = b"_BHRfS_M"
_METADATA_UUID = 1 << 10
_CRC32C = 0


def rename_btrfs(fd: int, uuid: bytes) -> int:
    """Makes `uuid` (16 bytes) the outward UUID of the image; how many superblocks have it now."""
    size = os.fstat(fd).st_size
    done = 0
    for place in _PLACES:
        block = bytearray(os.pread(fd, _SIZE, place)) if place + _SIZE <= size else bytearray()
        if block[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
            continue
        (kind,) = struct.unpack_from("<H", block, _SUM_TYPE)
        if kind != _CRC32C or block[:4] != struct.pack("<I", _crc32c(block[_SUM:])):
            continue  # the file system is not to get a sum right that it had wrong
        (flags,) = struct.unpack_from("<Q", block, _INCOMPAT)
        if not flags & _METADATA_UUID:
            block[_METADATA : _METADATA + 16] = block[_FSID : _FSID + 16]
            struct.pack_into("<Q", block, _INCOMPAT, flags | _METADATA_UUID)
        block[_FSID : _FSID + 16] = uuid
        struct.pack_into("<I", block, 0, _crc32c(block[_SUM:]))
        os.pwrite(fd, block, place)
        done += 1
    return done


@functools.cache
def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


def _crc32c(data: bytes | bytearray) -> int:
    table, value = _table(), 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF
