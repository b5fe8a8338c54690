"""The Python peers as programs: `python peers.py NAME diff|apply OLD ...`.

Run as a file, so that nothing of bsipatch is imported and the peer's cost is its own.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(name: str, verb: str, *paths: str) -> None:
    """OLD NEW PATCH to make a patch, OLD PATCH NEW to apply one."""
    if name == "bsdiff4":
        import bsdiff4

        (bsdiff4.file_diff if verb == "diff" else bsdiff4.file_patch)(*_in_order(verb, paths))
    elif name == "detools":
        import detools

        if verb == "diff":
            detools.create_patch_filenames(*paths, compression="lzma")
        else:
            detools.apply_patch_filenames(*paths)
    elif name == "hdiffpatch":
        import hdiffpatch

        first, second, out = (Path(path) for path in paths)
        if verb == "diff":
            made = hdiffpatch.diff(
                first.read_bytes(), second.read_bytes(), hdiffpatch.COMPRESSION_LZMA2
            )
        else:
            made = hdiffpatch.apply(first.read_bytes(), second.read_bytes())
        out.write_bytes(made)
    else:
        raise SystemExit(f"no such peer: {name}")


def _in_order(verb: str, paths: tuple[str, ...]) -> tuple[str, ...]:
    """bsdiff4 wants OLD NEW PATCH for both verbs."""
    return paths if verb == "diff" else (paths[0], paths[2], paths[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
