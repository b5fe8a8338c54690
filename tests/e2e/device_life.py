"""A publisher and a device that follows it, both by the command line, over loopback."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bsipatch.feed.names import update_id
from bsipatch.tree import walk
from tests.support.mirrors import Handler, Server, serving

from .journey import environment, make_framework, run, told

#: seconds that anything of a life may take before a test gives up
PATIENCE = 90.0
RELAUNCH = '[activation]\nrelaunch = ["NoSuchProgram"]\n'
SICK = '[[health.commands]]\nname = "self-test"\nrun = ["/bin/sh", "-c", "exit 3"]\n'
WELL = '[health]\nchecks = ["digest"]\n'


class Served(dict[str, bytes]):
    """A folder's files as they are now."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def get(self, path: str, default: Any = None) -> Any:
        try:
            return (self.folder / path).read_bytes()
        except OSError:
            return default


@dataclass
class Life:
    """trees: base, a, b, c and the next base. out: the server does not answer.

    first_asked: when the server was asked for the first time since a test set it to 0, by
    time.monotonic().
    """

    folder: Path
    trees: dict[str, Path]
    ids: dict[str, str] = field(default_factory=dict)
    out: bool = False
    first_asked: float = 0.0
    server: Server | None = None

    @property
    def store(self) -> Path:
        """The device's store."""
        return self.folder / "store"

    # --- the publisher ---

    def feed(self, verb: str, *arguments: object) -> Any:
        """A command of the publisher's."""
        where = ("--feed", self.folder / "feed", "--keys", self.folder / "feed-keys")
        return told("feed", verb, *where, *arguments)

    def build(self, letter: str, extra: str = WELL) -> Path:
        """The update file of an improvement; `extra` goes into its release.toml."""
        toml = self.folder / f"{letter}.toml"
        toml.write_text(
            f'product = "Demo"\nversion = "26.3.1"\nletter = "{letter}"\nbuild = "1{letter}"\n'
            + RELAUNCH
            + extra
        )
        out = self.folder / f"{letter}.bsi"
        told(
            *("build", "--base", self.trees["base"], "--new", self.trees[letter]),
            *("--release", toml, "--key", self.folder / "keys/private.pem", "-o", out),
            *("--profile", "fast"),
        )
        return out

    def publish(self, letter: str) -> str:
        """Offers what was built; its id."""
        self.feed(
            *("add", self.folder / f"{letter}.bsi", "-c", "release"),
            *("-t", self.folder / "keys/public.pem"),
        )
        digest = hashlib.sha256((self.folder / f"{letter}.bsi").read_bytes()).hexdigest()
        self.ids[letter] = update_id("Demo", "26.3.1", letter, digest)
        return self.ids[letter]

    def withdraw(self, letter: str, reason: str) -> None:
        """Takes it back everywhere."""
        self.feed(
            *("withdraw", self.ids[letter].rpartition("-")[2], "--reason", reason),
            *("--revert-installed", "--to", "baseline"),
        )

    # --- the device ---

    def tell(self, verb: str, *arguments: object, code: int = 0) -> Any:
        """A command on the device, and what it says."""
        return told(verb, *arguments, "--store", self.store, code=code, no_proxy="127.0.0.1")

    def status(self) -> Any:
        """Its status, in a moment in which nobody else reads the feed."""
        found: list[Any] = []

        def read() -> bool:
            found.append(self.tell("status"))
            return "being read" not in found[-1]["device"]["checks"]["problem"] and (
                "process" not in found[-1]["device"]["checks"]["problem"]
            )

        until(read, "a moment to look")
        return found[-1]

    def agent(self, *arguments: object) -> Any:
        """One run of the agent."""
        return self.tell("agent", "--once", "--now", *arguments)

    def live_tree(self) -> str:
        """Which of the trees is live, exactly; "" for none of them."""
        digest = walk(self.store / "current/tree").digest
        return next((name for name, d in self.digests().items() if d == digest), "")

    def digests(self) -> dict[str, str]:
        """Of every tree."""
        if not hasattr(self, "_digests"):
            self._digests = {name: walk(tree).digest for name, tree in self.trees.items()}
        return self._digests

    @contextlib.contextmanager
    def serving(self) -> Iterator[Server]:
        """The mirror."""

        def behave(handler: Handler, path: str, body: bytes | None) -> bool:
            self.first_asked = self.first_asked or time.monotonic()
            if self.out:
                handler.answer(503, b"")
            return self.out

        with serving(Served(self.folder / "feed"), behave) as server:
            self.server = server
            yield server

    def until_asked(self, process: subprocess.Popen[bytes]) -> None:
        """Until the device's first request, or the end of the process that was to make it."""
        deadline = time.monotonic() + PATIENCE
        while not self.first_asked and process.poll() is None:
            assert time.monotonic() < deadline, "nobody asked the server"
            time.sleep(0.002)

    def until_changing(self, process: subprocess.Popen[bytes]) -> None:
        """Until somebody holds the store's lock, or the end of the process that was to.

        A run may have nothing to change, for the server is away: then a while later.
        """
        deadline = time.monotonic() + (2.0 if self.out else 10.0)
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if (self.store / "lock").stat().st_size:
                    return
            time.sleep(0.001)

    @contextlib.contextmanager
    def resident(self, *arguments: object) -> Iterator[Resident]:
        """The agent that stays, started as a service manager would."""
        made = Resident(self, [str(argument) for argument in arguments])
        try:
            yield made
        finally:
            made.end()


