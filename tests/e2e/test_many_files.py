"""What applying takes on trees of many files: memory in proportion, and no second look."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bsipatch.store import Store, apply, eligibility, stage
from bsipatch.tree import walk
from tests.support.stores import NOW, new_store, written
from tests.support.trees import Content, tree_of, write_tree
from tests.support.updates import make_update

#: bytes of memory for each entry of the tree, docs/store-snapshots.md says so
_MOST = 4096

# Applies in a process of its own and prints the most memory that it ever had, in KiB. (What
# getrusage tells counts the process before exec as well.)
_PROGRAM = """
import re, sys
from bsipatch.store import Store, apply
with Store(sys.argv[1]) as store:
    apply(store, sys.argv[2], now=float(sys.argv[3]))
print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
"""


def make(folder: Path, files: int) -> tuple[Store, Path, dict[str, Content]]:
    """A store of that many files, an update that changes one of them, and what it leads to."""
    old: dict[str, Content] = {f"part{n:03}": None for n in range(-(-files // 100))}
    old |= {f"part{n // 100:03}/file{n:05}": f"file {n}\n".encode() for n in range(files)}
    new = {**old, "part000/file00007": b"changed\n" * 100}
    folder.mkdir()
    update = written(folder / "a.bsi", make_update(old, new))
    return new_store(folder / "store", write_tree(folder / "base", old)), update, new


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc/self/status")
@pytest.mark.skipif(
    bool(os.environ.get("BSIPATCH_SANITIZED")), reason="the sanitizer takes memory of its own"
)
def test_the_memory_of_an_apply_is_bounded_for_each_entry(tmp_path: Path) -> None:
    most = []
    for files in (1_000, 11_000):
        store, update, _ = make(tmp_path / str(files), files)
        store.close()
        command = [sys.executable, "-c", _PROGRAM, str(store.root), str(update), str(NOW)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        most.append(int(done.stdout) * 1024)
    assert most[1] - most[0] < 10_000 * _MOST


def test_what_stays_is_looked_at_in_the_new_tree_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is built only folders and what the update reads are looked at."""
    looked: list[str] = []
    plain = eligibility._drift

    def drift(base: eligibility.InOrder, entry: eligibility.Entry) -> str | None:
        looked.append(entry.path)
        return plain(base, entry)

    monkeypatch.setattr(eligibility, "_drift", drift)
    store, update, new = make(tmp_path / "many", 300)
    with store:
        apply(store, update, now=NOW)
        assert walk(store.live_path) == tree_of(new)
    assert len(looked) < 10


@pytest.mark.parametrize("strategy", ["hardlink", "copy"])
@pytest.mark.parametrize("fault", ["missing", "link", "fifo", "mode", "size"])
def test_a_base_that_drifted_is_named_though_nobody_looked_before(
    tmp_path: Path, strategy: str, fault: str
) -> None:
    store, update, _ = make(tmp_path / "many", 120)
    path = store.live_path / "part001/file00110"
    with store:
        if fault in ("missing", "link", "fifo"):
            path.unlink()
        if fault == "link":
            path.symlink_to("file00111")
        elif fault == "fifo":
            os.mkfifo(path)
        elif fault == "mode":
            path.chmod(0o600)
        elif fault == "size":
            path.write_bytes(b"more than there was before")
        with pytest.raises(stage.TreeDriftError, match="baseline drifted: part001/file00110, "):
            apply(store, update, now=NOW, strategy=strategy)
        assert store.live().number == 0
        assert store.status().unfinished == ()
