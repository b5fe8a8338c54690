"""The settings page against its foes, in a real browser: other pages, used and missing tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bsipatch.device.service import DeviceService
from bsipatch.device.web import serving
from bsipatch.device.web.access import PageAccess
from bsipatch.device.web.tokens import Sessions
from tests.support.browsers import MARKS, Shown, expect, offered
from tests.support.mirrors import serving as mirror
from tests.support.served import ME, Running
from tests.support.tuf_feeds import Device, Repository

pytestmark = MARKS


def test_without_its_token_it_shows_and_does_nothing(shown: Shown, service: DeviceService) -> None:
    page = shown.page
    page.goto(shown.running.origin)
    expect(page.locator("#problem")).to_contain_text("was not opened with its address")
    for section in ("standing", "automatic", "installed", "offers", "history"):
        expect(page.locator(f"#{section}")).to_be_hidden()
    shown.accessible()
    status = page.evaluate(
        """async () => (await fetch("/v1/settings", { method: "PUT",
        headers: { "Content-Type": "application/json" }, body: '{"automatic":false}' })).status"""
    )
    assert status == 401
    assert not (service.root / "settings.toml").exists()


def test_an_address_is_good_once_and_leaves_no_trace(
    show: Callable[..., Shown],
) -> None:
    first, second = show(), show()
    url = first.url
    first.page.goto(url)
    expect(first.page.locator("#standing")).to_be_visible()
    assert first.page.url == f"{first.running.origin}/"
    (cookie,) = first.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert first.page.evaluate("document.cookie") == ""
    first.page.reload()
    expect(first.page.locator("#standing")).to_be_visible()
    second.page.goto(url)
    expect(second.page.locator("#problem")).to_contain_text("used already")
    expect(second.page.locator("#standing")).to_be_hidden()


FOREIGN = """<!doctype html><meta charset="utf-8"><title>foreign</title>
<iframe name="f"></iframe><iframe id="framed" src="ORIGIN/"></iframe>
<form method="post" action="ORIGIN/v1/remove" enctype="text/plain" target="f">
<input name='{"a":"' value='"}'></form>
<script>
async function attack() {
  const told = [];
  const tries = [
    ["POST", "/v1/remove", {}], ["POST", "/v1/check", {}],
    ["PUT", "/v1/settings", { "Content-Type": "application/json", "X-Bsipatch-Csrf": "x" }],
    ["POST", "/v1/remove", { "Content-Type": "application/json" }],
    ["GET", "/v1/state", {}], ["GET", "/v1/session", {}],
  ];
  for (const [method, path, headers] of tries) {
    for (const mode of ["cors", "no-cors"]) {
      try {
        const answer = await fetch("ORIGIN" + path, { method, mode, headers,
          credentials: "include", body: method === "GET" ? undefined : "{}" });
        told.push(mode === "cors" ? answer.status : (await answer.text()).length);
      } catch { told.push(0); }
    }
  }
  document.forms[0].submit();
  return told;
}
</script>"""


def test_a_foreign_page_changes_and_reads_nothing(
    shown: Shown, service: DeviceService, repository: Repository, device: Device
) -> None:
    offered(repository)
    service.install()
    before = service.outcome()
    shown.open()
    files: dict[str, bytes] = {}
    with mirror(files) as foreign:
        files["evil.html"] = FOREIGN.replace("ORIGIN", shown.running.origin).encode()
        page = shown.context.new_page()  # in the same browser, with the session's cookie
        page.goto(f"{foreign.url.rstrip('/')}/evil.html")
        told = page.evaluate("attack()")
        page.wait_for_timeout(300)
        assert set(told) == {0}
        assert page.frame_locator("#framed").locator("#standing").count() == 0
    assert device.live == "26.3.1 (a)"
    assert service.outcome() == before
    assert not (service.root / "settings.toml").exists()


def test_the_end_of_the_server_is_said(service: DeviceService, browser: Any) -> None:
    sessions = Sessions()
    with serving.loopback() as listening:
        access = PageAccess(sessions, lambda: frozenset({ME}))
        with Running(service, listening, access) as running:
            shown = Shown(running, sessions, browser)
            page = shown.open()
    page.click("#check")
    expect(page.locator("#problem")).to_contain_text("has ended")
    shown.context.close()
