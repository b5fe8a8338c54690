"""The device's service beside others: programs that still run, further processes on one store."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bsipatch.device import relaunch, schedule, service_beacon
from bsipatch.device.service import DeviceService
from bsipatch.device.service_state import Event, Process, State
from bsipatch.errors import BsipatchError, NotFoundError, PolicyError, StoreBusyError
from bsipatch.feed.model import Withdrawal
from bsipatch.manifest import Activation
from bsipatch.store import Store
from tests.support.followed import device, repository, server
from tests.support.served import ME, manage, managed, offer, says, service
from tests.support.stores import base, store
from tests.support.tuf_feeds import DAY, NOW, Device, Repository, update

__all__ = ["base", "device", "managed", "repository", "says", "server", "service", "store"]


def test_going_back_needs_a_restart_too(
    service: DeviceService, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, data = update(activation=Activation(scope="restart"))
    repository.add(made, data)
    repository.publish()
    service.install()
    service.remove()
    known: list[bool | None] = [False]
    monkeypatch.setattr(relaunch, "restarted", lambda since: known[0])
    assert (service.state().standing, service.state().needs.scope) == ("restart", "restart")
    for known[0] in (True, None):
        assert (service.state().standing, service.state().needs.scope) == ("removed", "")


def test_programs_that_still_run_are_named(
    service: DeviceService, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(repository)
    service.install()
    asked: list[object] = []

    def running(names: tuple[str, ...], since: float) -> tuple[Process, ...]:
        asked.append(names)
        return (Process(name="Safari", pid=17),)

    monkeypatch.setattr(relaunch, "running", running)
    needed = service.state().needs
    assert (needed.scope, needed.processes[0].pid) == ("relaunch", 17)
    service.remove()
    assert service.state().needs.scope == "relaunch"
    assert asked == [("Safari",), ("Safari",)]


# --- programs that still run ---


def test_programs_that_began_before(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "stat").write_text("cpu 1 2\nbtime 1000\n")
    for pid, name, ticks in ((7, "Safari", 100), (8, "Safari", 100_000), (9, "x) S (y", 5)):
        made = proc / str(pid)
        made.mkdir()
        (made / "comm").write_text(f"{name}\n")
        fields = ["S", *["0"] * 18, str(ticks), "0"]
        (made / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")
    found = relaunch.running(["Safari", "Mail"], 1500.0, proc=proc)
    assert [(p.name, p.pid) for p in found] == [("Safari", 7)]
    assert relaunch.running(["x) S (y"], 1500.0, proc=proc)[0].pid == 9
    assert relaunch.running([], 1500.0, proc=proc) == ()
    assert relaunch.running(["Safari"], 1500.0, proc=tmp_path / "none") == ()
    assert relaunch.restarted(1500.0, proc=proc) is None
    (proc / "8").rename(proc / "1")
    assert relaunch.restarted(1500.0, proc=proc)
    assert relaunch.restarted(3500.0, proc=proc) is False


def test_a_check_is_written_down_for_other_processes(service: DeviceService) -> None:
    service.check()
    saved = schedule.load(service.root / schedule.NAME)
    assert saved is not None
    assert saved.last_success == NOW
    assert saved.next_check > NOW


# --- several processes ---


def test_another_processs_operation_is_seen_and_respected(
    service: DeviceService, device: Device, repository: Repository, managed: Path
) -> None:
    offer(repository)
    service.check()
    with DeviceService(
        service.root, clock=lambda: device.now, managed=managed, managed_owner=ME
    ) as other:
        seen: list[State] = []

        def listen(event: Event) -> None:
            if event.progress and event.progress.phase == "building":
                seen.append(other.state())
                for way in (other.check, lambda: other.start("install")):
                    with pytest.raises(StoreBusyError, match="install since"):
                        way()
                assert not other.cancel()

        service.subscribe(listen)
        service.install()
        assert seen
        progress = seen[0].progress
        assert progress is not None
        assert (progress.operation, progress.phase) == ("install", "building")
        assert progress.process == os.getpid()
        assert seen[0].standing == "available"
        assert other.progress() is None
        assert other.check().ok


def test_a_killed_processs_operation_is_none(service: DeviceService) -> None:
    path = service.root / service_beacon.NAME
    path.write_bytes(b'{"operation":"install","update":"","began":"x"}')
    assert service.progress() is None
    assert service.check().ok


def test_the_beacon_is_for_its_owner_alone(service: DeviceService) -> None:
    service.check()
    path = service.root / service_beacon.NAME
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == b""
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(BsipatchError):
        service.check()
    assert service.progress() is None


def test_a_busy_feed_is_no_failed_check(service: DeviceService, device: Device) -> None:
    service.check()
    before = schedule.load(service.root / schedule.NAME)
    logged = service.log.read()
    with device.feed.store.changing("a long refresh"), pytest.raises(StoreBusyError):
        service.check()
    assert schedule.load(service.root / schedule.NAME) == before
    assert service.log.read() == logged


def test_the_state_is_known_while_another_process_refreshes(
    service: DeviceService, device: Device, repository: Repository
) -> None:
    offer(repository)
    device.refresh()
    with device.feed.store.changing("a long refresh"):
        assert [one.standing for one in service.state().listed] == ["available"]


# --- a withdrawal where installing is forbidden ---


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("started", [True, False])
def test_no_policy_keeps_on_what_was_withdrawn(
    service: DeviceService,
    device: Device,
    repository: Repository,
    managed: Path,
    known: bool,
    started: bool,
) -> None:
    made, data = update()
    path = repository.add(made, data)
    repository.publish()
    service.install()
    manage(managed, 'install = "forbidden"')
    with pytest.raises(PolicyError, match="Example School"):
        service.install()
    notice = Withdrawal(
        reason="it breaks printing",
        at=NOW,
        expires=NOW + DAY,
        revert_installed=True,
        to="baseline",
    )
    repository.change(path, withdrawn=notice)
    other, more = update(letter="b", build="25D771280b", offer={"sequence": 2})
    repository.add(other, more)
    repository.publish()
    if known:
        service.check()
    if started and not known:
        with pytest.raises(PolicyError):  # nobody knows of it yet, and a person gets an answer
            service.start("install")
        return
    if started:
        service.start("install")
        assert service.wait(60)
        outcome = service.outcome()
    else:
        outcome = service.install(other.id)
    assert outcome is not None
    assert (outcome.ok, outcome.changed) == (True, True)
    assert "it breaks printing" in outcome.notes[0]
    assert device.live == "26.3.1", "taken off, and nothing put on"


def test_forbidden_is_forbidden_without_a_feed_too(
    service: DeviceService, managed: Path, repository: Repository
) -> None:
    manage(managed, 'install = "forbidden"')
    del repository.files["metadata/timestamp.json"]
    with pytest.raises(PolicyError, match="Example School"):
        service.install()


def test_forbidden_is_forbidden_where_no_feed_is_followed(store: Store, managed: Path) -> None:
    manage(managed, 'install = "forbidden"')
    with DeviceService(store.root, managed=managed, managed_owner=ME) as made:
        for refused in (made.install, lambda: made.start("install")):
            with pytest.raises(PolicyError, match="Example School"):
                refused()
        (managed / "managed.toml").unlink()
        with pytest.raises(NotFoundError):
            made.install()
