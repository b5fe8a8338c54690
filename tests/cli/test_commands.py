"""Each command's own behaviour; whole journeys are in tests/e2e."""

from __future__ import annotations

import os
import random
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, write_tree

from .conftest import Cli

pytest.importorskip("bsipatch._core._bsipatch")

RELEASE = 'product = "Demo"\nversion = "26.3.1"\nletter = "a"\nbuild = "25D771280a"\n'


@pytest.fixture
def files(folder: Path) -> Path:
    """old and new, alike in most places."""
    draw = random.Random(5)
    old = bytearray(draw.randbytes(50_000))
    (folder / "old").write_bytes(old)
    (folder / "old").chmod(0o751)
    old[20_000:20_010] = b"something else"
    (folder / "new").write_bytes(old)
    return folder


@pytest.fixture
def trees(folder: Path, cli: Cli) -> Path:
    """Trees old and new, release.toml, keys and the update."""
    write_tree(folder / "base", OLD_FRAMEWORK)
    write_tree(folder / "next", NEW_FRAMEWORK)
    (folder / "release.toml").write_text(RELEASE)
    cli("keygen", "keys", "--no-passphrase")
    cli(*BUILD)
    return folder


BUILD = [
    *("build", "--base", "base", "--new", "next", "--release", "release.toml"),
    *("--key", "keys/private.pem", "-o", "a.bsi"),
]
INIT = [
    *("init", "--store", "store", "--baseline", "base", "--trust", "keys/public.pem"),
    *("--product", "Demo", "--version", "26.3.1", "--build", "25D2128"),
]


# --- one file ---


def test_diff_and_patch(cli: Cli, files: Path) -> None:
    made = cli("diff", "old", "new", "-o", "p", "--json").told
    assert made["patch_size"] == (files / "p").stat().st_size < 200
    done = cli("patch", "old", "p", "-o", "out", "--json").told
    assert (files / "out").read_bytes() == (files / "new").read_bytes()
    assert done["new_sha256"] == made["new_sha256"]
    assert (files / "out").stat().st_mode & 0o777 == 0o751
    assert "SHA-256" in cli("patch", "old", "p", "-o", "out").out


def test_patch_refuses_the_wrong_old_file_and_leaves_nothing(cli: Cli, files: Path) -> None:
    cli("diff", "old", "new", "-o", "p")
    (files / "wrong").write_bytes(bytes(50_000))
    cli("patch", "wrong", "p", "-o", "out", code=31)
    cli("patch", "new", "p", "-o", "out", code=31)
    (files / "junk").write_bytes(b"junk")
    cli("patch", "old", "junk", "-o", "out", code=21)
    (files / "short").write_bytes((files / "p").read_bytes()[:-1])
    cli("patch", "old", "short", "-o", "out", code={23, 24, 32})
    assert sorted(os.listdir(files)) == ["junk", "new", "old", "p", "short", "wrong"]


def test_inspect_a_patch(cli: Cli, files: Path) -> None:
    cli("diff", "old", "new", "-o", "p")
    told = cli("inspect", "p", "--json").told
    assert (told["kind"], told["old_size"]) == ("patch", 50_000)
    assert "50,000 bytes" in cli("inspect", "p").out


def test_bsdiff_patches_go_both_ways(cli: Cli, files: Path) -> None:
    pytest.importorskip("bsdiff4")
    made = cli("diff", "old", "new", "-o", "bs", "--format", "bsdiff4", "--json").told
    assert made["format"] == "bsdiff4"
    assert (files / "bs").read_bytes().startswith(b"BSDIFF40")
    cli("patch", "old", "bs", "-o", "out")
    assert (files / "out").read_bytes() == (files / "new").read_bytes()
    told = cli("convert", "old", "bs", "-o", "ours", "--json").told
    assert told["patch_size"] < told["bsdiff_size"]
    cli("patch", "old", "ours", "-o", "out2")
    assert (files / "out2").read_bytes() == (files / "new").read_bytes()
    cli("inspect", "bs", code=21)
    (files / "bad").write_bytes((files / "bs").read_bytes()[:40])
    cli("patch", "old", "bad", "-o", "out3", code=23)
    assert cli("convert", "old", "bad", "-o", "out3", code=23).err.startswith("bsipatch: bad: ")


