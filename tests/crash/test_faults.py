"""System calls that fail, processes that die, two at once, rot, and updates that change."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bsipatch.errors import (
    BsipatchError,
    ExistsError,
    NoSpaceError,
    StoreBusyError,
    StoreStateError,
    TreeDriftError,
)
from bsipatch.limits import DEFAULT
from bsipatch.store import Store, apply, durable, records
from bsipatch.tree import walk
from tests.support.stores import NOW

from .judging import Expect, judge
from .kit import LIVE, STORE, Kit, make_kit, opened

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return make_kit(tmp_path / "kit")


@pytest.mark.skipif(
    bool(os.environ.get("BSIPATCH_SANITIZED")), reason="the sanitizer is preloaded already"
)
@pytest.mark.skipif(sys.platform != "linux", reason="the injector is loaded by LD_PRELOAD")
@pytest.mark.parametrize("operation", ["apply", "revert"])
def test_a_call_that_fails_leaves_old_or_new_and_says_why(operation: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash", "faults", "--op", operation, "--step", "23"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    sweeps = json.loads(done.stdout)["sweeps"]
    assert {sweep["fault"] for sweep in sweeps} >= {"EIO", "ENOSPC", "SIGKILL"}
    assert all(sweep["struck"] for sweep in sweeps)


def test_kill_9_at_any_moment(kit: Kit, tmp_path: Path) -> None:
    kit.init(tmp_path)
    draw = random.Random(5)
    for _ in range(8):
        child = os.fork()
        if child == 0:
            try:
                kit.apply(tmp_path, "a")
            finally:
                os._exit(0)
        time.sleep(draw.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        verdict = judge(kit, tmp_path, Expect(("",), "a"), succeeded=False, use=False)
        assert verdict.ok, verdict.why
        with opened(tmp_path) as store:
            if store.live().number:
                store.revert(baseline=True)


def test_two_appliers_at_once(kit: Kit, tmp_path: Path) -> None:
    """One waits for the other; whoever is last is live, and nothing is mixed."""
    kit.init(tmp_path)
    problems: list[BaseException] = []

    def work(letter: str) -> None:
        try:
            kit.apply(tmp_path, letter)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(problem, StoreBusyError) for problem in problems)
    verdict = judge(kit, tmp_path, Expect(("a",), "b"), succeeded=False, use=True)
    assert verdict.ok, verdict.why


def test_rot_in_any_file_of_the_base(kit: Kit, tmp_path: Path) -> None:
    """One bit is other than it was; size, mode and time are not: told, and not built on."""
    kit.init(tmp_path)
    pristine = tmp_path / "pristine"
    shutil.copytree(tmp_path / STORE, pristine, symlinks=True)
    tree = Path("generations/0/tree")
    files = [p for p in (pristine / tree).rglob("*") if p.is_file() and not p.is_symlink()]
    for path in files:
        if not path.stat().st_size:
            continue
        shutil.rmtree(tmp_path / STORE)
        shutil.copytree(pristine, tmp_path / STORE, symlinks=True)
        victim = tmp_path / STORE / path.relative_to(pristine)
        status = victim.stat()
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
        os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
        before = walk(tmp_path / STORE / tree)
        told = ""
        try:
            kit.apply(tmp_path, "a")
        except TreeDriftError as error:
            told = str(error)
        with opened(tmp_path) as store:
            if told:
                assert victim.name in told
                assert store.live().number == 0
                assert walk(store.live_path) == before
            else:  # a file that the update replaces whole is not read: the new tree is right
                assert kit.name_of(walk(store.live_path)) == "a"


@pytest.mark.parametrize("change", ["swapped", "truncated", "overwritten"])
def test_an_update_that_changes_while_it_is_read(
    kit: Kit, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.init(tmp_path)
    update = kit.updates["a"]
    plain = Store.verify

    def verify(self: Store, envelope: bytes) -> bytes:
        payload = plain(self, envelope)
        if change == "swapped":
            os.replace(kit.updates["b"], update)
        elif change == "truncated":
            os.truncate(update, update.stat().st_size - 300)
        else:
            with update.open("r+b") as file:
                file.seek(-300, os.SEEK_END)
                file.write(bytes(300))
        return payload

    monkeypatch.setattr(Store, "verify", verify)
    if change == "swapped":  # the file that was opened is the one that is used
        kit.apply(tmp_path, "a")
        live = "a"
    else:
        with pytest.raises(BsipatchError) as caught:
            kit.apply(tmp_path, "a")
        assert caught.value.file == str(update)
        live = ""
    monkeypatch.setattr(Store, "verify", plain)
    with opened(tmp_path) as store:
        assert kit.name_of(walk(store.live_path)) == live


def test_a_busy_store_says_who_holds_it(kit: Kit, tmp_path: Path) -> None:
    kit.init(tmp_path)

    hasty = DEFAULT.but(lock_timeout=0.0, reserve_space=0)
    with (
        opened(tmp_path) as store,
        store.writing("gc"),
        Store(tmp_path / STORE, limits=hasty) as other,
        pytest.raises(StoreBusyError, match=f"process {os.getpid()}"),
    ):
        apply(other, kit.updates["a"], now=NOW)


@pytest.mark.parametrize("mode", ["symlink", "exchange"])
def test_an_init_that_fails_last_leaves_no_live_path(
    kit: Kit, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = durable.replace_file

    def full(name: str, data: bytes, **options: Any) -> None:
        if name == records.IDENTITY:
            assert (tmp_path / LIVE).is_dir()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(name, data, **options)

    monkeypatch.setattr(durable, "replace_file", full)
    try:
        kit.init(tmp_path, live_mode=mode)
    except StoreStateError as error:
        pytest.skip(f"NOT TESTED: {error.message}")
    except NoSpaceError:
        assert sorted(os.listdir(tmp_path)) == ["kit"]
    else:
        pytest.fail("a full disk was passed over")
    monkeypatch.undo()
    kit.init(tmp_path, live_mode=mode)
    assert kit.shown(tmp_path) == ""


def test_a_strange_link_at_the_live_path_is_left_alone(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / LIVE).symlink_to("elsewhere")
    with pytest.raises(ExistsError):
        kit.init(tmp_path, live_mode="symlink")
    assert os.readlink(tmp_path / LIVE) == "elsewhere"
    assert not (tmp_path / STORE).exists()
