"""The interface between baseplate.py's framework and an `EventQueue`: request contexts and metrics."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from ._log import DEBUG, log
from .counting.forks import OfProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Gauge(Protocol):
    """A value of a metrics client that goes up and down."""

    def replace(self, new_value: float, /) -> object:
        """Set the value."""
        ...


class Counter(Protocol):
    """A value of a metrics client that only counts up."""

    def increment(self, delta: float, /) -> object:
        """Count up."""
        ...


class MetricsBatch(Protocol):
    """The part of a metrics client that `report_runtime_metrics` uses."""

    def counter(self, name: str, /) -> Counter:
        """Return the counter of this name."""
        ...

    def gauge(self, name: str, /) -> Gauge:
        """Return the gauge of this name."""
        ...


class ContextFactory(Protocol):
    """Creates an attribute of a request's context, as in baseplate.py's framework."""

    def make_object_for_context(self, name: str, span: object, /) -> object:
        """Create the attribute `name` for the request that `span` measures."""
        ...

    def report_runtime_metrics(self, batch: MetricsBatch, /) -> None:
        """Report the state of the factory; called periodically."""
        ...


class _Reported:
    """What a process has reported.

    Attributes:
        lock: Held while a thread reports.
        counts: How many refused events were reported, by reason.
    """

    __slots__ = ("counts", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: dict[str, int] = {}


class MetricsReporter:
    """Reports a queue to a metrics client; see `EventQueue.report_runtime_metrics`.

    Args:
        name: The name of the queue.
    """

    __slots__ = ("_name", "_reported")

    def __init__(self, name: str) -> None:
        self._name = name
        self._reported = OfProcess(_Reported)  # the counts of a forked child start again too

    def report(
        self,
        batch: MetricsBatch,
        refused: Callable[[], Mapping[str, int]],
        gauges: Callable[[], Mapping[str, float]],
    ) -> None:
        """Report what was refused since the last time, and how much is in the queue; never raises or waits.

        While another thread reports, it does nothing.

        Args:
            batch: The metrics client.
            refused: Returns how many events were refused, by reason.
            gauges: Returns the current gauges.
        """
        reported = self._reported.get()
        lock, counts = reported.lock, reported.counts
        if not lock.acquire(blocking=False):
            return
        try:
            for reason, count in refused().items():
                if news := count - counts.get(reason, 0):
                    batch.counter(f"event_queue.{self._name}.refused.{reason}").increment(news)
                counts[reason] = count
            for gauge, value in gauges().items():
                batch.gauge(f"event_queue.{self._name}.{gauge}").replace(value)
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with a metrics client is no reason to fail
            problem = "metrics of event queue %s not reported (%s)"
            log(__name__, DEBUG, problem, self._name, type(exc).__name__)
        finally:
            lock.release()