class Resident:
    """A running agent with an activated socket."""

    def __init__(self, life: Life, arguments: list[str]) -> None:
        self.path = life.folder / "agent.sock"
        self.path.unlink(missing_ok=True)
        self.errors = (life.folder / "agent.stderr").open("a+")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(str(self.path))
            listening.listen(16)
            fd = os.dup(listening.fileno())
        os.set_inheritable(fd, True)
        command = [sys.executable, "-m", "bsipatch", "agent", "--store", str(life.store)]
        # only in the new process is its id known
        script = (
            f"import os, sys; {fd} == 3 or os.dup2({fd}, 3); os.set_inheritable(3, True);"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='api');"
            "os.execv(sys.executable, sys.argv[1:])"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, *command, *arguments],
            env=environment(no_proxy="127.0.0.1"),
            stderr=self.errors,
            pass_fds=(fd,),
            start_new_session=True,
        )
        os.close(fd)

    def get(self, path: str = "/v1/state") -> Any:
        """What the local interface answers."""
        return self.ask("GET", path)

    def state(self) -> Any:
        """The device's state, in a moment in which nobody else reads the feed."""
        found: list[Any] = []

        def read() -> bool:
            found.append(self.get())
            return found[-1]["feed"] is not None

        until(read, "a moment to look")
        return found[-1]

    def ask(self, verb: str, path: str, body: Any = None) -> Any:
        """A request; the answer's JSON."""
        import httpx

        transport = httpx.HTTPTransport(uds=str(self.path))
        with httpx.Client(transport=transport, base_url="http://agent", timeout=60) as client:
            return client.request(verb, path, json=body).json()

    def end(self) -> int:
        """SIGTERM, and its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(PATIENCE)
        self.errors.close()
        return code


def until(true: Callable[[], bool], what: str) -> None:
    """Waits until it is."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.2)


def generated(folder: Path, size: int = 60_000) -> dict[str, Path]:
    """Small frameworks for a life; the next base has what c changed, and more."""
    trees = {
        name: make_framework(folder / name, build, size=size)
        for build, name in enumerate(("base", "a", "b", "c"))
    }
    return with_next_base(folder, trees)


def with_next_base(folder: Path, trees: dict[str, Path]) -> dict[str, Path]:
    """The same and a base that came by other means."""
    after = folder / "next"
    shutil.copytree(trees["c"], after, symlinks=True)
    (after / "added-by-the-next-base").write_text("and more\n")
    return {**trees, "next": after}


def begin(folder: Path, trees: dict[str, Path], *, sick: str = SICK) -> Life:
    """Keys, a feed without updates, and the updates' files."""
    life = Life(folder, trees)
    run("keygen", folder / "keys", "--no-passphrase")
    life.feed("init", "--no-passphrase")
    life.build("a")
    life.build("b", sick)
    life.build("c")
    told(
        *("init", "--store", life.store, "--baseline", trees["base"], "--product", "Demo"),
        *("--version", "26.3.1", "--build", "1", "--trust", folder / "keys/public.pem"),
    )
    return life


def follow(life: Life, url: str) -> None:
    """The device follows the feed from now on."""
    life.tell("follow", url, "--root", life.folder / "feed/metadata/1.root.json")
