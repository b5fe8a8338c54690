"""Tickets: signed for one device, one request and a while; and the service that signs them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from bsipatch import trust
from bsipatch.errors import (
    BsipatchError,
    ConfigError,
    CorruptError,
    ExpiredError,
    FeedError,
    LimitError,
    NotFoundError,
    SignatureError,
    ThresholdError,
    TrustError,
    UsageError,
)
from bsipatch.feed import ticket
from bsipatch.feed.ticket import PAYLOAD_TYPE, Ticket, issue, new_nonce, verify_ticket
from bsipatch.publish.feed.tickets import Grants, make_app, read_grants
from tests.support import updates

NOW = 1_780_000_000
NONCE = "0123456789abcdef" * 2
A, B = "Demo-26.3.1-a-0123456789ab", "Demo-26.3.1-b-0123456789ab"


def make(**changes: Any) -> bytes:
    options: dict[str, Any] = {"now": NOW, "valid": 3600, **changes}
    device = options.pop("device", "lab-7")
    nonce = options.pop("nonce", NONCE)
    allowed = options.pop("updates", [B, A, A])
    return issue(device, nonce, allowed, options.pop("keys", [updates.key()]), **options)


def check(envelope: bytes, **changes: Any) -> Ticket:
    options: dict[str, Any] = {"device": "lab-7", "nonce": NONCE, "now": NOW, **changes}
    return verify_ticket(envelope, options.pop("policy", updates.policy()), **options)


def test_a_ticket_names_what_one_device_may_have() -> None:
    found = check(make())
    assert found.updates == (A, B)
    assert (found.device, found.nonce, found.issued, found.expires) == (
        "lab-7",
        NONCE,
        NOW,
        NOW + 3600,
    )
    assert make() == make(), "the same request gets the same ticket"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"device": "lab-8"}, TrustError),
        ({"nonce": "f" * 32}, TrustError),
        ({"now": NOW + 3600}, ExpiredError),
        ({"now": NOW - 301}, ExpiredError),
        ({"policy": updates.policy(1)}, SignatureError),
        ({"policy": updates.policy(0, 1, threshold=2)}, ThresholdError),
    ],
    ids=["device", "nonce", "late", "early", "another key", "two keys"],
)
def test_a_ticket_is_good_for_nothing_else(
    changes: dict[str, Any], error: type[BsipatchError]
) -> None:
    envelope = make()
    check(envelope)
    with pytest.raises(error):
        check(envelope, **changes)


def test_a_clock_may_be_a_little_late() -> None:
    assert check(make(), now=NOW - 300)
    assert check(make(), now=NOW + 3599)


def test_an_update_signed_by_the_same_key_is_no_ticket() -> None:
    document = msgspec.json.encode({"format": 1})
    with pytest.raises(CorruptError, match="another type"):
        check(trust.sign(document, [updates.key()]))


def spelled(**changes: Any) -> bytes:
    document: dict[str, Any] = {
        "device": "lab-7",
        "expires": NOW + 9,
        "format": 1,
        "issued": NOW,
        "nonce": NONCE,
        "updates": [A],
        **changes,
    }
    return trust.sign(
        msgspec.json.Encoder(order="sorted").encode(document),
        [updates.key()],
        payload_type=PAYLOAD_TYPE,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"extra": 1},
        {"updates": [B, A]},
        {"updates": [A, A]},
        {"updates": ["nonsense"]},
        {"updates": A},
        {"device": "lab 7"},
        {"nonce": "x"},
        {"issued": NOW + 9},
        {"expires": "soon"},
        {"expires": 1 << 60},
    ],
    ids=str,
)
def test_signed_nonsense_is_refused(changes: dict[str, Any]) -> None:
    assert check(spelled())
    with pytest.raises((FeedError, CorruptError)):
        check(spelled(**changes))


def test_another_spelling_is_refused() -> None:
    document = b'{"format": 1}'
    for payload in (document, b"", b"[]", b"[" * 5000):
        envelope = trust.sign(payload, [updates.key()], payload_type=PAYLOAD_TYPE)
        with pytest.raises(CorruptError):
            check(envelope)
    with pytest.raises(CorruptError):
        check(b"nonsense")


def test_a_ticket_is_bounded() -> None:
    many = [f"Demo-26.3.1-a-{number:012x}" for number in range(1025)]
    with pytest.raises(LimitError):
        make(updates=many)
    envelope = trust.sign(b" " * (1 << 18), [updates.key()], payload_type=PAYLOAD_TYPE)
    with pytest.raises(LimitError):
        check(envelope)


def test_nothing_malformed_is_signed() -> None:
    for changes in ({"device": "../x"}, {"nonce": "abc"}, {"updates": ["x"]}):
        with pytest.raises(FeedError):
            make(**changes)
    with pytest.raises(SignatureError):
        make(keys=[])
    with pytest.raises(CorruptError):
        make(valid=0)


def test_nonces_are_fresh() -> None:
    assert len({new_nonce() for _ in range(100)}) == 100
    assert ticket.check_nonce(new_nonce())


# --- the service ---

GRANTS = f"""
[devices."lab-7"]
updates = ["{A}", "{B}"]

