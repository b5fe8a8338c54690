"""The plain forms of `bsipatch patch`, read without the option parser.

Loading the parser takes several times as long as applying a small patch.  What is read
here means the same to the parser (a test holds the two together); all else is left to it:
help, mistakes, abbreviations, options given twice, defaults from a config file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

_VALUES = {"-o": "out", "--out": "out", "-j": "jobs", "--jobs": "jobs"}
_MOST_JOBS = 256


class PatchLine:
    """One command line of `bsipatch patch`."""

    __slots__ = ("jobs", "json", "old", "out", "patch")  # a dataclass loads slowly

    def __init__(self, old: str, patch: str, out: str, *, jobs: int | None, json: bool) -> None:
        self.old = old
        self.patch = patch
        self.out = out
        self.jobs = jobs
        self.json = json


def read(arguments: Sequence[str]) -> PatchLine | None:
    """The command line when it is plain, else None."""
    if not arguments or arguments[0] != "patch":
        return None
    if any(name.startswith("_BSIPATCH") for name in os.environ):  # a shell completes the line
        return None
    files: list[str] = []
    found: dict[str, str] = {}
    json = False
    rest = iter(arguments[1:])
    for argument in rest:
        if argument == "--json" and not json:
            json = True
        elif argument in _VALUES:
            value = next(rest, "")
            if not value or value.startswith("-") or _VALUES[argument] in found:
                return None
            found[_VALUES[argument]] = value
        elif argument and not argument.startswith("-"):
            files.append(argument)
        else:
            return None
    jobs = found.get("jobs", "1")
    if len(files) != 2 or "out" not in found or not (jobs.isascii() and jobs.isdigit()):
        return None
    if len(jobs) > 3 or not 1 <= int(jobs) <= _MOST_JOBS:
        return None
    return PatchLine(
        old=files[0],
        patch=files[1],
        out=found["out"],
        jobs=int(jobs) if "jobs" in found else None,
        json=json,
    )
