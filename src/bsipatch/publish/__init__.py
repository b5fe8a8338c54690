"""The publisher's side: from two trees, a release.toml and a key to a signed update file.

load_release(path) -> Release     what people write about a release
build(base, new, release, ...)    walks, plans, makes payloads, signs, verifies, writes
write_key_pair(directory, ...)    keygen's files
"""

from __future__ import annotations

from bsipatch.publish.build import BuildProgress, BuildReport, FileReport, build
from bsipatch.publish.keyfiles import KeyFiles, write_key_pair
from bsipatch.publish.release import Release, load_release

__all__ = [
    "BuildProgress",
    "BuildReport",
    "FileReport",
    "KeyFiles",
    "Release",
    "build",
    "load_release",
    "write_key_pair",
]
