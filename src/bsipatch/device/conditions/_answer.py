"""The protocol of a condition, its answer, and what providers share: files and small commands."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

#: seconds that a helper such as busctl may take
_PATIENCE = 5.0
#: bytes of a helper's or a kernel file's text that are looked at
_MOST = 1 << 16


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What one provider found.

    ok        nothing here speaks against installing now
    code      the reason's name when it is not ok, as in the feed's reasons
    text      for people, one clause without a full stop
    known     False when the system could not tell and `ok` is only assumed
    until     when it changes by itself, seconds since 1970; None when nobody can know
    evidence  what was read, of JSON types
    """

    name: str
    ok: bool
    code: str
    text: str
    known: bool = True
    until: float | None = None
    evidence: dict[str, Any] = {}


class Condition(Protocol):
    """One question to the surroundings. Asking changes nothing and never raises."""

    @property
    def name(self) -> str:
        """What is asked about, one word."""
        ...

    def ask(self, now: float) -> Answer:
        """The answer at `now`, seconds since 1970."""
        ...


#: runs a command line and returns its output, or None when that did not work
Runner = Callable[[Sequence[str]], str | None]


def run_command(arguments: Sequence[str]) -> str | None:
    """The output of a small helper program; None when it is missing, fails or hangs."""
    program = shutil.which(arguments[0])
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *arguments[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    return done.stdout[:_MOST].decode("utf-8", "replace")


def read_text(path: Path) -> str | None:
    """A small file of the kernel's, stripped; None when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST).decode("utf-8", "replace").strip()
    except OSError:
        return None


def ask_all(conditions: Iterable[Condition], now: float) -> list[Answer]:
    """Every answer, in order. A provider that fails in spite of all is one that cannot tell."""
    answers = []
    for condition in conditions:
        try:
            answers.append(condition.ask(now))
        except Exception as error:
            # A provider may be someone else's; its defect must not stop security updates.
            answers.append(
                Answer(
                    name=condition.name,
                    ok=True,
                    code=condition.name,
                    known=False,
                    text=f"{condition.name}: the provider failed: {error}",
                    evidence={"error": f"{type(error).__name__}: {error}"},
                )
            )
    return answers
