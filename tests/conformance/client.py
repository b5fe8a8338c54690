#!/usr/bin/env python3
"""The device's TUF client in the command-line form of the public tuf-conformance suite.

    client.py --metadata-dir DIR init ROOT
    client.py --metadata-dir DIR --metadata-url URL refresh
    client.py --metadata-dir DIR --metadata-url URL --target-name NAME... --target-dir DIR
              --target-base-url URL download

What a device keeps in STORE/feed lies in DIR/feed here; the accepted metadata are copied to
DIR afterwards, where the suite looks for them.  Run the suite with
`make conformance SUITE=/path/to/tuf-conformance`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from urllib.parse import quote

from tuf.api.metadata import TargetFile

from bsipatch.device.downloading import Downloads, Wanted
from bsipatch.device.metadata_store import MetadataStore
from bsipatch.device.mirrors import Mirror, Mirrors
from bsipatch.device.transport import Pace, Transport
from bsipatch.device.tuf_client import Client, Fetcher
from bsipatch.errors import BsipatchError, NotFoundError
from bsipatch.limits import DEFAULT


class _Targets(Mirror):
    """A mirror whose payloads lie where the suite says."""

    def payload(self, path: str, sha256: str) -> str:
        folder, slash, name = path.rpartition("/")
        return f"{self.base}{folder}{slash}{f'{sha256}.' if CONSISTENT[0] else ''}{name}"


CONSISTENT = [True]


def main() -> int:
    """0 when everything went well, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-dir", type=Path)
    parser.add_argument("--target-base-url")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    given = parser.parse_args()
    feed = given.metadata_dir / "feed"
    if given.command == "init":
        feed.mkdir(parents=True)
        shutil.copyfile(given.root, feed / "root.json")
        shutil.copyfile(given.root, given.metadata_dir / "root.json")
        return 0
    try:
        with (
            MetadataStore(feed) as store,
            store.changing("conformance"),
            Transport(Pace(total=60.0)) as transport,
        ):
            _run(given, store, transport)
    except BsipatchError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _run(given: argparse.Namespace, store: MetadataStore, transport: Transport) -> None:
    stage = store.copy(store.current())
    root = (store.folder / "root.json").read_bytes()
    url = given.metadata_url.rstrip("/") + "/"
    try:
        # As FeedClient does it with one mirror: what was verified is kept, sound end or not.
        client = Client(
            stage, url, Fetcher(transport), root=root, now=int(time.time()), limits=DEFAULT
        )
        client.refresh()
        for name in given.target_name if given.command == "download" else ():
            _download(given, client, transport, name)
    finally:
        _show(store.adopt(stage), given.metadata_dir)


def _show(accepted: Path, folder: Path) -> None:
    for old in folder.glob("*.json"):
        old.unlink()
    for file in accepted.glob("*.json"):
        shutil.copyfile(file, folder / file.name)  # root.json is a link to the newest one


def _download(given: argparse.Namespace, client: Client, transport: Transport, name: str) -> None:
    target = client.target(name)
    if target is None:
        raise NotFoundError("no such target", file=name)
    place = given.target_dir / quote(name, safe="")
    if place.is_file() and _is(target, place):
        return
    CONSISTENT[0] = client.consistent
    wanted = Wanted(path=name, size=target.length, sha256=target.hashes["sha256"])
    mirrors = Mirrors([_Targets(given.target_base_url.rstrip("/") + "/")])
    with Downloads(given.metadata_dir / "feed" / "downloads") as downloads:
        shutil.copyfile(downloads.get(wanted, mirrors, transport).path, place)


def _is(target: TargetFile, place: Path) -> bool:
    try:
        target.verify_length_and_hashes(place.read_bytes())
    except Exception:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
