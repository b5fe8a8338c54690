"""python -m tests.crash: power cuts replayed state by state, planted bugs, failing calls."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.support import faults

from . import campaign, faulted, machine, planted
from .accepted import ACCEPTED
from .campaign import Case, Failure, Finding, Tally
from .kit import Kit
from .scenarios import SCENARIOS, Scenario

_FAULT_OPS = [
    *("init", "apply", "apply-per-file-sync", "revert", "collect"),
    *("recover-undo", "recover-finish", "boot-begin", "group-apply"),
]


def main() -> int:
    """The exit code: 0 all well, 1 states failed, 2 nothing could be run."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="record operations and replay their crash states")
    where = ["model", *machine.KINDS]
    run.add_argument("--fs", nargs="+", default=where, choices=where)
    run.add_argument("--op", nargs="+", default=list(SCENARIOS), choices=SCENARIOS)
    run.add_argument("--states", type=int, default=40, help="states of each recorded operation")
    run.add_argument("--recoveries", type=int, default=2, help="recoveries recorded of each")
    run.add_argument("--seed", type=int, default=1)
    run.add_argument("--jobs", type=int, default=2)
    run.add_argument("--out", type=Path, help="where the JSON summary goes")
    run.add_argument("--save", type=Path, help="folder for states that failed")
    again = commands.add_parser("replay", help="look at one saved state again")
    again.add_argument("file", type=Path)
    plant = commands.add_parser("planted", help="plant every bug in turn; each must be noticed")
    plant.add_argument("--fs", nargs="+", default=where, choices=where)
    plant.add_argument("--only", default="", help="bugs whose name has this in it")
    plant.add_argument("--single", action="store_true", help="each call, not each statement")
    known = [name for name, scenario in SCENARIOS.items() if scenario.modelled]
    plant.add_argument("--op", nargs="+", default=known, choices=SCENARIOS)
    plant.add_argument("--states", type=int, default=300, help="looked at for each bug at most")
    plant.add_argument("--seed", type=int, default=1)
    plant.add_argument("--jobs", type=int, default=2)
    plant.add_argument("--all", action="store_true", help="every file system for every bug")
    plant.add_argument("--out", type=Path, help="where the JSON summary goes")
    struck = commands.add_parser("faults", help="let the Nth system call fail, for every N")
    struck.add_argument("--op", nargs="+", default=_FAULT_OPS, choices=SCENARIOS)
    struck.add_argument("--fault", nargs="+", default=list(faults.FAULTS), choices=faults.FAULTS)
    struck.add_argument("--step", type=int, default=1, help="only every so many calls")
    struck.add_argument("--out", type=Path, help="where the JSON summary goes")
    options = parser.parse_args()
    if options.command == "faults":
        return _faults(options)
    if options.command == "replay":
        return _replay(options.file)
    return _planted(options) if options.command == "planted" else _run(options)


def _run(options: argparse.Namespace) -> int:
    tallies: list[Tally] = []
    skipped = {}
    saved = 0

    def told(tally: Tally) -> None:
        print(
            f"{tally.file_system:5}  {tally.case:42} {tally.states:5} states"
            f"  {len(tally.failed)} failed  {len(tally.damaged)} damaged  {tally.seconds:6.1f} s",
            file=sys.stderr,
            flush=True,
        )

    def failed(case: Case, finding: Finding, kit: Kit) -> None:
        nonlocal saved
        if options.save is not None and saved < 50:
            saved += 1
            name = f"{case.kind.name}-{case.name}-{saved}.crash"
            _save(options.save / name, case, finding, kit)

    if options.fs != ["model"]:
        machine.private_mounts()
    for name in options.fs:
        scenarios = [SCENARIOS[op] for op in options.op]
        if name == "model":
            tallies += campaign.run_modelled(
                scenarios, budget=options.states, seed=options.seed, told=told
            )
            continue
        kind = machine.KINDS[name]
        reason = machine.why_not(kind)
        if reason is not None:
            skipped[name] = reason
            print(f"{name:5}  SKIPPED: {reason}", file=sys.stderr, flush=True)
            continue
        tallies += campaign.run(
            kind,
            scenarios,
            budget=options.states,
            recoveries=options.recoveries,
            seed=options.seed,
            jobs=options.jobs,
            told=told,
            failed=failed,
        )
    _tell_all(tallies)
    summary = _summary(tallies, skipped, options.seed)
    text = json.dumps(summary, indent=1)
    if options.out is not None:
        options.out.write_text(text + "\n")
    else:
        print(text)
    if summary["failed"] or summary["file_system_damaged"]:
        return 1
    return 0 if tallies else 2


