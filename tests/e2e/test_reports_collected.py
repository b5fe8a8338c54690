"""Reports from a device to its publisher's eyes: the agent, the collector, the fleet's view."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx

from .device_life import PATIENCE, begin, follow, generated
from .journey import COMMAND, environment, told


@contextlib.contextmanager
def collecting(folder: Path) -> Iterator[str]:
    """The collector as a publisher runs it; its address."""
    folder.mkdir()
    line = ["fleet", "collect", "--into", str(folder), "--listen", "127.0.0.1:0", "--json"]
    process = subprocess.Popen([*COMMAND, *line], env=environment(), stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()
            code = process.wait(PATIENCE)
    assert code == 0


def test_what_a_device_allows_reaches_its_publisher(tmp_path: Path) -> None:
    life = begin(tmp_path, generated(tmp_path))
    reports = tmp_path / "reports"
    with life.serving() as server, collecting(reports) as url:
        follow(life, server.url)
        life.publish("a")
        life.agent()
        assert life.live_tree() == "a"
        assert "switched off" in life.tell("telemetry", "--report", "--send", code=54)["message"]
        life.tell("policy", "--set", "reports=true")
        assert "nobody" in life.tell("telemetry", "--report", "--send", code=54)["message"]
        assert list(reports.rglob("*.json")) == []
        life.tell("policy", "--set", f"report_to={url}")
        sent = life.tell("telemetry", "--report", "--send")
        assert sent["sent_to"] == url
        (file,) = reports.rglob("*.json")
        assert json.loads(file.read_bytes()) == sent["report"]
        assert sent["report"]["letter"] == "a"
        # what others deliver does not get in
        for body in (b"{}", b" " * (1 << 19), json.dumps({**sent["report"], "x": 1}).encode()):
            headers = {"Content-Type": "application/json"}
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.post(f"{url}report", content=body, headers=headers, trust_env=False)
                assert answer.status_code in (413, 422)
        fleet = told("fleet", "report", reports, "--html", tmp_path / "fleet.html")
        assert (fleet["devices"], fleet["reports"], fleet["refused"]) == (1, 1, 0)
        (one,) = fleet["updates"]
        assert (one["update"], one["states"], fleet["pause"]) == (
            life.ids["a"],
            {"protected": 1},
            [],
        )
        assert life.ids["a"] in (tmp_path / "fleet.html").read_text()
        life.agent()  # the next one is due tomorrow
        assert list(reports.rglob("*.json")) == [file]
