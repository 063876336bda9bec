"""Reports to statsd, the health endpoint and systemd. None of them can disturb delivery.

The main loop calls `report` in each step. All reports are made from a `Snapshot`, which is taken when a
report is
due: every second for the health endpoint, every ten for the others, never if none of them is configured.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from .health_server import HealthServer
from .logs import log_lines_dropped
from .metrics import since
from .rates import Rates
from .snapshot import SNAPSHOT_INTERVAL, AttemptResult, Attempts, Peak
from .statsd import StatsdClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config.settings import PublisherSettings
    from ..policy.outcome import Outcome
    from .snapshot import Snapshot, SpoolLevel
    from .systemd import Notifier

#: Seconds between two reports to statsd and systemd; the flush interval of the usual statsd.
_REPORT_INTERVAL: Final = 10.0


class Reporter:
    """Reports the state of the publisher. Used by one thread.

    Args:
        settings: `metrics.*` and `health.*`.
        notifier: Notifies systemd.
        make_snapshot: Takes a snapshot of the publisher at a monotonic time.

    Raises:
        HealthError: The health endpoint can't listen at its address.

    Attributes:
        attempts: Counts all attempts.
        report_at: When `report` must be called at the latest, in monotonic seconds.
    """

    def __init__(
        self, settings: PublisherSettings, notifier: Notifier, make_snapshot: Callable[[float], Snapshot]
    ) -> None:
        metrics = settings.metrics
        self.attempts: Attempts = Attempts()
        self.report_at: float = -math.inf
        self._notifier = notifier
        self._copy_state = make_snapshot
        self._metrics = StatsdClient(
            metrics.namespace, metrics.endpoint, log_if_unconfigured=metrics.log_if_unconfigured
        )
        self._reports = metrics.endpoint is not None or metrics.log_if_unconfigured or notifier.listening
        self._metrics_at = -math.inf
        self._reported: dict[str, int] = {}
        self._peak = Peak()  # of the queue's depth, for scrapers
        self._highest = 0  # depth of the queue since the last report to statsd
        self._rates = Rates()
        self._snapshot: Snapshot  # from `start` on
        self._health: HealthServer | None = None
        if settings.health.bind is not None:
            self._health = HealthServer(settings.health.bind, lambda: self._snapshot, settings.health.hosts)

    @property
    def metrics_dropped(self) -> int:
        """Lines for statsd that couldn't be sent."""
        return self._metrics.dropped

    def _make_snapshot(self, now: float) -> Snapshot:
        snapshot = self._copy_state(now)
        self._highest = max(self._highest, snapshot.queue_highest)
        highest = self._peak.record(snapshot.queue_highest, now)
        rates = self._rates.record(
            now,
            {
                "received": snapshot.accounting.received,
                "delivered": snapshot.accounting.delivered,
                "attempts": snapshot.attempts.seconds.count,
                "attempt_seconds": snapshot.attempts.seconds.total,
                "backlog": snapshot.backlog,
            },
        )
        return replace(snapshot, queue_highest=highest, log_lines_dropped=log_lines_dropped(), rates=rates)

    def start(self, now: float) -> str | None:
        """Start reporting; return the address of the health endpoint, or None."""
        self._snapshot = self._make_snapshot(now)
        if self._health is not None:
            self._health.start()
        self._notifier.ready()
        return None if self._health is None else str(self._health.endpoint)

    def record(self, outcome: Outcome, count: int, seconds: float, now: float) -> None:
        """Record an attempt to send `count` events, which ended at `now` and took `seconds`."""
        counters = {
            AttemptResult.ACCEPTED: {"sent": count},
            AttemptResult.UNANSWERED: {"error.io": 1},
        }
        result = self.attempts.record(outcome, seconds, now)
        self._metrics.send(timers={"post": seconds})
        self._metrics.send(counters=counters.get(result, {"error.http": 1}))

    def report(self, now: float) -> None:
        """Send the reports that are due."""
        self._notifier.alive()
        if now >= self.report_at:
            self._snapshot = snapshot = self._make_snapshot(now)
            if self._reports and now >= self._metrics_at:
                self._metrics_at = now + _REPORT_INTERVAL
                self._report_metrics(snapshot, now)
            self.report_at = self._metrics_at if self._reports else math.inf
            if self._health is not None:
                self.report_at = min(self.report_at, now + SNAPSHOT_INTERVAL)
        self.report_at = min(self.report_at, self._notifier.alive_at)

    def stopping(self, now: float) -> None:
        """Report that the publisher is stopping."""
        self._notifier.stopping()
        self._snapshot = self._make_snapshot(now)

    def reloading(self) -> None:
        """Report that the publisher reloads its configuration; `ready` follows."""
        self._notifier.reloading()

    def ready(self) -> None:
        """Report that the publisher has loaded its configuration."""
        self._notifier.ready()

    def finish(self, now: float) -> None:
        """Report the final state."""
        if self._reports:
            self._report_metrics(self._make_snapshot(now), now)

    def close(self) -> None:
        """Close all destinations; nothing else may be called afterwards."""
        if self._health is not None:
            self._health.close()
        self._notifier.close()
        self._metrics.close()

    def _report_metrics(self, snapshot: Snapshot, now: float) -> None:
        """Send gauges of the current state, and counters of the fates since the last report."""
        self._notifier.status(snapshot.in_words(now))
        accounting, oldest_at = snapshot.accounting, snapshot.oldest_at
        fates = {
            "received": accounting.received,
            "recovered": accounting.recovered,
            "delivered": accounting.delivered,
            "dead_lettered": accounting.dead_lettered,
            "returned": accounting.returned,
            "dead_letters.dropped": accounting.letters_dropped,
            "log_lines_dropped": snapshot.log_lines_dropped,
            **{f"dropped.{reason.value}": count for reason, count in accounting.dropped.items()},
        }
        levels: dict[str, float | None] = {
            "in_hand": accounting.in_hand,
            "oldest.age": since(now, oldest_at) or 0,
            **{f"transport.{name}": int(up) for name, up in snapshot.transports.items()},
        }
        if snapshot.queue_depth is not None:
            fates["queue.full"] = snapshot.queue_full
            levels |= {"queue.depth": snapshot.queue_depth, "queue.highest": self._highest}
        if snapshot.spool is not None:
            fates |= _counts(snapshot.spool)
            levels |= {"spooled": accounting.spooled, **_levels(snapshot.spool, now)}
        self._highest = 0
        self._metrics.send(
            gauges={name: level for name, level in levels.items() if level is not None},
            counters={name: count - self._reported.get(name, 0) for name, count in fates.items()},
        )
        self._reported = fates


def _counts(spool: SpoolLevel) -> dict[str, int]:
    """Return the counters of a spool."""
    return {
        "rekeyed": spool.rekeyed,
        "spool.torn": spool.torn_gaps,
        "spool.torn_bytes": spool.torn_bytes,
        **{f"refused.{reason}": count for reason, count in spool.refusals.items()},
    }


def _levels(spool: SpoolLevel, now: float) -> dict[str, float | None]:
    """Return the gauges of a spool; None for unknown values."""
    return {
        "spool.size": spool.size,
        "spool.max_size": spool.max_size,
        "spool.segments": spool.segments,
        "spool.oldest.age": since(now, spool.oldest_at) or 0,
        "spool.free": spool.free_space,
        "spool.free_inodes": spool.free_inodes,
        "spool.problems": len(spool.problems) + (spool.error is not None),
        "relay.paused": int(spool.paused is not None),
        "relay.held": spool.held,
        **{f"spool.set_aside.{reason}": count for reason, count in spool.aside.items()},
    }