def _tell_all(tallies: list[Tally]) -> None:
    """What each file system came to."""
    for name in dict.fromkeys(tally.file_system for tally in tallies):
        mine = [tally for tally in tallies if tally.file_system == name]
        print(
            f"{name:5}  {sum(t.states for t in mine)} states in all:"
            f" {sum(t.after_success for t in mine)} after reported success,"
            f" {sum(t.torn_writes for t in mine)} with torn writes,"
            f" {sum(t.recovered for t in mine)} with work for recovery,"
            f" {sum(len(t.failed) for t in mine)} failed,"
            f" {sum(len(t.damaged) for t in mine)} damaged",
            file=sys.stderr,
            flush=True,
        )


def _planted(options: argparse.Namespace) -> int:
    """Each bug on one file system after the other until one shows it (--all: on each)."""
    if options.fs != ["model"]:
        machine.private_mounts()
    rows: dict[tuple[str, str], dict[str, object]] = {}
    skipped = {}
    for name in options.fs:
        kind = machine.KINDS.get(name)
        reason = machine.why_not(kind) if kind is not None else None
        if reason is not None:
            skipped[name] = reason
            print(f"{name:5}  SKIPPED: {reason}", file=sys.stderr, flush=True)
            continue
        with machine.memory_folder() as folder:
            kit = campaign.make_kit(folder / "kit")
            hunter = (
                planted.OnModel(kit, folder, options.seed, jobs=options.jobs)
                if kind is None
                else planted.OnDisk(
                    kit, folder, options.seed, kind, budget=options.states, jobs=options.jobs
                )
            )
            try:
                for op in options.op:
                    if kind is not None or SCENARIOS[op].modelled:
                        _hunt_all(hunter, name, SCENARIOS[op], rows, options)
            finally:
                hunter.close()
    found = planted.judged(rows.values(), options.single)
    text = json.dumps({"skipped": skipped, **found, "bugs": list(rows.values())}, indent=1)
    if options.out is not None:
        options.out.write_text(text + "\n")
    else:
        print(text)
    for bug in found["missed"]:
        print(f"MISSED: {bug}", file=sys.stderr)
    for bug in found["stale"]:
        print(f"STALE, was noticed, take it out of accepted.py: {bug}", file=sys.stderr)
    return 1 if found["missed"] or found["stale"] else 0 if rows else 2


def _hunt_all(
    hunter: planted.OnModel | planted.OnDisk,
    name: str,
    scenario: Scenario,
    rows: dict[tuple[str, str], dict[str, object]],
    options: argparse.Namespace,
) -> None:
    calls = hunter.calls(scenario)
    shown = {bug for (_, bug), row in rows.items() if row["noticed"]}
    bugs = []
    for bug in calls if options.single else planted.groups(calls):
        if options.only in str(bug):
            key = (scenario.name, str(bug))
            row = rows.setdefault(key, {"operation": scenario.name, "bug": str(bug), "noticed": {}})
            # the model is asked about each operation; it keeps least, and what is covered there
            # is covered everywhere
            settled = row["noticed"] or (
                name != "model"
                and (str(bug) in shown or ("model" in options.fs and str(bug) in ACCEPTED))
            )
            if options.all or not settled:
                bugs.append(bug)
    for found in hunter.hunt_all(scenario, bugs):
        seen = rows[(scenario.name, str(found.bug))]["noticed"]
        assert isinstance(seen, dict)
        if found.how:
            seen[name] = found.how
        how = f"after {found.states}: {found.how[:70]}" if found.how else "-"
        print(f"{name:5}  {scenario.name:20} {found.bug}: {how}", file=sys.stderr, flush=True)


