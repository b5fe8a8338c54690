"""The operations whose power cuts are replayed: what comes before, what is done, what may be seen.

Each works through the store's public interface only; a run that is cut off, for recovery
to find, dies as it calls some function inside.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bsipatch.errors import HealthError
from bsipatch.store import (
    boot_begin,
    boot_mark,
    boot_ok,
    check,
    live,
    moving,
    recover,
    repairing,
    trial,
)
from tests.support.stores import NOW, new_store

from .kit import Kit, group_of, opened, spoil

Act = Callable[[Kit, Path], object]

#: stands for "there is no store yet"
NOTHING = "nothing"


@dataclass(frozen=True)
class Scenario:
    """One operation.

    prepare  brings the store to where the operation starts; not recorded
    act      what is recorded; success is reported when it returns
    old      the live build before (a name of Kit.digests, or NOTHING)
    new      the live build after
    event    what the history ends with then, "" when that is not looked at
    between  builds that may be live meanwhile
    mends    the live tree is spoilt before, and is repaired
    live_mode of a store that has a live path of its own
    told     events that stand in the history before and stay
    midway   the event of the first of two operations, once that has reported its success
    trial    how the trial stands after, "2 begun": tries and phase
    modelled whether model.py knows what it does; it knows no extended attributes, and no
             rename from one directory to another that is one step in both
    share    of the states that are asked for
    """

    name: str
    prepare: tuple[Act, ...]
    act: Act
    old: str
    new: str
    event: str
    between: tuple[str, ...] = ()
    mends: bool = False
    live_mode: str = ""
    told: tuple[str, ...] = ()
    midway: str = ""
    trial: str = ""
    modelled: bool = True
    share: float = 1.0


def _init(kit: Kit, place: Path) -> None:
    kit.init(place)


def _apply(letter: str, **options: object) -> Act:
    return lambda kit, place: kit.apply(place, letter, **options)


def _revert(kit: Kit, place: Path) -> None:
    with opened(place) as store:
        store.revert()


def _remove(kit: Kit, place: Path) -> None:
    with opened(place) as store:
        store.revert(baseline=True)


def _collect(kit: Kit, place: Path) -> None:
    with opened(place) as store:
        if not store.collect().removed:
            raise AssertionError("nothing was there to collect")


def _revert_and_apply(kit: Kit, place: Path) -> None:
    _revert(kit, place)
    kit.report()
    kit.apply(place, "c")


def _boot_begin(kit: Kit, place: Path) -> None:
    with opened(place) as store:
        boot_begin(store, boot_id="start 1")


def _boot_mark(kit: Kit, place: Path) -> None:
    with opened(place) as store:
        boot_mark(store, "running", boot_id="start 1")


def _begin(boot: str) -> Act:
    def act(kit: Kit, place: Path) -> None:
        with opened(place) as store:
            boot_begin(store, boot_id=boot)
            boot_mark(store, "running", boot_id=boot)

    return act


def _boot_ok(kit: Kit, place: Path) -> None:
    with opened(place) as store:
        boot_ok(store, boot_id="start 1")


def _fail_health(kit: Kit, place: Path) -> None:
    """Success here is that the owner is told of the failed check, the old build live again."""
    try:
        kit.apply(place, "unhealthy")
    except HealthError:
        return
    raise AssertionError("the check did not fail")


def _cut_off(act: Act, owner: object, function: str) -> Act:
    """`act` in a process that is gone when it gets to `function`."""

    def cut(kit: Kit, place: Path) -> None:
        child = os.fork()
        if child == 0:
            setattr(owner, function, lambda *_, **__: os._exit(9))
            try:
                act(kit, place)
            finally:
                os._exit(1)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 9:
            raise AssertionError(f"{function} was not called")

    return cut


def _recover(kit: Kit, place: Path) -> None:
    with opened(place) as store:
        if not recover(store).done:
            raise AssertionError("nothing was there to recover")


def _recover_back(kit: Kit, place: Path) -> None:
    try:
        _recover(kit, place)
    except HealthError:
        return
    raise AssertionError("the check did not fail")


def _init_copy(kit: Kit, place: Path) -> None:
    kit.init(place, strategy="copy")


def _spoil(kit: Kit, place: Path) -> None:
    with opened(place) as store:
        spoil(store.live_path)


def _repair(kit: Kit, place: Path) -> None:
    with opened(place) as store:
        report = check(store, repair=True, sources=[kit.updates["a"]])
    if not (report.sound and len(report.repaired) > 5):
        raise AssertionError(f"not repaired: {report.drift}")


def _recover_and_repair(kit: Kit, place: Path) -> None:
    _recover(kit, place)
    _repair(kit, place)


def _init_exchange(kit: Kit, place: Path) -> None:
    kit.init(place, live_mode="exchange")


def _init_link(kit: Kit, place: Path) -> None:
    kit.init(place, live_mode="symlink")


def _make_two(kit: Kit, place: Path) -> None:
    group = group_of(place)
    for name in ("one", "two"):
        group.path(name).parent.mkdir(parents=True, exist_ok=True)
        new_store(group.path(name), kit.base).close()
    group.adopt("one")


def _adopt(kit: Kit, place: Path) -> None:
    group_of(place).adopt("two")


def _apply_both(kit: Kit, place: Path) -> None:
    updates = {"one": kit.updates["a"], "two": kit.updates["b"]}
    group_of(place).apply(updates, now=NOW)


def _revert_both(kit: Kit, place: Path) -> None:
    group_of(place).revert()


_TRIAL = (_init, _apply("restart"))
_ONE = (_init, _apply("a"))
_TWO = (*_ONE, _apply("b"))
_GROUP = (_make_two, _adopt)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("init", (), _init, NOTHING, "", "init"),
        Scenario("apply", (_init,), _apply("a"), "", "a", "apply"),
        Scenario(
            "apply-per-file-sync", (_init,), _apply("a", per_file_sync=True), "", "a", "apply"
        ),
        Scenario("apply-copy", (_init,), _apply("a", strategy="copy"), "", "a", "apply"),
        Scenario("replace", (_init, _apply("a")), _apply("b"), "a", "b", "apply"),
        Scenario("revert", _TWO, _revert, "b", "a", "revert"),
        Scenario("remove", _TWO, _remove, "b", "", "revert"),
        Scenario(
            "revert-apply",
            *(_TWO, _revert_and_apply, "b", "c", "apply"),
            between=("a",),
            midway="revert",
        ),
        Scenario(
            "reapply",
            *((_init, _apply("a"), _revert), _apply("a"), "", "a", "apply"),
            told=("init", "apply", "revert"),
        ),
        Scenario(
            "collect",
            (_init, _apply("a"), _revert, _apply("b"), _revert, _apply("a")),
            _collect,
            "a",
            "a",
            "gc",
        ),
        Scenario("trial", (_init,), _apply("restart"), "", "a", "apply", trial="3 applied"),
        Scenario("boot-begin", _TRIAL, _boot_begin, "a", "a", "", trial="2 begun"),
        Scenario("boot-mark", (*_TRIAL, _boot_begin), _boot_mark, "a", "a", "", trial="2 running"),
        Scenario("boot-ok", (*_TRIAL, _begin("start 1")), _boot_ok, "a", "a", "good"),
        Scenario("boot-back", (*_TRIAL, *map(_begin, "123")), _begin("4"), "a", "", "gave-up"),
        Scenario("unhealthy", (_init,), _fail_health, "", "", "unhealthy", ("a",)),
        *(
            Scenario(f"recover-{name}", (*before, cut), act, old, new, event, share=0.5)
            for name, before, cut, act, old, new, event in (
                ("undo", _ONE, _cut_off(_apply("b"), live, "flip"), _recover, "a", "a", "apply"),
                (
                    *("finish", _ONE, _cut_off(_apply("b"), moving, "settle")),
                    *(_recover, "b", "b", "recovered"),
                ),
                (
                    *("trial", (_init,), _cut_off(_apply("unhealthy"), trial, "judge")),
                    *(_recover_back, "a", "", "unhealthy"),
                ),
            )
        ),
        Scenario(
            "repair",
            (_init_copy, _apply("a", strategy="copy"), _spoil),
            _repair,
            *("a", "a", "repair"),
            mends=True,
            share=0.5,
        ),
        Scenario(
            "recover-repair",
            (
                *(_init_copy, _apply("a", strategy="copy"), _spoil),
                _cut_off(_repair, repairing._Repairer, "_put"),
            ),
            _recover_and_repair,
            *("a", "a", "repair"),
            mends=True,
            share=0.5,
        ),
        Scenario("link-init", (), _init_link, NOTHING, "", "init", live_mode="symlink", share=0.5),
        Scenario(
            "exchange-init",
            *((), _init_exchange, NOTHING, "", "init"),
            live_mode="exchange",
            share=0.5,
        ),
        Scenario(
            "exchange-apply",
            *((_init_exchange,), _apply("a"), "", "a", "apply"),
            live_mode="exchange",
            share=0.5,
        ),
        Scenario(
            "exchange-revert",
            *((_init_exchange, _apply("a")), _revert, "a", "", "revert"),
            live_mode="exchange",
            share=0.5,
        ),
        Scenario("group-adopt", (_make_two,), _adopt, "&", "&", "", share=0.3),
        Scenario("group-apply", _GROUP, _apply_both, "&", "a&b", "apply", share=0.5),
        Scenario(
            "group-revert", (*_GROUP, _apply_both), _revert_both, "a&b", "&", "revert", share=0.5
        ),
    )
}
