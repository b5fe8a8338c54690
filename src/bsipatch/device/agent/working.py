"""Does one step after the other until there is nothing to do but wait.

    with Agent(store_root) as agent:
        rest = agent.work(stop)         a Step that says until when, and for what

Whatever fails is written into the device's log and tried again later, each thing by
itself: a feed that does not answer keeps nobody from installing what was fetched.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from ... import store as stores
from ...closing import Closing
from ...errors import BsipatchError, CancelledError, HealthError, StoreBusyError
from ...limits import DEFAULT, Limits
from ...store import BootReport, Store, Work
from .. import schedule, withdrawal
from ..conditions import Condition, standard
from ..logs import Level, Log
from ..policy import Policy
from ..schedule import Timing
from ..service import Conditions, DeviceService
from ..telemetry import record
from . import memo as memos
from .deciding import AGAIN, BUSY, Do, Seen, Step, decide
from .early import due
from .looking import look
from .memo import Memo
from .reaching import reach
from .reporting import turn

#: steps of one run, far more than any needs
_MOST = 32
#: seconds between two looks at `stop`, while something is under way
_TICK = 0.1


class Agent(Closing):
    """Works on one store. Not for several threads; `stop` may be set from any."""

    def __init__(
        self,
        store_root: Path,
        *,
        clock: Callable[[], float] = time.time,
        timing: Timing | None = None,
        conditions: Conditions | None = None,
        managed: Path | None = None,
        managed_owner: int = 0,
        jobs: int = 1,
        limits: Limits = DEFAULT,
        told: Callable[[Step], None] | None = None,
    ) -> None:
        """Raises NotFoundError when there is no store, StoreDamagedError.

        told: is called with each step before it is done.
        """
        self._clock, self._timing, self._limits = clock, timing or Timing(), limits
        self._conditions, self._jobs = conditions or self._standard, jobs
        self._told = told or (lambda step: None)
        self.service = DeviceService(
            store_root,
            clock=clock,
            managed=managed,
            managed_owner=managed_owner,
            conditions=self._conditions,
            timing=self._timing,
            jobs=jobs,
            limits=limits,
        )
        self.root, self._log = self.service.root, Log(self.service.root)

    def close(self) -> None:
        """Lets go of the service. Safe to call twice."""
        self.service.close()

    def work(self, stop: threading.Event | None = None, *, now: bool = False) -> Step:
        """Everything that is to be done, then the rest that follows. `now`: whatever the schedule.

        Raises CancelledError once `stop` is set, StoreDamagedError, SystemCallError.
        """
        ended = stop or threading.Event()
        with self._cancelling(ended):
            return self._work(ended, now)

    def _work(self, stop: threading.Event, now: bool) -> Step:
        tried: frozenset[Do] = frozenset()
        for _ in range(_MOST):
            if stop.is_set():
                raise CancelledError
            seen = look(self.service, self._clock(), self._timing, self._limits)
            if now and "check" not in tried and seen.due is not None:
                seen = replace(seen, due=0.0)
            step = decide(seen, tried)
            self._told(step)
            if step.do == "rest":
                return self._rest(seen, self._reported(step, stop))
            tried |= {step.do}
            busy = self._do(step, seen, stop)
            if busy is not None:
                self._told(busy)
                return self._rest(seen, busy)
        return self._rest(seen, Step("rest", until=self._clock() + AGAIN, why="too many steps"))

    def _reported(self, step: Step, stop: threading.Event) -> Step:
        """The same rest, ended in time for the next report. Raises CancelledError."""
        try:
            moment = turn(self.service, self._clock(), limits=self._limits, stop=stop)
        except CancelledError:
            raise
        except BsipatchError:
            return step  # what is wrong with the store or the policy is told by others
        return step if moment is None else replace(step, until=min(step.until, moment))

    def _rest(self, seen: Seen, step: Step) -> Step:
        memo = memos.load(self.root)
        if step.update:
            memo = memo.about(step.update)
            about = next(one for one in seen.listed if one.id == step.update)
            if seen.programs and not memo.ready and not about.why:
                memo = msgspec.structs.replace(memo, ready=self._clock())
        if seen.relaunch:
            memo = msgspec.structs.replace(memo, relaunch=seen.live)
        if step.why != memo.doing:
            self._say("waiting-for", f"waits: {step.why}", level="debug")
        self._remember(memo, wake=step.until, doing=step.why, pids=step.pids, written=self._clock())
        return step

    # --- the steps ---

    def _do(self, step: Step, seen: Seen, stop: threading.Event) -> Step | None:
        """Does it. A rest when another process holds what it needs. Raises CancelledError."""
        works: dict[Do, Callable[[], None]] = {
            "recover": lambda: self._recover(stop),
            "judge": lambda: self._judge(stop),
            "check": self._check,
            "withdraw": lambda: self._withdraw(stop),
            "tell": lambda: self._tell(seen),
            "fetch": lambda: self._fetch(step.update, stop),
            "install": lambda: self._install(step.update),
        }
        try:
            works[step.do]()
        except CancelledError:
            raise
        except StoreBusyError as error:
            return Step("rest", until=self._clock() + BUSY, why=f"waits for {error.detail}")
        except BsipatchError as error:
            self._failed(step, error)
        else:
            memo = memos.load(self.root)
            if memo.problem:
                self._remember(memo, problem="")
        return None

    def _recover(self, stop: threading.Event) -> None:
        with Store(self.root, limits=self._limits) as store:
            done = stores.recover(store, work=Work(jobs=self._jobs, stop=stop))
        if done.done:
            self._say("recovered", "; ".join(done.done))

    def _judge(self, stop: threading.Event) -> None:
        with Store(self.root, limits=self._limits) as store:
            done: BootReport = stores.boot_ok(store, work=Work(jobs=self._jobs, stop=stop))
        self._say("trial", f"{done.live.display}: {done.note}")

    def _check(self) -> None:
        self.service.check()

    def _withdraw(self, stop: threading.Event) -> None:
        """No policy and nothing in the surroundings keeps a withdrawal from being heeded."""
        with reach(
            self.service, self._conditions, self._clock(), limits=self._limits, stop=stop
        ) as reached:
            withdrawal.settle(reached.store, reached.feed, reached.view)
            offer = reached.installer.choose(reached.view, None).decision.withdrawn
            if offer is None:
                return
            done = withdrawal.act(reached.store, reached.feed, reached.view, offer)
        reason = done.notice.reason
        text = f"{done.left.display} was withdrawn by its publisher: {reason}"
        with contextlib.suppress(BsipatchError):
            record.taken_off(self._log, offer.id, "withdrawn", text)

    def _tell(self, seen: Seen) -> None:
        self._say("relaunched", f"{seen.memo.relaunch} is in effect in every program it concerns")
        self._remember(memos.load(self.root), relaunch="")

    def _fetch(self, update: str, stop: threading.Event) -> None:
        with reach(
            self.service, self._conditions, self._clock(), limits=self._limits, stop=stop
        ) as reached:
            plan, fetched = reached.installer.fetch(reached.view, update)
        if plan is not None:
            received = sum(file.received for file in fetched)
            self._say("fetched", f"{received:,} bytes received, to be installed later", update)
        memo = memos.load(self.root).about(update)
        self._remember(memo, fetched=plan is not None, failures=0, retry=0.0, error="")

    def _install(self, update: str) -> None:
        done = self.service.install(update, asked=False, offline=True)
        if not done.changed:
            # The gate found what the state did not; asking again at once would find it again.
            self._later(update, done.text)
            return
        memo = memos.load(self.root)
        named = self.service.state(history=0)
        self._remember(
            Memo(relaunch=named.installed.display if named.needs.processes else memo.relaunch)
        )

    # --- what failed, what is remembered ---

    def _failed(self, step: Step, error: BsipatchError) -> None:
        if step.do in ("fetch", "install"):
            if isinstance(error, HealthError):
                return  # it is barred by now, and the store's history says why
            self._later(step.update, error.message)
            if step.do == "install":
                return  # the service has written it
        if step.do == "check" and due(self.root, self._clock(), self._timing) != 0:
            return  # so has it, with the time of the next try
        memo = memos.load(self.root)
        if memo.problem != error.message:  # what stays wrong is said once
            self._say(f"{step.do}-failed", error.message, step.update, level="warning")
            self._remember(memo, problem=error.message[:1000])

    def _later(self, update: str, reason: str) -> None:
        now = self._clock()
        memo = memos.load(self.root).at(now).about(update)
        failures = memo.failures + 1
        wait = schedule.retry_delay(update, failures, now, self._timing)
        self._remember(memo, failures=failures, retry=now + wait, error=reason[:1000], written=now)

    def _remember(self, memo: Memo, **changes: object) -> None:
        with contextlib.suppress(BsipatchError):
            memos.save(self.root, msgspec.structs.replace(memo, **changes))

    def _say(self, event: str, text: str, update: str = "", *, level: Level = "info") -> None:
        with contextlib.suppress(BsipatchError):
            self._log.write(event, text, update=update, level=level)

    @contextlib.contextmanager
    def _cancelling(self, stop: threading.Event) -> Iterator[None]:
        """While it works, setting `stop` also stops what the service has under way."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_TICK):
                if stop.is_set():
                    self.service.cancel()

        thread = threading.Thread(target=watch, name="bsipatch stop", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()

    def _standard(self, policy: Policy, root: Path) -> Sequence[Condition]:
        return standard(policy, root, limits=self._limits)
