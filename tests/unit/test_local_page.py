"""The settings page's side of the local interface: a browser's signs, and what foes could send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from bsipatch.device.agent import deciding
from bsipatch.device.pace import SlowTransferError
from bsipatch.device.service import DeviceService
from bsipatch.device.service_state import Standing
from bsipatch.device.transport import HttpStatusError
from bsipatch.device.web import serving
from bsipatch.device.web.access import PageAccess
from bsipatch.device.web.tokens import LIFE, Sessions
from bsipatch.errors import error_classes
from bsipatch.feed.decide import CODES
from bsipatch.store import Event
from tests.support.followed import device, repository, server
from tests.support.served import ME, Running, managed, says, service
from tests.support.stores import base, store

__all__ = ["base", "device", "managed", "repository", "says", "server", "service", "store"]

CHANGES = [
    ("POST", "/v1/check", {}),
    ("POST", "/v1/install", {"update": None}),
    ("POST", "/v1/remove", {}),
    ("POST", "/v1/cancel", {}),
    ("PUT", "/v1/settings", {"automatic": False}),
]


class Browser:
    """A browser's requests, and what a test changes in them."""

    def __init__(self, running: Running, sessions: Sessions) -> None:
        self.running, self.sessions = running, sessions
        self.client = httpx.Client(base_url=running.origin, timeout=60.0)
        self.headers = {"Origin": running.origin, "Sec-Fetch-Site": "same-origin"}
        self.csrf = ""

    def enter(self) -> None:
        told = self.client.post(
            "/v1/session", json={"token": self.sessions.token()}, headers=self.headers
        )
        assert told.status_code == 200
        self.csrf = told.json()["csrf"]
        self.headers["X-Bsipatch-Csrf"] = self.csrf

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str | None
    ) -> httpx.Response:
        given = {**self.headers, **{k.replace("_", "-"): v for k, v in headers.items()}}
        kept = {name: value for name, value in given.items() if value is not None}
        return self.client.request(method, path, json=body, headers=kept)


@pytest.fixture
def allowed() -> set[int]:
    """The users who may change things; a test may change them."""
    return {ME}


@pytest.fixture
def browser(service: DeviceService, allowed: set[int]) -> Iterator[Browser]:
    """A browser on loopback, without a session yet."""
    sessions = Sessions()
    access = PageAccess(sessions, lambda: frozenset(allowed))
    with serving.loopback() as listening, Running(service, listening, access) as running:
        made = Browser(running, sessions)
        with made.client:
            yield made


# --- a browser ---


def test_a_token_is_good_once(browser: Browser) -> None:
    token = browser.sessions.token()
    told = browser.ask("POST", "/v1/session", {"token": token})
    assert told.status_code == 200
    cookie = told.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert str(browser.running.port) in cookie
    browser.client.cookies.clear()
    told = browser.ask("POST", "/v1/session", {"token": token})
    assert (told.status_code, told.json()["error"]) == (403, "token")
    assert "set-cookie" not in told.headers


@pytest.mark.parametrize("token", ["", "x", "é" * 43, "a" * 43])
def test_tokens_that_are_none(browser: Browser, token: str) -> None:
    assert browser.ask("POST", "/v1/session", {"token": token}).status_code == 403


def test_tokens_and_sessions_grow_old() -> None:
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    token = sessions.token()
    now[0] = LIFE + 1
    assert sessions.exchange(token) is None
    made = sessions.exchange(sessions.token())
    assert made is not None
    assert sessions.session(made.key) is made
    assert sessions.session(made.key + "x") is None
    assert not made.says("")
    now[0] += 24 * 3600.0
    assert sessions.session(made.key) is None
    tokens = [sessions.token() for _ in range(17)]
    assert sessions.exchange(tokens[0]) is None
    assert sessions.exchange(tokens[-1]) is not None


def test_the_page_itself_needs_no_session_and_holds_nothing(browser: Browser) -> None:
    told = browser.client.get("/")
    assert told.status_code == 200
    policy = told.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert told.headers["x-content-type-options"] == "nosniff"
    assert told.headers["referrer-policy"] == "no-referrer"
    assert "http://" not in told.text.replace("http://www.w3.org", "")
    assert "https://" not in told.text
    assert "<script>" not in told.text
    assert "style=" not in told.text
    for name in ("page.js", "view.js", "words.js", "page.css", "en.json", "de.json", "icon.svg"):
        assert browser.client.get(f"/{name}").status_code == 200
    assert browser.client.get("/api.py").status_code == 404


@pytest.mark.parametrize("path", ["/v1", "/v1/state", "/v1/events"])
def test_without_a_session_nothing_is_read(browser: Browser, path: str) -> None:
    told = browser.client.get(path)
    assert (told.status_code, told.json()["error"]) == (401, "no-session")


BAD: list[tuple[str, dict[str, str | None], int, str]] = [
    ("a foreign origin", {"Origin": "http://evil.example"}, 403, "origin"),
    ("another port", {"Origin": "http://127.0.0.1:1"}, 403, "origin"),
    ("an opaque origin", {"Origin": "null"}, 403, "origin"),
    ("no origin", {"Origin": None}, 403, "origin"),
    ("another site", {"Sec_Fetch_Site": "cross-site"}, 403, "origin"),
    ("another port's page", {"Sec_Fetch_Site": "same-site"}, 403, "origin"),
    ("no CSRF token", {"X_Bsipatch_Csrf": None}, 403, "csrf"),
    ("a wrong CSRF token", {"X_Bsipatch_Csrf": "x"}, 403, "csrf"),
    ("a rebound name", {"Host": "evil.example", "Origin": "http://evil.example"}, 421, "host"),
    ("a rebound name and our port", {"Host": "evil.example:PORT"}, 421, "host"),
    ("a name that begins well", {"Host": "127.0.0.1.evil.example:PORT"}, 421, "host"),
    ("another port's name", {"Host": "127.0.0.1:1"}, 421, "host"),
    ("a wrong cookie", {"Cookie": "bsipatch-PORT=x"}, 401, "no-session"),
]


