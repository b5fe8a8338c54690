"""Fills the stage of a new generation: its records and its tree, durable and verified."""

from __future__ import annotations

import os

from ..errors import StoreDamagedError
from ..package import Package
from . import durable, records, snapshot
from .beneath import Beneath, open_folder
from .readback import check_result, make_durable
from .records import Generation
from .stage import Stage
from .store import Store
from .unchanged import Unchanged, folders_to_look_at
from .witness import Notes, Witness
from .work import Work


def fill(
    store: Store,
    package: Package,
    generation: Generation,
    work: Work,
    *,
    on_trial: bool,
    per_file_sync: bool,
) -> bool:
    """Everything of the new generation in its stage, which is there and empty.

    True when whatever was written to the file system before lasts as well.  Raises what
    building, syncing and reading back do; the caller removes the stage then.
    """
    manifest, base = package.manifest, generation.base
    assert base is not None
    place = records.generation_name(generation.number) + records.STAGE_SUFFIX
    shown = str(store.tree_path(base))
    digest = store.generation(base).tree
    folder = open_folder(store.fd, place)
    try:
        with tree_of(store, records.generation_name(base)) as old:
            unchanged = Unchanged(store.fd, base, old.fd, digest, xattrs=manifest.xattrs)
            seeded = snapshot.start_tree(
                generation.strategy,
                folder,
                records.TREE,
                base_dir=store.fd,
                base=f"{records.generation_name(base)}/{records.TREE}",
            )
            unknown = unchanged.snapshot_made() if seeded else None
            # one sync of the whole stage makes these last, together with the tree
            durable.write_new(records.ENVELOPE, package.envelope, dir_fd=folder)
            durable.write_new(records.GENERATION, records.encode(generation), dir_fd=folder)
            if on_trial:
                durable.write_new(records.UNPROVEN, b"", dir_fd=folder)
            with Beneath(records.TREE, dir_fd=folder) as new:
                witness = Witness(store.fd, base, digest, xattrs=manifest.xattrs)
                stage = Stage(
                    package,
                    old,
                    new,
                    folder,
                    strategy=generation.strategy,
                    work=work,
                    limits=store.limits,
                    witness=witness,
                    is_base=unknown is not None,
                    shown=shown,
                )
                stage.build()
                os.fchmod(folder, 0o755)
                everything = make_durable(folder, per_file=per_file_sync, work=work)
                notes = Notes(stage.known, xattrs=manifest.xattrs)
                check_result(
                    manifest,
                    new,
                    old,
                    shown,
                    work=work,
                    limits=store.limits,
                    notes=notes,
                    folders=None if unknown is None else folders_to_look_at(manifest, unknown),
                )
                if unknown is not None:
                    notes.inherit(witness.files(), manifest)
                notes.write(folder, manifest.result_digest)
            if seeded and not stage.dropped:
                unchanged.remember(
                    a.path for a in manifest.actions if a.old is not None and a.do != "keep"
                )
        return everything
    finally:
        os.close(folder)


def tree_of(store: Store, place: str) -> Beneath:
    """The tree in a generation or stage, reached from the store's own descriptor."""
    try:
        return Beneath(f"{place}/{records.TREE}", dir_fd=store.fd)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreDamagedError("a generation has no tree", file=str(store.root / place)) from error
