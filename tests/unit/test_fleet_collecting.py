"""The collector of reports: keeps what is one, and refuses everything else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from bsipatch.errors import NotFoundError
from bsipatch.fleet import model
from bsipatch.fleet.collecting import Folder, application

NOW = 1_800_000_000.0  # 2027-01-15T08:00Z
DAY = 86_400
WHO = "0123456789abcdef" * 2
JSON = {"Content-Type": "application/json"}


def report(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "device": WHO,
        "period": "2027-01",
        "made": int(NOW),
        "product": "Demo",
        "platform": "any",
        "version": "26.3.1",
        "channel": "release",
    }
    return {**fields, **changes}


class Collected:
    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder, self.now = folder, NOW
        self.kept = Folder(folder, clock=lambda: self.now, **options)
        self.app = application(self.kept)

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://c") as client:
                return await client.request(method, path, **more)

        return asyncio.run(asked())

    def post(self, body: Any, **headers: str) -> int:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        told = self.ask("POST", "/report", content=data, headers={**JSON, **headers})
        assert told.headers["content-type"] == "application/json"
        return int(told.status_code)

    @property
    def files(self) -> list[str]:
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*.*"))


@pytest.fixture
def collected(tmp_path: Path) -> Collected:
    return Collected(tmp_path)


def test_one_file_a_device_and_day(collected: Collected) -> None:
    assert collected.post(report()) == 200
    assert collected.post(report(letter="a")) == 200
    assert collected.post(report(device="f" * 32)) == 200
    assert collected.files == [f"2027-01-15/{WHO}.json", f"2027-01-15/{'f' * 32}.json"]
    kept = (collected.folder / f"2027-01-15/{WHO}.json").read_bytes()
    assert model.decode(kept.strip()).letter == "a"
    collected.now += DAY
    assert collected.post(report(made=int(collected.now))) == 200
    assert f"2027-01-16/{WHO}.json" in collected.files


def test_an_older_one_replaces_nothing(collected: Collected) -> None:
    collected.post(report(letter="b"))
    answer = collected.ask(
        "POST", "/report", content=json.dumps(report(made=int(NOW) - 7200)), headers=JSON
    )
    assert (answer.status_code, answer.json()) == (200, {"kept": False})
    kept = (collected.folder / f"2027-01-15/{WHO}.json").read_bytes()
    assert model.decode(kept.strip()).letter == "b"


UPDATE = {"id": "u", "state": "waiting", "published": 1}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": 1}',
        report(device="../../../../etc/passwd"),
        report(device="0" * 31),
        report(device="A" * 32),
        report(device=f"{WHO}\n"),
        report(format=2),
        report(made=-1),
        report(made=1 << 50),
        report(made=1.5),
        report(made=int(NOW) - 3 * DAY),
        report(made=int(NOW) + DAY),
        report(period="2027-02"),
        report(period="2027-13"),
        report(product=""),
        report(product="\x1b[2J"),
        report(version="\u202e"),
        report(version="v" * 201),
        report(channel="nightly"),
        report(more=1),
        report(address="192.0.2.1"),
        report(updates=[UPDATE, UPDATE]),
        report(updates=[{**UPDATE, "id": str(n)} for n in range(65)]),
        report(updates=[{**UPDATE, "reason": "/home/somebody"}]),
        report(updates=[{**UPDATE, "ring": 101}]),
        report(updates=[{**UPDATE, "state": "protected"}]),
        json.dumps(report()).encode() * 2,
    ],
)
def test_what_is_no_report(collected: Collected, body: Any) -> None:
    assert collected.post(body) == 422
    assert collected.files == []


def test_more_than_a_report_may_have(collected: Collected) -> None:
    assert collected.post(b" " * (model.MOST_BYTES + 1)) == 413

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 65536

    told = collected.ask("POST", "/report", content=endless(), headers=JSON)
    assert told.status_code == 413
    assert collected.files == []


def test_other_types_methods_and_paths(collected: Collected) -> None:
    body = json.dumps(report()).encode()
    assert collected.post(body, **{"Content-Type": "text/plain"}) == 415
    assert collected.post(body, **{"Content-Encoding": "gzip"}) == 415
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        assert collected.ask(method, "/report").status_code == 405
    for path in ("/", "/report/", f"/2027-01-15/{WHO}.json", "/reports"):
        told = collected.ask("GET", path)
        assert told.status_code in (307, 404), path
    assert collected.ask("GET", "/health").json() == {"ok": True}
    assert collected.files == []


def test_only_the_products_asked_for(tmp_path: Path) -> None:
    collected = Collected(tmp_path, products=frozenset({"Demo"}))
    assert collected.post(report(product="Other")) == 422
    assert collected.post(report()) == 200


def test_made_up_devices_do_not_fill_the_disk(tmp_path: Path) -> None:
    collected = Collected(tmp_path, most=3)
    told = [collected.post(report(device=f"{n:032x}")) for n in range(5)]
    assert told == [200, 200, 200, 507, 507]
    assert collected.post(report(device=f"{1:032x}", letter="a")) == 200  # one that is known
    again = Collected(tmp_path, most=3)  # after a restart as well
    assert again.post(report(device="e" * 32)) == 507
    again.now += DAY
    assert again.post(report(made=int(again.now))) == 200


def test_old_days_are_forgotten(tmp_path: Path) -> None:
    for name in ("2026-10-01", "2027-01-10", "notes", "2026-10-01.txt"):
        (tmp_path / name).mkdir()
    collected = Collected(tmp_path, keep=30)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["2026-10-01.txt", "2027-01-10", "2027-01-15", "notes"]
    collected.now += 40 * DAY
    collected.post(report(made=int(collected.now), period="2027-02"))
    assert "2027-01-10" not in [p.name for p in tmp_path.iterdir()]


def test_a_damaged_file_is_replaced(collected: Collected) -> None:
    collected.post(report())
    (collected.folder / f"2027-01-15/{WHO}.json").write_bytes(b"half")
    assert collected.post(report(letter="c")) == 200


def test_nowhere_to_keep_them(tmp_path: Path, collected: Collected) -> None:
    with pytest.raises(NotFoundError):
        Folder(tmp_path / "missing")
    (collected.folder / "2027-01-16").write_text("a file is in the way")
    collected.now += DAY
    assert collected.post(report(made=int(collected.now))) == 500


def test_what_is_kept_is_what_was_checked(collected: Collected) -> None:
    """Not the bytes that came: a name twice or a strange spelling does not reach other readers."""
    data = json.dumps(report()).encode().replace(b'"26.3.1"', b'"x", "version": "26.3.1"')
    assert collected.post(b"\n\t " + data) == 200
    (file,) = collected.folder.glob("*/*.json")
    assert file.read_bytes() == model.encode(msgspec.convert(report(), model.Report))
