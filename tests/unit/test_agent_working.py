"""The agent at work: a real store, a mirror on loopback, and a clock that tests set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bsipatch.device import policy_files, relaunch, schedule
from bsipatch.device.agent import early, single
from bsipatch.device.agent import memo as memos
from bsipatch.device.agent.deciding import BUSY, Step
from bsipatch.device.agent.working import Agent
from bsipatch.device.conditions import Answer
from bsipatch.device.logs import Log
from bsipatch.device.schedule import Timing
from bsipatch.device.service_state import Process
from bsipatch.errors import CancelledError, StoreBusyError
from bsipatch.feed.model import Withdrawal
from bsipatch.store.lock import locked
from tests.support.followed import device, repository, server
from tests.support.mirrors import Handler, Server
from tests.support.served import ME, Says, manage, managed, offer, says
from tests.support.stores import base, store
from tests.support.trials import RESTART, command
from tests.support.tuf_feeds import DAY, NOW, Device, Repository, update

__all__ = ["base", "device", "managed", "repository", "says", "server", "store"]

BUSY_MACHINE = Answer(name="idle", ok=False, code="idle", text="in use: somebody is using it")


class Worked:
    """An agent whose steps are kept."""

    def __init__(self, device: Device, says: Says, managed: Path) -> None:
        self.device, self.steps = device, list[Step]()
        self.agent = Agent(
            device.store.root,
            clock=lambda: device.now,
            conditions=says,
            managed=managed,
            managed_owner=ME,
            told=self.steps.append,
        )

    def __call__(self, *, after: float | None = None, now: bool = False) -> list[str]:
        """The steps of one run, when so many seconds have passed."""
        if after is not None:
            self.device.now += after
        self.steps.clear()
        self.agent.work(now=now)
        return [step.do for step in self.steps[:-1]]

    @property
    def rest(self) -> Step:
        """The last one."""
        return self.steps[-1]


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    """What runs; nothing, until a test says so."""
    running: list[Process] = []
    monkeypatch.setattr(
        relaunch,
        "running",
        lambda names, since: tuple(one for one in running if one.name in set(names)),
    )
    return running


@pytest.fixture
def work(device: Device, says: Says, managed: Path) -> Iterator[Worked]:
    made = Worked(device, says, managed)
    with made.agent:
        yield made


def events(device: Device) -> list[str]:
    return [entry.event for entry in Log(device.store.root).read() if entry.level != "debug"]


def test_it_checks_and_installs_by_itself(
    work: Worked, device: Device, repository: Repository
) -> None:
    offer(repository)
    assert work() == ["check", "install"]
    assert device.live == "26.3.1 (a)"
    assert work.rest.why == "nothing but the next check"
    assert NOW + 5 * 3600 <= work.rest.until <= NOW + 7 * 3600
    assert events(device) == ["check", "installed"]
    known = memos.load(device.store.root)
    assert (known.wake, known.doing) == (work.rest.until, work.rest.why)
    # and then nothing, until the next check is due
    assert work(after=60) == []
    assert work(after=7 * 3600) == ["check"]


def test_a_single_run_is_quiet_only_while_nothing_changed(
    work: Worked, device: Device, repository: Repository
) -> None:
    offer(repository)
    work()
    root = device.store.root
    # the files' own times are this machine's, the test's clock is another
    memos.save(root, memos.Memo(written=2e9, wake=3e9, doing="x"))
    schedule.save(root / schedule.NAME, schedule.Schedule(next_check=2e9 + 100, last_check=2e9))
    assert early.quiet(root, 2e9 + 1, Timing())
    assert not early.quiet(root, 2e9 + 100, Timing())  # a check is due
    memos.save(root, memos.Memo(written=2e9, wake=2e9 + 50, doing="x"))
    assert not early.quiet(root, 2e9 + 60, Timing())  # the wait is over
    memos.save(root, memos.Memo(written=2e9, wake=3e9, pids=(2**22 + 1,), doing="x"))
    assert not early.quiet(root, 2e9 + 1, Timing())  # a program that was waited for is gone
    memos.save(root, memos.Memo(written=1.0, wake=3e9, doing="x"))
    assert not early.quiet(root, 2e9 + 1, Timing())  # somebody changed something since
    memos.save(root, memos.Memo(written=2e9, wake=3e9, doing="x"))
    assert early.quiet(root, 2e9 + 1, Timing())
    policy_files.write_settings(root, {"metered": "allow"})
    assert early.due(root, 2e9 + 1, Timing()) == 0
    assert not early.quiet(root, 2e9 + 1, Timing())  # the settings are newer than the check
    (root / memos.NAME).write_bytes(b"\xff{")
    assert not early.quiet(root, 2e9 + 1, Timing())


def test_it_fetches_while_the_machine_is_used_and_installs_when_it_is_idle(
    work: Worked, device: Device, repository: Repository, says: Says, server: Server
) -> None:
    offer(repository)
    says.answers.append(BUSY_MACHINE)
    assert work() == ["check", "fetch"]
    assert device.live == "26.3.1"
    assert "somebody is using it" in work.rest.why
    assert list(device.downloads.glob("*"))
    assert work(after=300) == []
    says.answers.clear()
    server.files = {}  # nobody needs the server any more
    assert work(after=300) == ["install"]
    assert device.live == "26.3.1 (a)"
    assert events(device) == ["check", "fetched", "installed"]


def test_it_waits_for_programs_that_run(
    work: Worked, device: Device, repository: Repository, programs: list[Process]
) -> None:
    offer(repository)
    programs.append(Process(name="Safari", pid=17))
    assert work() == ["check", "fetch"]
    assert work.rest.pids == (17,)
    assert device.live == "26.3.1"
    programs.clear()
    assert work(after=5) == ["install"]
    assert device.live == "26.3.1 (a)"


def test_after_a_day_it_installs_beneath_them_and_says_when_it_is_in_effect(
    work: Worked, device: Device, repository: Repository, programs: list[Process]
) -> None:
    offer(repository)
    programs.append(Process(name="Safari", pid=17))
    work()
    assert work(after=DAY - 1) == ["check"]
    assert "install" in work(after=2)
    assert device.live == "26.3.1 (a)"
    assert "Safari" in work.rest.why
    assert work.rest.pids == (17,)
    programs.clear()
    assert work(after=5) == ["tell"]
    assert events(device)[-1] == "relaunched"
    assert work(after=5) == []


def test_a_switch_that_is_off_leaves_it_to_people(
    work: Worked, device: Device, repository: Repository, server: Server
) -> None:
    offer(repository)
    work.agent.service.set_automatic(False)
    assert work() == ["check"]
    assert device.live == "26.3.1"
    assert "switched off" in work.rest.why
    assert not server.payloads_asked()
    work.agent.service.set_automatic(True)
    assert work() == ["check", "install"]  # whoever moves the switch need not wait for hours


def test_what_its_owner_took_off_stays_off(
    work: Worked, device: Device, repository: Repository
) -> None:
    offer(repository)
    work()
    work.agent.service.remove("it does not print")
    assert work(after=DAY) == ["check"]
    assert device.live == "26.3.1"
    assert "removed by its owner" in work.rest.why


def test_a_withdrawal_is_heeded_within_one_check_whatever_the_policy_says(
    work: Worked, device: Device, repository: Repository, managed: Path, says: Says
) -> None:
    made, data = update()
    path = repository.add(made, data)
    repository.publish()
    work()
    assert device.live == "26.3.1 (a)"
    notice = Withdrawal(
        at=NOW,
        reason="it eats cookies",
        revert_installed=True,
        to="baseline",
        expires=NOW + 90 * DAY,
    )
    repository.change(path, withdrawn=notice)
    repository.publish()
    manage(managed, 'install = "forbidden"\nremoval = "forbidden"')
    says.answers.append(BUSY_MACHINE)
    assert work(now=True) == ["check", "withdraw"]
    assert device.live == "26.3.1"
    assert "it eats cookies" in device.store.history()[-1].reason
    assert events(device)[-1] == "taken-off"
    assert work(now=True) == ["check"]
    assert device.live == "26.3.1"


def test_a_failed_health_check_reverts_bars_and_is_not_tried_again(
    work: Worked, device: Device, repository: Repository
) -> None:
    made, data = update(health=(command("exit 3"),))
    repository.add(made, data)
    repository.publish()
    assert work() == ["check", "install"]
    assert device.live == "26.3.1"
    assert device.store.bars()[0].why == "health"
    assert events(device)[-1] == "install-failed"
    assert work(now=True) == ["check"]
    assert work.agent.service.state().standing == "not-offered"


def test_a_server_that_is_away_is_asked_again_later_and_later(
    work: Worked, device: Device, repository: Repository, server: Server
) -> None:
    offer(repository)

    def away(handler: Handler, path: str, body: bytes | None) -> bool:
        handler.answer(503, b"")
        return True

    server.behaviour = away
    assert work() == ["check"]
    first = work.rest.until - device.now
    assert 30 <= first <= 60
    assert "could not be read" in work.rest.why
    assert work(after=first) == ["check"]
    assert 60 <= work.rest.until - device.now <= 120
    server.behaviour = None
    assert work(after=120) == ["check", "install"]
    assert device.live == "26.3.1 (a)"


def test_a_download_that_fails_is_tried_again_without_another_check(
    work: Worked, device: Device, repository: Repository, server: Server
) -> None:
    offer(repository)

    def no_payloads(handler: Handler, path: str, body: bytes | None) -> bool:
        if path.startswith("targets/"):
            handler.answer(503, b"")
            return True
        return False

    server.behaviour = no_payloads
    assert work() == ["check", "install"]
    assert device.live == "26.3.1"
    assert "could not be installed, tried again later" in work.rest.why
    wait = work.rest.until - device.now
    assert 30 <= wait <= 60
    assert work(after=1) == []
    server.behaviour = None
    assert work(after=wait) == ["install"]
    assert device.live == "26.3.1 (a)"


def test_a_clock_that_was_set_back_puts_nothing_off(
    work: Worked, device: Device, repository: Repository, server: Server
) -> None:
    offer(repository)
    server.behaviour = lambda handler, path, body: (
        path.startswith("targets/") and handler.answer(503, b"") is None
    )
    device.now += DAY
    assert work() == ["check", "install"]
    server.behaviour = None
    device.now -= DAY / 2
    assert work() == ["check", "install"]
    assert device.live == "26.3.1 (a)"


def test_a_restart_is_waited_for_and_judged(
    work: Worked, device: Device, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, data = update(activation=RESTART, health=(command("true"),))
    repository.add(made, data)
    repository.publish()
    assert work() == ["check", "install"]
    assert work.rest.why == "26.3.1 (a) takes effect with the next restart"
    assert work(now=True) == ["check"]
    monkeypatch.setattr("bsipatch.store.trials.boot_id", lambda: "the next start")
    assert work() == ["judge"]
    assert device.store.trial() is None
    assert device.store.history()[-1].event == "good"


def test_another_process_is_waited_for(
    work: Worked, device: Device, repository: Repository
) -> None:
    offer(repository)
    with locked(device.store.fd, "apply", timeout=0, file=device.store.file):
        assert work() == ["check", "install"]
        assert work.rest.until == device.now + BUSY
        assert "waits for process" in work.rest.why
        assert device.live == "26.3.1"
    assert work() == ["install"]
    assert device.live == "26.3.1 (a)"


def test_a_policy_that_cannot_be_read_changes_nothing_and_is_told_once(
    work: Worked, device: Device, repository: Repository, managed: Path
) -> None:
    offer(repository)
    manage(managed, "nonsense = 1")
    for _ in range(3):
        assert work(after=300) == ["check"]
    assert device.live == "26.3.1"
    assert "nonsense" in work.rest.why
    assert events(device) == ["check-failed"]


def test_what_an_interrupted_run_left_is_cleared_up_first(
    work: Worked, device: Device, repository: Repository
) -> None:
    offer(repository)
    (device.store.root / "generations/7.tmp").mkdir()
    assert work() == ["recover", "check", "install"]
    assert events(device)[0] == "recovered"


def test_it_stops_when_it_is_asked_to(
    work: Worked, device: Device, repository: Repository, server: Server
) -> None:
    offer(repository)
    stop = threading.Event()

    def hang(handler: Handler, path: str, body: bytes | None) -> bool:
        if not path.startswith("targets/"):
            return False
        stop.set()
        handler.server.done.wait(30)
        return True

    server.behaviour = hang
    with pytest.raises(CancelledError):
        work.agent.work(stop)
    assert device.live == "26.3.1"
    server.behaviour = None
    with pytest.raises(CancelledError):
        work.agent.work(stop)
    assert work() == ["install"]


def test_one_agent_for_a_store(device: Device) -> None:
    import os

    root = device.store.root
    fd = single.lock(root)
    with pytest.raises(StoreBusyError, match=f"another agent works .* process {os.getpid()}"):
        single.lock(root)
    assert single.holds(root, fd)
    (root / single.NAME).unlink()
    assert not single.holds(root, fd)
    os.close(fd)
    os.close(single.lock(root))


@pytest.mark.parametrize("data", [b"", b"null", b"[1]", b'{"wake": "x"}', b"\xff" * 70_000])
def test_a_damaged_memo_costs_one_look(device: Device, data: Any) -> None:
    (device.store.root / memos.NAME).write_bytes(data)
    assert memos.load(device.store.root) == memos.Memo()
