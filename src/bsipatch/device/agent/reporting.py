"""The agent's last step before it rests: the opt-in report, when it is due."""

from __future__ import annotations

import contextlib
import threading

from ...errors import BsipatchError, CancelledError
from ...fleet.model import Report
from ...limits import Limits
from ...store import Store
from ..logs import Log
from ..policy import Policy
from ..service import DeviceService
from ..telemetry import report as reports
from ..telemetry import sending


def turn(
    service: DeviceService, now: float, *, limits: Limits, stop: threading.Event
) -> float | None:
    """Sends it when it is due; the moment of the next one, None where none are sent.

    A collector that fails is no failure of the device's.  Raises CancelledError, ConfigError,
    StoreDamagedError, SystemCallError.
    """
    policy = service.policy()
    if not sending.wanted(policy):
        return None
    with Store(service.root, limits=limits) as store:
        live, platform = store.live(), store.identity.platform
    report = reports.make(
        policy=policy,
        secret=reports.read_secret(service.root),
        live=live,
        platform=platform,
        entries=service.log.read(),
        now=now,
    )
    sent = sending.load(service.root)
    if sent == sending.Sent():
        sent = sending.first(report, now)
        sending.save(service.root, sent)
    moment = sending.due(sent, report, now)
    if moment > now:
        return moment
    try:
        _send(service, policy, report, now, limits=limits, stop=stop)
    except CancelledError:
        raise
    except BsipatchError as error:
        after = sending.failed(sent, report, now, error.message)
        if after.failures == 1:  # what stays wrong is said once
            _say(service.log, "report-failed", error.message)
    else:
        after = sending.succeeded(report, now)
        _say(service.log, "report-sent", f"a report went to {policy.report_to}")
    sending.save(service.root, after)
    return sending.due(after, report, now)


def _send(
    service: DeviceService,
    policy: Policy,
    report: Report,
    now: float,
    *,
    limits: Limits,
    stop: threading.Event,
) -> None:
    """By the device's own client: its proxy, its pace, its patience."""
    from ..feed_client import opened

    with opened(service.root, clock=lambda: now, limits=limits) as feed:
        feed.heed(
            channel=policy.channel, mirrors=policy.mirrors, bandwidth=policy.bandwidth or None
        )
        with feed.transport(stop=stop) as transport:
            sending.send(policy, report, transport, now)


def _say(log: Log, event: str, text: str) -> None:
    with contextlib.suppress(BsipatchError):
        log.write(event, text, level="warning" if event == "report-failed" else "info")
