"""Syncs that may be left out unnoticed, each with what covers it; any other must be noticed.

By the planted bug's name.  One that is noticed after all has no business here: the list is held
against what `planted` finds in both directions.
"""

from __future__ import annotations

_ONE_STEP = (
    "a rename between two folders is one step in both: the sync of the other folder makes it "
    "last, and those in exchange.py are noticed when all are left out"
)

ACCEPTED: dict[str, str] = {
    "every sync at durable.remove_file `sync_fd(dir_fd)` left out": (
        "a record that comes back is settled or removed once more, which changes nothing"
    ),
    "every sync at exchange._make_face `durable.sync_fd(folder)` left out": (
        "the exchange that follows is a later change of the same folder, which is synced then"
    ),
    "every sync at exchange._place `durable.sync_fd(folder)` left out": _ONE_STEP,
    "every sync at exchange._place `durable.sync_fd(parent)` left out": _ONE_STEP,
    "every sync at exchange._put_away `durable.sync_fd(folder)` left out": (
        "a face that lies with another generation is put away by recovery"
    ),
    "every sync at exchange._put_away `durable.sync_fd(home)` left out": (
        "a face that lies with another generation is put away by recovery"
    ),
    "every sync at exchange._swap `durable.sync_fd(folder)` left out": _ONE_STEP,
    "every sync at exchange._swap `durable.sync_fd(parent)` left out": _ONE_STEP,
    "every sync at history.append `sync_fd(root_fd)` left out": (
        "the name of a new history lasts with that of store.json, before which there is no store"
    ),
    "every sync at making._write_records `durable.sync_dir(records.GENERATIONS, dir_fd=root_fd)`"
    " left out": "syncfs of the baseline's tree; a system without syncfs needs it",
    "every sync at making.init `durable.sync_dir(folder.parent)` left out": (
        "syncfs of the baseline's tree; a system without syncfs needs it"
    ),
    "every sync of repairing.json left out": (
        "a note that cannot be read means every generation: recovery looks through all trees"
    ),
    "every sync in making.py left out": (
        "syncfs of the baseline's tree; a system without syncfs needs them"
    ),
    "every sync at repairing._put `durable.sync_fd(fd)` left out": (
        "syncfs after the last repair; what is cut off before it is swept away by recovery"
    ),
    "every sync at repairing.repair `durable.sync_fd(fd)` left out": (
        "syncfs after the last repair, before success is reported"
    ),
}
