"""STORE/agent.json: what the agent waits for, and what it has tried.

Nobody relies on it: the store and the feed say what is so.  Without it, or with a
damaged one, the agent looks once more than it had to.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from ...errors import from_os_error
from ...output import OutputFile

NAME = "agent.json"
_MOST = 1 << 16
#: seconds that a clock may be corrected by without having been set back
_SLACK = 300.0


class Memo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Times in seconds since 1970.

    written    when this was written
    wake       when the agent looks again; 0 for at once
    doing      what it waits for, one line for people
    pids       programs whose end it waits for as well
    update     the improvement that the rest speaks of, by its id
    ready      since when only running programs hold it back
    fetched    its download is complete
    failures   times in a row that fetching or installing it failed; `error` is the newest one's
               words, and it is tried again at `retry`
    problem    the last failure of anything else, so that it is written down once
    relaunch   what is live and not yet in effect in every program, as people call it; "" when it is
    """

    written: float = 0.0
    wake: float = 0.0
    doing: str = ""
    pids: tuple[int, ...] = ()
    update: str = ""
    ready: float = 0.0
    fetched: bool = False
    failures: int = 0
    retry: float = 0.0
    error: str = ""
    problem: str = ""
    relaunch: str = ""

    def at(self, now: float) -> Memo:
        """The same; after a clock was set back, nothing is put off by the time that it showed."""
        if self.written <= now + _SLACK:
            return self
        return msgspec.structs.replace(self, wake=0.0, retry=0.0, ready=0.0)

    def about(self, update: str) -> Memo:
        """The same when it speaks of this improvement, else one that starts anew."""
        if update == self.update:
            return self
        return Memo(update=update, relaunch=self.relaunch, problem=self.problem)


def load(store: Path) -> Memo:
    """What was written; an empty one when there is nothing, or nothing that can be read."""
    try:
        with (store / NAME).open("rb") as file:
            return msgspec.json.decode(file.read(_MOST), type=Memo)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return Memo()


def save(store: Path, memo: Memo) -> None:
    """Writes it, whole or not at all. Raises SystemCallError, NoSpaceError, NotFoundError."""
    path = store / NAME
    try:
        with OutputFile(path, mode=0o644) as out:
            out.write(msgspec.json.encode(memo) + b"\n")
            out.commit()
    except OSError as error:
        raise from_os_error(error, path) from error
