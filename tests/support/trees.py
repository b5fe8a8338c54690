"""Small trees for tests: written to disk from a dictionary, or listed as entries."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

from bsipatch.tree import Entry, Tree, verity_digest


@dataclass(frozen=True)
class Link:
    """A symlink to `target`."""

    target: str


@dataclass(frozen=True)
class File:
    """A file with a mode of its own."""

    data: bytes
    mode: int = 0o644


Content = bytes | File | Link | None

#: a framework in the usual layout, with the old and the new build of each part
OLD_FRAMEWORK: dict[str, Content] = {
    "Versions/A/Demo": File(b"\x7fprogram" + bytes(range(256)) * 64, 0o755),
    "Versions/A/Resources/Info.plist": b"<plist>1</plist>\n" * 8,
    "Versions/A/Resources/same.dat": bytes(range(251)) * 30,
    "Versions/A/Resources/en.lproj/strings": b"hello\n" * 40,
    "Versions/A/Resources/gone.txt": b"gone in the new build\n",
    "Versions/A/Resources/empty": b"",
    "Versions/Current": Link("A"),
    "Demo": Link("Versions/Current/Demo"),
    "Resources": Link("Versions/Current/Resources"),
}
NEW_FRAMEWORK: dict[str, Content] = {
    **{k: v for k, v in OLD_FRAMEWORK.items() if not k.endswith(("gone.txt", "strings"))},
    "Versions/A/Demo": File(
        b"\x7fprogram" + bytes(range(255, -1, -1)) + bytes(range(256)) * 63, 0o755
    ),
    "Versions/A/Resources/Info.plist": b"<plist>2</plist>\n" * 8,
    "Versions/A/Resources/fr.lproj/strings": b"hello\n" * 40,
    "Versions/A/Resources/fresh.txt": b"only in the new build\n" * 20,
    "Versions/A/Helpers/tool": File(b"#!/bin/sh\n", 0o755),
    "Helpers": Link("Versions/Current/Helpers"),
}


def write_tree(root: Path, contents: dict[str, Content]) -> Path:
    """Writes the tree; None as content is an empty directory, and parents come by themselves."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, Link):
            path.symlink_to(content.target)
        else:
            file = content if isinstance(content, File) else File(content)
            path.write_bytes(file.data)
            path.chmod(file.mode)
    for folder, names, _ in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755)
    return root


def file_entry(path: str, data: bytes = b"", mode: int = 0o644) -> Entry:
    """The entry of a file with these bytes."""
    digest = verity_digest(io.BytesIO(data))
    return Entry(path=path, kind="file", mode=mode, size=len(data), digest=digest)


def dir_entry(path: str, mode: int = 0o755) -> Entry:
    """The entry of a directory."""
    return Entry(path=path, kind="dir", mode=mode)


def link_entry(path: str, target: str) -> Entry:
    """The entry of a symlink."""
    return Entry(path=path, kind="symlink", target=target)


def tree_of(contents: dict[str, Content]) -> Tree:
    """The tree that write_tree() would write, without writing it."""
    entries: dict[str, Entry] = {}
    for name, content in contents.items():
        parts = name.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            entries.setdefault(parent, dir_entry(parent))
        if content is None:
            entries[name] = dir_entry(name)
        elif isinstance(content, Link):
            entries[name] = link_entry(name, content.target)
        else:
            file = content if isinstance(content, File) else File(content)
            entries[name] = file_entry(name, file.data, file.mode)
    return Tree(entries.values())
