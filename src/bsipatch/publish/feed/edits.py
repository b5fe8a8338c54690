"""What publishers change: pure functions from what the channels list to what they shall list.

An edit never sees keys, files or the network, so a dry run is simply an edit whose result is shown
and thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from bsipatch.errors import ExistsError, FeedError, NotFoundError, PublishError, UsageError
from bsipatch.feed import rollout as rollouts
from bsipatch.feed.model import Offer, Rollout, Withdrawal
from bsipatch.feed.names import CHANNELS, by_id, check_channel, target_path
from bsipatch.publish.feed.metadata import DAY, Listing, Numbers

__all__ = [
    "Change",
    "Draft",
    "add",
    "diff",
    "expire",
    "find",
    "pause",
    "promote",
    "resume",
    "roll_out",
    "supersede",
    "withdraw",
]

#: a withdrawal's notice stands this long unless told otherwise
NOTICE = 90 * DAY


@dataclass(frozen=True, slots=True)
class Draft:
    """What each channel lists, and the highest sequence ever given in each series."""

    listings: Mapping[str, Listing]
    numbers: Numbers

    def having(self, channel: str, offer: Offer, sha256: str) -> Draft:
        """With this offer added or in the place of the one it changes."""
        path = target_path(channel, offer.product, sha256)
        listing = {**self.listings.get(channel, {}), path: offer}
        numbers = dict(self.numbers)
        numbers[offer.series] = max(numbers.get(offer.series, 0), offer.sequence)
        return Draft({**self.listings, channel: listing}, numbers)

    def without(self, channel: str, path: str) -> Draft:
        """With one offer less."""
        listing = {p: o for p, o in self.listings[channel].items() if p != path}
        return Draft({**self.listings, channel: listing}, self.numbers)


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a diff. `before` and `after` are JSON values, None where there is nothing."""

    channel: str
    id: str
    what: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Place:
    """One listing of an update."""

    channel: str
    path: str
    offer: Offer

    @property
    def sha256(self) -> str:
        """The update file's digest."""
        return self.path.rpartition("/")[2].removesuffix(".bsi")


# --- looking ---


def find(draft: Draft, name: str) -> list[Place]:
    """Every listing of the update of this id, or whose id ends so (the last twelve digits do).

    Raises NotFoundError, UsageError when several updates fit.
    """
    places = [
        Place(channel, path, offer)
        for channel in CHANNELS
        for path, offer in sorted(draft.listings.get(channel, {}).items())
    ]
    found = by_id(name, places, lambda place: place.offer.id)
    if not found:
        raise NotFoundError(
            "no channel lists this update", file=name, hint="`bsipatch feed status` lists them."
        )
    return found


def variants(draft: Draft, offer: Offer) -> list[Place]:
    """Every listing that leads to the same result from the same baseline, `offer`'s own too."""
    return [
        Place(channel, path, other)
        for channel in CHANNELS
        for path, other in sorted(draft.listings.get(channel, {}).items())
        if other.series == offer.series and other.result_digest == offer.result_digest
    ]


def diff(old: Draft, new: Draft) -> list[Change]:
    """What is different, field by field, in a fixed order."""
    changes = []
    for channel in CHANNELS:
        before, after = old.listings.get(channel, {}), new.listings.get(channel, {})
        for path in sorted({*before, *after}):
            changes += _differences(channel, before.get(path), after.get(path))
    return changes


def _differences(channel: str, before: Offer | None, after: Offer | None) -> list[Change]:
    if before is None or after is None:
        offer = before or after
        assert offer is not None
        facts: dict[str, Any] = {
            "version": offer.display_version,
            "size": offer.size,
            "sequence": offer.sequence,
        }
        if offer.rollout is not None:
            facts["rollout"] = _plain(offer.rollout)
        if offer.ticket_required:
            facts["ticket_required"] = True
        old, new = (None, facts) if before is None else (facts, None)
        return [Change(channel, offer.id, "offer", old, new)]
    return [
        Change(channel, after.id, name, _plain(getattr(before, name)), _plain(getattr(after, name)))
        for name in Offer.__struct_fields__
        if getattr(before, name) != getattr(after, name)
    ]


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)


# --- changing ---