# --- keys ---


def test_keygen_never_overwrites(cli: Cli, folder: Path) -> None:
    made = cli("keygen", "keys", "--no-passphrase", "--json")
    assert "in the clear" in made.err
    assert not made.told["encrypted"]
    before = (folder / "keys/private.pem").read_bytes()
    assert "in the clear" not in cli("keygen", "keys", "--no-passphrase", code=5).err
    (folder / "file").touch()
    assert "in the clear" not in cli("keygen", "file/keys", "--no-passphrase", code=4).err
    assert (folder / "keys/private.pem").read_bytes() == before
    assert (folder / "keys/private.pem").stat().st_mode & 0o777 == 0o600


def test_pass_phrases(cli: Cli, trees: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (trees / "word").write_text("open sesame\nnot this line\n")
    assert cli("keygen", "one", "--passphrase-file", "word", "--json").told["encrypted"]
    assert b"ENCRYPTED" in (trees / "one/private.pem").read_bytes()
    build = [*BUILD[:-4], "--key", "one/private.pem", "-o", "b.bsi"]
    cli(*build, code=42)
    cli(*build, "--passphrase-file", "word")
    (trees / "wrong").write_text("guess\n")
    cli(*build, "--passphrase-file", "wrong", code=42)
    monkeypatch.setenv("BSIPATCH_PASSPHRASE", "open sesame")
    cli(*build)
    cli("verify", "b.bsi", "--trust", "one/public.pem")
    monkeypatch.setenv("BSIPATCH_PASSPHRASE", "")
    cli("keygen", "two", code=42)
    monkeypatch.delenv("BSIPATCH_PASSPHRASE")
    cli("keygen", "two", code=42)
    assert not (trees / "two").exists()
    cli("keygen", "two", "--no-passphrase", "--passphrase-file", "word", code=2)


def test_a_private_key_is_no_trust(cli: Cli, trees: Path) -> None:
    told = cli("verify", "a.bsi", "--trust", "keys/private.pem", "--json", code=41).told
    assert "private" in told["message"]


# --- updates ---


def test_build_inspect_verify(cli: Cli, trees: Path) -> None:
    built = cli(*BUILD, "--json").told
    assert (built["version"], built["letter"], built["display"]) == ("26.3.1", "a", "26.3.1 (a)")
    seen = cli("inspect", "a.bsi", "--json").told
    assert (seen["kind"], seen["verified"], seen["signers"]) == ("update", False, [])
    assert "NOT VERIFIED" in cli("inspect", "a.bsi").out
    assert cli("inspect", "a.bsi", "--trust", "keys/public.pem", "--json").told["verified"]
    verified = cli("verify", "a.bsi", "--trust", "keys/public.pem", "--json").told
    assert verified["signers"] == built["key_ids"]
    assert verified["result_digest"] == seen["result_digest"] == built["new_digest"]
    assert cli("verify", "a.bsi", "--trust", "keys/public.pem").out.endswith("Verified.\n")


def test_verify_notices_every_kind_of_damage(cli: Cli, trees: Path) -> None:
    good = (trees / "a.bsi").read_bytes()
    for position, codes in ((0, {21}), (9, {22}), (13, {10, 24, 23}), (100, {23, 43}), (-1, {30})):
        bad = bytearray(good)
        bad[position] ^= 0x10
        (trees / "bad.bsi").write_bytes(bad)
        cli("verify", "bad.bsi", "--trust", "keys/public.pem", code=codes)
    (trees / "bad.bsi").write_bytes(good[:-1])
    cli("verify", "bad.bsi", "--trust", "keys/public.pem", code=24)
    (trees / "bad.bsi").write_bytes(good + b"x")
    cli("verify", "bad.bsi", "--trust", "keys/public.pem", code=23)


def test_thresholds(cli: Cli, trees: Path) -> None:
    cli("keygen", "more", "--no-passphrase")
    both = ("-t", "keys/public.pem", "-t", "more/public.pem", "--threshold", "2")
    cli("verify", "a.bsi", *both, code=44)
    cli(*BUILD, "--key", "more/private.pem")
    cli("verify", "a.bsi", *both)
    same = ("-t", "keys/public.pem", "-t", "keys/public.pem", "--threshold", "2")
    cli("verify", "a.bsi", *same, code=40)


# --- a device ---


def test_a_device(cli: Cli, trees: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli(*INIT)
    cli(*INIT, code=5)
    monkeypatch.setenv("BSIPATCH_STORE", "store")
    out = cli("status").out
    assert "26.3.1, build 25D2128" in out
    assert "nothing: the baseline is live" in out
    assert "26.3.1 (a)" in cli("apply", "a.bsi").out
    assert "live already" in cli("apply", "a.bsi").out
    assert cli("apply", "a.bsi", "--json").told["already"]
    assert cli("status", "--json").told["can_revert_to"][0]["generation"] == 0
    assert "ms" in cli("revert").out
    cli("revert", code=62)
    cli("apply", "a.bsi", "--per-file-sync", "--strategy", "copy")
    assert "sound" in cli("check-store").out
    assert "Removed" in cli("gc").out
    lines = cli("history").out.splitlines()
    assert "init" in lines[0]
    assert len(cli("history", "--last", "1", "--json").told["events"]) == 1
    (trees / "store/current/tree/Versions/A/Demo").chmod(0o700)
    ended = cli("check-store", code=33)
    assert "Versions/A/Demo: mode 0700 for 0755" in ended.out
    assert "--repair" in ended.err
    told = cli("check-store", "--json", code=33).told
    assert (told["ok"], told["sound"], told["exit_code"]) == (False, False, 33)
    assert (told["error"], told["class"]) == ("tree-drift", "TreeDriftError")
    (trees / "store/current/tree/Versions/A/Demo").chmod(0o755)
    (trees / "store/generations/0/tree/Versions/A/Demo").write_bytes(b"gone")
    assert "--from-feed" in cli("check-store", "--repair", code=33).err
    assert told["drift"][0]["path"] == "Versions/A/Demo"


def test_init_takes_platform_and_architectures(cli: Cli, trees: Path) -> None:
    cli(*INIT, "--platform", "macos", "--arch", "arm64", "--arch", "x86_64")
    told = cli("status", "--store", "store", "--json").told
    assert (told["platform"], told["architectures"]) == ("macos", ["arm64", "x86_64"])


def test_init_names_the_live_path_that_was_chosen(cli: Cli, trees: Path) -> None:
    told = cli(*INIT, "--json").told
    assert told["live"] == told["live_path"] == str(trees / "store/current/tree")
    for mode, links in (("symlink", True), ("exchange", False)):
        (trees / "store").rename(trees / f"before-{mode}")
        ended = cli(*INIT, "--live-path", f"by-{mode}", "--live-mode", mode)
        assert f"Live      {trees / f'by-{mode}'}\n" in ended.out
        assert (f"Links to  {trees / 'store/current/tree'}\n" in ended.out) == links


def test_times_for_programs_are_iso_8601(cli: Cli, trees: Path) -> None:
    told = cli("inspect", "a.bsi", "--json").told
    for name in ("created", "expires"):
        assert datetime.fromisoformat(told[name]).tzinfo is not None, told[name]
        assert told[name].endswith("Z")
        assert told[name].replace("T", " ").replace("Z", " UTC") in cli("inspect", "a.bsi").out


def test_a_manifest_that_nobody_vouches_for_is_named_by_its_file(cli: Cli, trees: Path) -> None:
    data = bytearray((trees / "a.bsi").read_bytes())
    data[200] ^= 1  # within the signed payload, which inspect reads without a key as well
    (trees / "bad.bsi").write_bytes(data)
    assert "bad.bsi: " in cli("inspect", "bad.bsi", code={23, 25}).err
