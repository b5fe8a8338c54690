"""One device, for whoever shows or steers it: the agent, the local interface, the settings page.

    with DeviceService(store_root) as service:
        service.state()                    everything, in one value
        service.check()                    asks the feed
        service.install(id)                or None for what is best
        service.remove()                   the baseline is live again
        service.set_automatic(True)        the one switch
        service.subscribe(listener)        progress, and "the state is another one now"

One operation at a time; check, install and remove block and raise, start() does the same in a
thread of its own and keeps the outcome.  Every change passes the policy first.  What is known
lies in the store, so that several processes can each have a service of their own.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from .. import store as stores
from ..closing import Closing
from ..errors import (
    BsipatchError,
    CancelledError,
    ConfigError,
    FeedError,
    MismatchError,
    NotFoundError,
    PolicyError,
    StoreBusyError,
    StoreDamagedError,
    StoreStateError,
)
from ..limits import DEFAULT, Limits
from ..store import Store
from . import policy as policies
from . import policy_files, schedule, service_feed, service_telling, service_view
from .conditions import Answer, Condition, ask_all, standard
from .logs import Log
from .policy import Policy
from .schedule import Timing
from .service_beacon import Beacon
from .service_running import Running
from .service_state import Event, Listed, Operation, Outcome, Progress, State
from .service_view import Seen, stamp
from .state import config as configs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .feed_client import FeedClient, FeedView
    from .installing import Apply

#: gives the conditions of a policy; standard() asks this machine
Conditions = Callable[[Policy, Path], Sequence[Condition]]
#: seconds for which the answers of conditions are good for showing
_ANSWERS_HOLD = 5.0
_HISTORY = 100


class DeviceService(Closing):
    """A store's device. Safe from several threads. Use it as a context manager."""

    def __init__(
        self,
        store_root: Path,
        *,
        clock: Callable[[], float] = time.time,
        managed: Path | None = None,
        managed_owner: int = 0,
        conditions: Conditions | None = None,
        timing: Timing | None = None,
        apply: Apply | None = None,
        jobs: int = 1,
        limits: Limits = DEFAULT,
    ) -> None:
        """Raises NotFoundError when there is no store, StoreDamagedError.

        managed, managed_owner: stand for /etc/bsipatch and root. apply: see Installer.
        """
        with Store(store_root, limits=limits) as store:
            self.root, self.product = store.root, store.identity.product
        self.log = Log(self.root)
        self._clock, self._limits, self._jobs = clock, limits, jobs
        self._managed, self._managed_owner = managed, managed_owner
        self._conditions = conditions or self._standard
        self._timing, self._apply = timing or Timing(), apply
        self._beacon = Beacon(self.root)
        self._running = Running(clock, self._beacon)
        self._reading = threading.Lock()
        self._answers: tuple[float, Policy, list[Answer]] | None = None
        self._view: tuple[tuple[str, str], FeedView] | None = None

    def close(self) -> None:
        """Stops what is under way, and waits for its end."""
        self._running.close()

    # --- reading ---

    def policy(self) -> Policy:
        """The policy in force. Raises ConfigError."""
        return policies.load(
            self.root, managed=self._managed, owner=self._managed_owner, limits=self._limits
        )

    def progress(self) -> Progress | None:
        """Of the operation under way, here or in another process; None when there is none."""
        return self._running.progress() or self._beacon.look()

    def outcome(self) -> Outcome | None:
        """How the last operation here ended."""
        return self._running.outcome()

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Calls `listener` from the operation's threads; call what is returned to end it.

        Progress comes at most ten times a second.  A listener must return quickly.
        """
        return self._running.subscribe(listener)

    def state(self, *, history: int = _HISTORY) -> State:
        """Everything at this moment, without any network.

        What cannot be found out about the feed or the policy is said in the state.  Raises
        StoreDamagedError, SystemCallError.
        """
        with self._reading:
            try:
                return self._state(history)
            except (NotFoundError, StoreDamagedError):
                return self._state(history)  # it was looked at while the pointer moved

    def _state(self, most: int) -> State:
        policy, policy_error = None, ""
        try:
            policy = self.policy()
        except ConfigError as error:
            policy_error = str(error)
        saved = schedule.load(self.root / schedule.NAME)
        with Store(self.root, limits=self._limits) as store:
            status, events = store.status(), store.history()
            seen, problem, follows = None, policy_error, True
            items: tuple[Listed, ...] = ()
            try:
                with self._feed(policy) as feed:
                    if policy is not None:
                        seen = self._look(store, feed, policy)
                        items = service_view.listed(seen, self._returns(store, feed, seen))
            except NotFoundError as error:
                follows = self._follows()
                problem = str(error)
            except BsipatchError as error:
                problem = str(error)
            if seen is not None:
                problem = problem or service_view.doubt(seen)
            needed = service_view.needs(store, status, events)
        known = service_view.checks(saved, problem)
        return State(
            time=stamp(self._clock()) or "",
            standing=service_view.standing(seen, items, known, needed, follows=follows),
            product=self.product,
            store=str(self.root),
            installed=service_view.installed(status, policy),
            listed=items,
            needs=needed,
            checks=known,
            withdrawn=service_view.withdrawn(seen),
            moved="" if seen is None else seen.asked.moved,
            feed=None if seen is None else service_view.feed(seen.view),
            automatic=policy is not None and policy.automatic,
            organization="" if policy is None else policy.organization,
            policy=() if policy is None else service_view.values(policy),
            policy_error=policy_error,
            history=service_view.history(events, self.log, most),
            busy=status.busy or "",
            progress=self.progress(),
            outcome=self.outcome(),
        )

    def _look(self, store: Store, feed: FeedClient, policy: Policy) -> Seen:
        view = self._cached(feed)
        now = max(int(self._clock()), view.now)
        answers = self._asked(policy, self._clock())
        tickets = self._tickets(feed, policy)
        return service_view.look(store, feed, replace(view, now=now), policy, answers, tickets)

    def _tickets(self, feed: FeedClient, policy: Policy) -> frozenset[str]:
        from . import service_tickets

        return service_tickets.counted_on(feed, policy, self._clock())

    def _cached(self, feed: FeedClient) -> FeedView:
        """The last refresh's view, verified once for each set that was accepted."""
        current = feed.store.current()
        key = (str(current), feed.config.channel)
        held = self._view
        if held is not None and held[0] == key:
            return held[1]
        view = feed.cached(self.product)
        self._view = (key, view)
        return view

    def _returns(self, store: Store, feed: FeedClient, seen: Seen) -> Callable[[str], bool]:
        from . import choosing
        from .policy_gate import gate

        def wanted(name: str) -> bool:
            asked = gate(seen.policy, seen.answers, seen.view.now, asked=True)
            tickets = self._tickets(feed, seen.policy)
            choice = choosing.choose(store, feed, seen.view, gate=asked, tickets=tickets, only=name)
            return choice.plan is not None

        return wanted

    def _asked(self, policy: Policy, now: float) -> list[Answer]:
        held = self._answers
        if held is not None and held[1] == policy and 0 <= now - held[0] < _ANSWERS_HOLD:
            return held[2]
        answers = ask_all(self._conditions(policy, self.root), now)
        self._answers = (now, policy, answers)
        return answers

    def _standard(self, policy: Policy, root: Path) -> Sequence[Condition]:
        return standard(policy, root, limits=self._limits)

    # --- changing ---

    def check(self) -> Outcome:
        """Asks the feed, and remembers the answer and when to ask again.

        Raises NotFoundError (no feed is followed), FeedError, TrustError, MismatchError,
        StoreBusyError, ConfigError, CancelledError, MissingDependencyError.
        """
        return self._run("check", "", self._check)

    def install(
        self, update: str | None = None, *, asked: bool = True, offline: bool = False
    ) -> Outcome:
        """Takes off what was withdrawn, and installs `update` or what is best.

        asked: a person wants it now; False: only what may be done by itself.  When nobody can be
        asked for the feed, or `offline`, what the last check brought counts.  Where nothing may
        be installed only a withdrawal is honoured; without one, PolicyError.  Raises what
        Installer.install does, and as check().
        """
        return self._run(
            "install", update or "", lambda: self._install(update, asked=asked, offline=offline)
        )

    def remove(self, reason: str = "") -> Outcome:
        """The baseline is live again, and what was removed does not come back by itself.

        Raises PolicyError where removing is forbidden, StoreStateError when no improvement is
        live, StoreBusyError.
        """
        return self._run("remove", "", lambda: self._remove(reason))

    def start(
        self, operation: Operation, update: str | None = None, *, reason: str = ""
    ) -> Progress:
        """Begins an operation in a thread of its own; its outcome comes as an event.

        What can be refused at once is: StoreBusyError while another one runs, PolicyError,
        StoreStateError, ConfigError.
        """
        work: dict[str, Callable[[], Outcome]] = {
            "check": self._check,
            "install": lambda: self._install(update, asked=True, offline=False),
            "remove": lambda: self._remove(reason),
        }
        if operation in ("install", "remove"):
            try:
                self._allowed(operation)
            except PolicyError:
                if operation == "remove" or not self._is_withdrawn():
                    raise
        return self._running.start(operation, update or "", work[operation], self._failed)

    def cancel(self) -> bool:
        """Asks the operation under way here to stop; False when there is none."""
        return self._running.cancel()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end of what start() began. False when it still runs after `timeout`."""
        return self._running.wait(timeout)

    def set_automatic(self, on: bool) -> None:
        """Installs by itself from now on, or not. Raises PolicyError where it is managed."""
        policies.allow_change(self.policy(), "automatic")
        policy_files.write_settings(self.root, {"automatic": on})
        with contextlib.suppress(BsipatchError):
            state = "on" if on else "off"
            self.log.write("setting", f"automatic installation switched {state}")
        self.changed()

    def changed(self) -> None:
        """Tells subscribers that the state is another one, for whoever changed it elsewhere."""
        self._running.tell(Event(kind="changed"))

    # --- operations ---

    def _run(self, operation: Operation, update: str, work: Callable[[], Outcome]) -> Outcome:
        return self._running.run(operation, update, work, self._failed)

    def _is_withdrawn(self) -> bool:
        """Whether what is live is known to be withdrawn: no policy keeps that on."""
        return bool(self.state(history=0).withdrawn)

    def _allowed(self, operation: Operation) -> None:
        policy = self.policy()
        if operation == "remove":
            policies.allow_removal(policy)
            with Store(self.root, limits=self._limits) as store:
                if store.live().number == 0:
                    raise StoreStateError("no improvement is installed", file=self.root, hint="")
        else:
            policies.allow_install(policy)

    def _follows(self) -> bool:
        return (self.root / "feed" / configs.CONFIG).exists()

    def _check(self) -> Outcome:
        from . import service_tickets

        policy, stop = self.policy(), self._running.stop
        with self._feed(policy) as feed:
            view = self._refresh(feed)
            if policy.ticket_service:
                with feed.transport(stop=stop) as transport:
                    service_tickets.renew(feed, view, policy, transport, self.log, self._clock())
        items = [one for one in self.state(history=0).listed if one.standing == "available"]
        text = f"available: {items[0].display}" if items else "nothing that can be installed now"
        offer = next((one for one in view.offers if items and one.id == items[0].id), None)
        service_telling.checked(self.log, view, offer, text)
        return self._done("check", "", text)

    def _refresh(self, feed: FeedClient) -> FeedView:
        """A check, whose time and end are written down for every process to see."""
        path, now = self.root / schedule.NAME, self._clock()
        before = schedule.load(path) or schedule.Schedule()
        try:
            view = feed.refresh(self.product, stop=self._running.stop)
        except (CancelledError, StoreBusyError):
            raise  # neither says anything of the feed
        except BsipatchError as error:
            after = schedule.failed(before, feed.device_id, now, error.message, self._timing)
            with contextlib.suppress(BsipatchError):
                schedule.save(path, after)
            service_telling.check_failed(self.log, error)
            raise
        with contextlib.suppress(BsipatchError):
            schedule.save(path, schedule.succeeded(before, feed.device_id, now, self._timing))
        self._view = ((str(feed.store.current()), feed.config.channel), view)
        return view

    def _install(self, update: str | None, *, asked: bool, offline: bool) -> Outcome:
        from . import service_tickets
        from .installing import Installer
        from .policy_gate import gate

        policy = self.policy()
        if not policy.install:
            if not self._follows():
                self._allowed("install")
            update = None  # for a withdrawal's sake alone: the gate holds back everything else
        with self._reading:
            self._answers = None
        stop = self._running.stop
        self._running.expect(service_telling.took(self.log))
        with (
            Store(self.root, limits=self._limits) as store,
            self._feed(policy) as feed,
            feed.transport(stop=stop) as transport,
        ):
            view = self._to_install_from(feed, policy, offline)
            now = float(view.now)
            work = stores.Work(jobs=self._jobs, progress=self._running.advance, stop=stop)
            installer = Installer(
                store,
                feed,
                transport,
                work=work,
                gate=gate(policy, self._asked(policy, self._clock()), now, asked=asked),
                tickets=service_tickets.renew(
                    feed, view, policy, transport, self.log, self._clock()
                ),
                automatic=not asked,
                apply=self._apply,
            )
            try:
                done = installer.install(view, update)
            except BsipatchError as error:
                codes = tuple(fell.code for fell in installer.fallbacks)
                service_telling.install_failed(self.log, view, update, error, codes)
                raise
        if not policy.install and done.withdrawn is None:
            self._allowed("install")
        service_telling.installed(self.log, view, done)
        name, text, notes = service_telling.words(done, update)
        changed = done.plan is not None or done.withdrawn is not None
        return self._done("install", name, text, changed=changed, notes=notes)

    def _to_install_from(self, feed: FeedClient, policy: Policy, offline: bool) -> FeedView:
        try:
            return self._fresh(feed, offline)
        except (CancelledError, StoreBusyError):
            raise
        except BsipatchError:
            if not policy.install:
                self._allowed("install")  # what is forbidden is so with any feed
            raise

    def _fresh(self, feed: FeedClient, offline: bool) -> FeedView:
        if not offline:
            try:
                return self._refresh(feed)
            except (FeedError, MismatchError):
                pass  # no whole mirror: what was fetched before can be installed all the same
        return feed.cached(self.product)

    def _remove(self, reason: str) -> Outcome:
        self._allowed("remove")
        with Store(self.root, limits=self._limits) as store:
            done = store.revert(baseline=True, remove=True, reason=reason)
        held = self._view
        offers = () if held is None else held[1].offers
        name = next((one.id for one in offers if one.result_digest == done.left.tree), "")
        text = f"{done.left.display} was removed by its owner"
        service_telling.taken_off(self.log, name, text)
        return self._done(
            "remove",
            name,
            f"{done.left.display} is removed, {done.live.display} is live again",
            changed=True,
            notes=done.notes,
        )

    def _done(self, operation: Operation, update: str, text: str, **more: object) -> Outcome:
        return Outcome(
            operation=operation,
            update=update,
            ok=True,
            time=stamp(self._clock()) or "",
            text=text,
            **more,  # type: ignore[arg-type]
        )

    def _failed(self, operation: Operation, update: str, error: BaseException) -> Outcome:
        return service_telling.ended_badly(operation, update, error, stamp(self._clock()) or "")

    def _feed(self, policy: Policy | None) -> contextlib.AbstractContextManager[FeedClient]:
        return service_feed.followed(self.root, policy, self._clock, self._limits)