def add(
    draft: Draft,
    offer: Offer,
    sha256: str,
    channel: str,
    now: int,
    *,
    percents: Sequence[int] = (),
    every: int = DAY,
    ticket: bool = False,
    supersedes: Sequence[str] = (),
) -> Draft:
    """Offers an update in a channel: as the newest, or as a further way to the newest's result.

    Raises ExistsError when the channel lists it already, PublishError when it leads to something
    older than what its series has reached.
    """
    check_channel(channel)
    path = target_path(channel, offer.product, sha256)
    if path in draft.listings.get(channel, {}):
        raise ExistsError(f"{channel} offers this update already", file=offer.id)
    same = variants(draft, offer)
    taken_back = [p.offer for p in same if p.offer.withdrawn is not None]
    if taken_back:
        raise PublishError(
            "its result has been withdrawn",
            file=offer.id,
            found=taken_back[0].id,
            hint="Build an update with another result.",
        )
    newest = draft.numbers.get(offer.series, 0)
    sequence = same[0].offer.sequence if same else newest + 1
    _check_order(draft, channel, offer, sequence)
    salt = same[0].offer.id if same else offer.id
    plan = _plan(percents, every, now, salt)
    listed = msgspec.structs.replace(
        offer,
        sequence=sequence,
        published=now,
        rollout=plan,
        ticket_required=ticket,
        supersedes=_ids(draft, supersedes),
    )
    return draft.having(channel, listed, sha256)


def promote(
    draft: Draft,
    name: str,
    to: str,
    now: int,
    *,
    percents: Sequence[int] = (),
    every: int = DAY,
) -> Draft:
    """Offers an update in a further channel: the same file, the same sequence.

    Raises NotFoundError, ExistsError, UsageError (to a more daring channel), PublishError
    (withdrawn, or older than what `to` offers).
    """
    check_channel(to)
    places = find(draft, name)
    if any(place.channel == to for place in places):
        raise ExistsError(f"{to} offers this update already", file=places[0].offer.id)
    place = places[-1]
    offer = place.offer
    if CHANNELS.index(to) < CHANNELS.index(place.channel):
        raise UsageError(
            f"{offer.id} is in {place.channel}: promoting leads from developer to beta to release",
            found=to,
        )
    if offer.withdrawn is not None:
        raise PublishError("it has been withdrawn", file=offer.id, found=offer.withdrawn.reason)
    _check_order(draft, to, offer, offer.sequence)
    salt = offer.rollout.salt if offer.rollout is not None else offer.id
    plan = _plan(percents, every, now, salt)
    promoted = msgspec.structs.replace(offer, published=now, rollout=plan)
    return draft.having(to, promoted, place.sha256)


def roll_out(
    draft: Draft,
    name: str,
    now: int,
    *,
    percents: Sequence[int],
    every: int,
    channel: str | None = None,
) -> Draft:
    """Sets the steps of a rollout from now on. Who is in stays in.

    Raises UsageError when the first step would put devices out.
    """

    def change(offer: Offer) -> Offer:
        _check_current(offer)
        old = offer.rollout
        reached = 100 if old is None else old.percent(now)
        if not percents or percents[0] < reached:
            raise UsageError(
                "a rollout only grows: who is in stays in",
                file=offer.id,
                expected=f"{reached} % or more",
                found=f"{percents[0]} %" if percents else "no step",
                hint="`bsipatch feed withdraw` takes an update back.",
            )
        salt = old.salt if old is not None else offer.id
        plan = _plan(percents, every, now, salt)
        if plan is None or old is None:
            return msgspec.structs.replace(offer, rollout=plan)
        past = tuple(s for s in old.steps if s[1] < now and s[0] < plan.steps[0][0])
        kept = msgspec.structs.replace(plan, start=old.start, steps=past + plan.steps)
        return msgspec.structs.replace(offer, rollout=kept)

    return _each(draft, name, channel, change)


def pause(draft: Draft, name: str, now: int, *, channel: str | None = None) -> Draft:
    """Lets nobody else in. What was to come is set aside for resume()."""

    def change(offer: Offer) -> Offer:
        _check_current(offer)
        plan = offer.rollout
        if plan is None or plan.percent(now) == 100:
            raise UsageError(
                "everybody is offered it already",
                file=offer.id,
                hint="`bsipatch feed withdraw` takes an update back.",
            )
        if plan.paused:
            raise UsageError("its rollout is paused already", file=offer.id)
        begun = tuple(step for step in plan.steps if step[1] <= now)
        held = tuple((percent, since - now) for percent, since in plan.steps if since > now)
        paused = msgspec.structs.replace(plan, steps=begun, held=held, paused=True)
        return msgspec.structs.replace(offer, rollout=paused)

    return _each(draft, name, channel, change)


def resume(draft: Draft, name: str, now: int, *, channel: str | None = None) -> Draft:
    """Goes on where pause() stopped, each step as far away as it was then."""

    def change(offer: Offer) -> Offer:
        _check_current(offer)
        plan = offer.rollout
        if plan is None or not plan.paused:
            raise UsageError("its rollout is not paused", file=offer.id)
        ahead = tuple((percent, now + delay) for percent, delay in plan.held)
        going = msgspec.structs.replace(plan, steps=plan.steps + ahead, held=(), paused=False)
        return msgspec.structs.replace(offer, rollout=going)

    return _each(draft, name, channel, change)


