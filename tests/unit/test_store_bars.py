"""Improvements that are not wanted again, and who may have them back."""

from __future__ import annotations

from pathlib import Path

import pytest

from bsipatch import manifest as manifests
from bsipatch.errors import (
    HealthError,
    LimitError,
    ManifestError,
    NotFoundError,
    PolicyError,
    StoreDamagedError,
)
from bsipatch.limits import DEFAULT
from bsipatch.store import Store, Terms, apply, bars, records
from bsipatch.store.records import Bar
from tests.support.stores import NOW, THIRD, live_tree, written
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, tree_of
from tests.support.trials import applied, automatic, command, update_with, words
from tests.support.updates import make_manifest, make_update

OLD, NEW = tree_of(OLD_FRAMEWORK), tree_of(NEW_FRAMEWORK)


@pytest.fixture
def sick(store: Store, tmp_path: Path) -> Path:
    """An update that failed its check and is barred; the check would pass now."""
    flag = tmp_path / "well"
    path = update_with(tmp_path / "sick.bsi", command(f"test -e {flag}"))
    with pytest.raises(HealthError):
        apply(store, path, now=NOW)
    flag.touch()
    return path


def test_what_failed_is_not_applied_again(store: Store, sick: Path) -> None:
    with pytest.raises(
        PolicyError, match=r"26\.3\.1 \(a\) is barred since .*exit code 1"
    ) as caught:
        apply(store, sick, now=NOW)
    assert "--even-if-barred" in caught.value.hint
    assert live_tree(store) == OLD
    assert words(store)[-1] == "refused"


def test_the_same_letter_built_again_is_no_way_around(
    store: Store, sick: Path, tmp_path: Path
) -> None:
    again = written(tmp_path / "again.bsi", make_update(build="25D771280b"))
    with pytest.raises(PolicyError):
        apply(store, again, now=NOW)


def test_its_publisher_supersedes_it(store: Store, sick: Path, tmp_path: Path) -> None:
    mended = make_update(build="25D771280b", supersedes=("25D771280a",))
    apply(store, written(tmp_path / "mended.bsi", mended), now=NOW, terms=automatic())
    assert live_tree(store) == NEW
    assert [bar.build for bar in store.bars()] == ["25D771280a"], "the sick one stays barred"


def test_a_newer_letter_supersedes_it(store: Store, sick: Path, tmp_path: Path) -> None:
    second = written(tmp_path / "b.bsi", make_update(new=THIRD, letter="b", build="2"))
    apply(store, second, now=NOW, terms=automatic())
    assert live_tree(store) == tree_of(THIRD)


def test_a_person_may_insist_and_is_believed_when_it_goes_well(store: Store, sick: Path) -> None:
    apply(store, sick, now=NOW, terms=Terms(even_if_barred=True))
    assert live_tree(store) == NEW
    assert store.bars() == ()


def test_insisting_does_not_help_what_fails_again(store: Store, tmp_path: Path) -> None:
    path = update_with(tmp_path / "a.bsi", command("exit 1"))
    for terms in (Terms(), Terms(even_if_barred=True)):
        with pytest.raises(HealthError):
            apply(store, path, now=NOW, terms=terms)
    assert len(store.bars()) == 1
    assert live_tree(store) == OLD


@pytest.mark.parametrize("called", ["a", "(a)", "26.3.1 (a)", "25D771280a", "all"])
def test_a_person_allows_it_by_any_of_its_names(store: Store, sick: Path, called: str) -> None:
    (lifted,) = store.allow(called)
    assert lifted.letter == "a"
    assert store.bars() == ()
    assert not (store.root / records.BARS).exists()
    event = store.history()[-1]
    assert event.event == "allowed"
    assert event.by
    assert "was barred" in event.reason
    apply(store, sick, now=NOW, terms=automatic())
    assert live_tree(store) == NEW


def test_by_its_manifest(store: Store, sick: Path) -> None:
    (bar,) = store.bars()
    with pytest.raises(NotFoundError):
        store.allow(bar.manifest[:7])
    assert store.allow(bar.manifest[:8]) == (bar,)


def test_allowing_what_is_not_barred_lists_what_is(store: Store, sick: Path) -> None:
    with pytest.raises(NotFoundError, match="no such improvement") as caught:
        store.allow("z")
    assert "25D771280a" in caught.value.hint


