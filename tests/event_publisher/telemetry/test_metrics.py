"""The metrics of a snapshot, read by Prometheus' own parser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from baseplate_events.event_publisher.foreign_text import MAX_FOREIGN, printable
from baseplate_events.event_publisher.policy.accounting import Accounting
from baseplate_events.event_publisher.telemetry.metrics import metrics_of
from baseplate_events.event_publisher.telemetry.prometheus import format_metrics
from baseplate_events.event_publisher.telemetry.snapshot import STUCK_AFTER, Snapshot, SpoolLevel
from tests.support.strategies import snapshots

if TYPE_CHECKING:
    from prometheus_client import Metric

#: Seconds between a snapshot and the look at it.
_later = st.floats(0, 2 * STUCK_AFTER)


def read(snapshot: Snapshot, now: float) -> list[Metric]:
    """Have Prometheus read the metrics of a snapshot, as they come over a connection."""
    text = format_metrics(metrics_of(snapshot, now)).encode().decode()
    return list(text_string_to_metric_families(text))


def values(families: list[Metric]) -> dict[str, float]:
    """Return the numbers of metrics that have one, by their names without what all have in common."""
    return {
        sample.name.removeprefix("event_publisher_"): sample.value
        for family in families
        for sample in family.samples
        if set(sample.labels) == {"queue"}
    }


def by_label(families: list[Metric], name: str, label: str) -> dict[str, float]:
    """Return the numbers of one metric by a label."""
    return {
        sample.labels[label]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == f"event_publisher_{name}"
    }


@given(snapshots(), _later)
def test_metrics_show_balanced_counters(snapshot: Snapshot, later: float) -> None:
    """Prometheus reads every fate, and the fates add up to what was received."""
    families = read(snapshot, snapshot.made_at + later)
    found = values(families)
    dropped = by_label(families, "events_dropped_total", "reason")
    accounting = snapshot.accounting
    assert {reason.value: count for reason, count in accounting.dropped.items()} == dropped
    ended = ("delivered_total", "dead_lettered_total", "returned_total", "spooled", "in_hand")
    assert accounting.received == sum(found[f"events_{fate}"] for fate in ended) + sum(dropped.values())
    assert accounting.received == found["events_received_total"]
    assert accounting.recovered == found["events_recovered_total"]
    assert snapshot.attempts.seconds.count == found["attempt_seconds_count"]


@given(snapshots(), _later)
def test_metrics_show_ages_and_levels(snapshot: Snapshot, later: float) -> None:
    """Ages keep growing without a new snapshot; unknown values are absent."""
    now = snapshot.made_at + later
    families = read(snapshot, now)
    found = values(families)
    attempts = snapshot.attempts
    assert found["heartbeat_age_seconds"] == pytest.approx(later, abs=0.001)
    assert found["uptime_seconds"] == pytest.approx(now - snapshot.started_at, abs=0.001)
    for name, moment in {
        "oldest_event_age_seconds": snapshot.oldest_at,
        "failing_seconds": attempts.failing_since,
    }.items():
        assert found[name] == pytest.approx(0 if moment is None else now - moment, abs=0.001)
    assert ("last_success_age_seconds" in found) == (attempts.last_success_at is not None)
    assert found["ready"] == (snapshot.unready(now) is None)
    assert found["disk_failing"] == (snapshot.disk_error is not None)
    assert found["failures_in_row"] == snapshot.failures
    assert found["metrics_dropped_total"] == snapshot.metrics_dropped
    assert found["log_lines_dropped_total"] == snapshot.log_lines_dropped
    results = by_label(families, "attempts_total", "result")
    assert {result.value: count for result, count in attempts.results.items()} == results
    queues = {sample.labels["queue"] for family in families for sample in family.samples}
    assert {snapshot.queue_name} == queues


@given(snapshots(), _later)
def test_metrics_show_how_full_the_queue_is(snapshot: Snapshot, later: float) -> None:
    """The POSIX queue has its numbers if there is one, and each transport whether it can be used."""
    families = read(snapshot, snapshot.made_at + later)
    found = values(families)
    assert snapshot.transports == by_label(families, "transport_up", "transport")
    expected = {
        "queue_depth": snapshot.queue_depth,
        "queue_capacity": snapshot.queue_capacity,
        "queue_highest_depth": snapshot.queue_highest,
        "queue_full_total": snapshot.queue_full,
    }
    if snapshot.queue_depth is None:
        assert expected.keys().isdisjoint(found)
    else:
        assert expected.items() <= found.items()


@given(snapshots(), _later)
def test_metrics_show_what_is_in_the_spool(snapshot: Snapshot, later: float) -> None:
    """Every number of the level is there, except those that aren't known; without a spool there are none."""
    now = snapshot.made_at + later
    families = read(snapshot, now)
    found, spool = values(families), snapshot.spool
    if spool is None:
        others = ("spool_", "relay_", "events_refused", "events_rekeyed")
        assert not [name for name in found if name.startswith(others)]
        return
    assert found["spool_size_bytes"] == spool.size
    assert found["spool_max_size_bytes"] == spool.max_size
    assert found["spool_segments"] == spool.segments
    assert found.get("spool_free_bytes") == spool.free_space
    assert found.get("spool_free_inodes") == spool.free_inodes
    assert (found["spool_torn_total"], found["spool_torn_bytes_total"]) == (spool.torn_gaps, spool.torn_bytes)
    assert found["events_rekeyed_total"] == spool.rekeyed
    assert (found["relay_paused"], found["relay_held"]) == (spool.paused is not None, spool.held)
    oldest = 0 if spool.oldest_at is None else now - spool.oldest_at
    assert found["spool_oldest_age_seconds"] == pytest.approx(oldest, abs=0.001)
    assert by_label(families, "spool_set_aside", "reason") == spool.aside
    assert by_label(families, "events_refused_total", "reason") == spool.refusals
    wrong = {text for text in (spool.error, spool.paused, *spool.problems) if text is not None}
    shown = by_label(families, "spool_problem", "problem")
    assert shown == {printable(text, MAX_FOREIGN): 1 for text in wrong}


@given(snapshots())
def test_metrics_are_named_as_prometheus_has_it(snapshot: Snapshot) -> None:
    """Names are distinct and of ours, only counters end in `_total`, and each has its meaning."""
    metrics = metrics_of(snapshot, snapshot.made_at)
    names = [metric.name for metric in metrics]
    assert len(set(names)) == len(names)
    assert all(name.startswith("event_publisher_") for name in names)
    assert all(metric.name.endswith("_total") == (metric.kind == "counter") for metric in metrics)
    assert all(metric.meaning.endswith(".") for metric in metrics)


def test_the_guide_has_every_metric() -> None:
    """Each is in the table of metrics by its name."""
    guide = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    table = guide.partition("### Metrics")[2].partition("### Prometheus")[0]
    snapshot = Snapshot("v2", "1.0", 0.0, 1.0, Accounting(), 0, 10, spool=SpoolLevel(0, 1))
    names = {metric.name.removeprefix("event_publisher_") for metric in metrics_of(snapshot, 1.0)}
    documented = {
        name
        for row in table.partition("|---")[2].splitlines()
        for name in re.findall(r"`([a-z_]+)(?:\{[a-z]+\})?`", row.partition(" | ")[0])
    }
    assert documented == names
