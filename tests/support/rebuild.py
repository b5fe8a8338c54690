"""The plainest applier of an update there can be: reads the manifest, writes the new tree."""

from __future__ import annotations

from pathlib import Path

from bsipatch import delta
from bsipatch.manifest import Manifest
from bsipatch.package import Package
from bsipatch.tree import verity_digest


def rebuilt(opened: Package, old: Path, root: Path) -> Path:
    """The result tree in a new folder `root`, each file checked against its digest."""
    root.mkdir()
    opened_manifest: Manifest = opened.manifest
    for action in opened_manifest.actions:
        state, path = action.result, root / action.path
        if state is None:
            continue
        if state.kind == "dir":
            path.mkdir(mode=state.mode)
        elif state.kind == "symlink":
            path.symlink_to(state.target)
        else:
            if action.do == "patch":
                assert action.payload is not None
                source = (old / action.base).read_bytes()
                path.write_bytes(delta.patch_bytes(source, opened.payload(action.payload)))
            elif action.do == "add":
                with path.open("wb") as file:
                    if action.payload is not None:
                        opened.expand(action.payload, file.fileno())
            else:
                path.write_bytes((old / action.base).read_bytes())
            path.chmod(state.mode)
            assert verity_digest(path) == state.digest
    return root
