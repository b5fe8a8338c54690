"""`bsipatch settings` and `bsipatch serve`: as processes, from their start to their end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.stores import new_store
from tests.support.trees import OLD_FRAMEWORK, write_tree

from .conftest import Cli

pytest.importorskip("bsipatch._core._bsipatch")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store without a feed."""
    root = tmp_path / "store"
    with new_store(root, write_tree(tmp_path / "base", OLD_FRAMEWORK)):
        pass
    return root


@contextmanager
def started(*arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A command as a process, whose end the test has to see."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bsipatch", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    """Signals it; how it ended, and what it wrote to stderr."""
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_answers_and_leaves_nothing(store: Path, number: int) -> None:
    with started("serve", "--store", store, "--json") as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["socket"] == str(store / "api.sock")
        transport = httpx.HTTPTransport(uds=told["socket"], retries=3)
        with httpx.Client(transport=transport, base_url="http://d", timeout=60) as client:
            assert client.get("/v1/state").json()["standing"] == "no-feed"
            answer = client.put("/v1/settings", json={"automatic": False})
            assert answer.json() == {"automatic": False}
        assert ended(process, number) == (0, "")
    assert not (store / "api.sock").exists()
    assert "automatic = false" in (store / "settings.toml").read_text()


def test_serve_twice_is_refused(store: Path, cli: Cli) -> None:
    with started("serve", "--store", store) as process:
        assert process.stdout is not None
        process.stdout.readline()
        told = cli("serve", "--store", store, "--json", code=5).told
        assert "another server" in told["message"]
        assert (store / "api.sock").exists()


def test_serve_takes_the_managers_socket(store: Path, tmp_path: Path) -> None:
    place = os.path.relpath(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place)
        listening.listen(4)
        # what systemd does between fork and exec: the socket as descriptor 3, and the pid
        script = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True);"
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
            "os.execv(sys.executable, [sys.executable, '-m', 'bsipatch', *sys.argv[2:]])"
        )
        command = ("serve", "--store", str(store), "--idle", "0.2")
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(listening.fileno()), *command],
            pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            transport = httpx.HTTPTransport(uds=place)
            with httpx.Client(transport=transport, base_url="http://d", timeout=60) as client:
                assert client.get("/v1").json()["api"] == 1
            # nobody is connected any more: it ends by itself
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
        assert (process.returncode, err) == (0, "")
    assert Path(place).exists()  # the manager's, not ours


def test_settings_prints_an_address_and_ends(store: Path) -> None:
    with started("settings", "--store", store, "--no-browser", "--json") as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        origin, _, token = told["url"].partition("/#token=")
        assert origin == f"http://127.0.0.1:{told['port']}"
        with httpx.Client(base_url=origin, timeout=60) as client:
            headers = {"Origin": origin}
            answer = client.post("/v1/session", json={"token": token}, headers=headers)
            assert answer.status_code == 200
            headers["X-Bsipatch-Csrf"] = answer.json()["csrf"]
            assert client.get("/v1/state", headers=headers).json()["product"] == "Demo"
        assert ended(process, signal.SIGINT) == (0, "")


def test_the_browsers_command_line_does_not_hold_the_token(store: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    browser = tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\nls -l "${{1#file://}}" > {told}.part\ncat "${{1#file://}}" >> {told}.part\n'
        f'echo "$1" >> {told}.part\nmv {told}.part {told}\n'
    )
    browser.chmod(0o755)
    environ = {**os.environ, "BROWSER": str(browser), "TMPDIR": str(tmp_path)}
    with started("settings", "--store", store, env=environ) as process:
        assert process.stdout is not None
        out = process.stdout.readline()
        while not told.exists():
            assert process.poll() is None
            time.sleep(0.02)
        assert ended(process, signal.SIGINT) == (0, "")
    token = out.strip().partition("token=")[2]
    text = told.read_text()
    assert text.startswith("-rw-------")
    assert f"token={token}" in text
    assert token not in text.splitlines()[-1]
    assert list(tmp_path.glob("bsipatch-settings-*")) == []


@pytest.mark.parametrize("command", ["settings", "serve"])
def test_without_the_extra(
    store: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    told = cli(command, "--store", store, "--json", code=6).told
    assert "uvicorn" in told["message"]
    assert told["hint"] == "pip install 'bsipatch[settings]'"


@pytest.mark.parametrize("command", ["settings", "serve"])
def test_without_a_store(tmp_path: Path, cli: Cli, command: str) -> None:
    assert cli(command, "--store", tmp_path / "none", "--json", code=4).told["hint"]
