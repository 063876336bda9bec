"""The observable state of an event queue: what became of its events, and how full it is."""

from __future__ import annotations

from .counting.counters import QueueCounters, RefusedEvents, Tally
from .counting.forks import OfProcess
from .counting.refusals import RefusalCounts
from .errors import EventError
from .framework import MetricsBatch, MetricsReporter
from .queue_settings import EventQueueSettings  # noqa: TC001 - for typing.get_type_hints, as the next
from .transport import Transport  # noqa: TC001


class _Counts:
    """Events that a queue took in one process.

    Attributes:
        put: Those that it put.
        discarded: Those that it discarded.
    """

    def __init__(self) -> None:
        self.put = Tally()
        self.discarded = Tally()


class ObservedQueue:
    """The part of an `EventQueue` that a service can observe."""

    _queue: Transport
    _settings: EventQueueSettings

    def _observe(self, name: str) -> None:
        self._name = name
        self._refusals = RefusalCounts()
        self._counts = OfProcess(_Counts)
        self._opens = self._counts.held.cell  # its second byte is free
        self._reporter = MetricsReporter(name)

    def counters(self) -> QueueCounters:
        """Return what became of the events that this process has put so far.

        The counts are exact, also with many threads, and never decrease. In a forked process they start at 0.
        """
        refused = RefusedEvents(**self._refusals.totals)
        counts = self._counts.get()
        return QueueCounters(counts.put.value, refused, counts.discarded.value)

    @property
    def _taken(self) -> Tally:
        """What counts the events that the transport takes now."""
        counts = self._counts.get()
        return counts.put if self.enabled else counts.discarded

    @property
    def enabled(self) -> bool:
        """Whether the queue is switched on; otherwise it discards all events."""
        return self._settings.enabled

    @property
    def depth(self) -> int | None:
        """Events in the POSIX queue now; None for a spool, and while the queue isn't open."""
        return self._measure("depth")

    @property
    def capacity(self) -> int | None:
        """Actual capacity of the POSIX queue in events; None for a spool or a queue that isn't open."""
        return self._measure("capacity")

    @property
    def spool_size(self) -> int | None:
        """Bytes of undelivered events in the spool; None for a POSIX queue, and if it can't be read."""
        return self._measure("spool_size")

    @property
    def spool_max_size(self) -> int | None:
        """The capacity of the spool in bytes; None for a POSIX queue, and if it can't be read."""
        return self._measure("spool_max_size")

    def _measure(self, gauge: str) -> int | None:
        try:
            return self._queue.gauges().get(gauge)
        except EventError:
            return None

    @property
    def refused(self) -> dict[str, int]:
        """How many events `put` and `put_many` refused in this process, by reason.

        The reasons are `too_large`, `full`, `empty`, `not_serializable`, `unavailable` and `other`; those
        that never occurred are missing. A forked process starts with none.
        """
        return self._refusals.totals

    def report_runtime_metrics(self, batch: MetricsBatch) -> None:
        """Report the depth and capacity of the queue, and the events refused.

        The gauges are `event_queue.NAME.depth` and `event_queue.NAME.capacity`, in events, or for a spool
        `event_queue.NAME.spool_size` and `event_queue.NAME.spool_max_size`, in bytes. The counters
        `event_queue.NAME.refused.REASON` count refusals since the last report (see `refused`). Never raises;
        a metric that can't be reported is left out, and logged at debug level.
        """
        self._reporter.report(batch, lambda: self.refused, self._queue.gauges)
