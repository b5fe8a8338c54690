"""Which offer a device takes, and for each other one the reason with its evidence."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsipatch.feed import names, rollout
from bsipatch.feed.decide import (
    CODES,
    Decision,
    DeviceFacts,
    Reason,
    decide,
    effective_floor,
)
from bsipatch.feed.model import Offer, Rollout, Withdrawal
from bsipatch.manifest import Activation, Baseline, StacksOn

NOW = 1_780_000_000
BASE = "0" * 64
MIB = 1 << 20


def result(letter: str) -> str:
    return hashlib.sha256(letter.encode()).hexdigest()


def offer(letter: str = "a", sequence: int = 1, *, after: str = "", **changes: Any) -> Offer:
    """An improvement; `after` names the letter that it stacks on."""
    sha256 = hashlib.sha256(f"{letter}{after}{sorted(changes)}".encode()).hexdigest()
    fields: dict[str, Any] = {
        "format": 1,
        "id": names.update_id("Demo", "26.3.1", letter, sha256),
        "product": "Demo",
        "platform": "macos",
        "architectures": ("arm64",),
        "version": "26.3.1",
        "letter": letter,
        "build": f"25D7712{letter}",
        "baseline": Baseline(version="26.3.1", build="25D2128", digest=BASE),
        "result_digest": result(letter),
        "stacks_on": StacksOn(letter=after, digest=result(after)) if after else None,
        "size": 10_000,
        "space": MIB,
        "memory": MIB,
        "kind": "delta",
        "activation": Activation(scope="restart"),
        "published": NOW,
        "sequence": sequence,
    }
    return Offer(**{**fields, **changes})


DEVICE = DeviceFacts(
    device_id="device-1",
    product="Demo",
    platform="macos",
    architectures=("arm64",),
    version="26.3.1",
    build="25D2128",
    baseline_digests=(BASE,),
)


def device(**changes: Any) -> DeviceFacts:
    return dataclasses.replace(DEVICE, **changes)


def having(letter: str, **changes: Any) -> DeviceFacts:
    return device(live_digests=(result(letter),), live_letter=letter, **changes)


def codes(decision: Decision, wanted: Offer) -> set[str]:
    return {reason.code for reason in decision.why_not(wanted.id)}


def chosen(decision: Decision) -> list[str]:
    return [o.letter for o in decision.chosen.offers] if decision.chosen else []


WITHDRAWN = Withdrawal(
    reason="Blank pages.", at=NOW - 9, expires=NOW + 99, revert_installed=True, to="baseline"
)


def test_a_fitting_offer_is_chosen() -> None:
    decision = decide([offer()], DEVICE, NOW)
    assert chosen(decision) == ["a"]
    assert decision.chosen is not None
    assert decision.chosen.kind == "direct"
    assert decision.refused == ()
    assert decide([], DEVICE, NOW).chosen is None


def out_of_ring() -> Rollout:
    salt = next(s for s in map(str, range(999)) if not rollout.is_member(s, "device-1", 50))
    return Rollout(start=NOW, steps=((50, NOW), (100, NOW + 60)), salt=salt)


REFUSALS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("wrong-product", {"product": "Other"}, {}),
    ("wrong-platform", {"platform": "linux"}, {}),
    ("wrong-architecture", {"architectures": ("x86_64",)}, {}),
    ("wrong-baseline", {"baseline": Baseline(version="26.3.1", digest="9" * 64)}, {}),
    ("wrong-baseline", {"baseline": Baseline(version="26.3.0", digest=BASE)}, {}),
    ("wrong-baseline", {"baseline": Baseline(version="26.3.1", build="x", digest=BASE)}, {}),
    ("drifted", {}, {"drifted": "Demo, mode 0664 for 0644"}),
    ("not-in-ring", {"rollout": out_of_ring()}, {}),
    ("paused", {"rollout": msgspec.structs.replace(out_of_ring(), paused=True)}, {}),
    ("withdrawn", {"withdrawn": WITHDRAWN}, {}),
    ("barred", {}, {"barred": {offer().id: "its health check failed"}}),
    ("rollback", {}, {"floor": 2}),
    ("space", {}, {"free_space": MIB}),
    ("memory", {}, {"memory": MIB - 1}),
    ("ticket", {"ticket_required": True}, {}),
    ("expired-feed", {}, {"feed_expired": "timestamp, an hour ago"}),
    ("installed", {}, {"live_digests": (result("a"),), "live_letter": "a"}),
    ("contained-in-base", {}, {"baseline_digests": (BASE, result("a"))}),
    ("contained-in-base", {"build": "25D2128"}, {}),
    ("contained-in-base", {}, {"contained": frozenset({result("a")})}),
]


@pytest.mark.parametrize(
    ("code", "of_offer", "of_device"),
    REFUSALS,
    ids=[f"{number}-{row[0]}" for number, row in enumerate(REFUSALS)],
)
def test_each_reason_is_given_alone_and_lifted_with_its_cause(
    code: str, of_offer: dict[str, Any], of_device: dict[str, Any]
) -> None:
    refused = offer(**of_offer)
    if code == "barred":
        of_device = {"barred": {refused.id: "its health check failed"}}
    decision = decide([refused], device(**of_device), NOW)
    assert decision.chosen is None
    assert codes(decision, refused) == {code}
    reason = decision.why_not(refused.id)[0]
    assert reason.code in CODES
    assert reason.text
    assert reason.evidence
    assert decide([offer()], DEVICE, NOW).chosen is not None


def test_several_reasons_are_all_told() -> None:
    refused = offer(withdrawn=WITHDRAWN, ticket_required=True)
    decision = decide([refused], device(memory=1, free_space=1, floor=0), NOW)
    assert codes(decision, refused) == {"withdrawn", "ticket", "memory", "space"}


def test_the_policy_of_the_device_may_refuse() -> None:
    def gate(told: Offer) -> list[Reason]:
        return [Reason("battery", "12 % left", {"percent": 12})] if told.letter == "b" else []

    decision = decide([offer("a", 1), offer("b", 2)], DEVICE, NOW, gate=gate)
    assert chosen(decision) == ["a"]
    assert codes(decision, offer("b", 2)) == {"battery"}


def test_the_newest_wins_and_the_rest_is_superseded() -> None:
    old, new = offer("a", 1), offer("b", 2)
    for listed in ([old, new], [new, old]):
        decision = decide(listed, DEVICE, NOW)
        assert chosen(decision) == ["b"]
        assert codes(decision, old) == {"superseded"}


def test_who_is_not_in_the_ring_of_the_newest_gets_the_one_before() -> None:
    new = offer("b", 2, rollout=out_of_ring(), supersedes=(offer("a", 1).id,))
    decision = decide([offer("a", 1), new], DEVICE, NOW)
    assert chosen(decision) == ["a"]
    assert codes(decision, new) == {"not-in-ring"}
    assert chosen(decide([offer("a", 1), new], DEVICE, NOW + 60)) == ["b"]


def test_a_ticket_opens_what_needs_one() -> None:
    locked = offer(ticket_required=True)
    assert chosen(decide([locked], device(tickets=frozenset({locked.id})), NOW)) == ["a"]
    assert not chosen(decide([locked], device(tickets=frozenset({"other"})), NOW))


def test_a_whole_update_passes_over_drift() -> None:
    delta, full = offer("a", 1), offer("a", 1, kind="full", size=10 * MIB)
    decision = decide([delta, full], device(drifted="FILE, missing"), NOW)
    assert decision.chosen is not None
    assert decision.chosen.kind == "full"
    assert codes(decision, delta) == {"drifted"}


def test_ways_are_ordered_by_what_they_cost() -> None:
    direct, full = offer("b", 2), offer("b", 2, kind="full", size=10 * MIB)
    first, second = offer("a", 1, size=100), offer("b", 2, after="a", size=100)
    decision = decide([full, second, first, direct], DEVICE, NOW)
    ways = [plan.kind for plan in (decision.chosen, *decision.fallbacks) if plan]
    assert ways == ["direct", "chain", "full"]
    costs = [plan.cost for plan in (decision.chosen, *decision.fallbacks) if plan]
    assert costs == sorted(costs)


def test_a_small_chain_beats_a_large_delta() -> None:
    direct = offer("b", 2, size=50 * MIB)
    decision = decide([direct, offer("a", 1), offer("b", 2, after="a")], DEVICE, NOW)
    assert chosen(decision) == ["a", "b"]
    assert decision.chosen is not None
    assert decision.chosen.size == 20_000
    assert decision.chosen.space == 2 * MIB
    assert decision.fallbacks[0].offers == (direct,)


def test_a_stacked_one_needs_its_parent_live_or_a_chain() -> None:
    stacked = offer("b", 2, after="a")
    assert chosen(decide([stacked], having("a"), NOW)) == ["b"]
    decision = decide([stacked], DEVICE, NOW)
    assert codes(decision, stacked) == {"wrong-baseline"}
    assert chosen(decide([stacked, offer("a", 1)], having("a", floor=1), NOW)) == ["b"]


@pytest.mark.parametrize("bad", [{"withdrawn": WITHDRAWN}, {"rollout": out_of_ring()}])
def test_a_chain_leads_through_nothing_that_is_refused(bad: dict[str, Any]) -> None:
    decision = decide([offer("a", 1, **bad), offer("b", 2, after="a")], DEVICE, NOW)
    assert decision.chosen is None


def test_a_chain_may_lead_through_what_is_older_than_the_floor() -> None:
    chain = [offer("a", 1), offer("b", 2, after="a")]
    assert chosen(decide(chain, device(floor=2), NOW)) == ["a", "b"]


def test_a_chain_that_the_disk_cannot_hold_is_told_as_that() -> None:
    chain = [offer("a", 1), offer("b", 2, after="a")]
    decision = decide(chain, device(free_space=2 * MIB), NOW)
    assert chosen(decision) == ["a"]
    tight = decide([*chain[1:], offer("a", 1, size=MIB)], device(free_space=2 * MIB), NOW)
    assert codes(tight, chain[1]) <= {"space", "superseded"}


def test_circles_end() -> None:
    loop = [offer("a", 1, after="b"), offer("b", 2, after="a")]
    assert decide(loop, DEVICE, NOW).chosen is None


# --- never back ---


def test_a_feed_never_leads_back() -> None:
    old = offer("a", 1)
    decision = decide([old], having("b", floor=2), NOW)
    assert codes(decision, old) == {"rollback"}
    assert dict(decision.why_not(old.id)[0].evidence) == {"floor": 2, "sequence": 1}


def test_what_is_live_is_a_floor_although_nobody_wrote_it_down() -> None:
    decision = decide([offer("a", 1), offer("b", 2)], having("b"), NOW)
    assert decision.chosen is None
    assert codes(decision, offer("a", 1)) == {"rollback"}


def test_only_a_signed_withdrawal_lowers_the_floor() -> None:
    old, gone = offer("a", 1), offer("b", 2, withdrawn=WITHDRAWN)
    facts = device(floor=2)
    assert effective_floor([old, gone], facts) == 1
    assert chosen(decide([old, gone], facts, NOW)) == ["a"]
    assert not chosen(decide([old], facts, NOW)), "a missing offer lowers nothing"
    good_twin = offer("b", 2, kind="full")
    assert effective_floor([old, gone, good_twin], facts) == 2
    other = offer("b", 2, withdrawn=WITHDRAWN, product="Other")
    assert effective_floor([old, other], facts) == 2


def test_the_withdrawal_of_what_is_live_is_an_order_to_go_back() -> None:
    gone = offer("a", 1, withdrawn=WITHDRAWN)
    decision = decide([gone], having("a", floor=1), NOW)
    assert decision.withdrawn == gone
    assert decision.revert == WITHDRAWN
    assert decide([gone], having("a"), WITHDRAWN.expires).revert is None
    assert decide([gone], DEVICE, NOW).withdrawn is None
    mild = offer("a", 1, withdrawn=msgspec.structs.replace(WITHDRAWN, revert_installed=False))
    told = decide([mild], having("a"), NOW)
    assert told.withdrawn == mild
    assert told.revert is None


def test_an_expired_notice_offers_nothing_again() -> None:
    gone = offer("a", 1, withdrawn=WITHDRAWN)
    assert codes(decide([gone], DEVICE, WITHDRAWN.expires + 1), gone) == {"withdrawn"}


def test_the_same_update_in_two_channels() -> None:
    waiting, open_to_all = offer("a", 1, rollout=out_of_ring()), offer("a", 1)
    waiting = msgspec.structs.replace(waiting, id=open_to_all.id)
    for listed in ([waiting, open_to_all], [open_to_all, waiting]):
        assert chosen(decide(listed, DEVICE, NOW)) == ["a"]
    gone = msgspec.structs.replace(open_to_all, withdrawn=WITHDRAWN)
    for listed in ([gone, open_to_all], [open_to_all, gone]):
        decision = decide(listed, DEVICE, NOW)
        assert codes(decision, gone) == {"withdrawn"}


OFFERS = st.lists(
    st.builds(
        offer,
        st.sampled_from("abc"),
        st.integers(1, 4),
        after=st.sampled_from(["", "a", "b"]),
        kind=st.sampled_from(["delta", "full"]),
        withdrawn=st.sampled_from([None, WITHDRAWN]),
        rollout=st.sampled_from([None, out_of_ring()]),
        size=st.integers(1, 4 * MIB),
    ),
    max_size=7,
    unique_by=lambda o: o.id,
)


@given(OFFERS, st.integers(0, 4), st.sampled_from(["", "a", "b"]), st.randoms())
def test_whatever_is_offered(listed: list[Offer], floor: int, live: str, random: Any) -> None:
    facts = having(live, floor=floor) if live else device(floor=floor)
    decision = decide(listed, facts, NOW)
    shuffled = list(listed)
    random.shuffle(shuffled)
    assert decide(shuffled, facts, NOW) == decision
    taken = {o.id for p in (decision.chosen, *decision.fallbacks) if p for o in p.offers}
    refused = {name for name, _ in decision.refused}
    steps = {o.id for o in listed} - refused
    assert steps <= taken, "nothing is left without a reason"
    for plan in (decision.chosen, *decision.fallbacks):
        if plan is None:
            continue
        assert plan.offers[-1].sequence >= effective_floor(listed, facts)
        assert not any(o.withdrawn for o in plan.offers)
        where = [BASE, *facts.live_digests]
        for step in plan.offers:
            assert step.old_digest in where
            where = [BASE, step.result_digest]