def _faults(options: argparse.Namespace) -> int:
    if not faults.preloaded():
        faults.restart("tests.crash", sys.argv[1:])
    found = []
    with machine.memory_folder() as folder:
        kit = campaign.make_kit(folder / "kit")
        for op in options.op:
            scenario = SCENARIOS[op]
            faulted.warm(kit, scenario, folder / f"warm-{op}")
            for name in options.fault:
                swept = faulted.sweep(kit, scenario, faults.FAULTS[name], folder, step=options.step)
                found.append(vars(swept))
                print(
                    f"{op:20} {name:8} {swept.struck:5} struck  {swept.refused} refused"
                    f"  {swept.succeeded} succeeded  {swept.killed} killed"
                    f"  {len(swept.failed)} failed",
                    file=sys.stderr,
                    flush=True,
                )
    failed = sum(len(swept["failed"]) for swept in found)
    text = json.dumps({"failed": failed, "sweeps": found}, indent=1)
    if options.out is not None:
        options.out.write_text(text + "\n")
    else:
        print(text)
    return 1 if failed else 0


def _summary(tallies: list[Tally], skipped: dict[str, str], seed: int) -> dict[str, object]:
    return {
        "seed": seed,
        "skipped": skipped,
        "states": sum(t.states for t in tallies),
        "after_success": sum(t.after_success for t in tallies),
        "torn_writes": sum(t.torn_writes for t in tallies),
        "recovered": sum(t.recovered for t in tallies),
        "file_system_damaged": sum(len(t.damaged) for t in tallies),
        "failed": sum(len(t.failed) for t in tallies),
        "seconds": round(sum(t.seconds for t in tallies), 1),
        "cases": [t.summary() for t in tallies],
    }


def _save(path: Path, case: Case, finding: Finding, kit: Kit) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    updates = {letter: update.read_bytes() for letter, update in kit.updates.items()}
    failure = Failure(
        case.kind.name,
        case.name,
        case.log,
        case.expect,
        finding.state,
        finding.verdict,
        updates,
        case.place,
    )
    path.write_bytes(msgspec.msgpack.encode(failure))


def _replay(path: Path) -> int:
    """Looks at one saved state again and shows what became of the store."""
    failure = msgspec.msgpack.decode(path.read_bytes(), type=Failure)
    kind = machine.KINDS[failure.kind]
    reason = machine.why_not(kind)
    if reason is not None:
        print(f"cannot replay here: {reason}", file=sys.stderr)
        return 2
    machine.private_mounts()
    case = Case(kind, failure.name, failure.log, failure.expect, failure.place)
    with machine.memory_folder() as folder, _there(Path(failure.place)):
        kit = campaign.make_kit(folder / "kit")
        for letter, update in failure.updates.items():
            kit.updates[letter].write_bytes(update)
        (finding,) = campaign.replay(case, [failure.state], folder, kit, jobs=1)
    print(f"{kind.name} {failure.name}, crash after step {failure.state.at}", file=sys.stderr)
    print(msgspec.json.format(msgspec.json.encode(finding)).decode())
    return 0 if finding.verdict.ok else 1


@contextlib.contextmanager
def _there(place: Path) -> Iterator[None]:
    """A folder to mount on, for as long as it is needed."""
    made = [path for path in (place, *place.parents) if not path.exists()]
    place.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for path in made:
            path.rmdir()


if __name__ == "__main__":
    sys.exit(main())