def withdraw(
    draft: Draft,
    name: str,
    now: int,
    *,
    reason: str,
    revert_installed: bool,
    to: Literal["baseline", "previous"],
    notice: int = NOTICE,
) -> Draft:
    """Takes an update back, in every channel, with every variant that leads to the same result.

    The notice stands for `notice` seconds.
    """
    offer = find(draft, name)[0].offer
    if not reason.strip():
        raise UsageError("a withdrawal needs a reason that people will read")
    if notice <= 0:
        raise UsageError("a withdrawal's notice must stand for a while", found=notice)
    told = Withdrawal(
        reason=reason,
        at=now,
        expires=now + notice,
        revert_installed=revert_installed,
        to=to,
    )
    for place in variants(draft, offer):
        changed = msgspec.structs.replace(place.offer, withdrawn=told)
        draft = draft.having(place.channel, changed, place.sha256)
    return draft


def supersede(draft: Draft, name: str, by: str) -> Draft:
    """Says that one update replaces another: whoever may have the new one is not offered the old.

    Raises UsageError when the new one is not newer, or of another product or baseline.
    """
    old = find(draft, name)[0].offer
    new = find(draft, by)[0].offer
    if new.product != old.product:
        raise UsageError("an update of another product", expected=old.product, found=new.product)
    if new.series == old.series and new.sequence <= old.sequence:
        raise UsageError(
            "only a newer update supersedes", expected=f"> {old.sequence}", found=new.sequence
        )
    for place in find(draft, new.id):
        ids = tuple(sorted({*place.offer.supersedes, old.id}))
        draft = draft.having(
            place.channel, msgspec.structs.replace(place.offer, supersedes=ids), place.sha256
        )
    return draft


def expire(
    draft: Draft, now: int, *, names: Sequence[str] = (), channel: str | None = None
) -> Draft:
    """Takes updates off the list: the named ones, or without names those whose notice has ended.

    Raises PublishError for one whose withdrawal still has to be seen.
    """
    for name in names:
        for place in _places(draft, name, channel):
            notice = place.offer.withdrawn
            if notice is not None and now < notice.expires:
                raise PublishError(
                    "its withdrawal still stands, and devices must see it",
                    file=place.offer.id,
                    expected=f"at or after {notice.expires}",
                    found=now,
                )
            draft = draft.without(place.channel, place.path)
    if names:
        return draft
    for listed, listing in draft.listings.items():
        if channel not in (None, listed):
            continue
        for path, offer in listing.items():
            if offer.withdrawn is not None and offer.withdrawn.expires <= now:
                draft = draft.without(listed, path)
    return draft


def _each(draft: Draft, name: str, channel: str | None, change: Callable[[Offer], Offer]) -> Draft:
    for place in _places(draft, name, channel):
        draft = draft.having(place.channel, change(place.offer), place.sha256)
    return draft


def _places(draft: Draft, name: str, channel: str | None) -> list[Place]:
    """The listings meant: those of one channel; without one, the update's only channel."""
    places = find(draft, name)
    if channel is not None:
        check_channel(channel)
        places = [place for place in places if place.channel == channel]
        if not places:
            raise NotFoundError(f"{channel} does not list this update", file=name)
    elif len(places) > 1:
        raise UsageError(
            "several channels list it",
            file=name,
            found=", ".join(place.channel for place in places),
            hint="Name one with --channel.",
        )
    return places


def _plan(percents: Sequence[int], every: int, now: int, salt: str) -> Rollout | None:
    """None, which is everybody, for no steps or for 100 % at once."""
    if not percents or tuple(percents) == (100,):
        return None
    if every <= 0:
        raise UsageError("the time between two steps must be positive", found=every)
    try:
        steps = rollouts.schedule(percents, every, now)
    except FeedError as error:
        raise UsageError(error.detail, found=error.found) from None
    return Rollout(start=now, steps=steps, salt=salt)


def _check_current(offer: Offer) -> None:
    if offer.withdrawn is not None:
        raise PublishError("it has been withdrawn", file=offer.id, found=offer.withdrawn.reason)


def _check_order(draft: Draft, channel: str, offer: Offer, sequence: int) -> None:
    listed = draft.listings.get(channel, {}).values()
    highest = max((o.sequence for o in listed if o.series == offer.series), default=0)
    if sequence < highest:
        newer = next(o for o in listed if o.series == offer.series and o.sequence == highest)
        raise PublishError(
            f"{channel} offers something newer, and devices never go back",
            file=offer.id,
            expected=f"newer than {newer.id}",
            found=f"sequence {sequence} after {highest}",
        )


def _ids(draft: Draft, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted({find(draft, name)[0].offer.id for name in names}))


def empty(channels: Sequence[str]) -> Draft:
    """Channels that list nothing."""
    return Draft({channel: {} for channel in channels}, {})
