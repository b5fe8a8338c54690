"""The adapter for the public conformance suite, in the few cases that stand for the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata

from tests.conformance import client
from tests.support.mirrors import serving
from tests.support.tuf_feeds import Repository, new_key


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "m").mkdir()
    (tmp_path / "t").mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def run(url: str, *command: str, targets: tuple[str, ...] = ()) -> int:
        arguments = ["--metadata-dir", tmp_path / "m", "--metadata-url", f"{url}metadata"]
        for name in targets:
            arguments += ["--target-name", name]
        arguments += ["--target-dir", tmp_path / "t", "--target-base-url", f"{url}targets"]
        monkeypatch.setattr("sys.argv", ["client", *map(str, [*arguments, *command])])
        return client.main()

    return run


@pytest.fixture
def repository() -> Repository:
    import time

    return Repository(now=int(time.time()))


def version(folder: Path, role: str) -> int:
    metadata: Metadata[Any] = Metadata.from_file(str(folder / "m" / f"{role}.json"))
    return int(metadata.signed.version)


def test_init_refresh_download(run: Any, repository: Repository, tmp_path: Path) -> None:
    repository.list_as("release/a/b.txt", b"target", {}, "release")
    repository.publish()
    (tmp_path / "root.json").write_bytes(repository.roots[0])
    repository.signers["timestamp"] = [new_key()]
    repository.new_root()
    repository.publish()
    with serving(repository.files) as server:
        assert run(server.url, "init", str(tmp_path / "root.json")) == 0
        assert not server.asked
        assert run(server.url, "refresh") == 0
        assert version(tmp_path, "root") == 2
        assert version(tmp_path, "timestamp") == repository.timestamp.version
        assert run(server.url, "download", targets=("release/a/b.txt",)) == 0
        (place,) = (tmp_path / "t").iterdir()
        assert place.read_bytes() == b"target"
        assert run(server.url, "download", targets=("release/a/b.txt",)) == 0
        assert len(server.payloads_asked()) == 1
        assert run(server.url, "download", targets=("release/a/none",)) == 1


def test_what_was_verified_stays_when_the_rest_fails(
    run: Any, repository: Repository, tmp_path: Path
) -> None:
    (tmp_path / "root.json").write_bytes(repository.roots[0])
    with serving(repository.files) as server:
        assert run(server.url, "init", str(tmp_path / "root.json")) == 0
        assert run(server.url, "refresh") == 0
        old = repository.mirror()
        repository.publish()
        del repository.files["metadata/2.snapshot.json"]
        assert run(server.url, "refresh") == 1
        assert version(tmp_path, "timestamp") == 2
        assert version(tmp_path, "snapshot") == 1
        server.files = old
        assert run(server.url, "refresh") == 1
        assert version(tmp_path, "timestamp") == 2
