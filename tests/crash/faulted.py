"""The Nth system call of an operation fails, or the process dies there, for every N.

Afterwards the old generation is live and whole, or the new one is where success
was reported; the error is one of ours and says why; the next run works.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bsipatch.errors import BsipatchError, error_classes
from tests.support import faults
from tests.support.faults import Fault

from .judging import Expect, judge
from .kit import Kit
from .scenarios import Scenario

#: a call whose failure must never be passed over in silence
_MUST_TELL = ("fsync", "fdatasync", "syncfs")


class Outcome(msgspec.Struct, frozen=True):
    """What the process that was struck had to say."""

    fired: str | None = None
    ok: bool = False
    code: int = 0
    message: str = ""
    number: int | None = None
    trace: str = ""


@dataclass
class Swept:
    """Counts of one operation under one fault."""

    operation: str
    fault: str
    struck: int = 0
    refused: int = 0
    succeeded: int = 0
    killed: int = 0
    failed: list[str] = field(default_factory=list)


def sweep(
    kit: Kit, scenario: Scenario, fault: Fault, folder: Path, *, step: int = 1, first: int = 1
) -> Swept:
    """Every `step`th N from `first` on, until no fault fires any more."""
    swept = Swept(scenario.name, fault.name)
    template, place = folder / f"template-{scenario.name}", folder / "struck"
    if not template.exists():
        template.mkdir()
        for act in scenario.prepare:
            act(kit, template)
    known = {cls.exit_code for cls in error_classes().values()}
    for nth in itertools.count(first, step):
        shutil.copytree(template, place, symlinks=True)
        outcome = _strike(kit, scenario, fault, nth, place, folder / "calls")
        if outcome is not None and outcome.fired is None:
            shutil.rmtree(place)
            return swept
        swept.struck += 1
        wrong = _judge(kit, scenario, fault, outcome, place, known)
        if outcome is None:
            swept.killed += 1
        elif outcome.ok:
            swept.succeeded += 1
        else:
            swept.refused += 1
        if wrong:
            call = outcome.fired if outcome else "?"
            swept.failed.append(f"{fault.name} at call {nth} ({call}): {wrong}")
        shutil.rmtree(place)
    raise AssertionError("not reached")


def warm(kit: Kit, scenario: Scenario, place: Path) -> None:
    """Does the operation once, so that what Python loads late is not struck later."""
    place.mkdir()
    for act in (*scenario.prepare, scenario.act):
        act(kit, place)
    judge(kit, place, Expect((), scenario.new), succeeded=True, use=True)


def _judge(
    kit: Kit,
    scenario: Scenario,
    fault: Fault,
    outcome: Outcome | None,
    place: Path,
    known: set[int],
) -> str:
    """What is wrong, "" when all is as promised."""
    expect = Expect.of(scenario)
    succeeded = outcome is not None and outcome.ok
    verdict = judge(kit, place, expect, succeeded=succeeded, use=True)
    if not verdict.ok:
        return verdict.why
    if outcome is None or outcome.ok:
        if outcome is not None and outcome.fired in _MUST_TELL and fault.error != errno.EINTR:
            return "a failed sync was passed over, success was reported"
        return ""
    if outcome.trace:
        return f"not an error of ours: {outcome.trace}"
    if outcome.code not in known:
        return f"exit code {outcome.code} is in no table"
    if outcome.number != fault.error and os.strerror(fault.error) not in outcome.message:
        return f"the message does not say why: {outcome.message}"
    return ""


def _strike(
    kit: Kit, scenario: Scenario, fault: Fault, nth: int, place: Path, report: Path
) -> Outcome | None:
    """The operation in a child in which call `nth` fails; None when it was killed there."""
    report.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            faults.arm(nth, fault)
            outcome = _attempt(kit, scenario, place)
            fired = faults.fired()
            faults.arm(0, fault)
            report.write_bytes(msgspec.json.encode(msgspec.structs.replace(outcome, fired=fired)))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    if not report.exists():
        return None
    return msgspec.json.decode(report.read_bytes(), type=Outcome)


def _attempt(kit: Kit, scenario: Scenario, place: Path) -> Outcome:
    try:
        scenario.act(kit, place)
    except BsipatchError as error:
        number = None
        cause: BaseException | None = error
        while cause is not None and number is None:
            number = cause.errno if isinstance(cause, OSError) else None
            cause = cause.__cause__ or cause.__context__
        return Outcome(code=error.exit_code, message=str(error), number=number)
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in frames[:-6:-1])
        return Outcome(trace=f"{type(error).__name__}: {error} ({where})")
    return Outcome(ok=True)
