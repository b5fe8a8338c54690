"""Health checks: what they run, how long, and what they make of it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bsipatch import manifest as manifests
from bsipatch.errors import (
    CancelledError,
    ConfigError,
    HealthError,
    LimitError,
    ManifestError,
    UnsafePathError,
)
from bsipatch.limits import DEFAULT
from bsipatch.manifest import HealthCheck, check_health, parse_health
from bsipatch.publish.release import parse_release
from bsipatch.store import Store, Work, apply, commands, health, localhealth
from tests.support.stores import NOW, live_tree
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, File, tree_of
from tests.support.trials import PROGRAM, applied, command, with_program
from tests.support.updates import make_manifest

OLD, NEW = tree_of(OLD_FRAMEWORK), tree_of(NEW_FRAMEWORK)


def run(script: str, *, seconds: float = 10, most: int = 4096, **more: Any) -> commands.Outcome:
    """A line of shell as a health command."""
    return commands.run(
        ["/bin/sh", "-c", script],
        cwd="/",
        env=commands.environment({}),
        seconds=seconds,
        most=most,
        **more,
    )


# --- one program ---


def test_what_a_program_says_and_how_it_ends() -> None:
    assert run("echo one; echo two >&2").output == "one\ntwo"
    assert run("exit 0").problem == ""
    assert run("exit 7").problem == "ended with exit code 7"
    assert run("kill -9 $$").problem == "was killed by SIGKILL"


def test_output_is_bounded_and_plain() -> None:
    long = run("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done", most=100)
    assert long.output.startswith("…")
    assert long.output.endswith("line 2999")
    assert len(long.output) < 110
    assert "\x1b" not in run(r"printf '\033[31mred\000\377'").output


def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    script = f"sleep 300 & echo $! > {tmp_path}/child; trap '' TERM; while :; do sleep 1; done"
    outcome = run(script, seconds=0.5)
    assert outcome.problem == "did not end within 0.5 s and was killed"
    _gone(int((tmp_path / "child").read_text()))


def test_what_it_leaves_running_is_killed_too(tmp_path: Path) -> None:
    outcome = run(f"sleep 300 & echo $! > {tmp_path}/child", seconds=30)
    assert outcome.problem == ""
    _gone(int((tmp_path / "child").read_text()))


def test_what_escapes_keeps_nobody_waiting(tmp_path: Path) -> None:
    """A daemon in a session of its own that holds the output open."""
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "    time.sleep(300)\n"
        f"while not os.path.exists({str(tmp_path / 'pid')!r}): time.sleep(0.01)\n"
    )
    outcome = commands.run(
        [sys.executable, "-c", code],
        cwd="/",
        env=commands.environment({}),
        seconds=60,
        most=100,
    )
    assert outcome.problem == ""
    os.kill(int((tmp_path / "pid").read_text()), 9)


def test_a_program_that_closes_its_output_is_waited_for() -> None:
    assert run("exec >&- 2>&-; sleep 0.3; exit 4").problem == "ended with exit code 4"
    assert "did not end" in run("exec >&- 2>&-; sleep 60", seconds=0.3).problem


def test_it_gets_no_input_and_little_environment() -> None:
    os.environ["BSIPATCH_SECRET_TEST"] = "x"
    try:
        told = run("cat; env").output
    finally:
        del os.environ["BSIPATCH_SECRET_TEST"]
    names = {line.split("=")[0] for line in told.splitlines() if "=" in line}
    assert names <= {"PATH", "LANG", "HOME", "PWD", "OLDPWD", "SHLVL", "_"}


def test_it_inherits_no_descriptor() -> None:
    fd = os.open("/", os.O_RDONLY)
    os.set_inheritable(fd, True)
    try:
        assert run(f"test ! -e /proc/self/fd/{fd}").problem == ""
    finally:
        os.close(fd)


def test_what_cannot_be_run_is_a_problem() -> None:
    for argv in (["/no/such/program"], ["/etc/passwd"], ["bad\0name"]):
        outcome = commands.run(argv, cwd="/", env={}, seconds=1, most=10)
        assert outcome.problem.startswith("cannot be run")


def test_it_can_be_stopped() -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    with pytest.raises(CancelledError):
        run("sleep 120", seconds=120, stop=stop)
    assert time.monotonic() - began < 60


def _gone(pid: int) -> None:
    """The process ended, or has been ended and only waits to be reaped."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} still runs")