@pytest.mark.parametrize(
    ("headers", "status", "error"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_what_another_page_could_send_changes_nothing(
    browser: Browser,
    service: DeviceService,
    headers: dict[str, str | None],
    status: int,
    error: str,
) -> None:
    browser.enter()
    port = str(browser.running.port)
    given = {k: v if v is None else v.replace("PORT", port) for k, v in headers.items()}
    if "Cookie" in given:
        browser.client.cookies.clear()
    for method, path, body in CHANGES:
        told = browser.ask(method, path, body, **given)
        assert (told.status_code, told.json()["error"]) == (status, error), path
    assert not (service.root / "settings.toml").exists()
    assert service.outcome() is None


def test_reads_from_another_page_are_refused_too(browser: Browser) -> None:
    browser.enter()
    assert browser.ask("GET", "/v1/state").status_code == 200
    for headers in ({"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        assert browser.ask("GET", "/v1/state", **headers).status_code == 403
    assert "access-control-allow-origin" not in browser.ask("GET", "/v1/state").headers


def test_our_own_page_changes(browser: Browser, service: DeviceService) -> None:
    browser.enter()
    told = browser.ask("PUT", "/v1/settings", {"automatic": False})
    assert (told.status_code, told.json()) == (200, {"automatic": False})
    assert not service.state().automatic


def test_the_cookie_alone_opens_nothing(browser: Browser) -> None:
    # every program on loopback can have it: browsers send it to all ports
    browser.enter()
    del browser.headers["X-Bsipatch-Csrf"]
    for path in ("/v1", "/v1/state", "/v1/events", "/v1/events?csrf=x", "/v1/state?csrf=x"):
        told = browser.ask("GET", path)
        assert (told.status_code, told.json()["error"]) == (403, "csrf"), path
    assert browser.ask("GET", f"/v1/state?csrf={browser.csrf}").status_code == 403
    assert browser.ask("GET", "/v1/session").status_code == 405
    with browser.client.stream("GET", f"/v1/events?csrf={browser.csrf}") as events:
        assert events.status_code == 200


def test_sessions_do_not_share_their_tokens(browser: Browser) -> None:
    browser.enter()
    first = browser.csrf
    browser.client.cookies.clear()
    browser.enter()
    told = browser.ask("PUT", "/v1/settings", {"automatic": False}, X_Bsipatch_Csrf=first)
    assert told.json()["error"] == "csrf"


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the system does not tell")
def test_another_users_browser_has_a_session_for_nothing(
    browser: Browser, allowed: set[int]
) -> None:
    browser.enter()
    allowed.clear()
    browser.client.close()  # a new connection, a new look
    browser.client = httpx.Client(
        base_url=browser.running.origin, cookies=browser.client.cookies, timeout=60.0
    )
    told = browser.ask("GET", "/v1/state")
    assert (told.status_code, told.json()["error"]) == (403, "forbidden")
    told = browser.ask("POST", "/v1/session", {"token": browser.sessions.token()})
    assert (told.status_code, told.json()["error"]) == (403, "forbidden")


# --- the page's words ---


def test_both_languages_have_the_same_words() -> None:
    folder = Path(serving.__file__).parent / "page"
    english, german = (
        json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("en", "de")
    )
    # The device's own words for errors are English: another language has some to put before them.
    wrong = {key for key in german if key.startswith("wrong.")}
    assert english.keys() == german.keys() - wrong
    kinds = [*error_classes().values(), HttpStatusError, SlowTransferError]
    assert wrong == {f"wrong.{kind.__new__(kind).code}" for kind in kinds}
    assert all("{text}" in german[key] for key in wrong)
    for key, text in english.items():
        holes = {part.partition("}")[0] for part in text.split("{")[1:]}
        theirs = {part.partition("}")[0] for part in german[key].split("{")[1:]}
        assert theirs <= holes, key


def test_every_reason_and_event_has_words() -> None:
    folder = Path(serving.__file__).parent / "page"
    english = json.loads((folder / "en.json").read_text("utf-8"))
    for code in CODES:
        assert f"why.{code}" in english or f"why.{code}.until" in english, code
    told = (Event.__doc__ or "").split("one of")[1].strip().splitlines()
    for event in [name for line in told for name in line.strip().split("  ")[0].split(", ")]:
        assert f"event.{event}" in english, event
    for step in get_args(deciding.Do):
        assert step == "rest" or f"event.{step}-failed" in english, step


def test_every_standing_has_words() -> None:
    folder = Path(serving.__file__).parent / "page"
    english = json.loads((folder / "en.json").read_text("utf-8"))
    for standing in get_args(Standing):
        assert f"standing.{standing}" in english
        said = english[f"standing.{standing}"] + english[f"standing.{standing}.text"]
        assert ("up to date" in said) == (standing == "current")