def test_what_its_owner_reverted_does_not_come_back_by_itself(store: Store, update: Path) -> None:
    apply(store, update, now=NOW)
    store.revert(reason="too slow")
    (bar,) = store.bars()
    assert (bar.why, bar.reason) == ("owner", "too slow")
    assert bar.by == store.history()[-1].by != ""
    with pytest.raises(PolicyError, match="too slow"):
        apply(store, update, now=NOW, terms=automatic())
    apply(store, update, now=NOW)
    assert live_tree(store) == NEW
    assert store.bars() == (), "asked for by name it is wanted again"


def test_remove_bars_everything_on_the_way_to_the_baseline(store: Store, tmp_path: Path) -> None:
    applied(store, tmp_path / "a.bsi")
    applied(store, tmp_path / "b.bsi", new=THIRD, letter="b", build="2")
    done = store.revert(remove=True)
    assert done.live.number == 0
    assert sorted(bar.letter for bar in store.bars()) == ["a", "b"]
    assert words(store)[-1] == "remove"


def test_a_revert_by_one_bars_one(store: Store, tmp_path: Path) -> None:
    applied(store, tmp_path / "a.bsi")
    applied(store, tmp_path / "b.bsi", new=THIRD, letter="b", build="2")
    store.revert()
    assert [bar.letter for bar in store.bars()] == ["b"]


def test_the_owners_bar_does_not_weaken_a_failures(store: Store, sick: Path) -> None:
    apply(store, sick, now=NOW, terms=Terms(health=False, even_if_barred=True))
    (before,) = _barred(store, "health")
    bars.put(store.fd, [replace_bar(before, "owner")], store.file, store.limits)
    assert store.bars() == (before,)


def _barred(store: Store, why: str) -> tuple[Bar, ...]:
    """One bar, whatever went before."""
    bar = Bar(
        manifest="0" * 64,
        product="Demo",
        version="26.3.1",
        letter="q",
        build="1",
        why=why,  # type: ignore[arg-type]
        reason="r",
        by="b",
        time=records.now(),
    )
    bars.put(store.fd, [bar], store.file, store.limits)
    return tuple(item for item in store.bars() if item.letter == "q")


def replace_bar(bar: Bar, why: str) -> Bar:
    """The same bar for another reason."""
    import msgspec

    return msgspec.structs.replace(bar, why=why)


def test_the_list_is_bounded(store: Store) -> None:
    few = DEFAULT.but(max_bars=3)
    (bar,) = _barred(store, "health")
    import msgspec

    many = [msgspec.structs.replace(bar, manifest=f"{n:064d}") for n in range(1, 6)]
    bars.put(store.fd, many, store.file, few)
    assert [item.manifest for item in store.bars()] == [f"{n:064d}" for n in (3, 4, 5)]


def test_a_damaged_list_refuses_updates_and_lets_everyone_go_back(
    store: Store, update: Path, tmp_path: Path
) -> None:
    apply(store, update, now=NOW)
    for bad in (b"", b"[]", b'{"format": 9, "bars": []}', b"\xff"):
        (store.root / records.BARS).write_bytes(bad)
        second = written(tmp_path / "b.bsi", make_update(new=THIRD, letter="b", build="2"))
        with pytest.raises(StoreDamagedError, match=r"bars\.json"):
            apply(store, second, now=NOW)
    store.revert()
    assert live_tree(store) == OLD
    assert [bar.letter for bar in store.bars()] == ["a"]


# --- what a manifest may say of it ---


@pytest.mark.parametrize(
    ("supersedes", "error"),
    [
        (("25D771280a",), ManifestError),
        (("1", "1"), ManifestError),
        (("../x",), ManifestError),
        (tuple(str(n) for n in range(300)), LimitError),
    ],
)
def test_a_manifest_supersedes_builds_other_than_its_own(
    supersedes: tuple[str, ...], error: type[Exception]
) -> None:
    made, _ = make_manifest(supersedes=supersedes)
    with pytest.raises(error):
        manifests.validate(made)


def test_old_manifests_read_as_before() -> None:
    made, _ = make_manifest()
    spelled = manifests.encode(made)
    assert b"health" not in spelled
    assert b"supersedes" not in spelled
    assert manifests.decode(spelled) == made