# --- on a store ---


def test_a_program_of_the_tree_runs_there(store: Store, tmp_path: Path) -> None:
    script = 'test "$BSIPATCH_TREE" = "$PWD" && test "$BSIPATCH_GENERATION" = 1 && test "$1" = x'
    check = HealthCheck(kind="command", command=(PROGRAM, "x"))
    done = applied(store, tmp_path / "a.bsi", check, new=with_program(script))
    assert done.health[0].passed
    assert done.health[0].detail == f"{PROGRAM} x"


def test_a_program_that_hangs_brings_the_old_tree_back(store: Store, tmp_path: Path) -> None:
    check = command("sleep 120", seconds=1)
    with pytest.raises(HealthError, match="did not end within 1 s"):
        applied(store, tmp_path / "a.bsi", check)
    assert live_tree(store) == OLD


def test_checks_end_with_the_first_that_fails(store: Store, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    with pytest.raises(HealthError):
        applied(store, tmp_path / "a.bsi", command("exit 1"), command(f"touch {mark}"))
    assert not mark.exists()


def test_digest_finds_what_changed_after_reading_back(store: Store, tmp_path: Path) -> None:
    """A check before it spoils a file, as a bad disk or a meddler would."""
    spoil = command('f="$BSIPATCH_TREE/Versions/A/Demo"; echo >> "$f"')
    with pytest.raises(HealthError, match="digest found: Versions/A/Demo"):
        applied(store, tmp_path / "a.bsi", spoil, HealthCheck(kind="digest"))
    assert live_tree(store) == OLD


def test_images_finds_a_file_that_only_looks_like_one(store: Store, tmp_path: Path) -> None:
    broken = {**NEW_FRAMEWORK, "Versions/A/libbad.so": b"\x7fELF" + b"\x09" * 60}
    with pytest.raises(HealthError, match=r"libbad\.so: its class"):
        applied(store, tmp_path / "a.bsi", HealthCheck(kind="images"), new=broken)


def _library(folder: Path, text: str, *options: str) -> bytes:
    """A shared library for this host."""
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    (folder / "one.c").write_text(text)
    made = folder / "one.so"
    command = [*compiler.split(), "-shared", "-fPIC", "-o", made, folder / "one.c", *options]
    subprocess.run(command, check=True)
    return made.read_bytes()


def _with_library(data: bytes) -> dict[str, Any]:
    return {**NEW_FRAMEWORK, "Versions/A/libone.so": File(data, 0o755)}


def test_a_library_loads(store: Store, tmp_path: Path) -> None:
    new = _with_library(_library(tmp_path, "int one(void) { return 1; }"))
    done = applied(store, tmp_path / "a.bsi", HealthCheck(kind="load"), new=new)
    assert done.health[0].detail.startswith("1 libraries loaded")


@pytest.mark.parametrize(
    ("text", "options", "why"),
    [
        ("int gone(void); int one(void) { return gone(); }", (), "gone"),
        ("#include <stdlib.h>\n__attribute__((constructor)) void f(void) { abort(); }", (), "ABRT"),
    ],
    ids=["symbol", "constructor"],
)
def test_a_library_that_does_not_load_is_found(
    store: Store, tmp_path: Path, text: str, options: tuple[str, ...], why: str
) -> None:
    new = _with_library(_library(tmp_path, text, *options))
    with pytest.raises(HealthError, match=rf"load could not load Versions/A/libone\.so.*{why}"):
        applied(store, tmp_path / "a.bsi", HealthCheck(kind="load"), new=new)
    assert live_tree(store) == OLD


def test_a_missing_dependency_is_found(store: Store, tmp_path: Path) -> None:
    (tmp_path / "dep").mkdir()
    dependency = _library(tmp_path / "dep", "int two(void) { return 2; }", "-Wl,-soname,libtwo.so")
    (tmp_path / "dep/libtwo.so").write_bytes(dependency)
    text = "int two(void); int one(void) { return two(); }"
    needs = _library(tmp_path, text, f"-L{tmp_path}/dep", "-ltwo", "-Wl,-rpath,$ORIGIN")
    check = HealthCheck(kind="load")
    with pytest.raises(HealthError, match=r"libtwo\.so"):
        applied(store, tmp_path / "a.bsi", check, new=_with_library(needs))
    both = {**_with_library(needs), "Versions/A/libtwo.so": File(dependency, 0o755)}
    done = applied(store, tmp_path / "b.bsi", check, new=both, letter="b", build="2")
    assert done.health[0].detail.startswith("2 libraries")


# --- the owner's checks ---


def test_the_owners_checks_are_made_too(store: Store, update: Path) -> None:
    (store.root / "health.toml").write_text('checks = ["images"]\n')
    (store.root / "health.d").mkdir()
    (store.root / "health.d/50-mine.toml").write_text(
        '[[commands]]\nrun = ["/bin/sh", "-c", "exit 3"]\nname = "mine"\n'
    )
    (store.root / "health.d/ignored.txt").write_text("[")
    with pytest.raises(HealthError, match="mine ended with exit code 3"):
        apply(store, update, now=NOW)
    assert live_tree(store) == OLD
    (store.root / "health.d/50-mine.toml").unlink()
    store.allow("a")
    done = apply(store, update, now=NOW)
    assert [result.kind for result in done.health] == ["images"]


def test_a_check_that_both_name_is_made_once(store: Store, tmp_path: Path) -> None:
    (store.root / "health.toml").write_text('checks = ["digest"]\n')
    done = applied(store, tmp_path / "a.bsi", HealthCheck(kind="digest"))
    assert len(done.health) == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[", "not TOML"),
        ("\xff", "not TOML"),
        ("colour = 1", "not a known setting"),
        ("[trial]\ntries = 1", "other than"),
        ("[trial]\nstarts = 0", "from 1 to"),
        ("[trial]\nstarts = true", "whole number"),
        ("[trial]\nblips = -1", "from 0 to"),
        ("trial = 3", "other than"),
        ('[[commands]]\nrun = ["bin/x"]', "absolute path"),
        ('[[commands]]\nrun = ["/no/such"]', "no such program"),
        ("[[commands]]\nrun = []", "must name a program"),
        ('[[commands]]\nrun = "/bin/sh"', "list of texts"),
        ('[[commands]]\nrun = ["/bin/sh"]\nseconds = "1"', "whole number"),
        ('[[commands]]\nrun = ["/bin/sh"]\nseconds = 9999', "from 1 to"),
        ('[[commands]]\nrun = ["/bin/sh"]\nname = 1', "text in quotes"),
        ('[[commands]]\nrun = ["/bin/sh"]\nshell = true', "not a known setting"),
        ("commands = 1", "list of tables"),
        ('checks = ["all"]', "no such check"),
        ('checks = ["load", "load"]', "twice"),
        ("#" * (1 << 20) + "#", "too large"),
    ],
)
def test_the_owners_mistakes_are_named(store: Store, text: str, why: str) -> None:
    (store.root / "health.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=why) as caught:
        localhealth.read(store.fd, store.file, store.limits)
    assert str(caught.value.file).endswith("health.toml")


@pytest.mark.parametrize("name", ["health.toml", "health.d"])
def test_a_file_that_others_may_write_to_is_refused(store: Store, name: str) -> None:
    path = store.root / name
    if name == "health.d":
        path.mkdir()
    else:
        path.write_text("")
    path.chmod(0o777)
    with pytest.raises(ConfigError, match="others may write"):
        localhealth.read(store.fd, store.file, store.limits)


def test_a_link_is_not_followed(store: Store, tmp_path: Path) -> None:
    from bsipatch.errors import SystemCallError

    (tmp_path / "elsewhere.toml").write_text("")
    (store.root / "health.toml").symlink_to(tmp_path / "elsewhere.toml")
    with pytest.raises(SystemCallError):
        localhealth.read(store.fd, store.file, store.limits)


# --- in manifests and releases ---


@pytest.mark.parametrize(
    ("check", "error", "why"),
    [
        (HealthCheck(kind="command"), ManifestError, "has a command"),
        (HealthCheck(kind="digest", command=("/x",)), ManifestError, "has a command"),
        (HealthCheck(kind="digest", seconds=0), ManifestError, "seconds"),
        (HealthCheck(kind="digest", seconds=1 << 40), ManifestError, "seconds"),
        (HealthCheck(kind="digest", name="a\x1b[0m"), ManifestError, "printable"),
        (HealthCheck(kind="command", command=("../x",)), UnsafePathError, "leave its tree"),
        (HealthCheck(kind="command", command=("nowhere",)), ManifestError, "no executable file"),
        (
            HealthCheck(kind="command", command=("Versions/A/Resources/empty",)),
            ManifestError,
            "no executable file",
        ),
        (HealthCheck(kind="command", command=("/x", "a\0b")), ManifestError, "NUL"),
        (HealthCheck(kind="command", command=("/x",) * 300), LimitError, "arguments"),
    ],
)
def test_a_manifest_names_only_checks_that_can_be_made(
    check: HealthCheck, error: type[Exception], why: str
) -> None:
    made, _ = make_manifest(health=(check,))
    with pytest.raises(error, match=why):
        manifests.validate(made)


def test_the_number_of_checks_is_bounded() -> None:
    many = [HealthCheck(kind="command", command=("/x",), name=str(n)) for n in range(65)]
    with pytest.raises(LimitError):
        check_health(many)
    with pytest.raises(ManifestError, match="twice"):
        check_health([HealthCheck(kind="load"), HealthCheck(kind="load", seconds=5)])
    with pytest.raises(ManifestError, match="absolute"):
        check_health([HealthCheck(kind="command", command=("x",))])


def test_a_manifest_with_checks_travels(tmp_path: Path) -> None:
    checks = (
        HealthCheck(kind="digest"),
        HealthCheck(kind="command", command=("Versions/A/Demo", ""), seconds=5, name="demo"),
    )
    made, _ = make_manifest(health=checks)
    assert manifests.decode(manifests.encode(made)).health == checks


def test_release_toml_names_checks() -> None:
    table = {
        "product": "Demo",
        "version": "1",
        "letter": "a",
        "build": "2",
        "supersedes": ["1"],
        "health": {
            "checks": ["digest", "load"],
            "commands": [{"run": ["bin/selftest"], "seconds": 9, "name": "self"}],
        },
    }
    release = parse_release(table)
    assert [check.kind for check in release.health] == ["digest", "load", "command"]
    assert release.supersedes == ("1",)
    for wrong, why in (
        ({"health": {"check": []}}, "health.check is not"),
        ({"health": {"checks": ["x"]}}, "health.checks: no such"),
        ({"health": {"commands": [{"run": ["../x"]}]}}, "health: "),
        ({"supersedes": ["2"]}, "own build"),
        ({"supersedes": ["../"]}, "supersedes"),
    ):
        with pytest.raises(ConfigError, match=why):
            parse_release({**table, **wrong})


def test_parse_health_has_defaults() -> None:
    assert parse_health({}) == ()
    (check,) = parse_health({"commands": [{"run": ["/bin/true"]}]})
    assert check.seconds == 60
    assert check.title == "/bin/true"


def test_nothing_but_stopping_comes_out_of_the_checks(
    store: Store, update: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails while it is read is a problem of the generation."""
    apply(store, update, now=NOW)

    def fails(*arguments: object, **named: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(health, "walk", fails)
    (result,) = health.run(store, 1, [HealthCheck(kind="digest")], Work())
    assert "Input/output error" in result.problem
    assert DEFAULT.max_health_output >= 1024
