"""`bsipatch feed ...` as people type it: lines, JSON, dry runs and refusals."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bsipatch import trust
from bsipatch.cli import _signals, main
from bsipatch.cli._options import ChannelName
from bsipatch.cli.feed import COMMANDS, rotate
from bsipatch.feed.names import CHANNELS, TOP_ROLES
from bsipatch.publish.feed.local import LocalStorage
from bsipatch.publish.feed.transaction import JOURNAL
from bsipatch.publish.keyfiles import write_key_pair
from tests.support import updates
from tests.support.feeds import write_update


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def told(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Ended]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    for name in list(os.environ):
        if name.startswith("BSIPATCH"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BSIPATCH_CONFIG", os.devnull)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("BSIPATCH_FEED", str(tmp_path / "feed"))
    monkeypatch.setenv("BSIPATCH_FEED_KEYS", str(tmp_path / "keys"))

    def run(*arguments: object, code: int = 0) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main(["feed", *(str(argument) for argument in arguments)])
        captured = capsys.readouterr()
        assert ended.value.code == code, (arguments, captured.out, captured.err)
        assert "Traceback" not in captured.err
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feed with keys in the clear and an update in beta, and the publisher's public key."""
    folder = tmp_path_factory.mktemp("feed")
    where = ["--feed", str(folder / "feed"), "--keys", str(folder / "keys")]
    write_key_pair(folder / "signing", None, key=updates.key())
    update = write_update(folder, "a")
    update.rename(folder / "a.bsi")
    for line in (
        ["init", "--no-passphrase", "--root-keys", "2", "--root-threshold", "2"],
        ["add", str(folder / "a.bsi"), "-c", "beta", "-t", str(folder / "signing/public.pem")],
    ):
        with pytest.raises(SystemExit) as ended:
            main(["feed", line[0], *where, *line[1:]])
        assert ended.value.code == 0
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return tmp_path


def offers(cli: Cli, channel: str = "beta") -> dict[str, str]:
    told = cli("status", "--json").told
    return {
        listed["offer"]["letter"]: listed["state"]
        for group in told["channels"][channel]
        for listed in group["offers"]
    }


def id_of(cli: Cli, channel: str = "beta") -> str:
    told = cli("status", "--json").told
    found: str = told["channels"][channel][0]["offers"][0]["offer"]["id"]
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_and_json(cli: Cli, name: str) -> None:
    out = re.sub(r"\x1b\[[0-9;]*m", "", cli(name, "--help").out)
    assert f"bsipatch feed {name}" in out
    assert "--json" in out
    assert out == re.sub(r"\x1b\[[0-9;]*m", "", cli(name, "-h").out)


def test_init_makes_keys_and_says_what_to_hand_out(cli: Cli, tmp_path: Path) -> None:
    ended = cli("init", "--no-passphrase", "--expires", "timestamp=1d")
    assert "Made the key timestamp." in ended.out
    assert str(tmp_path / "keys/root.json") in ended.out
    assert sorted(p.name for p in (tmp_path / "keys").iterdir() if p.is_dir()) == sorted(
        ["root-1", "targets", "snapshot", "timestamp", "developer", "beta", "release"]
    )
    assert cli("status", "--json").told["warnings"] == []
    assert "already" in cli("init", "--no-passphrase", code=5).err
    for wrong in ("timestamp", "timestamp=1", "timestamp=1s", "../x=1d"):
        code = {"../x=1d": 26}.get(wrong, 2)
        other = tmp_path / re.sub(r"\W", "", wrong)
        place = ["--feed", tmp_path / "other", "--keys", other]
        cli("init", *place, "--no-passphrase", "--expires", wrong, code=code)
        cli("init", *place, "--no-passphrase", "--root-threshold", 2, code=2)
        assert not other.exists()


