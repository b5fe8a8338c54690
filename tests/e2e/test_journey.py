"""Build, sign, apply, replace, revert, collect: the whole way on a generated framework."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bsipatch.tree import walk

from .journey import COMMAND, Journey, environment, make_framework, prepare, run, told


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    return prepare(tmp_path_factory.mktemp("journey"))


@pytest.fixture
def journey(prepared: Journey, tmp_path: Path) -> Journey:
    """A store of its own for each test; builds, keys and updates are shared."""
    for name in ("build0", "build1", "build2", "keys", "a.bsi", "b.bsi"):
        (tmp_path / name).symlink_to(prepared.folder / name)
    (tmp_path / "a.bsi").unlink()  # updates are never opened through links
    (tmp_path / "b.bsi").unlink()
    shutil.copy(prepared.update("a"), tmp_path)
    shutil.copy(prepared.update("b"), tmp_path)
    journey = Journey(tmp_path)
    journey.init()
    return journey


def test_the_whole_way(journey: Journey) -> None:
    assert journey.live_build() == 0
    applied = journey.apply("a")
    assert applied["display"] == "26.3.1 (a)"
    assert applied["tree_digest"] == walk(journey.tree(1)).digest
    assert journey.live_build() == 1
    status = journey.status()
    assert (status["version"], status["letter"]) == ("26.3.1", "a")
    assert status["live"] == str(journey.store / "current/tree")
    assert [back["display"] for back in status["can_revert_to"]] == ["26.3.1"]

    journey.apply("b")  # replaces (a), does not stack on it
    assert journey.live_build() == 2
    assert told("revert", "--store", journey.store)["display"] == "26.3.1 (a)"
    assert journey.live_build() == 1
    journey.apply("b")
    assert told("revert", "--store", journey.store, "--baseline")["display"] == "26.3.1"
    assert journey.live_build() == 0
    journey.apply("a")
    assert journey.live_build() == 1

    assert told("check-store", "--store", journey.store)["sound"]
    collected = told("gc", "--store", journey.store)
    assert collected["kept"] == [0, applied["generation"] + 3]
    assert journey.live_build() == 1
    assert told("check-store", "--store", journey.store)["sound"]
    events = told("history", "--store", journey.store)["events"]
    kinds = [event["event"] for event in events]
    assert kinds == ["init", "apply", "apply", "revert", "apply", "revert", "apply", "gc"]
    assert journey.debris() == []


def test_the_live_path_stays_and_is_a_real_folder(journey: Journey) -> None:
    before = journey.status()["live"]
    journey.apply("a")
    assert journey.status()["live"] == before
    assert not os.path.islink(before)
    out = subprocess.run(
        ["diff", "-r", "--no-dereference", before, str(journey.tree(1)) + "/"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (out.returncode, out.stdout) == (0, "")
    main = Path(before, "Demo.framework/Demo")
    assert os.readlink(main) == "Versions/Current/Demo"
    assert main.stat().st_mode & 0o777 == 0o755


def test_updates_are_small_and_repeatable(prepared: Journey, tmp_path: Path) -> None:
    size = prepared.update("a").stat().st_size
    assert size < walk(prepared.tree(1)).size / 5
    again = tmp_path / "again.bsi"
    first = told("inspect", prepared.update("a"))
    prepared.build("a", 0, 1, out=again, created=first["created"][:10], expires="2030-01-01")
    other = tmp_path / "other.bsi"
    prepared.build("a", 0, 1, out=other, created=first["created"][:10], expires="2030-01-01")
    assert again.read_bytes() == other.read_bytes()


def test_refusals_have_their_own_exit_codes(journey: Journey, tmp_path: Path) -> None:
    out = tmp_path / "other.bsi"
    journey.build("c", 0, 1, out=out, product="Other")
    assert told("apply", out, "--store", journey.store, code=51)["error"] == "wrong-product"
    out.unlink()
    journey.build("c", 1, 2, out=out)
    assert told("apply", out, "--store", journey.store, code=53)["error"] == "wrong-baseline"
    out.unlink()
    journey.build("c", 0, 1, out=out, created="2020-01-01", expires="2020-06-01")
    assert told("apply", out, "--store", journey.store, code=45)["error"] == "expired"
    told("verify", out, "--trust", journey.folder / "keys/public.pem", code=45)
    run("keygen", tmp_path / "foreign", "--no-passphrase")
    verdict = told(
        "verify", journey.update("a"), "--trust", tmp_path / "foreign/public.pem", code=43
    )
    assert verdict["class"] == "SignatureError"
    told("revert", "--store", journey.store, code=62)
    told("status", "--store", tmp_path / "none", code=4)
    assert journey.live_build() == 0
    reasons = [event.get("error") for event in told("history", "--store", journey.store)["events"]]
    assert reasons == [None, "wrong-product", "wrong-baseline", "expired"]


def test_a_drifted_baseline_is_named(journey: Journey) -> None:
    file = journey.store / "current/tree/Demo.framework/Versions/A/Resources/same.dat"
    file.chmod(0o664)
    error = journey.apply("a", 33)
    assert "same.dat, mode 0664 for 0644" in error["message"]
    report = told("check-store", "--store", journey.store, code=33)
    assert report["drift"] == [
        {
            "generation": 0,
            "path": "Demo.framework/Versions/A/Resources/same.dat",
            "reason": "mode 0664 for 0644",
        }
    ]
    file.chmod(0o644)
    main = journey.store / "current/tree/Demo.framework/Versions/A/Demo"
    data = bytearray(main.read_bytes())
    data[1000] ^= 1
    main.write_bytes(data)
    error = journey.apply("a", 33)
    assert "Demo.framework/Versions/A/Demo, other content" in error["message"]
    assert journey.debris() == []


def test_two_appliers_at_once(journey: Journey) -> None:
    """One wins, the others are told who holds the store, or find it applied already."""
    children = [
        subprocess.Popen(
            [*COMMAND, "apply", str(journey.update("a")), "--store", str(journey.store), "--json"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    ends = [(child.communicate(timeout=120)[0], child.returncode) for child in children]
    assert all(code in (0, 61) for _, code in ends), ends
    assert any(code == 0 for _, code in ends)
    assert journey.live_build() == 1
    assert journey.status()["generations"] == [0, 1]
    assert journey.debris() == []


def test_every_strategy_that_works_here(journey: Journey) -> None:
    for strategy in ("copy", "hardlink", "auto"):
        journey.apply("a", 0, "--strategy", strategy)
        assert journey.live_build() == 1
        told("revert", "--store", journey.store)
        assert journey.live_build() == 0


def test_a_framework_of_many_files(tmp_path: Path) -> None:
    journey = Journey(tmp_path)
    for build in range(2):
        root = make_framework(journey.tree(build), build, size=50_000)
        many = root / "Demo.framework/Versions/A/Resources/many"
        for index in range(1500):
            path = many / f"{index % 40}" / f"{index}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            changed = build if index % 100 == 0 else 0
            path.write_text(f"file {index} of build {changed}\n" * 3)
    run("keygen", tmp_path / "keys", "--no-passphrase")
    journey.build("a", 0, 1)
    journey.init()
    applied = journey.apply("a")
    assert applied["tree_digest"] == walk(journey.tree(1)).digest
    reverted = told("revert", "--store", journey.store)
    assert reverted["seconds"] < 1


def test_extended_attributes_travel_when_the_release_says_so(tmp_path: Path) -> None:
    journey = Journey(tmp_path)
    for build in range(2):
        root = make_framework(journey.tree(build), build, size=50_000)
        main = root / "Demo.framework/Versions/A"
        try:
            os.setxattr(main / "Demo", "user.signed", b"build %d" % build)
            os.setxattr(main / "Resources/same.dat", "user.note", b"only here" * build + b"x")
            os.setxattr(main / "Resources/en.lproj/Main.strings", "user.kept", b"yes")
        except OSError:
            pytest.skip("no extended attributes on this file system")
    run("keygen", tmp_path / "keys", "--no-passphrase")
    journey.build("a", 0, 1, xattrs="true")
    journey.init()
    applied = journey.apply("a")
    live = walk(journey.store / "current/tree", xattrs=True)
    assert live == walk(journey.tree(1), xattrs=True)
    assert applied["tree_digest"] == live.digest
    assert told("check-store", "--store", journey.store)["sound"]
    path = journey.store / "current/tree/Demo.framework/Versions/A/Resources/same.dat"
    os.setxattr(path, "user.note", b"changed")
    report = told("check-store", "--store", journey.store, code=33)
    assert [drift["reason"] for drift in report["drift"]] == ["other extended attributes"]
    told("revert", "--store", journey.store)
    assert walk(journey.store / "current/tree", xattrs=True) == walk(journey.tree(0), xattrs=True)
