"""Operations on the file system of model.py: every choice of states, judged as on real ones."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec

from . import machine, model
from .judging import Expect, judge
from .kit import Kit
from .scenarios import Scenario

_REPORT = "report.json"


class Modelled(msgspec.Struct):
    """What became of one operation: its calls, the states looked at, those not as promised."""

    operation: str
    calls: list[dict[str, Any]] = []
    states: int = 0
    recovered: int = 0
    after_success: int = 0
    failed: list[str] = []
    #: why the operation itself did not succeed
    broke: str = ""


def run(
    kit: Kit,
    scenario: Scenario,
    folder: Path,
    *,
    seed: int = 1,
    watch: Callable[[], Any] = contextlib.nullcontext,
    budget: int = 100_000,
    stop: bool = False,
) -> Modelled:
    """One operation in a process of its own. `stop`: at the first state that is not as promised."""
    child = start(kit, scenario, folder, seed=seed, watch=watch, budget=budget, stop=stop)
    os.waitpid(child, 0)
    return finish(child, scenario, folder)


def start(
    kit: Kit,
    scenario: Scenario,
    folder: Path,
    *,
    seed: int,
    watch: Callable[[], Any],
    budget: int,
    stop: bool,
) -> int:
    """Begins one; the number of the process, for `finish` once that has ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            machine.die_with_parent()
            mine = folder / f"model.{os.getpid()}"
            found = _run(kit, scenario, mine, seed, watch, budget, stop)
            (mine / _REPORT).write_bytes(msgspec.json.encode(found))
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(code)
    return child


def finish(child: int, scenario: Scenario, folder: Path) -> Modelled:
    """What a process that has ended found. Raises RuntimeError when it died."""
    mine = folder / f"model.{child}"
    try:
        return msgspec.json.decode((mine / _REPORT).read_bytes(), type=Modelled)
    except FileNotFoundError:
        raise RuntimeError(f"{scenario.name} on the modelled file system ended early") from None
    finally:
        shutil.rmtree(mine, ignore_errors=True)


def _run(
    kit: Kit,
    scenario: Scenario,
    folder: Path,
    seed: int,
    watch: Callable[[], Any],
    budget: int,
    stop: bool,
) -> Modelled:
    folder.mkdir()
    place = folder / "store-parent"
    place.mkdir()
    found = Modelled(scenario.name)
    for act in scenario.prepare:
        act(kit, place)
    reported: list[int] = []
    try:
        with model.Tracer(place) as tracer, watch() as watching:
            scenario.act(replace(kit, report=lambda: reported.append(len(tracer.moments))), place)
    except Exception as error:  # the bug keeps the operation from succeeding at all
        found.broke = f"{type(error).__name__}: {error}"
        return found
    if watching is not None:
        found.calls = [asdict(call) for call in watching.calls]
    expect = Expect.of(scenario)
    last = len(tracer.moments) - 1
    model.clear(place)
    seen: set[tuple[bool, bool, int]] = set()
    states = list(model.pick(tracer.moments, seed))
    # by chance: what a budget leaves out is of every kind, and what fails comes soon
    random.Random(seed).shuffle(states)
    for moment, state in states:
        done = moment == last
        key = (
            done,
            bool(reported and moment >= reported[0] - 1),
            model.reachable(state, tracer.root),
        )
        if key in seen:
            continue
        seen.add(key)
        model.lay_out(state, tracer.root, place)
        midway = done or bool(reported and moment >= reported[0] - 1)
        verdict = judge(kit, place, expect, succeeded=done, use=len(seen) % 8 == 0, midway=midway)
        model.clear(place)
        found.states += 1
        found.after_success += done
        found.recovered += verdict.did > 0
        if not verdict.ok:
            found.failed.append(f"moment {moment} of {last}: {verdict.why}")
            if stop:
                break
        if found.states >= budget:
            break
    return found
