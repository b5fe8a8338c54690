"""kill -9 of the agent at random moments of a device's life, and a server that comes and goes.

BSIPATCH_KILLS says how often (`make agent-kill`: 200), BSIPATCH_SEED with which dice.
Each kill hits a copy of the device as it was before one of four turns of its life: the
first improvement, one that is sick, a withdrawal, an improvement after it.  Whatever the
moment, the tree is one of the whole ones, status tells the truth, and the next run of
the agent comes to where an unharmed one comes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bsipatch.device.agent import memo as memos
from bsipatch.device.agent.working import Agent
from bsipatch.device.feed_client import opened
from bsipatch.device.service import DeviceService
from bsipatch.errors import MismatchError
from bsipatch.store import Store, records
from bsipatch.store.checking import check

from .device_life import Life, begin, follow, generated
from .journey import COMMAND, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
KILLS = int(os.environ.get("BSIPATCH_KILLS", "15"))
SEED = int(os.environ.get("BSIPATCH_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)


@dataclass(frozen=True)
class Turn:
    """A device before something happens to it, and what is live in the end."""

    name: str
    before: str
    goal: str
    letter: str
    withdrawal: bool
    #: seconds that an unharmed run takes, and of these from its first request to its end
    takes: float
    works: float


class Turns:
    """A life whose turns are kept, so that each can be lived again."""

    def __init__(self, folder: Path) -> None:
        self.life = begin(folder, generated(folder, size=30_000))
        self.kept: list[Turn] = []

    def live(self) -> None:
        """Lives it once, unharmed."""
        life = self.life
        life.publish("a")
        self._turn("the first improvement", "base", "a", "a")
        life.publish("b")
        self._turn("a sick one", "a", "a", "b")
        life.withdraw("a", "pages stay blank")
        self._turn("a withdrawal", "a", "base", "a")
        life.publish("c")
        self._turn("one after it", "base", "c", "c")

    def _turn(self, name: str, before: str, goal: str, letter: str) -> None:
        place = self.life.folder / "kept" / str(len(self.kept))
        self.life.first_asked = 0.0
        shutil.copytree(self.life.store, place / "store", symlinks=True)
        shutil.copytree(self.life.folder / "feed", place / "feed")
        began = time.monotonic()
        self.life.agent()
        ended = time.monotonic()
        assert self.life.live_tree() == goal, name
        takes, works = ended - began, ended - max(began, self.life.first_asked)
        self.kept.append(Turn(name, before, goal, letter, name == "a withdrawal", takes, works))

    def again(self, turn: Turn) -> None:
        """The device and the feed as they were before the turn."""
        place = self.life.folder / "kept" / str(self.kept.index(turn))
        for name in ("store", "feed"):
            shutil.rmtree(self.life.folder / name)
            shutil.copytree(place / name, self.life.folder / name, symlinks=True)


@pytest.fixture(scope="module")
def turns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Turns]:
    made = Turns(tmp_path_factory.mktemp("life"))
    with made.life.serving() as server:
        follow(made.life, server.url)
        made.life.agent()
        made.live()
        yield made


def test_kill_at_random_moments(turns: Turns) -> None:
    draw = random.Random(SEED)
    life = turns.life
    found: Counter[str] = Counter()
    for number in range(3 * KILLS):
        if found["killed"] == KILLS:
            break
        turn = turns.kept[number % len(turns.kept)]
        what = f"kill {number} of BSIPATCH_SEED={SEED}: {turn.name}"
        turns.again(turn)
        life.first_asked = 0.0
        # Every so often nobody answers: then, or from some moment on.
        life.out = draw.random() < 0.15
        resident = draw.random() < 0.4
        ended = killed(life, draw, turn, resident)
        life.out = draw.random() < 0.15
        tree = look(life, turn, what)
        found["killed" if ended == -signal.SIGKILL else "ended before"] += 1
        found[f"{turn.name}: {tree or 'torn'}"] += 1
        found["with unfinished business"] += unfinished(life)
        if life.out:
            # A run without a server comes to an end, and says nothing that is not so.
            finish(life)
            look(life, turn, what)
            life.out = False
        finish(life)
        assert life.live_tree() == turn.goal, (what, ended, memos.load(life.store))
        whole(life, what)
    counts = (f"{count} {what}" for what, count in sorted(found.items()))
    print(f"\nBSIPATCH_SEED={SEED}:", *counts, sep="\n  ")


def killed(life: Life, draw: random.Random, turn: Turn, resident: bool) -> int:
    """Starts the agent, kills it with all of its processes (or alone), waits for their end."""
    how = ["--every", "1"] if resident else ["--once", "--now"]
    process = subprocess.Popen(
        [*COMMAND, "agent", *how, "--store", str(life.store)],
        env=environment(no_proxy="127.0.0.1"),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # Most of a run is the interpreter's start and the feed's signatures: most of the kills come
    # later, many of them while the store is being changed.
    aim = draw.random()
    if aim < 0.15:
        time.sleep(draw.random() * turn.takes)
    else:
        life.until_asked(process)
        if aim < 0.5:
            time.sleep(draw.random() * turn.works)
        else:
            life.until_changing(process)
            time.sleep(draw.random() * 0.25)
    if draw.random() < 0.2:
        life.out = not life.out
        time.sleep(draw.random() * 0.3)
    if resident and draw.random() < 0.5:
        process.kill()  # its worker notices, and stops by itself
        code = process.wait()
        until_free(life)
        return code
    with contextlib.suppress(ProcessLookupError):  # it has come to its end before
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def until_free(life: Life) -> None:
    """Until no agent's process holds the store's agent lock."""
    with (life.store / "agent.lock").open("a+") as file:
        deadline = time.monotonic() + 60
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                assert time.monotonic() < deadline, "a worker outlived its agent"
                time.sleep(0.02)


def look(life: Life, turn: Turn, what: str) -> str:
    """Which whole tree is live, just as it was left; checks that status tells the truth."""
    tree = life.live_tree()
    assert tree in {turn.before, turn.goal, "b"}, (what, tree)
    with DeviceService(life.store) as service:
        state = service.state()
    if tree != turn.goal and knows(life, turn):
        assert state.standing != "current", (what, state)
    return tree


def unfinished(life: Life) -> bool:
    """Whether the kill left something for the next run."""
    with Store(life.store) as store:
        left = [*store.unfinished(), *(life.store / "feed").glob("*.tmp")]
        return bool(left) or store.trial() is not None


def knows(life: Life, turn: Turn) -> bool:
    """Whether the device has heard of the turn: the metadata that it accepted speaks of it.

    A refresh that the server broke off leaves a newer timestamp: then it knows that there is
    something, but not what.
    """
    try:
        with opened(life.store) as feed:
            offers = {offer.id: offer for offer in feed.cached("Demo").offers}
    except MismatchError:
        return True
    about = offers.get(life.ids[turn.letter])
    return about is not None and (about.withdrawn is not None or not turn.withdrawal)


def finish(life: Life) -> None:
    """What the next runs of the agent do: one soon, and one when what failed is tried again."""
    for later in (0.0, 120.0, 400.0):
        with Agent(life.store, clock=lambda later=later: time.time() + later) as agent:
            agent.work(now=True)


def whole(life: Life, what: str) -> None:
    """Nothing half made lies in the store, and every byte is as it should be."""
    with Store(life.store) as store:
        assert records.leftovers(store.fd) == [], what
        assert store.trial() is None, what
        assert check(store).drift == (), what
    assert not list((life.store / "feed").glob("*.tmp")), what