def test_keys_are_encrypted_unless_one_says_otherwise(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("init", code=42)
    monkeypatch.setenv("BSIPATCH_PASSPHRASE", "secret")
    cli("init")
    pem = (tmp_path / "keys/beta/private.pem").read_bytes()
    assert b"ENCRYPTED" in pem
    monkeypatch.setenv("BSIPATCH_PASSPHRASE", "wrong")
    assert "pass phrase" in cli("refresh", code=42).err


def test_the_first_root_may_be_signed_elsewhere(cli: Cli, tmp_path: Path) -> None:
    holders = [write_key_pair(tmp_path / f"holder-{n}", None) for n in range(2)]
    publics = [arg for pair in holders for arg in ("--root-key", pair.public)]
    root = tmp_path / "root.json"
    assert "--out" in cli("init", "--no-passphrase", *publics, code=2).err
    ended = cli("init", "--no-passphrase", *publics, "--root-threshold", 2, "-o", root)
    assert "sign" in ended.out
    assert not (tmp_path / "feed").exists()
    assert "too few" in cli("init", "--root", root, code=44).err
    for number, pair in enumerate(holders):
        told = cli("sign", root, "--key", pair.private, "--json").told
        assert told["missing"] == 1 - number
        assert told["changes"]
    cli("init", "--root", root)
    assert cli("check").out.startswith("0 offers")


def test_a_dry_run_shows_the_diff_and_changes_nothing(cli: Cli, folder: Path) -> None:
    update, key = write_update(folder, "b"), folder / "signing/public.pem"
    line = ["add", update, "-c", "beta", "-t", key, "--percent", "5,25,100", "--every", "12h"]
    before = sorted(folder.rglob("*"))
    ended = cli(*line, "--dry-run")
    assert "beta: Demo-26.3.1-b-" in ended.out
    assert re.search(r"\+ 26\.3\.1 \(b\).*; 5 % from .* UTC, 25 % from", ended.out)
    assert "Versions: beta 2 -> 3, snapshot 2 -> 3, timestamp 2 -> 3" in ended.out
    assert "Dry run" in ended.out
    assert sorted(folder.rglob("*")) == before
    assert "sequence 2, for devices with a ticket" in cli(*line[:6], "--ticket", "-n").out
    assert offers(cli) == {"a": "everyone"}
    told = cli(*line, "--json").told
    assert (told["ok"], told["published"], told["dry_run"]) == (True, True, False)
    assert told["ids"][0].startswith("Demo-26.3.1-b-")
    assert offers(cli) == {"a": "everyone", "b": "rollout"}


def test_the_life_of_an_update(cli: Cli, folder: Path) -> None:
    name = id_of(cli)
    short = name[-12:]
    assert "Published." in cli("promote", short, "--to", "release", "--percent", "5,100").out
    assert offers(cli, "release") == {"a": "rollout"}
    assert "--channel" in cli("pause", short, code=2).err
    cli("pause", short, "-c", "release")
    assert offers(cli, "release") == {"a": "paused"}
    cli("resume", short, "-c", "release")
    assert "everybody" in cli("rollout", short, "--percent", "100", "-c", "release").out
    assert (
        "who is in stays in" in cli("rollout", short, "--percent", "5", "-c", "release", code=2).err
    )
    ended = cli("withdraw", short, "--reason", "Blank pages.", "--revert-installed", "-n")
    assert "Blank pages. (notice until" in ended.out
    assert "go back to the previous" in ended.out
    cli("withdraw", short, "--reason", "Blank pages.", "--revert-installed", "--to", "baseline")
    assert offers(cli, "release") == offers(cli, "beta") == {"a": "withdrawn"}
    assert "Blank pages." in cli("status").out
    assert cli("expire").out == "Nothing to change.\n"
    assert "still stands" in cli("expire", short, "-c", "beta", code=70).err
    key = folder / "signing/public.pem"
    cli("add", write_update(folder, "b"), "-c", "beta", "-t", key)
    new = id_of(cli)
    assert new != name
    cli("supersede", name, "--by", new)
    assert "2 offers" in cli("check", "-t", key).out or "3 offers" in cli("check").out


def test_refusals_change_nothing_and_say_why(cli: Cli, folder: Path) -> None:
    key, update = folder / "signing/public.pem", write_update(folder, "b")
    stranger = write_key_pair(folder / "stranger", None)
    name = id_of(cli)
    before = {p: p.read_bytes() for p in (folder / "feed").rglob("*") if p.is_file()}
    for line, code, text in (
        (["add", update, "-c", "../beta", "-t", key], 2, "'developer', 'beta', 'release'"),
        (["add", update, "-c", "nightly", "-t", key], 2, "'developer', 'beta', 'release'"),
        (["add", folder / "a.bsi", "-c", "beta", "-t", key], 5, "already"),
        (["add", update, "-t", stranger.public], 43, "no trusted key"),
        (["add", folder / "none.bsi", "-t", key], 4, "none.bsi"),
        (["add", key, "-t", key], 21, "not an update file"),
        (["add", update, "-t", key, "--percent", "5,5"], 2, "grow"),
        (["add", update, "-t", key, "--percent", "half"], 2, "whole numbers"),
        (["add", update, "-t", key, "--every", "soon"], 2, "24h"),
        (["add", update, "-t", key, "--supersedes", "nothing"], 4, "no channel lists"),
        (["promote", name, "--to", "developer"], 2, "promoting leads"),
        (["promote", "nothing", "--to", "release"], 4, "no channel lists"),
        (["withdraw", name, "--reason", ""], 2, "reason"),
        (["supersede", name, "--by", name], 2, "newer"),
        (["rotate", "../root"], 2, "'timestamp'"),
        (["promote", name, "--to", "relase"], 2, "'release'"),
        (["pause", name, "--channel", "relase"], 2, "'release'"),
        (["rotate", "beta", "--new", "../x"], 2, "name"),
        (["rotate", "beta", "--drop", "all"], 2, "threshold"),
        (["rotate", "beta", "--clear"], 2, "--drop all"),
        (["rotate", "root", "--root", key], 23, "TUF metadata"),
        (["rotate", "root", "--root", key, "-o", folder / "r"], 2, "name one of them"),
        (["rotate", "beta", "--new", "b", "-o", folder / "r", "-n"], 2, "stand in the root"),
        (["init", "--root", key, "-o", folder / "r"], 2, "name one of them"),
        (["status", "--feed", folder / "nowhere"], 4, "no feed"),
        (["status", "--keys", folder / "signing"], 4, "feed init"),
        (["status", "--feed", "ftp://x/y"], 2, "s3://"),
    ):
        ended = cli(*line, code=code)
        assert text in ended.err, (line, ended.err)
        assert ended.out == ""
    assert {p: p.read_bytes() for p in (folder / "feed").rglob("*") if p.is_file()} == before


def test_keys_are_rotated_here_and_elsewhere(cli: Cli, folder: Path) -> None:
    cli("rotate", "beta", "--new", "beta-2", "--drop", "all", "--no-passphrase")
    cli("rotate", "beta", "--new", "beta-3", "--drop", "all", "--clear", "--no-passphrase")
    assert offers(cli) == {}
    (folder / "keys/root-2").rename(folder / "away")
    line = ["rotate", "timestamp", "--new", "timestamp-2", "--drop", "all", "--no-passphrase"]
    assert "keys: " not in cli(*line, "--dry-run").err
    assert "--out" in cli(*line, code=2).err
    root = folder / "root-2.json"
    told = cli(*line, "-o", root, "--json").told
    assert (told["published"], told["root"]) == (False, str(root))
    assert "too few" in cli("rotate", "timestamp", "--root", root, code=44).err
    shown = cli("sign", root, "-k", folder / "away/private.pem", "--dry-run").out
    assert "more needed" in shown
    trusted = folder / "keys/root.json"
    assert (
        "all that is needed"
        in cli("sign", root, "-k", folder / "away/private.pem", "--trusted", trusted).out
    )
    stranger = write_key_pair(folder / "stranger", None)
    assert "signs no root" in cli("sign", root, "-k", stranger.private, code=43).err
    cli("rotate", "root", "--root", root, "--dry-run")
    cli("rotate", "root", "--root", root)
    assert cli("status", "--json").told["roles"][0]["version"] == 2
    first = folder / "feed/metadata/1.root.json"
    assert "all well" in cli("check", "--root", first).out


def test_a_root_that_is_to_be_written_is_never_published(cli: Cli, folder: Path) -> None:
    """Although all root keys are here: who names a file wants to publish later."""
    published = folder / "feed/metadata/2.root.json"
    root = folder / "root-2.json"
    cli("rotate", "root", "-o", root, "--dry-run")
    assert not root.exists()
    told = cli("rotate", "root", "-o", root, "--json").told
    assert (told["published"], told["root"], told["missing"]) == (False, str(root), 0)
    assert not published.exists()
    shown = cli("rotate", "root", "-o", root).out
    assert "Not published." in shown
    assert f"rotate root --root {root}" in shown
    (folder / "keys/root-2").rename(folder / "away")
    assert f"feed sign {root}" in cli("rotate", "root", "-o", root).out
    cli("sign", root, "-k", folder / "away/private.pem", "--trusted", folder / "keys/root.json")
    cli("rotate", "root", "--root", root)
    assert published.read_bytes() == root.read_bytes()


def test_a_first_root_that_is_to_be_written_is_never_published(cli: Cli, folder: Path) -> None:
    place = ["--feed", folder / "other", "--keys", folder / "other-keys", "--no-passphrase"]
    root = folder / "first.json"
    ended = cli("init", *place, "-o", root)
    assert "signed. Publish it:" in ended.out
    assert "feed sign" not in ended.out
    assert not (folder / "other").exists()
    cli("init", *place, "--root", root)
    assert (folder / "other/metadata/1.root.json").read_bytes() == root.read_bytes()


def test_a_feed_that_cannot_be_leaves_no_keys(cli: Cli, folder: Path) -> None:
    for place, code in (("ftp://x/y", 2), (folder / "feed", 5)):
        cli("init", "--feed", place, "--keys", folder / "new", "--no-passphrase", code=code)
        assert not (folder / "new").exists()


def test_a_signature_is_all_that_is_needed_only_beside_the_current_root(
    cli: Cli, folder: Path
) -> None:
    root, key = folder / "root-2.json", folder / "keys/root-1/private.pem"
    cli("rotate", "root", "-o", root)
    assert "--trusted says" in cli("sign", root, "-k", key).out
    trusted = cli("sign", root, "-k", key, "--trusted", folder / "keys/root.json").out
    assert "2 signatures, all that is needed." in trusted


def test_what_a_root_changes_is_said_once_and_in_one_way(cli: Cli, folder: Path) -> None:
    shown = cli("rotate", "root", "--dry-run").out
    assert "root: expires" in shown
    assert "root: root" not in shown
    assert re.search(r"\+ \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", shown)


def test_a_dry_run_shows_the_key_that_is_there_already(cli: Cli, folder: Path) -> None:
    there = write_key_pair(folder / "keys/beta-2", None)
    shown = cli("rotate", "beta", "--new", "beta-2", "--drop", "all", "--dry-run").out
    assert trust.load_public(there.public).key_id[:16] in shown


def test_check_tells_what_is_wrong(cli: Cli, folder: Path) -> None:
    key = folder / "signing/public.pem"
    told = cli("check", "--trust", key, "--json").told
    assert (told["offers"], told["files"], told["findings"]) == (1, 1, [])
    payload = next((folder / "feed/targets").rglob("*.bsi"))
    payload.write_bytes(payload.read_bytes()[:-1])
    ended = cli("check", code=80)
    assert "not the one that is offered" in ended.out
    assert "1 finding," in ended.err
    told = cli("check", "--json", code=80).told
    assert (told["ok"], told["error"], told["class"]) == (False, "feed", "FeedError")
    assert "not the one that is offered" in told["findings"][0]["what"]


def test_status_warns_on_stderr(cli: Cli, folder: Path) -> None:
    ended = cli("status")
    assert ended.err == ""
    assert "offered to everybody" in ended.out
    assert re.search(r"root +version 1, valid until 20", ended.out)


def interrupted_at(monkeypatch: pytest.MonkeyPatch, verb: str, ending: str) -> None:
    """Ctrl-C comes while a file is being written."""
    real = getattr(LocalStorage, verb)

    def run(self: LocalStorage, path: str, *rest: Any) -> Any:
        if path.endswith(ending):
            _signals.stop.set()
        return real(self, path, *rest)

    monkeypatch.setattr(LocalStorage, verb, run)


def test_an_interrupt_changes_nothing_until_it_is_too_late(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in (folder / "feed").rglob("*") if p.suffix == ".json"}

    name, before = id_of(cli), files()
    for ending in (JOURNAL, ".release.json", ".snapshot.json"):
        with monkeypatch.context() as patch:
            interrupted_at(patch, "create", ending)
            ended = cli("promote", name, "--to", "release", code=130)
        assert "nothing was changed" in ended.err.lower()
        assert files() == before
    with monkeypatch.context() as patch:
        interrupted_at(patch, "replace", "timestamp.json")
        assert "Published." in cli("promote", name, "--to", "release").out
    assert offers(cli, "release") == {"a": "everyone"}


def test_status_only_looks(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = id_of(cli)
    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "remove", lambda self, path: None)
        cli("promote", name, "--to", "release")
    assert (folder / "feed" / JOURNAL).exists()
    ended = cli("status")
    assert "under way since" in ended.err
    assert cli("status", "--json").told["unfinished_since"] > 0
    assert (folder / "feed" / JOURNAL).exists()
    assert "finished" in cli("refresh").out
    assert not (folder / "feed" / JOURNAL).exists()


def test_the_config_file_speaks_for_the_group(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = folder / "config.toml"
    config.write_text(f'[feed]\nfeed = "{folder}/feed"\nkeys = "{folder}/keys"\n')
    for name in ("BSIPATCH_FEED", "BSIPATCH_FEED_KEYS"):
        monkeypatch.delenv(name)
    cli("status", code=2)
    monkeypatch.setenv("BSIPATCH_CONFIG", str(config))
    cli("status")


def test_tickets_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    from bsipatch.feed.ticket import verify_ticket

    pair = write_key_pair(tmp_path / "tickets", None)
    grants = tmp_path / "grants.toml"
    name = "Demo-26.3.1-a-0123456789ab"
    grants.write_text(f'[devices.lab]\nupdates = ["{name}"]\n')
    assert "1 entries" in cli("tickets", grants, "-k", pair.private).out
    line = ["tickets", grants, "-k", pair.private, "--device"]
    nonce, out = "0" * 32, tmp_path / "lab.ticket"
    cli(*line, "lab", code=2)
    cli(*line, "other", "--nonce", nonce, "-o", out, code=54)
    told = cli(*line, "lab", "--nonce", nonce, "-o", out, "--json").told
    assert told["updates"] == [name]
    policy = trust.Policy([trust.load_public(pair.public)])
    import time

    found = verify_ticket(out.read_bytes(), policy, device="lab", nonce=nonce, now=int(time.time()))
    assert found.updates == (name,)


def test_the_words_of_options_are_the_channels_and_roles_there_are() -> None:
    assert tuple(ChannelName) == CHANNELS
    assert set(rotate.Role) == {*TOP_ROLES, *CHANNELS}
