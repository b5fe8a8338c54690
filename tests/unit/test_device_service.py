"""The device's service: what it says, what it does, and what it refuses."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest

from bsipatch.device.conditions import Answer
from bsipatch.device.service import DeviceService
from bsipatch.device.service_state import Event, State
from bsipatch.errors import (
    BsipatchError,
    CancelledError,
    NotFoundError,
    PolicyError,
    StoreBusyError,
    StoreStateError,
    TransferError,
)
from bsipatch.feed.model import Rollout, Withdrawal
from bsipatch.manifest import Activation
from bsipatch.store import Store
from tests.support.followed import device, repository, server
from tests.support.mirrors import Handler, Server
from tests.support.served import Says, manage, managed, offer, says, service
from tests.support.stores import THIRD, base, store
from tests.support.trees import NEW_FRAMEWORK
from tests.support.tuf_feeds import DAY, NOW, Device, Repository, update

__all__ = ["base", "device", "managed", "repository", "says", "server", "service", "store"]

QUIET = Answer(
    name="quiet", ok=False, code="quiet-hours", text="quiet hours until 07:00", until=NOW + 600.0
)
BATTERY = Answer(name="power", ok=False, code="battery", text="the battery is at 5 %")


def only(state: State) -> tuple[str, bool, set[str]]:
    """The one improvement that is listed: its standing, whether it can be had, what holds it."""
    (one,) = state.listed
    return one.standing, one.installable, {why.code for why in one.why}


# --- what it says ---


def test_before_the_first_check_nothing_is_known(service: DeviceService) -> None:
    state = service.state()
    assert state.standing == "unknown"
    assert "bsipatch check" in state.checks.problem
    assert not state.installed.improvement
    assert not state.installed.removable


def test_a_store_without_a_feed_says_so(store: Store, managed: Path) -> None:
    with DeviceService(store.root, managed=managed) as made:
        assert made.state().standing == "no-feed"
        with pytest.raises(NotFoundError):
            made.check()


def test_an_empty_channel_is_current(service: DeviceService) -> None:
    service.check()
    state = service.state()
    assert (state.standing, state.listed) == ("current", ())
    assert state.checks.last == state.checks.last_success == "2026-03-16T22:43:20Z"


def test_what_can_be_had_is_available(service: DeviceService, repository: Repository) -> None:
    name = offer(repository)
    service.check()
    state = service.state()
    assert state.standing == "available"
    assert only(state) == ("available", True, set())
    (one,) = state.listed
    assert (one.id, one.size) == (name, len(update()[1]))
    assert one.security[0].cves == ("CVE-2026-20643",)
    assert one.security[0].credit == "a researcher"
    assert one.activation.processes == ("Safari",)
    assert state.waiting


@pytest.mark.parametrize(
    ("answer", "standing", "installable"),
    [(QUIET, "available", True), (BATTERY, "waiting", False)],
)
def test_what_only_spares_people_does_not_hold_a_person(
    service: DeviceService,
    repository: Repository,
    says: Says,
    answer: Answer,
    standing: str,
    installable: bool,
) -> None:
    offer(repository)
    says.answers.append(answer)
    service.check()
    state = service.state()
    assert only(state) == (standing, installable, {answer.code})
    assert state.standing == standing
    assert state.waiting


@pytest.mark.parametrize(
    ("text", "code", "standing"),
    [
        ('automatic = "off"', "policy", "available"),  # by itself, that is
        ('install = "forbidden"', "policy", "waiting"),
        ("deferral_days = 5", "deferred", "waiting"),
    ],
)
def test_an_administrator_holds_it(
    service: DeviceService,
    repository: Repository,
    managed: Path,
    text: str,
    code: str,
    standing: str,
) -> None:
    offer(repository)
    manage(managed, text)
    service.check()
    state = service.state()
    assert only(state) == (standing, standing == "available", {code})
    assert state.standing == standing
    assert state.organization == "Example School"
    assert "Example School" in state.listed[0].why[0].text


def test_the_owners_switch_does_not_hold_the_owner(
    service: DeviceService, repository: Repository
) -> None:
    offer(repository)
    service.check()
    service.set_automatic(False)
    state = service.state()
    assert not state.automatic
    assert only(state) == ("available", True, {"policy"})
    service.set_automatic(True)
    assert service.state().automatic


def test_not_yet_in_the_ring_is_waiting(service: DeviceService, repository: Repository) -> None:
    salt = update()[0].id
    offer(repository, rollout=Rollout(start=NOW, steps=((100, NOW + 600),), salt=salt))
    service.check()
    state = service.state()
    assert only(state) == ("waiting", False, {"not-in-ring"})
    assert state.listed[0].why[0].until == "2026-03-16T22:53:20Z"
    assert state.standing == "waiting"


def test_a_failed_check_is_never_called_current(
    service: DeviceService, device: Device, server: Server
) -> None:
    service.check()
    server.behaviour = lambda handler, path, body: handler.answer(503, b"") or True
    with pytest.raises(BsipatchError):
        service.check()
    state = service.state()
    assert state.standing == "unknown"
    assert state.checks.failures == 1
    assert "503" in state.checks.problem
    server.behaviour = None
    service.check()
    assert service.state().standing == "current"
    device.now += 3 * DAY  # longer than the timestamp lives
    state = service.state()
    assert state.standing == "unknown"
    assert "expired" in state.checks.problem


def test_a_broken_policy_is_said_and_nothing_is_done(
    service: DeviceService, repository: Repository, managed: Path
) -> None:
    offer(repository)
    service.check()
    manage(managed, "nonsense = 1")
    state = service.state()
    assert "nonsense" in state.policy_error
    assert (state.standing, state.listed, state.installed.removable) == ("unknown", (), False)
    for change in (service.check, service.install, service.remove):
        with pytest.raises(BsipatchError, match="nonsense"):
            change()


def test_policy_values_with_their_origin(service: DeviceService, managed: Path) -> None:
    manage(managed, 'automatic = "on"\nremoval = "forbidden"')
    values = {value.name: value for value in service.state().policy}
    assert values["automatic"].managed
    assert values["automatic"].value is True
    assert not values["metered"].managed
    assert values["metered"].origins == ("default",)


def test_an_entry_that_cannot_be_read_is_not_called_current(
    service: DeviceService, repository: Repository
) -> None:
    offer(repository, format=2)
    service.check()
    state = service.state()
    assert (state.standing, state.listed) == ("unknown", ())
    assert "format" in state.checks.problem


def test_passwords_of_mirrors_are_not_for_everybody(service: DeviceService, managed: Path) -> None:
    # a feed's address may hold none, but an administrator may have tried
    manage(managed, 'mirrors = ["http://me:Hunter2@127.0.0.1:1/"]')
    with pytest.raises(BsipatchError, match="holds no password"):
        service.check()
    state = service.state()
    assert state.standing == "unknown"
    told = msgspec.json.encode(state).decode()
    assert "Hunter2" not in told
    assert "http://127.0.0.1:1/" in told


# --- what it does ---


def test_install_and_remove_and_have_it_back(
    service: DeviceService, device: Device, repository: Repository
) -> None:
    name = offer(repository)
    service.check()
    outcome = service.install()
    assert (outcome.ok, outcome.changed, outcome.update) == (True, True, name)
    state = service.state()
    assert state.standing == "current"
    assert (state.installed.display, state.installed.removable) == ("26.3.1 (a)", True)
    assert state.installed.security[0].component == "WebKit"
    assert {h.event for h in state.history} >= {"apply", "installed", "check"}
    assert service.remove("a page does not print").changed
    state = service.state()
    assert (state.installed.display, state.standing) == ("26.3.1", "removed")
    assert only(state) == ("removed", True, {"barred"})
    assert not service.install(asked=False).changed
    assert not service.install().changed
    assert service.install(name).changed
    assert device.live == "26.3.1 (a)"


def test_what_was_withdrawn_is_said_and_goes(
    service: DeviceService, device: Device, repository: Repository
) -> None:
    made, data = update()
    path = repository.add(made, data)
    repository.publish()
    service.install()
    notice = Withdrawal(
        reason="it breaks printing",
        at=NOW,
        expires=NOW + DAY,
        revert_installed=True,
        to="baseline",
    )
    repository.change(path, withdrawn=notice)
    repository.publish()
    service.check()
    state = service.state()
    assert (state.standing, state.withdrawn) == ("withdrawn", "it breaks printing")
    outcome = service.install()
    assert outcome.changed
    assert "it breaks printing" in outcome.notes[0]
    assert device.live == "26.3.1"
    assert only(service.state())[0] == "refused"


def test_a_restart_is_needed_and_said(service: DeviceService, repository: Repository) -> None:
    made, data = update(activation=Activation(scope="restart"))
    repository.add(made, data)
    repository.publish()
    service.install()
    state = service.state()
    assert (state.standing, state.needs.scope, state.needs.on_trial) == ("restart", "restart", True)


def test_without_a_mirror_what_was_fetched_is_installed(
    service: DeviceService, device: Device, repository: Repository, server: Server
) -> None:
    offer(repository)
    service.check()
    with device.feed.transport() as transport:
        from bsipatch.device.installing import Installer

        Installer(device.store, device.feed, transport).fetch(device.feed.cached("Demo"))
    server.behaviour = lambda handler, path, body: handler.answer(503, b"") or True
    assert service.install().changed


def test_two_changes_at_once(service: DeviceService, repository: Repository) -> None:
    offer(repository)
    service.check()
    events: list[Event] = []
    refused: list[str] = []

    def listen(event: Event) -> None:
        events.append(event)
        if event.kind == "progress" and event.progress and event.progress.phase:
            with pytest.raises(StoreBusyError) as caught:
                service.check()
            refused.append(str(caught.value))
            assert service.state().progress is not None

    end = service.subscribe(listen)
    service.install()
    assert refused
    assert "install is under way" in refused[0]
    told = [event.progress for event in events if event.progress is not None]
    assert {p.phase for p in told} >= {"downloading", "building"}
    last = [p for p in told if p.phase == "downloading"][-1]
    assert last.done == last.total == len(update()[1])
    assert events[-1].kind == "finished"
    assert service.progress() is None
    end()
    before = len(events)
    service.changed()
    assert len(events) == before


def test_stopping(service: DeviceService, device: Device, repository: Repository) -> None:
    name = offer(repository)
    service.check()
    assert not service.cancel()
    service.subscribe(
        lambda event: (
            service.cancel()
            if event.progress and event.progress.phase == "building" and not event.progress.stopping
            else None
        )
    )
    with pytest.raises(CancelledError):
        service.install(name)
    outcome = service.outcome()
    assert outcome is not None
    assert (outcome.ok, outcome.error) == (False, "cancelled")
    assert device.live == "26.3.1"
    assert service.state().standing == "available"


def test_in_the_background(service: DeviceService, device: Device, repository: Repository) -> None:
    name = offer(repository)
    ended = threading.Event()
    service.subscribe(lambda event: ended.set() if event.kind == "finished" else None)
    assert service.start("install", name).operation == "install"
    assert ended.wait(30)
    assert service.wait(30)
    assert device.live == "26.3.1 (a)"
    assert service.outcome() is not None


def test_closing_ends_what_is_under_way(
    service: DeviceService, repository: Repository, server: Server
) -> None:
    offer(repository)
    reached = threading.Event()

    def slow(handler: Handler, path: str, body: bytes | None) -> bool:
        if not path.startswith("targets/") or body is None:
            return False
        reached.set()
        handler.drip(body)
        return True

    server.behaviour = slow
    service.start("install")
    assert reached.wait(30)
    service.close()
    outcome = service.outcome()
    assert outcome is not None
    assert outcome.error == "cancelled"


# --- what it refuses ---


def test_removal_that_is_forbidden(
    service: DeviceService, device: Device, repository: Repository, managed: Path
) -> None:
    offer(repository)
    service.install()
    manage(managed, 'removal = "forbidden"')
    state = service.state()
    assert not state.installed.removable
    assert "Example School" in state.installed.why_not_removable
    for way in (service.remove, lambda: service.start("remove")):
        with pytest.raises(PolicyError, match="Example School"):
            way()
    assert device.live == "26.3.1 (a)"


def test_nothing_to_remove(service: DeviceService) -> None:
    with pytest.raises(StoreStateError):
        service.remove()


def test_installing_that_is_forbidden(
    service: DeviceService, device: Device, repository: Repository, managed: Path
) -> None:
    name = offer(repository)
    service.check()
    manage(managed, 'install = "forbidden"')
    for way in (service.install, lambda: service.install(name), lambda: service.start("install")):
        with pytest.raises(PolicyError, match="Example School"):
            way()
    assert device.live == "26.3.1"


def test_a_managed_switch(service: DeviceService, managed: Path) -> None:
    manage(managed, 'automatic = "on"')
    with pytest.raises(PolicyError, match="Example School"):
        service.set_automatic(False)
    assert service.state().automatic


def test_an_id_that_is_not_offered(service: DeviceService) -> None:
    with pytest.raises(NotFoundError, match="no-such"):
        service.install("no-such")
    outcome = service.outcome()
    assert outcome is not None
    assert outcome.error == "not-found"


def test_a_payload_that_does_not_come(
    service: DeviceService, device: Device, repository: Repository, server: Server
) -> None:
    name = offer(repository)
    service.check()
    server.behaviour = lambda handler, path, body: (
        path.startswith("targets/") and (handler.answer(500, b"") or True)
    )
    with pytest.raises(TransferError):
        service.install(name)
    assert device.live == "26.3.1"
    assert service.state().history[0].event in ("install-failed", "failed")


def test_a_listener_that_fails_ends_nothing(service: DeviceService, repository: Repository) -> None:
    offer(repository)

    def broken(event: Event) -> None:
        raise RuntimeError("listener")

    service.subscribe(broken)
    assert service.install().changed


def test_an_older_one_that_is_refused_stays_explained(
    service: DeviceService, device: Device, repository: Repository
) -> None:
    made, data = update(THIRD, NEW_FRAMEWORK)
    repository.add(made, data)
    repository.publish()
    service.check()
    state = service.state()
    assert state.standing == "not-offered"
    assert only(state) == ("refused", False, {"wrong-baseline"})
    assert device.live == "26.3.1"
