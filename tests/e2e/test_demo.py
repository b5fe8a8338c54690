"""The demo's own parts; where it gets its pair from depends on the machine, so here it is made."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from bsipatch import demo
from bsipatch.tree import frameworks, walk


def test_the_demo_runs_and_shows_its_tables(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    done = subprocess.run(
        [sys.executable, "-m", "bsipatch.demo", "--source", "generate", "--folder", str(folder)],
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for text in ("$ bsipatch build", "What an update costs", "bsipatch, signed update", "revert"):
        assert text in done.stdout
    assert (folder / "update.bsi").is_file()
    again = subprocess.run(
        [sys.executable, "-m", "bsipatch.demo", "--source", "generate", "--folder", str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert again.returncode == 5
    assert "Traceback" not in again.stderr


def test_frameworks_come_out_of_a_wheel_with_their_links(tmp_path: Path) -> None:
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        lib = "Package/Qt6/lib/Part.framework"
        archive.writestr(f"{lib}/Versions/A/Part", b"code")
        archive.writestr(f"{lib}/Resources/Info.plist", b"<plist/>")
        archive.writestr(f"{lib}/../../evil", b"no")
        archive.writestr("Package/other.txt", b"no")
    demo.unpack_frameworks(wheel, tmp_path / "out")
    tree = walk(tmp_path / "out")
    [bundle] = frameworks(tree)
    assert (bundle.current, bundle.links, bundle.problems) == ("A", ("Part", "Resources"), ())
    assert {entry.path for entry in tree.files} == {
        "Part.framework/Versions/A/Part",
        "Part.framework/Versions/A/Resources/Info.plist",
    }
    assert not (tmp_path / "evil").exists()


def test_other_ways_are_measured_on_changed_files_only(tmp_path: Path) -> None:
    pair = demo.generate(tmp_path)
    changed = list(demo.changed_files(pair))
    assert len(changed) == 2
    assert {name for name, _, _ in demo.compare(pair)} >= {"zstd -19 --patch-from"}
