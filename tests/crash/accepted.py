"""Syncs that may be left out unnoticed, each with what covers it; any other must be noticed.

By the planted bug's name.  One that is noticed after all has no business here: the list is held
against what `planted` finds in both directions.
"""

from __future__ import annotations

ACCEPTED: dict[str, str] = {
    "every sync at applying._fill `durable.sync_fd(folder)` left out": (
        "the record written just before synced the same folder; what came after it is in the "
        "stage's tree, which is synced by itself"
    ),
    "every sync at durable.remove_file `sync_fd(dir_fd)` left out": (
        "a record that comes back is settled or removed once more, which changes nothing"
    ),
    "every sync at history.append `sync_fd(root_fd)` left out": (
        "the name of a new history lasts with that of store.json, before which there is no store"
    ),
    "every sync at history.make_last `sync_fd(fd)` left out": (
        "the next line of the history syncs the same file; a line that is lost before that is "
        "written by recovery as `recovered`"
    ),
    "every sync at making._write_records `durable.sync_dir(records.GENERATIONS, dir_fd=root_fd)`"
    " left out": "syncfs of the baseline's tree; a system without syncfs needs it",
    "every sync at making.init `durable.sync_dir(folder.parent)` left out": (
        "syncfs of the baseline's tree; a system without syncfs needs it"
    ),
    "every sync at repairing.repair `durable.sync_fd(fd)` left out": (
        "syncfs after the last repair, before success is reported"
    ),
    "every sync of the folder that holds the store left out": (
        "the same sync as that of making.init"
    ),
}
