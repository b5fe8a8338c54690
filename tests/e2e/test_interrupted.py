"""Ctrl-C and kill -9 at random points: the tree is old or new, and nothing is left lying about."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from .journey import Journey, interrupt, prepare, told

_ROUNDS = 12


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    return prepare(tmp_path_factory.mktemp("interrupted"), size=3_000_000)


@pytest.fixture(scope="module")
def span(journey: Journey) -> float:
    """About how long one apply takes here, in seconds."""
    began = time.monotonic()
    journey.apply("a")
    taken = time.monotonic() - began
    told("revert", "--store", journey.store)
    return taken


def test_ctrl_c_leaves_the_old_tree_or_a_finished_new_one(journey: Journey, span: float) -> None:
    draw = random.Random(7)
    ends = set()
    for _ in range(_ROUNDS):
        told("gc", "--store", journey.store)
        code = interrupt(journey, "a", draw.uniform(0.0, span * 1.1), signal.SIGINT)
        # before Python has installed any handler the signal itself is the end
        assert code in (0, 130, -signal.SIGINT, 1), code
        assert journey.debris() == []
        assert journey.live_build() == (1 if code == 0 else 0)
        if code == 0:
            told("revert", "--store", journey.store)
        ends.add(code)
    assert told("check-store", "--store", journey.store)["sound"]
    assert 130 in ends


def test_kill_leaves_a_store_that_the_next_writer_makes_whole(
    journey: Journey, span: float
) -> None:
    draw = random.Random(11)
    for _ in range(_ROUNDS):
        interrupt(journey, "a", draw.uniform(0.05, span * 1.1), signal.SIGKILL)
        live = journey.live_build()
        assert live in (0, 1), "old or new, never a mix"
        status = journey.status()
        assert status["letter"] == ("a" if live else "")
        told("gc", "--store", journey.store)
        assert journey.debris() == []
        assert journey.live_build() == live
        if live:
            told("revert", "--store", journey.store)
    journey.apply("a")
    assert journey.live_build() == 1
    assert told("check-store", "--store", journey.store)["sound"]
    told("revert", "--store", journey.store)


def test_ctrl_c_in_build_leaves_no_file(journey: Journey, tmp_path: Path) -> None:
    import subprocess

    from .journey import COMMAND, environment

    out = tmp_path / "out/c.bsi"
    out.parent.mkdir()
    child = subprocess.Popen(
        [
            *COMMAND,
            "build",
            *("--base", str(journey.tree(0)), "--new", str(journey.tree(2))),
            *("--release", str(journey.folder / "release-a.toml")),
            *("--key", str(journey.folder / "keys/private.pem"), "-o", str(out)),
        ],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.8)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode in (0, 130, -signal.SIGINT)
    assert "Traceback" not in err
    assert [p.name for p in out.parent.iterdir()] == (["c.bsi"] if child.returncode == 0 else [])
