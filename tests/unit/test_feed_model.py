"""Offers, names and rollouts: the gate that both sides of a feed share."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsipatch.errors import BsipatchError, FeedError, UnsafePathError, UsageError
from bsipatch.feed import names, rollout
from bsipatch.feed.model import KEY, Offer, Rollout, Withdrawal, check_offer, read_offer, to_custom
from bsipatch.manifest import Activation, Baseline, SecurityItem

SHA = hashlib.sha256(b"update").hexdigest()
NOW = 1_780_000_000


def make(**changes: Any) -> Offer:
    fields: dict[str, Any] = {
        "format": 1,
        "id": names.update_id("Demo", "26.3.1", "a", SHA),
        "product": "Demo",
        "platform": "macos",
        "architectures": ("arm64", "x86_64"),
        "version": "26.3.1",
        "letter": "a",
        "build": "25D771280a",
        "baseline": Baseline(version="26.3.1", build="25D2128", digest="b" * 64),
        "result_digest": "c" * 64,
        "size": 3000,
        "space": 1 << 20,
        "memory": 1 << 20,
        "kind": "delta",
        "activation": Activation(scope="relaunch", processes=("Safari",)),
        "published": NOW,
        "sequence": 1,
        "security": (SecurityItem(component="WebKit", impact="bad", cves=("CVE-2026-20643",)),),
    }
    return Offer(**{**fields, **changes})


PATH = f"beta/Demo/{SHA}.bsi"


def read(path: str = PATH, *, custom: Any = None, **changes: Any) -> Offer:
    told = to_custom(make(**changes)) if custom is None else custom
    return read_offer(path, length=3000, sha256=SHA, custom=told)


# --- names ---


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Beta",
        "beta ",
        "../beta",
        "beta/../root",
        "root",
        "targets",
        "beta\0",
        "béta",
        "nightly",
    ],
)
def test_a_channel_is_one_of_three_and_never_a_path(name: str) -> None:
    with pytest.raises(UnsafePathError):
        names.check_channel(name)
    with pytest.raises(UnsafePathError):
        names.path_pattern(name)


def test_roles_are_tufs_and_the_channels() -> None:
    for name in ("root", "targets", "snapshot", "timestamp", "developer", "beta", "release"):
        assert names.check_role(name) == name
    for name in ("../root", "1.root", "mirror"):
        with pytest.raises(UnsafePathError):
            names.check_role(name)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "beta",
        f"beta/{SHA}.bsi",
        f"beta/Demo/x/{SHA}.bsi",
        f"beta/../Demo/{SHA}.bsi",
        f"beta/../{SHA}.bsi",
        f"beta/./{SHA}.bsi",
        f"/beta/Demo/{SHA}.bsi",
        f"beta//{SHA}.bsi",
        f"nightly/Demo/{SHA}.bsi",
        f"beta/Demo/{SHA}.exe",
        f"beta/Demo/{SHA.upper()}.bsi",
        f"beta/Demo/{SHA[:-1]}.bsi",
        f"beta/Demo\\x/{SHA}.bsi",
        f"beta/Demo\0/{SHA}.bsi",
        f"beta/Démo/{SHA}.bsi",
        f"beta/Demo./{SHA}.bsi",
        f"beta/Demo/{SHA}.bsi\n",
    ],
)
def test_target_paths_have_one_spelling(path: str) -> None:
    with pytest.raises(UnsafePathError):
        names.parse_target(path)
    with pytest.raises(UnsafePathError):
        read(path)


def test_a_product_cannot_lead_out_of_its_channel() -> None:
    for product in ("..", ".", "a/b", "../../etc", "a\\b", "", "-x", "a\0"):
        with pytest.raises(UnsafePathError):
            names.target_path("beta", product, SHA)
    assert names.target_path("beta", "My Kit", SHA) == f"beta/My Kit/{SHA}.bsi"
    assert names.parse_target(f"beta/My Kit/{SHA}.bsi").product == "My Kit"
    assert names.url_path(f"beta/My Kit+/{SHA}.bsi") == f"beta/My%20Kit%2B/{SHA}.bsi"


@given(st.text(max_size=80))
def test_any_text_as_a_path_is_taken_apart_or_refused(path: str) -> None:
    try:
        parts = names.parse_target(path)
    except UnsafePathError:
        return
    assert names.target_path(parts.channel, parts.product, parts.sha256) == path


def test_ids_and_device_ids() -> None:
    assert names.update_id("Demo", "26.3.1", "a", SHA) == f"Demo-26.3.1-a-{SHA[:12]}"
    assert names.check_id("My Kit-1.0-ab-0123456789ab")
    for name in ("", "Demo", "Demo-1-a-0123", "Demo-1-A-0123456789ab", "../x-1-a-0123456789ab\n"):
        with pytest.raises(FeedError):
            names.check_id(name)
    assert names.check_device_id("lab-7.example:2@x")
    for name in ("", " x", "a b", "a/b", "x" * 256, "a\n"):
        with pytest.raises(FeedError):
            names.check_device_id(name)


# --- rollouts ---


def test_what_a_name_means() -> None:
    ids = ["WebKit-1-a-0123456789ab", "WebKit-1-b-ffff456789ab", "456789ab"]
    assert names.means("6789ab", ids[0])
    assert names.means(ids[0], ids[0])
    assert not names.means("789ab", ids[0]), "five characters are too few"
    assert not names.means("WebKit", ids[0]), "only the end counts"
    assert names.means("x", "x")

    def found(name: str) -> list[str]:
        return names.by_id(name, ids + ids, str)

    assert found("0123456789ab") == [ids[0]] * 2
    assert found("456789ab") == ["456789ab"] * 2, "an id in full goes before an end"
    assert found("000000") == found("9ab") == []
    with pytest.raises(UsageError, match="several") as caught:
        found("6789ab")
    assert caught.value.found == ", ".join(sorted(ids))


def test_a_device_has_the_place_that_the_contract_says() -> None:
    digest = hashlib.sha256(b"bsipatch-rollout\0" + b"salt" + b"\0" + b"device").digest()
    place = int.from_bytes(digest[:8], "big")
    assert rollout.position("salt", "device") == place
    for percent in range(101):
        assert rollout.is_member("salt", "device", percent) == (place * 100 < percent << 64)


@given(st.text(min_size=1, max_size=40), st.integers(0, 99))
def test_who_is_in_stays_in(device: str, percent: int) -> None:
    if rollout.is_member("s", device, percent):
        assert rollout.is_member("s", device, percent + 1)
    assert rollout.is_member("s", device, 100)
    assert not rollout.is_member("s", device, 0)


def test_shares_are_as_large_as_they_say() -> None:
    devices = [f"device-{number}" for number in range(10_000)]
    for percent in (5, 25, 50):
        share = sum(rollout.is_member("Demo-1-a-0123456789ab", d, percent) for d in devices)
        assert abs(share - 100 * percent) < 250  # five deviations at most


def test_steps_hold_from_their_time_on() -> None:
    steps = rollout.schedule((5, 25, 100), 3600, NOW)
    assert steps == ((5, NOW), (25, NOW + 3600), (100, NOW + 7200))
    for now, percent in ((NOW - 1, 0), (NOW, 5), (NOW + 3599, 5), (NOW + 3600, 25)):
        assert rollout.percent_at(steps, now) == percent
    assert rollout.percent_at(steps, NOW + 10**9) == 100


@pytest.mark.parametrize("steps", [((0, 1),), ((101, 1),), ((5, 1), (5, 2)), ((5, 2), (6, 2))])
def test_steps_must_grow(steps: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(FeedError):
        rollout.check_steps(steps)
    with pytest.raises(FeedError):
        check_offer(make(rollout=Rollout(start=NOW, steps=steps, salt=make().id)))


def test_a_device_knows_when_its_turn_comes() -> None:
    plan = Rollout(start=NOW, steps=((5, NOW), (100, NOW + 60)), salt="s")
    late = next(d for d in map(str, range(99)) if not rollout.is_member("s", d, 5))
    assert plan.begins_for(late) == NOW + 60
    assert not plan.includes(late, NOW)
    assert plan.includes(late, NOW + 60)
    assert Rollout(start=NOW, steps=((5, NOW),), salt="s").begins_for(late) is None


# --- offers ---


def test_an_offer_comes_back_as_it_was() -> None:
    offer = make(
        rollout=Rollout(start=NOW, steps=((5, NOW),), salt=make().id, paused=True, held=((9, 5),)),
        withdrawn=Withdrawal(reason="Blank pages.", at=NOW, expires=NOW + 9, to="baseline"),
        supersedes=("Demo-26.3.1-b-0123456789ab",),
        ticket_required=True,
    )
    custom = msgspec.json.decode(msgspec.json.encode(to_custom(offer)))
    assert read_offer(PATH, length=3000, sha256=SHA, custom=custom) == offer


BAD: list[dict[str, Any]] = [
    {"format": 2},
    {"platform": "mac os"},
    {"version": "26.3.1 (a)"},
    {"letter": "A"},
    {"architectures": ()},
    {"architectures": ("x86_64", "arm64")},
    {"result_digest": "C" * 64},
    {"baseline": Baseline(version="26.3.1", digest="b" * 63)},
    {"size": -1},
    {"space": 1 << 60},
    {"sequence": 0},
    {"published": -1},
    {"supersedes": ("nonsense",)},
    {"supersedes": (make().id,)},
    {"release_notes": "javascript:alert(1)"},
    {"activation": Activation(scope="relaunch", processes=("a\x1b[2J",))},
    {"security": (SecurityItem(component="W", impact="x\x9b", cves=()),)},
    {"security": (SecurityItem(component="W", impact="x", cves=("CVE-1",)),)},
    {"withdrawn": Withdrawal(reason="", at=NOW, expires=NOW + 1)},
    {"withdrawn": Withdrawal(reason="x", at=NOW, expires=NOW)},
    {"withdrawn": Withdrawal(reason="a\x07", at=NOW, expires=NOW + 1)},
    {"rollout": Rollout(start=NOW, steps=(), salt="no id")},
    {"rollout": Rollout(start=-1, steps=(), salt=make().id)},
]


@pytest.mark.parametrize("changes", BAD, ids=str)
def test_the_gate_refuses(changes: dict[str, Any]) -> None:
    with pytest.raises(FeedError) as error:
        read(**changes)
    assert error.value.file == PATH


def test_an_offer_must_be_its_targets() -> None:
    other = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(FeedError, match="product"):
        read(f"beta/Other/{SHA}.bsi")
    with pytest.raises(FeedError, match="digest"):
        read(f"beta/Demo/{other}.bsi")
    with pytest.raises(FeedError, match="digest"):
        read_offer(PATH, length=3000, sha256=None, custom=to_custom(make()))
    with pytest.raises(FeedError, match="size"):
        read_offer(PATH, length=3001, sha256=SHA, custom=to_custom(make()))
    with pytest.raises(FeedError, match="id"):
        read(id="Demo-26.3.1-a-0123456789ab")


def test_unknown_and_mistyped_fields_are_refused() -> None:
    for tamper in (
        lambda told: told.update(extra=1),
        lambda told: told.update(size="3000"),
        lambda told: told.update(size=3000.0),
        lambda told: told.pop("build"),
        lambda told: told.update(kind="other"),
        lambda told: told["baseline"].update(extra=1),
    ):
        custom = msgspec.json.decode(msgspec.json.encode(to_custom(make())))
        tamper(custom[KEY])
        with pytest.raises(FeedError):
            read(custom=custom)
    for custom in ({}, {"other": 1}, {KEY: None}, {KEY: []}):
        with pytest.raises(FeedError):
            read(custom=custom)
    with pytest.raises(FeedError):
        read_offer(PATH, length=3000, sha256=SHA, custom=None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.sampled_from(Offer.__struct_fields__), JSON)
def test_whatever_stands_in_a_field_the_gate_answers_with_an_error_of_ours(
    name: str, value: Any
) -> None:
    custom = msgspec.json.decode(msgspec.json.encode(to_custom(make())))
    custom[KEY][name] = value
    try:
        offer = read(custom=custom)
    except BsipatchError:
        return
    assert isinstance(offer, Offer)
