"""A publisher's whole way: real processes that are killed or race, a real object store, tickets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bsipatch import trust
from bsipatch.feed.ticket import new_nonce, verify_ticket
from bsipatch.publish.feed.storage import open_storage
from bsipatch.publish.feed.transaction import JOURNAL
from bsipatch.publish.keyfiles import write_key_pair
from tests.support import updates
from tests.support.feeds import (
    Clock,
    add,
    copy_feed,
    described,
    device_sees,
    new_feed,
    reopen,
    write_update,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("feed")
    add(new_feed(folder), described(folder, "a"))
    return folder


def environment(**more: str) -> dict[str, str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("BSIPATCH", "AWS_"))}
    return {**kept, "BSIPATCH_CONFIG": os.devnull, "NO_PROXY": "127.0.0.1", **more}


def hand_out(folder: Path, *letters: str) -> None:
    """Update files, and the key that they are signed with, for other processes."""
    (folder / "public.pem").write_bytes(updates.key().public.pem())
    for letter in letters:
        write_update(folder, letter).rename(folder / f"{letter}.bsi")


# --- killed for good ---

_KILLED = """
import os, signal, sys
from pathlib import Path
from bsipatch import trust
from bsipatch.publish.feed.offers import describe
from tests.support.feeds import START, Clock, add, reopen

folder, wanted = Path(sys.argv[1]), int(sys.argv[2])
policy = trust.Policy([trust.load_public(folder / "public.pem")])
update = describe(folder / "b.bsi", policy, START)
steps = []

def hook(step):
    if len(steps) == wanted:
        os.kill(os.getpid(), signal.SIGKILL)
    steps.append(step)

add(reopen(folder, clock=Clock(), hook=hook), update)
"""


def test_a_killed_publisher_leaves_a_whole_feed(template: Path, tmp_path: Path) -> None:
    outcomes = []
    for step in range(12):
        own = tmp_path / str(step)
        own.mkdir()
        first = (template / "feed/metadata/1.root.json").read_bytes()
        copy_feed(template, own, Clock())
        hand_out(own, "b")
        process = subprocess.run(
            [sys.executable, "-c", _KILLED, str(own), str(step)],
            cwd=ROOT,
            env=environment(),
            check=False,
            capture_output=True,
            timeout=120,
        )
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, process.stderr.decode()
        seen = device_sees(open_storage(str(own / "feed")), first, own / "keys")
        assert len(seen["beta"]) in (1, 2)
        again = reopen(own, clock=Clock())
        outcomes.append(again.recovered)
        after = device_sees(again.storage, first, own / "keys")
        assert len(after["beta"]) == (2 if again.recovered == "finished" else 1)
        assert not (own / "feed" / JOURNAL).exists()
    # the journal; its payload; beta, snapshot; timestamp; the end
    assert outcomes == ["", "discarded", "finished", "finished", "finished", "finished"]


# --- two at once ---

_RACING = """
import sys, time
from pathlib import Path
from bsipatch import trust
from bsipatch.errors import PublishError
from bsipatch.publish.feed.offers import describe
from tests.support.feeds import START, Clock, add, reopen

folder, letter = Path(sys.argv[1]), sys.argv[2]
policy = trust.Policy([trust.load_public(folder / "public.pem")])
update = describe(folder / f"{letter}.bsi", policy, START)
print("ready", flush=True)
sys.stdin.readline()
for attempt in range(200):
    try:
        add(reopen(folder, clock=Clock()), update)
    except PublishError as error:
        print(error, file=sys.stderr)
        time.sleep(0.05)
        continue
    break
else:
    sys.exit("never came through")
