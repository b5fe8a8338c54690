"""The settings page in a real browser: every control, by mouse and by keyboard."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bsipatch.device import relaunch
from bsipatch.device.conditions import Answer
from bsipatch.device.service import DeviceService
from bsipatch.manifest import Activation, SecurityItem
from bsipatch.store import Store, boot_ok, trials
from tests.support.browsers import MARKS, SECURITY, Shown, expect, offered
from tests.support.mirrors import Server
from tests.support.served import ME, Says, manage
from tests.support.stores import THIRD
from tests.support.trees import NEW_FRAMEWORK
from tests.support.tuf_feeds import NOW, Device, Repository, update

pytestmark = MARKS

QUIET = Answer(
    name="quiet", ok=False, code="quiet-hours", text="quiet hours until 07:00", until=NOW + 600.0
)
BATTERY = Answer(name="power", ok=False, code="battery", text="the battery is at 5 %")


# --- every control ---


def test_a_life_by_mouse(
    shown: Shown, service: DeviceService, repository: Repository, device: Device
) -> None:
    name = offered(repository, offer={"release_notes": "https://example.org/notes"})
    page = shown.open()
    shown.head("Not known")
    expect(page.locator("#automatic")).to_be_visible()

    page.click("#check")
    shown.head("An improvement is available: 26.3.1 (a)")
    shown.said("Checked.")
    offers = page.locator("#offers-list")
    for text in (*(c for item in SECURITY for c in item.cves), "JavaScriptCore", "anonymous"):
        expect(offers).to_contain_text(text)
    expect(offers).to_contain_text("relaunched: Safari")
    link = offers.get_by_role("link", name="Release notes")
    assert link.get_attribute("href") == "https://example.org/notes"
    assert link.get_attribute("rel") == "noopener noreferrer"
    shown.accessible()
    shown.picture("settings-available")

    page.get_by_role("button", name="Install", exact=True).click()
    shown.head("WebKit 26.3.1 (a) is up to date")
    shown.said("Installed.")
    assert device.live == "26.3.1 (a)"
    expect(page.locator("#installed-body")).to_contain_text("CVE-2026-20643")
    expect(page.locator("#offers")).to_be_hidden()
    expect(page.locator("#history-list")).to_contain_text("Installed")
    shown.accessible()
    shown.picture("settings-installed")

    page.click("#switch")
    expect(page.locator("#switch")).to_have_attribute("aria-checked", "false")
    assert not service.state().automatic
    page.click("#switch")
    expect(page.locator("#switch")).to_have_attribute("aria-checked", "true")

    page.click("#remove")
    expect(page.locator("#ask")).to_be_visible()
    shown.accessible()
    page.click("#ask-no")
    assert device.live == "26.3.1 (a)"
    page.click("#remove")
    page.click("#ask-yes")
    shown.head("An improvement was removed: 26.3.1 (a)")
    assert device.live == "26.3.1"
    expect(page.locator("#offers-list")).to_contain_text("You removed this improvement")

    page.locator("#history button").click()
    expect(page.locator("#history li")).to_have_count(6)
    page.locator("#history button").click()
    expect(page.locator("#history li")).to_have_count(5)

    page.select_option("#language", "de")
    shown.head("Eine Verbesserung wurde entfernt")
    page.locator(f'[data-key="install-{name}"]').click()
    shown.head("ist aktuell")
    assert device.live == "26.3.1 (a)"


def test_a_life_by_keyboard(
    shown: Shown, service: DeviceService, repository: Repository, device: Device
) -> None:
    name = offered(repository)
    page = shown.open()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    shown.press("#check", "Enter")
    shown.head("An improvement is available")
    shown.press("#switch", "Space")
    expect(page.locator("#switch")).to_have_attribute("aria-checked", "false")
    assert page.evaluate("document.activeElement.id") == "switch"
    expect(page.locator("#standing-text")).to_contain_text("not installed automatically")
    shown.press(f'[data-key="install-{name}"]', "Enter")
    shown.head("up to date")
    assert device.live == "26.3.1 (a)"
    shown.press("#remove", "Enter")
    expect(page.locator("#ask")).to_be_visible()
    assert page.evaluate("document.activeElement.id") == "ask-no"
    page.keyboard.press("Escape")
    expect(page.locator("#ask")).to_be_hidden()
    assert page.evaluate("document.activeElement.id") == "remove"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "ask-yes"
    page.keyboard.press("Enter")
    shown.head("An improvement was removed")
    assert device.live == "26.3.1"
    assert page.evaluate("document.activeElement.id") == "main"  # not lost with the button
    shown.press("#check", "Space")
    shown.press("#more", "Enter")
    expect(page.locator("#more")).to_have_attribute("aria-expanded", "true")
    shown.press("#language", "ArrowDown")
    shown.head("Eine Verbesserung wurde entfernt")


def slow_targets(handler: Any, path: str, body: bytes | None) -> bool:
    """What the server does when updates are to take their time."""
    if not path.startswith("targets/") or body is None:
        return False
    handler.drip(body, 0.01)
    return True


def test_true_progress_and_stopping(
    shown: Shown, service: DeviceService, repository: Repository, server: Server, device: Device
) -> None:
    offered(repository)
    service.check()
    size = len(update(product="WebKit", security=SECURITY)[1])
    server.behaviour = slow_targets
    page = shown.open()
    page.get_by_role("button", name="Install", exact=True).click()
    bar = page.locator("#bar")
    expect(bar).to_be_visible()
    expect(bar).to_have_attribute("max", str(size))
    expect(page.locator("#progress-text")).to_have_text(
        re.compile(r"Downloading · \d.* of \d.* · \d+ (seconds?|minutes?) left")
    )
    value = int(bar.get_attribute("value") or 0)
    assert 0 < value < size
    shown.said("Downloading")
    shown.head("Installing 26.3.1 (a)")
    for button in ("#check", "#offers-list button"):
        expect(page.locator(button)).to_have_attribute("aria-disabled", "true")
    shown.accessible()
    shown.picture("settings-progress")
    shown.press("#stop", "Enter")
    shown.said("Stopped. Nothing was changed.")
    expect(bar).to_be_hidden()
    assert page.evaluate("document.activeElement.id") == "main"  # not lost with the button
    shown.head("An improvement is available")
    assert device.live == "26.3.1"


def test_another_processs_progress(
    shown: Shown, service: DeviceService, repository: Repository, server: Server, device: Device
) -> None:
    offered(repository)
    service.check()
    server.behaviour = slow_targets
    page = shown.open()
    with DeviceService(
        service.root, clock=lambda: device.now, managed=service.root / "etc", managed_owner=ME
    ) as agent:
        agent.start("install")
        expect(page.locator("#progress-text")).to_contain_text("Downloading")
        expect(page.locator("#stop")).to_be_hidden()
        expect(page.locator("#offers-list button")).to_have_attribute("aria-disabled", "true")
        agent.cancel()
        expect(page.locator("#progress")).to_be_hidden()
        expect(page.locator("#offers-list button")).not_to_have_attribute("aria-disabled", "true")


# --- what it says ---


@pytest.mark.parametrize(
    ("answer", "text", "head", "installable"),
    [
        (QUIET, "", "available", True),
        (BATTERY, "", "waiting", False),
        (None, 'install = "forbidden"', "waiting", False),
        (None, "deferral_days = 9", "waiting", False),
        (None, 'automatic = "off"', "available", True),
    ],
)
def test_what_waits_is_never_up_to_date(
    shown: Shown,
    service: DeviceService,
    repository: Repository,
    says: Says,
    managed: Path,
    answer: Answer | None,
    text: str,
    head: str,
    installable: bool,
) -> None:
    offered(repository)
    if answer is not None:
        says.answers.append(answer)
    if text:
        manage(managed, text)
    service.check()
    page = shown.open()
    shown.head(head)
    assert "up to date" not in page.inner_text("body")
    expect(page.locator("#offers-list h4")).to_contain_text("Why it is not installed")
    button = page.locator("#offers-list button")
    assert (button.get_attribute("aria-disabled") is None) == installable
    if not installable:
        button.click(force=True)
        button.press("Enter")
        assert service.progress() is None
        assert service.state().installed.display == "26.3.1"


def test_managed_values_are_shown_as_managed(
    show: Callable[..., Shown], service: DeviceService, repository: Repository, managed: Path
) -> None:
    offered(repository)
    service.install()
    manage(managed, 'automatic = "on"\nremoval = "forbidden"\nchannel = "release"')
    shown = show(color_scheme="dark", locale="de-DE")
    page = shown.open()
    switch = page.locator("#switch")
    expect(switch).to_have_attribute("aria-disabled", "true")
    expect(switch).to_have_attribute("aria-checked", "true")
    expect(page.locator("#automatic-text")).to_contain_text("festgelegt von Example School")
    expect(page.locator("#remove-text")).to_contain_text("untersagt von Example School")
    for key in ("Enter", "Space"):
        switch.press(key)
        page.locator("#remove").press(key)
    switch.click(force=True)
    page.locator("#remove").click(force=True)
    expect(page.locator("#ask")).to_be_hidden()
    rules = page.locator("#rules-list")
    expect(rules).to_contain_text("Automatische Installation")
    expect(rules).to_contain_text("managed.toml")
    assert not (service.root / "settings.toml").exists()
    assert service.state().installed.improvement
    shown.accessible()
    shown.picture("settings-managed-dark-german")


def test_what_a_change_still_needs(
    show: Callable[..., Shown], service: DeviceService, repository: Repository
) -> None:
    offered(repository, activation=Activation(scope="restart"))
    service.install()
    shown = show(color_scheme="dark", reduced_motion="reduce")
    page = shown.open()
    shown.head("Restart to finish")
    expect(page.locator("#needs")).to_contain_text("Restart this device")
    assert "up to date" not in page.inner_text("body")
    shown.accessible()


def test_what_is_on_trial_is_not_called_up_to_date(
    shown: Shown,
    service: DeviceService,
    repository: Repository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offered(repository, activation=Activation(scope="restart"))
    service.install()
    monkeypatch.setattr(trials, "boot_id", lambda: "the next start")
    page = shown.open()
    shown.head("26.3.1 (a) is being tried out")
    expect(page.locator("#standing-text")).to_contain_text("comes back by itself")
    assert "up to date" not in page.inner_text("body")
    shown.accessible()
    with Store(service.root) as store:
        boot_ok(store)
    shown.head("WebKit 26.3.1 (a) is up to date")
    expect(page.locator("#history-list")).to_contain_text("Proved itself")


def test_going_back_may_need_a_restart(
    shown: Shown,
    service: DeviceService,
    repository: Repository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offered(repository, activation=Activation(scope="restart"))
    service.install()
    service.remove()
    monkeypatch.setattr(relaunch, "restarted", lambda since: False)
    shown.open()
    shown.head("Restart to finish going back to 26.3.1")


def test_why_something_is_not_offered(
    shown: Shown, service: DeviceService, repository: Repository
) -> None:
    made, data = update(THIRD, NEW_FRAMEWORK, product="WebKit")
    repository.add(made, data)
    repository.publish()
    service.check()
    page = shown.open()
    shown.head("none for this device")
    expect(page.locator("#refused-list")).to_contain_text("its baseline is another tree")
    shown.accessible()


def test_reasons_and_failures_in_german(
    show: Callable[..., Shown],
    service: DeviceService,
    server: Server,
    repository: Repository,
    managed: Path,
) -> None:
    """A reason is German; an error is, with the device's own words behind it for who helps."""
    made, data = update(THIRD, NEW_FRAMEWORK, product="WebKit")
    repository.add(made, data)
    repository.publish()
    service.check()
    hours = "{from = '22:00', to = '06:00', days = ['mon', 'fri']}"
    manage(managed, f'metered = "wait"\nquiet_hours = [{hours}]')
    shown = show(locale="de-DE")
    page = shown.open()
    expect(page.locator("#refused-list")).to_have_text(
        re.compile("baut auf einem anderen Stand auf")
    )
    expect(page.locator("#rules-list")).to_contain_text("22:00–06:00 (Mo, Fr)")
    expect(page.locator("#rules-list")).to_contain_text("warten")
    server.behaviour = lambda handler, path, body: handler.answer(503, b"") or True
    page.click("#check")
    shown.said("Das ist misslungen: Die Gegenstelle hat es abgelehnt.")
    shown.said("503")