[devices."lab-8"]
updates = []

[devices."*"]
updates = ["{A}"]
"""


@pytest.fixture
def grants(tmp_path: Path) -> Path:
    file = tmp_path / "grants.toml"
    file.write_text(GRANTS)
    return file


class Client:
    """Asks an ASGI application, without a network."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        return asyncio.run(run())

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)


@pytest.fixture
def client(grants: Path) -> Client:
    return Client(make_app(Grants(grants), [updates.key()], clock=lambda: NOW))


def ask(client: Client, **changes: Any) -> Any:
    return client.post("/ticket", json={"device": "lab-7", "nonce": NONCE, **changes})


def test_the_service_signs_what_is_granted(client: Client) -> None:
    answer = ask(client)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert check(answer.content).updates == (A, B)
    other = "f" * 32
    found = check(ask(client, device="new", nonce=other).content, device="new", nonce=other)
    assert found.updates == (A,)


def test_the_service_grants_nothing_by_mistake(client: Client, grants: Path) -> None:
    assert ask(client, device="lab-8").status_code == 403
    grants.write_text(f'[devices."lab-7"]\nupdates = ["{A}"]\n')
    assert ask(client, device="stranger").status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"nonsense",
        b"[" * 4000,
        b"\xff",
        json.dumps({"device": "lab-7"}).encode(),
        json.dumps({"device": "lab-7", "nonce": "x"}).encode(),
        json.dumps({"device": "../x", "nonce": NONCE}).encode(),
        json.dumps({"device": ["lab-7"], "nonce": NONCE}).encode(),
        json.dumps({"device": "lab-7", "nonce": NONCE, "extra": 1}).encode(),
    ],
)
def test_malformed_requests_are_answered_with_400(client: Client, body: bytes) -> None:
    answer = client.post("/ticket", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"] == "bad-request"


def test_requests_are_bounded_and_of_one_kind(client: Client) -> None:
    assert client.post("/ticket", content=b" " * 5000).status_code == 413
    assert client.get("/ticket").status_code == 405
    assert client.get("/elsewhere").status_code == 404


def test_grants_are_read_anew_and_a_broken_file_changes_nothing(
    client: Client, grants: Path
) -> None:
    assert client.get("/health").json() == {"ok": True, "problem": None}
    grants.write_text(f'[devices."lab-7"]\nupdates = ["{B}"]\n')
    assert check(ask(client).content).updates == (B,)
    grants.write_text("nonsense = ")
    assert check(ask(client).content).updates == (B,)
    answer = client.get("/health")
    assert answer.status_code == 500
    assert "not TOML" in answer.json()["problem"]
    grants.unlink()
    assert check(ask(client).content).updates == (B,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "devices = 1",
        "[devices.x]",
        "[devices.x]\nupdates = 'a'",
        "[devices.x]\nupdates = ['a']",
        "[devices.x]\nupdates = []\nmore = 1",
        "[devices.'a b']\nupdates = []",
        "[other]\n[devices.x]\nupdates = []",
        "\x00",
    ],
)
def test_a_file_of_grants_that_is_wrong_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "grants.toml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        read_grants(file)


def test_a_missing_file_of_grants_and_a_time_of_nothing(tmp_path: Path, grants: Path) -> None:
    with pytest.raises(NotFoundError):
        Grants(tmp_path / "none.toml")
    with pytest.raises(UsageError):
        make_app(Grants(grants), [updates.key()], valid=0)