"""


def test_publishers_that_race_all_come_through_one_after_the_other(
    template: Path, tmp_path: Path
) -> None:
    copy_feed(template, tmp_path, Clock())
    hand_out(tmp_path, "b", "c", "d")
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACING, str(tmp_path), letter],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for letter in ("b", "c", "d")
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == b"ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write(b"go\n")
            racer.stdin.flush()
        for racer in racers:
            _, errors = racer.communicate(timeout=240)
            assert racer.returncode == 0, errors.decode()
    finally:
        for racer in racers:
            if racer.poll() is None:
                racer.kill()
                racer.wait()
    feed = reopen(tmp_path, clock=Clock())
    sequences = sorted(o.sequence for o in feed.state.listings["beta"].values())
    assert sequences == [1, 2, 3, 4], "nobody's update was lost, no number given twice"
    first = (tmp_path / "feed/metadata/1.root.json").read_bytes()
    assert len(device_sees(feed.storage, first, tmp_path / "keys")["beta"]) == 4


# --- a real object store, by the command line ---


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def test_a_feed_in_a_bucket_is_read_over_plain_http(s3: str, tmp_path: Path) -> None:
    allow = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::updates/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]}).encode()
    for address, data in ((f"{s3}/updates", None), (f"{s3}/updates?policy", policy)):
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(address, data=data, headers=kind, method="PUT")
        _opener.open(request).close()
    settings = environment(
        AWS_ACCESS_KEY_ID="testing",
        AWS_SECRET_ACCESS_KEY="testing",
        AWS_REGION="us-east-1",
        AWS_ENDPOINT_URL=s3,
        AWS_ALLOW_HTTP="true",
        BSIPATCH_FEED="s3://updates/feed",
        BSIPATCH_FEED_KEYS=str(tmp_path / "keys"),
        BSIPATCH_PASSPHRASE="correct horse",
    )
    write_key_pair(tmp_path / "signing", None, key=updates.key())
    public = str(tmp_path / "signing/public.pem")

    def run(*arguments: object, code: int = 0) -> Any:
        ended = subprocess.run(
            [sys.executable, "-m", "bsipatch", "feed", *map(str, arguments), "--json"],
            env=settings,
            cwd=tmp_path,
            check=False,
            capture_output=True,
            timeout=120,
        )
        assert ended.returncode == code, (arguments, ended.stdout, ended.stderr)
        return json.loads(ended.stdout)

    run("init", "--root-keys", 2, "--root-threshold", 2)
    name = run("add", write_update(tmp_path), "-c", "beta", "-t", public)["ids"][0]
    run("promote", name, "--to", "release", "--percent", "5,25,100", "--every", "24h")
    run("rotate", "timestamp", "--new", "timestamp-2", "--drop", "all")
    run("withdraw", name, "--reason", "Blank pages.", "--revert-installed")
    told = run("check", "-t", public)
    assert (told["offers"], told["findings"]) == (2, [])
    # Devices need a web server and nothing else.
    root = tmp_path / "keys/root.json"
    told = run("check", "--feed", f"{s3}/updates/feed", "--root", root, "-t", public)
    assert (told["offers"], told["files"], told["findings"]) == (2, 2, [])
    refused = run("refresh", "--feed", f"{s3}/updates/feed", code=81)
    assert refused["error"] == "transfer"
    with _opener.open(f"{s3}/updates/feed/metadata/timestamp.json") as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
    with _opener.open(f"{s3}/updates/feed/metadata/1.root.json") as answer:
        assert "immutable" in answer.headers["Cache-Control"]
    with pytest.raises(urllib.error.HTTPError):
        _opener.open(f"{s3}/updates/feed/{JOURNAL}")


# --- the ticket service ---


def test_the_ticket_service_answers_until_it_is_stopped(tmp_path: Path) -> None:
    pair = write_key_pair(tmp_path / "tickets", None)
    name = "Demo-26.3.1-a-0123456789ab"
    (tmp_path / "grants.toml").write_text(f'[devices.lab-7]\nupdates = ["{name}"]\n')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "bsipatch", "feed", "tickets", "grants.toml"]
    process = subprocess.Popen(
        [*command, "-k", str(pair.private), "--serve", "--port", str(port)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(f"{address}/health", process)
        nonce = new_nonce()
        request = urllib.request.Request(
            f"{address}/ticket", data=json.dumps({"device": "lab-7", "nonce": nonce}).encode()
        )
        with _opener.open(request) as answer:
            envelope = answer.read()
        policy = trust.Policy([trust.load_public(pair.public)])
        found = verify_ticket(envelope, policy, device="lab-7", nonce=nonce, now=int(time.time()))
        assert found.updates == (name,)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        assert b"Traceback" not in out, out
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        try:
            _opener.open(url).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("the service never answered")