def test_a_fault_of_accessibility_would_be_found(shown: Shown) -> None:
    page = shown.open()
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('img'), {src: '/icon.svg'}))"
    )
    with pytest.raises(AssertionError, match="image-alt"):
        shown.accessible()


def test_text_from_the_feed_stays_text(
    shown: Shown, service: DeviceService, repository: Repository
) -> None:
    evil = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
    item = SecurityItem(component=evil, impact=evil, credit=evil)
    made, data = update(
        product="WebKit", security=(item,), offer={"release_notes": 'https://e.org/"><b>'}
    )
    repository.add(made, data)
    repository.publish()
    service.check()
    page = shown.open()
    expect(page.locator("#offers-list")).to_contain_text("<img src=x")
    assert page.locator("#offers-list img, #offers-list script, #offers-list b").count() == 0
    assert page.title() == "Background Security Improvements"


def test_what_others_change_is_seen(shown: Shown, service: DeviceService) -> None:
    page = shown.open()
    (service.root / "settings.toml").write_text("automatic = false\n")
    expect(page.locator("#switch")).to_have_attribute("aria-checked", "false")


def test_a_failure_is_told(
    shown: Shown, service: DeviceService, server: Server, repository: Repository
) -> None:
    offered(repository)
    service.check()
    server.behaviour = lambda handler, path, body: handler.answer(503, b"") or True
    page = shown.open()
    page.click("#check")
    shown.said("That did not work:")
    expect(page.locator("#said")).to_have_class(re.compile("bad"))
    expect(page.locator("#checked")).to_contain_text("Failed checks since: 1")
    assert "up to date" not in page.inner_text("body")
