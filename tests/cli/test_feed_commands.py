"""The commands of a device's feed, run as a person or program runs them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bsipatch.cli import _feed, main
from bsipatch.device.feed_client import opened
from bsipatch.publish.keyfiles import write_key_pair
from bsipatch.store import Store, lock
from tests.support.mirrors import Server, serving
from tests.support.stores import THIRD, base, store
from tests.support.trees import NEW_FRAMEWORK, write_tree
from tests.support.tuf_feeds import Repository, update

__all__ = ["base", "store"]


@pytest.fixture
def repository() -> Repository:
    import time

    return Repository(now=int(time.time()))


@pytest.fixture
def server(repository: Repository) -> Iterator[Server]:
    offer, data = update(expires=None)
    repository.offer = offer
    repository.path = repository.add(offer, data)
    repository.publish()
    with serving(repository.files) as made:
        yield made


@pytest.fixture
def run(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> Any:
    monkeypatch.setenv("BSIPATCH_STORE", str(store.root))
    monkeypatch.setenv("BSIPATCH_CONFIG", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def asked(run: Any) -> Any:
    def asked(*arguments: str, code: int = 0) -> dict[str, Any]:
        found, out, err = run(*arguments, "--json")
        assert found == code, (out, err)
        assert err == ""
        facts: dict[str, Any] = json.loads(out)
        return facts

    return asked


@pytest.fixture
def followed(asked: Any, server: Server, repository: Repository, tmp_path: Path) -> None:
    root = tmp_path / "root.json"
    root.write_bytes(repository.roots[0])
    facts = asked("follow", server.url, "--root", str(root), "--device-id", "one")
    assert facts["device_id"] == "one"
    assert facts["mirrors"] == [server.url]


def test_another_mirror_changes_nothing_else(followed: None, asked: Any, run: Any) -> None:
    given = ["--channel", "beta", "--bandwidth", "9000", "--proxy", "", "--managed", "/opt/x"]
    asked("follow", "https://a.example/", *given)
    told = asked("follow", "https://b.example/")
    assert told["mirrors"] == ["https://b.example/"]
    kept = {"channel": "beta", "bandwidth": 9000, "proxy": "", "managed": "/opt/x"}
    assert told | kept == told
    assert asked("follow", "https://b.example/", "--bandwidth", "7000")["channel"] == "beta"
    out = run("follow", "https://b.example/")[1]
    for line in ("Channel    beta", "Proxy      none", "Bandwidth  7,000 bytes a second"):
        assert line in out
    told = asked("follow", "https://c.example/", "--defaults")
    assert told["channel"] == "release"
    assert told["bandwidth"] is told["proxy"] is told["managed"] is None
    assert told["device_id"] == "one"


def test_settings_that_cannot_be_read_are_not_taken_for_defaults(
    followed: None, asked: Any, store: Store
) -> None:
    (store.root / "feed/config.toml").write_text("{")
    assert "config.toml" in asked("follow", "https://b.example/", code=3)["file"]
    assert asked("follow", "https://b.example/", "--defaults")["channel"] == "release"


def test_check_fetch_install(
    followed: None, asked: Any, run: Any, repository: Repository, server: Server, store: Store
) -> None:
    name = repository.offer.id
    facts = asked("check")
    assert facts["offered"]["result"] == name
    assert facts["offered"]["kind"] == "direct"
    assert facts["offer"]["display"] == "26.3.1 (a)"
    assert name in run("check")[1]
    assert asked("why-not", name)["offered"]
    # as in the publisher's commands, the last digits will do
    assert name in run("why-not", name[-6:])[1]
    assert asked("why-not", name[-5:], code=4)["error"] == "not-found"
    assert asked("fetch", name[-12:])["fetched"]["updates"] == [name]
    for file in (store.root / "feed/downloads").glob("*.bsi"):
        file.unlink()
    fetched = asked("fetch")
    assert fetched["files"][0]["received"] == repository.offer.size
    server.files = {}
    done = asked("install", "--offline")
    assert done["display"] == "26.3.1 (a)"
    assert done["installed"]["updates"] == [name]
    assert done["received"] == 0
    server.files = repository.files
    facts = asked("check")
    assert facts["offered"] is None
    assert facts["refused"][0]["reasons"][0]["code"] == "installed"
    assert "is what the channel release has" in run("check")[1]
    code, out, _ = run("install")
    assert (code, out) == (0, "Nothing to install; `bsipatch check` says why.\n")


def test_another_process_that_refreshes_is_waited_for(
    followed: None, asked: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, real = threading.Event(), lock.time.sleep
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: (waiting.set(), real(seconds)))
    held = threading.Event()

    def refresh() -> None:
        with opened(store.root) as feed, feed.store.changing("refresh"):
            held.set()
            assert waiting.wait(30)

    other = threading.Thread(target=refresh)
    other.start()
    assert held.wait(30)
    try:
        assert asked("check")["offered"] is not None
        waiting.clear()
        with opened(store.root) as feed, feed.store.changing("refresh"):
            monkeypatch.setattr(_feed, "_PATIENCE", 0.0)
            assert "refresh" in asked("check", code=61)["message"]
    finally:
        waiting.set()
        other.join()


def test_why_not(
    followed: None, asked: Any, run: Any, repository: Repository, store: Store
) -> None:
    other, data = update(product="Other")
    repository.add(other, data)
    repository.publish()
    facts = asked("why-not", other.id)
    assert not facts["offered"]
    assert facts["reasons"][0]["code"] == "wrong-product"
    assert facts["reasons"][0]["evidence"] == {"expected": "Demo", "found": "Other"}
    assert asked("install", other.id, code=51)["error"] == "wrong-product"
    plist = store.root / "generations/0/tree/Versions/A/Resources/Info.plist"
    plist.chmod(0o664)
    code, out, _ = run("why-not", repository.offer.id)
    assert code == 0
    assert "drifted: baseline drifted: Versions/A/Resources/Info.plist, mode 0664 for 0644" in out
    assert asked("why-not", "Demo-26.3.1-z-000000000000", code=4)["error"] == "not-found"


def test_a_pinned_key_is_confirmed(followed: None, asked: Any, run: Any, tmp_path: Path) -> None:
    key = write_key_pair(tmp_path / "tickets", None).public
    assert asked("ticket", "--key", str(key))["pinned"] == str(key)
    lines = run("ticket", "--key", str(key))[1].splitlines()
    assert lines[0].startswith(f"Pinned {key}:")
    assert lines[1:] == ["No ticket holds here."]


def test_status_has_one_column_of_values(followed: None, run: Any) -> None:
    run("check")
    lines = run("status", "--disk")[1].splitlines()
    assert len({len(line) - len(line.split("  ", 1)[1].lstrip()) for line in lines}) == 1


def test_a_withdrawal_is_told(followed: None, asked: Any, run: Any, repository: Repository) -> None:
    from bsipatch.feed.model import Withdrawal

    asked("install")
    notice = Withdrawal(
        reason="it eats cookies",
        at=repository.now,
        expires=repository.now + 9999,
        revert_installed=True,
    )
    repository.change(repository.path, withdrawn=notice)
    repository.publish()
    facts = asked("check")
    assert facts["withdrawn"] == {
        "id": repository.offer.id,
        "reason": "it eats cookies",
        "revert": True,
    }
    assert "26.3.1 (a) has been withdrawn: it eats cookies" in run("check")[1]
    code, out, _ = run("install")
    assert code == 0
    assert "was withdrawn by its publisher: it eats cookies" in out
    assert asked("status")["display"] == "26.3.1"


def test_without_a_feed(asked: Any) -> None:
    facts = asked("check", code=4)
    assert "follow" in facts["hint"]


def test_a_feed_that_is_gone(followed: None, asked: Any, server: Server) -> None:
    server.files = {}
    facts = asked("check", code=81)
    assert "404" in facts["message"]


def test_adopt(followed: None, asked: Any, run: Any, tmp_path: Path) -> None:
    asked("install")
    tree = write_tree(tmp_path / "next", {**NEW_FRAMEWORK, "more": b"x"})
    facts = asked("adopt", str(tree), "--version", "26.4", "--build", "25E1")
    assert facts["retired"][0]["contained"]
    assert "26.4" in asked("status")["display"]
    assert "already" in run("adopt", str(tree), "--version", "26.4", "--build", "25E1")[1]
    lacking = write_tree(tmp_path / "lacking", THIRD)
    _, out, _ = run("adopt", str(lacking), "--version", "26.5", "--build", "25F1")
    assert "Baseline and live: 26.5, build 25F1 (was 26.4)" in out


@pytest.mark.parametrize("name", ["follow", "check", "fetch", "install", "why-not", "adopt"])
def test_help(name: str, run: Any) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    assert "Example" in out
