"""The operations whose power cuts are replayed: what comes before, what is done, what may be seen.

Each works through the store's public interface only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bsipatch.errors import HealthError
from bsipatch.store import boot_begin, boot_mark, boot_ok

from .kit import Kit, opened

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
    """

    name: str
    prepare: tuple[Act, ...]
    act: Act
    old: str
    new: str
    event: str
    between: tuple[str, ...] = ()


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


_TRIAL = (_init, _apply("restart"))
_TWO = (_init, _apply("a"), _apply("b"))

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
        Scenario("reapply", (_init, _apply("a"), _revert), _apply("a"), "", "a", "apply"),
        Scenario(
            "collect",
            (_init, _apply("a"), _revert, _apply("b"), _revert, _apply("a")),
            _collect,
            "a",
            "a",
            "gc",
        ),
        Scenario("trial", (_init,), _apply("restart"), "", "a", "apply"),
        Scenario("boot-begin", _TRIAL, _begin("start 1"), "a", "a", ""),
        Scenario("boot-ok", (*_TRIAL, _begin("start 1")), _boot_ok, "a", "a", ""),
        Scenario("boot-back", (*_TRIAL, *map(_begin, "123")), _begin("4"), "a", "", ""),
        Scenario("unhealthy", (_init,), _fail_health, "", "", "", ("a",)),
    )
}
