"""A generated framework in several builds, and the command line to send it on its way."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bsipatch.tree import walk

COMMAND = [sys.executable, "-m", "bsipatch"]


def environment(**more: str) -> dict[str, str]:
    """The tests' environment without anything of ours in it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BSIPATCH")}
    return {**kept, "BSIPATCH_CONFIG": os.devnull, **more}


def run(*arguments: object, code: int = 0, **more: str) -> str:
    """Runs a command line to its end and gives its stdout; `code` is the exit code it must have."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout


def told(*arguments: object, code: int = 0, **more: str) -> Any:
    """The same with --json: the one object that was printed."""
    return json.loads(run(*arguments, "--json", code=code, **more))


def make_framework(root: Path, build: int, *, seed: int = 1, size: int = 400_000) -> Path:
    """One build of a framework: code, resources, modes, links; later builds differ in places."""
    draw = random.Random(seed)
    main = root / "Demo.framework/Versions/A"
    for folder in ("Resources/en.lproj", "Helpers", "Libraries"):
        (main / folder).mkdir(parents=True)
    words = [draw.randbytes(draw.randrange(3, 9)) for _ in range(4000)]
    code = bytearray(b"".join(draw.choice(words) for _ in range(size // 6)))
    for step in range(build):  # each build moves and changes some of the code
        change = random.Random(seed * 1000 + step)
        for _ in range(20):
            at = change.randrange(len(code))
            code[at : at + 4] = change.randbytes(change.randrange(0, 12))
    _write(main / "Demo", bytes(code), 0o755)
    _write(main / "Libraries/libhelp.dylib", bytes(code[: size // 4]), 0o755)
    _write(main / "Helpers/tool", b"#!/bin/sh\necho %d\n" % build, 0o755)
    _write(main / "Resources/Info.plist", b"<plist><string>build %d</string></plist>\n" % build)
    _write(main / "Resources/same.dat", draw.randbytes(size // 2))
    _write(main / "Resources/en.lproj/Main.strings", b"hello = world;\n" * 50)
    _write(main / "Resources/empty", b"")
    if build % 2:
        _write(main / f"Resources/added-{build}.dat", draw.randbytes(20_000))
    else:
        _write(main / "Resources/old-only.dat", b"only in even builds\n" * 99, 0o600)
    top = root / "Demo.framework"
    (top / "Versions/Current").symlink_to("A")
    for name in ("Demo", "Resources", "Helpers", "Libraries"):
        (top / name).symlink_to(f"Versions/Current/{name}")
    return root


def _write(path: Path, data: bytes, mode: int = 0o644) -> None:
    path.write_bytes(data)
    path.chmod(mode)


@dataclass(frozen=True)
class Journey:
    """Builds 0, 1 and 2 of a framework, keys, updates a (0 to 1) and b (0 to 2), and a store."""

    folder: Path

    def tree(self, build: int) -> Path:
        """The tree of one build."""
        return self.folder / f"build{build}"

    @property
    def store(self) -> Path:
        """The device's store."""
        return self.folder / "store"

    def update(self, letter: str) -> Path:
        """The update file of one improvement."""
        return self.folder / f"{letter}.bsi"

    def build(
        self, letter: str, base: int, new: int, out: Path | None = None, **fields: str
    ) -> Any:
        """Builds an update; `fields` change release.toml."""
        release = {
            "product": "Demo",
            "version": "26.3.1",
            "letter": letter,
            "build": f"25D77{new}",
            **fields,
        }
        toml = self.folder / f"release-{letter}.toml"
        bare = ("created", "expires", "xattrs")  # no texts in TOML
        toml.write_text(
            "".join(
                f"{name} = {value}\n" if name in bare else f'{name} = "{value}"\n'
                for name, value in release.items()
            )
        )
        return told(
            "build",
            *("--base", self.tree(base)),
            *("--new", self.tree(new)),
            *("--release", toml),
            *("--key", self.folder / "keys/private.pem"),
            *("-o", out or self.update(letter)),
            *("--profile", "fast"),
        )

    def init(self) -> Any:
        """Makes the store from build 0."""
        return told(
            "init",
            *("--store", self.store),
            *("--baseline", self.tree(0)),
            *("--product", "Demo"),
            *("--version", "26.3.1"),
            *("--build", "25D2128"),
            *("--trust", self.folder / "keys/public.pem"),
        )

    def apply(self, letter: str, code: int = 0, *more: object) -> Any:
        """Applies an improvement."""
        return told("apply", self.update(letter), "--store", self.store, *more, code=code)

    def status(self) -> Any:
        """What status says."""
        return told("status", "--store", self.store)

    def live_build(self) -> int | None:
        """Which build the live tree is, exactly; None when it is none of them."""
        digest = walk(self.store / "current/tree").digest
        for build in range(3):
            if walk(self.tree(build)).digest == digest:
                return build
        return None

    def debris(self) -> list[str]:
        """What must not lie in the store."""
        allowed = {"store.json", "lock", "current", "history.jsonl", "generations"}
        allowed |= {"trial.json", "bars.json", "moved.json"}  # on trial; reverted
        found = [name for name in os.listdir(self.store) if name not in allowed]
        return found + [n for n in os.listdir(self.store / "generations") if not n.isdigit()]


def prepare(folder: Path, *, size: int = 400_000) -> Journey:
    """Everything up to the store."""
    journey = Journey(folder)
    for build in range(3):
        make_framework(journey.tree(build), build, size=size)
    run("keygen", folder / "keys", "--no-passphrase")
    journey.build("a", 0, 1)
    journey.build("b", 0, 2)
    journey.init()
    return journey


def interrupt(journey: Journey, letter: str, after: float, number: signal.Signals) -> int:
    """Applies in a process of its own and sends it a signal after so many seconds."""
    child = subprocess.Popen(
        [*COMMAND, "apply", str(journey.update(letter)), "--store", str(journey.store)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(after)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    # until our main has seen to it, a signal is the interpreter's own affair
    ours = re.search(r'cli/__init__\.py", line \d+, in main\b', err)
    early = ours is None or "_until_ready" in err
    assert "Traceback" not in err or early, err
    return child.returncode
