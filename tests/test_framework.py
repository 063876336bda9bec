"""The interface between a queue and baseplate.py's framework."""

from __future__ import annotations

import itertools
import os
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.framework import MetricsReporter
from tests.support.waiting import PATIENCE


class _Metrics:
    """Sums up reported metrics."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def counter(self, name: str) -> _Count:
        return _Count(self.counts, name)

    def gauge(self, name: str) -> _Count:
        return _Count(self.counts, name)


class _Count:
    """A counter of a client."""

    def __init__(self, counts: Counter[str], name: str) -> None:
        self._counts = counts
        self._name = name

    def increment(self, delta: float) -> None:
        self._counts[self._name] += int(delta)

    def replace(self, new_value: float) -> None:
        raise AssertionError(new_value)


@given(st.lists(st.integers(0, 5), max_size=10), st.lists(st.integers(0, 5), max_size=10))
def test_a_forked_child_reports_its_own_refusals(parent: list[int], child: list[int]) -> None:
    """Its counts start at 0 again, and each refusal is in one report, also if it has more than the parent."""
    reporter, metrics = MetricsReporter("v2"), _Metrics()
    for total in itertools.accumulate(parent):
        reporter.report(metrics, lambda: {"full": total}, dict)  # noqa: B023 - it is called at once
    reporter._reported.held.cell[0] = 0  # pyright: ignore[reportPrivateUsage] - what a fork does
    for total in itertools.accumulate(child):
        reporter.report(metrics, lambda: {"full": total}, dict)  # noqa: B023 - likewise
    assert sum(parent) + sum(child) == metrics.counts["event_queue.v2.refused.full"]


@pytest.mark.unmeasured
def test_a_fork_is_noticed() -> None:
    """A child of `os.fork` has reported nothing."""
    reporter, metrics = MetricsReporter("v2"), _Metrics()
    reporter.report(metrics, lambda: {"full": 3}, dict)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            reporter.report(metrics, lambda: {"full": 4}, dict)
            status = int(metrics.counts.total() != 7)
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_refusal_is_reported_once_by_whichever_thread() -> None:
    """A thread that comes while another one reports leaves it to that one, and doesn't wait."""
    reporter, metrics = MetricsReporter("v2"), _Metrics()

    def refused() -> dict[str, int]:
        second = threading.Thread(target=reporter.report, args=(metrics, lambda: {"full": 3}, dict))
        second.start()
        second.join(PATIENCE)
        assert not second.is_alive()
        return {"full": 3}

    reporter.report(metrics, refused, dict)
    assert metrics.counts == {"event_queue.v2.refused.full": 3}
    reporter.report(metrics, lambda: {"full": 5}, dict)
    assert metrics.counts == {"event_queue.v2.refused.full": 5}
