"""The settings page where a person, or the device, is faster than the other."""

from __future__ import annotations

import re
import threading

import pytest

from bsipatch.device.feed_client import FeedView
from bsipatch.device.installing import Installer
from bsipatch.device.service import DeviceService
from bsipatch.errors import StoreBusyError
from tests.support.browsers import MARKS, Shown, expect, offered
from tests.support.tuf_feeds import Device, Repository

pytestmark = MARKS


def test_an_answer_belongs_to_its_question(
    shown: Shown, service: DeviceService, repository: Repository, device: Device
) -> None:
    """A dialog's "close" comes later than its closing: asked again before it, it is another one."""
    offered(repository)
    service.install()
    page = shown.open()
    page.evaluate(
        """() => { for (const id of ["remove", "ask-no", "remove"])
        document.getElementById(id).click(); }"""
    )
    page.click("#ask-yes")
    shown.head("An improvement was removed")
    assert device.live == "26.3.1"


def test_what_is_refused_is_said_and_can_be_repeated(
    shown: Shown,
    service: DeviceService,
    repository: Repository,
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def busy(*arguments: object, **more: object) -> None:
        raise StoreBusyError("process 17 is busy with check", hint="Wait for its end.")

    offered(repository)
    service.install()
    page = shown.open()
    with monkeypatch.context() as patched:
        patched.setattr(service, "start", busy)
        page.click("#remove")
        page.click("#ask-yes")
        shown.said("process 17 is busy with check")
        expect(page.locator("#said")).to_have_class(re.compile("bad"))
    shown.head("up to date")
    page.click("#remove")
    page.click("#ask-yes")
    shown.head("An improvement was removed")
    assert device.live == "26.3.1"


def test_what_is_not_over_is_not_called_up_to_date(
    shown: Shown,
    service: DeviceService,
    repository: Repository,
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is live moves before the work on it is over, and so before it can be taken off."""
    moved, over = threading.Event(), threading.Event()

    def tidy(installer: Installer, view: FeedView) -> None:
        moved.set()
        assert over.wait(60)

    offered(repository)
    service.check()
    page = shown.open()
    monkeypatch.setattr(Installer, "_tidy", tidy)
    try:
        page.get_by_role("button", name="Install", exact=True).click()
        assert moved.wait(60)
        assert device.live == "26.3.1 (a)"
        page.reload()
        shown.head("Installing 26.3.1 (a)")
        expect(page.locator("#remove")).to_have_attribute("aria-disabled", "true")
        assert "up to date" not in page.inner_text("body")
    finally:
        over.set()
    shown.head("up to date")
    expect(page.locator("#remove")).not_to_have_attribute("aria-disabled", "true")
