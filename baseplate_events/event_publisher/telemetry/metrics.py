"""The metrics of a snapshot. Pure.

Names are the same as for statsd as far as the two forms allow; docs/operations.md lists both.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from ..foreign_text import MAX_FOREIGN, printable
from .prometheus import Metric, Sample, histogram_samples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .prometheus import Labels
    from .snapshot import Snapshot, SpoolLevel

_PREFIX: Final = "event_publisher_"


def metrics_of(snapshot: Snapshot, now: float) -> list[Metric]:
    """Return the metrics of a snapshot; ages are those at `now`, in seconds of the monotonic clock."""
    fates, attempts = snapshot.accounting, snapshot.attempts
    queue: Labels = (("queue", snapshot.queue_name),)
    one, by, ago = partial(_one, queue), partial(_by, queue), partial(since, now)

    metrics = [
        Metric(
            "build_info",
            "gauge",
            "1, with the version of the publisher.",
            (Sample((*queue, ("version", snapshot.version)), 1),),
        ),
        Metric("uptime_seconds", "gauge", "Time since the start.", one(ago(snapshot.started_at))),
        Metric(
            "heartbeat_age_seconds",
            "gauge",
            "Time since the publisher last did something; a growing value means that it is stuck.",
            one(ago(snapshot.made_at)),
        ),
        Metric(
            "ready", "gauge", "Whether events are being delivered.", one(int(snapshot.unready(now) is None))
        ),
        Metric(
            "events_received_total",
            "counter",
            "Events taken from the queue, or read from the spool.",
            one(fates.received),
        ),
        Metric(
            "events_recovered_total",
            "counter",
            "Received events in batches that an earlier run had begun to send.",
            one(fates.recovered),
        ),
        Metric("events_delivered_total", "counter", "Events that were delivered.", one(fates.delivered)),
        Metric(
            "events_dead_lettered_total",
            "counter",
            "Events that were given up and are in the dead letters.",
            one(fates.dead_lettered),
        ),
        Metric("events_returned_total", "counter", "Events put back into the queue.", one(fates.returned)),
        Metric(
            "events_dropped_total",
            "counter",
            "Events that are lost.",
            by("reason", {reason.value: count for reason, count in fates.dropped.items()}),
        ),
        Metric("events_in_hand", "gauge", "Events in memory only.", one(fates.in_hand)),
        Metric(
            "events_spooled",
            "gauge",
            "Events of the spool that were read or moved into it, and aren't delivered.",
            one(fates.spooled),
        ),
        Metric(
            "oldest_event_age_seconds",
            "gauge",
            "Time since the publisher got the oldest undelivered event; 0 if there is none.",
            one(ago(snapshot.oldest_at) or 0),
        ),
        *_queue_metrics(snapshot, queue),
        *_setting_metrics(snapshot, queue),
        *([] if snapshot.spool is None else _spool_metrics(snapshot.spool, queue, now)),
        Metric(
            "dead_letters_dropped_total",
            "counter",
            "Old dead letters that were deleted to make room for new ones.",
            one(fates.letters_dropped),
        ),
        Metric(
            "attempts_total",
            "counter",
            "Requests to the collector, by result.",
            by("result", {result.value: count for result, count in attempts.results.items()}),
        ),
        Metric(
            "collector_info",
            "gauge",
            "1, with the address that batches are posted to.",
            (Sample((*queue, ("url", printable(snapshot.collector, MAX_FOREIGN))), 1),),
        ),
        Metric(
            "last_answer_status",
            "gauge",
            "HTTP status of the collector's last response; absent before the first.",
            one(attempts.last_status),
        ),
        Metric(
            "last_answer_age_seconds",
            "gauge",
            "Time since that response; absent before the first.",
            one(ago(attempts.last_answer_at)),
        ),
        Metric(
            "recent_rate",
            "gauge",
            "Change per second over the last ten: of events, requests, their time, and the backlog.",
            by("of", snapshot.rates),
        ),
        Metric(
            "attempt_seconds",
            "histogram",
            "Duration of requests to the collector, including compression.",
            histogram_samples(attempts.seconds, queue),
        ),
        Metric("failures_in_row", "gauge", "Failed attempts since the last success.", one(snapshot.failures)),
        Metric(
            "failing_seconds",
            "gauge",
            "Time since attempts began to fail; 0 while they succeed.",
            one(ago(attempts.failing_since) or 0),
        ),
        Metric(
            "last_success_age_seconds",
            "gauge",
            "Time since the collector last accepted a batch; absent before the first.",
            one(ago(attempts.last_success_at)),
        ),
        Metric(
            "disk_failing",
            "gauge",
            "Whether dead letters can't be written.",
            one(int(snapshot.disk_error is not None)),
        ),
        Metric(
            "metrics_dropped_total",
            "counter",
            "Lines for statsd that could not be sent.",
            one(snapshot.metrics_dropped),
        ),
        Metric(
            "log_lines_dropped_total",
            "counter",
            "Log lines that could not be written to stderr.",
            one(snapshot.log_lines_dropped),
        ),
    ]
    return [Metric(_PREFIX + metric.name, metric.kind, metric.meaning, metric.samples) for metric in metrics]


def _setting_metrics(snapshot: Snapshot, queue: Labels) -> list[Metric]:
    """Return the metrics of the options in force."""
    by = partial(_by, queue, "option")
    texts = {name: value for name, value in snapshot.settings.items() if isinstance(value, str)}
    return [
        Metric(
            "setting",
            "gauge",
            "Values in effect of options that are numbers, seconds, or 0 and 1.",
            by({name: value for name, value in snapshot.settings.items() if not isinstance(value, str)}),
        ),
        Metric(
            "setting_info",
            "gauge",
            "1 for each other option that is set, with the value in effect.",
            tuple(
                Sample((*queue, ("option", name), ("value", printable(value, MAX_FOREIGN))), 1)
                for name, value in texts.items()
            ),
        ),
        Metric(
            "restart_needed",
            "gauge",
            "1 for each option that was changed in the file and needs a restart.",
            by(dict.fromkeys(snapshot.waiting, 1)),
        ),
    ]


def _queue_metrics(snapshot: Snapshot, queue: Labels) -> list[Metric]:
    """Return the metrics of the POSIX queue, if there is one."""
    transports = {name: int(up) for name, up in snapshot.transports.items()}
    metrics = [
        Metric(
            "transport_up",
            "gauge",
            "1 while events can be received from this transport; 0 if there is no POSIX queue yet.",
            _by(queue, "transport", transports),
        )
    ]
    if snapshot.queue_depth is not None:
        one = partial(_one, queue)
        metrics += [
            Metric(
                "queue_shared",
                "gauge",
                "Whether another publisher reads the same queue.",
                one(int(snapshot.queue_shared)),
            ),
            Metric("queue_depth", "gauge", "Events waiting in the queue.", one(snapshot.queue_depth)),
            Metric(
                "queue_capacity", "gauge", "Capacity of the queue in events.", one(snapshot.queue_capacity)
            ),
            Metric(
                "queue_highest_depth",
                "gauge",
                "The highest depth seen in the last one to two minutes.",
                one(snapshot.queue_highest),
            ),
            Metric(
                "queue_full_total",
                "counter",
                "How often the queue was full when it was measured.",
                one(snapshot.queue_full),
            ),
        ]
    return metrics


def _spool_metrics(spool: SpoolLevel, queue: Labels, now: float) -> list[Metric]:
    """Return the metrics of the spool."""
    one, by = partial(_one, queue), partial(_by, queue)
    problems = [problem for problem in (spool.error, spool.paused, *spool.problems) if problem is not None]
    return [
        Metric("spool_size_bytes", "gauge", "Undelivered bytes in the spool.", one(spool.size)),
        Metric(
            "spool_max_size_bytes",
            "gauge",
            "Largest size of the spool in bytes, spool.max_size.",
            one(spool.max_size),
        ),
        Metric("spool_segments", "gauge", "Segments in the spool.", one(spool.segments)),
        Metric(
            "spool_oldest_age_seconds",
            "gauge",
            "Time since the oldest segment with something to deliver was started; 0 if there is none.",
            one(since(now, spool.oldest_at) or 0),
        ),
        Metric("spool_free_bytes", "gauge", "Free bytes on the spool's disk.", one(spool.free_space)),
        Metric(
            "spool_free_inodes",
            "gauge",
            "Free inodes on the spool's disk; absent if they aren't limited.",
            one(spool.free_inodes),
        ),
        Metric(
            "spool_set_aside",
            "gauge",
            "Segments that can't be delivered and are left in place.",
            by("reason", spool.aside),
        ),
        Metric(
            "spool_torn_total",
            "counter",
            "Places in the spool that hold no whole event.",
            one(spool.torn_gaps),
        ),
        Metric("spool_torn_bytes_total", "counter", "Bytes of those places.", one(spool.torn_bytes)),
        Metric(
            "events_refused_total",
            "counter",
            "Events that services refused, as reported in the spool.",
            by("reason", spool.refusals),
        ),
        Metric(
            "events_rekeyed_total",
            "counter",
            "Events resent under another idempotency key.",
            one(spool.rekeyed),
        ),
        Metric(
            "relay_paused",
            "gauge",
            "Whether no events are moved from the queue into the spool, because it or its disk is full.",
            one(int(spool.paused is not None)),
        ),
        Metric(
            "relay_held",
            "gauge",
            "Events that were received from the queue and wait for room in the spool.",
            one(spool.held),
        ),
        Metric(
            "spool_problem",
            "gauge",
            "1 for each problem, in words.",
            by("problem", {printable(problem, MAX_FOREIGN): 1 for problem in problems}),
        ),
    ]


def _one(queue: Labels, value: float | None) -> tuple[Sample, ...]:
    return () if value is None else (Sample(queue, value),)


def _by(queue: Labels, label: str, values: Mapping[str, float]) -> tuple[Sample, ...]:
    return tuple(Sample((*queue, (label, name)), value) for name, value in values.items())


def since(now: float, moment: float | None) -> float | None:
    """Return the seconds since a moment; None if there is none."""
    return None if moment is None else round(max(0.0, now - moment), 3)
