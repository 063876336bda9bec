"""What a health endpoint reports, in the words and units of a user. Pure.

`Scrape` is what was read, `Status` what it means. Rates come from two looks.
"""

from __future__ import annotations

import dataclasses
import http
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..._words import counted
from ...event_publisher.foreign_text import MAX_FOREIGN
from ...event_publisher.telemetry.snapshot import backlog_of
from ..terminal import Colour, format_age, format_table, paint, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...event_publisher.telemetry.prometheus import Labels

_PREFIX: Final = "event_publisher_"


@dataclass(frozen=True, slots=True)
class Scrape:
    """What a health endpoint said.

    Attributes:
        unready: Why events aren't being delivered; None if they are.
        samples: The numbers of `/metrics` by name and labels.
    """

    unready: str | None
    samples: Mapping[tuple[str, Labels], float]

    def number(self, name: str) -> float | None:
        """Return the number of a metric that has one; None if it is missing."""
        return next((value for (other, _), value in self.samples.items() if other == _PREFIX + name), None)

    def total(self, name: str) -> float:
        """Return the number of a metric that has one; 0 if it is missing."""
        return self.number(name) or 0

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """Return the numbers of a metric by one of its labels."""
        return {
            dict(labels)[label]: value
            for (other, labels), value in self.samples.items()
            if other == _PREFIX + name and label in dict(labels)
        }

    def label(self, name: str, label: str) -> str:
        """Return a label of a metric; empty if it is missing."""
        return next(iter(self.by_label(name, label)), "")


@dataclass(frozen=True, slots=True)
class Status:
    """What a publisher is doing, in the words and units of a user; as JSON it has these names.

    Attributes:
        ready: Whether events are being delivered.
        unready: Why not.
        queue: The NAME of its queue.
        version: Its version.
        uptime: Seconds since its start.
        received: Events so far, likewise the other fates.
        dropped: Events that are gone, by reason.
        rates: Events a second, `received` and `delivered`, and `attempts` a second, over the publisher's last
            ten seconds; None if it has just started.
        backlog: What waits to be delivered: bytes in the spool or, without one, events in queue and memory.
        backlog_change: Its growth in a second, likewise.
        backlog_time: Seconds until it is delivered at this rate; None if it doesn't shrink, or isn't known.
        collector: Where batches are posted.
        last_answer_status: HTTP status of the last response, None if there was none.
        last_answer_age: Seconds since then.
        restart_needed: Options that were changed in the file and need a restart.
        queue_shared: Whether another publisher reads the same POSIX queue.
        transports: What services may put events into, and whether events can be taken from it.
        queue_depth: Events in the POSIX queue, None if there is none.
        queue_capacity: Events that it holds.
        queue_highest_depth: The most events that were seen in it in the last one to two minutes.
        queue_full: How often it was full when it was looked at.
        spool_size: Bytes in the spool that aren't delivered; None if there is no spool.
        spool_max_size: Bytes that it may take.
        spool_segments: Segments in it.
        spool_oldest_age: Seconds since the oldest of them was started that isn't delivered; 0 for none.
        spool_free_bytes: Bytes that its disk has left, None if that isn't known.
        spool_free_inodes: Files that its disk can still take, None if that isn't known or limited.
        set_aside: Segments that can't be delivered, by reason.
        torn: Places in it that hold no whole event.
        torn_bytes: Their bytes.
        refused: Events that services could not put, by reason, as they report in the spool.
        rekeyed: Events that are sent again under another idempotency key.
        relay_paused: Whether no events are moved from the queue into the spool.
        relay_held: Events that were received from the queue and wait for room in the spool.
        problems: What doesn't work as it should, in words.
        oldest_age: Seconds since the oldest event came that isn't delivered.
        last_success_age: Seconds since the collector accepted a batch; None if it never did.
        failing_for: Seconds since attempts began to fail; 0 if they don't.
        failures: Failed attempts in a row.
        attempts: Attempts by their results.
        mean_attempt: Seconds that an attempt took in that time, or since the start; None if there was none.
    """

    ready: bool
    unready: str | None
    queue: str
    version: str
    uptime: float | None
    received: float | None
    recovered: float | None
    delivered: float | None
    dead_lettered: float | None
    returned: float | None
    spooled: float | None
    in_hand: float | None
    dropped: Mapping[str, float]
    rates: Mapping[str, float] | None
    backlog: float | None
    backlog_change: float | None
    backlog_time: float | None
    collector: str
    last_answer_status: float | None
    last_answer_age: float | None
    restart_needed: Sequence[str]
    queue_shared: bool
    transports: Mapping[str, bool]
    queue_depth: float | None
    queue_capacity: float | None
    queue_highest_depth: float | None
    queue_full: float | None
    spool_size: float | None
    spool_max_size: float | None
    spool_segments: float | None
    spool_oldest_age: float | None
    spool_free_bytes: float | None
    spool_free_inodes: float | None
    set_aside: Mapping[str, float]
    torn: float | None
    torn_bytes: float | None
    refused: Mapping[str, float]
    rekeyed: float | None
    relay_paused: bool
    relay_held: float | None
    problems: Sequence[str]
    oldest_age: float | None
    last_success_age: float | None
    failing_for: float | None
    failures: float | None
    attempts: Mapping[str, float]
    mean_attempt: float | None


def status_of(look: Scrape) -> Status:
    """Return the status of a look, with the rates that the publisher reports."""
    rates = look.by_label("recent_rate", "of")
    backlog, change = _backlog(look), rates.pop("backlog", None)
    seconds = rates.pop("attempt_seconds", 0.0)
    return Status(
        ready=look.unready is None,
        unready=look.unready,
        queue=look.label("build_info", "queue"),
        version=look.label("build_info", "version"),
        uptime=look.number("uptime_seconds"),
        received=look.number("events_received_total"),
        recovered=look.number("events_recovered_total"),
        delivered=look.number("events_delivered_total"),
        dead_lettered=look.number("events_dead_lettered_total"),
        returned=look.number("events_returned_total"),
        spooled=look.number("events_spooled"),
        in_hand=look.number("events_in_hand"),
        dropped=look.by_label("events_dropped_total", "reason"),
        rates=rates or None,
        backlog=backlog,
        backlog_change=change,
        backlog_time=_time_left(backlog, change),
        collector=look.label("collector_info", "url"),
        last_answer_status=look.number("last_answer_status"),
        last_answer_age=look.number("last_answer_age_seconds"),
        restart_needed=list(look.by_label("restart_needed", "option")),
        queue_shared=bool(look.number("queue_shared")),
        transports={name: bool(up) for name, up in look.by_label("transport_up", "transport").items()},
        queue_depth=look.number("queue_depth"),
        queue_capacity=look.number("queue_capacity"),
        queue_highest_depth=look.number("queue_highest_depth"),
        queue_full=look.number("queue_full_total"),
        spool_size=look.number("spool_size_bytes"),
        spool_max_size=look.number("spool_max_size_bytes"),
        spool_segments=look.number("spool_segments"),
        spool_oldest_age=look.number("spool_oldest_age_seconds"),
        spool_free_bytes=look.number("spool_free_bytes"),
        spool_free_inodes=look.number("spool_free_inodes"),
        set_aside=look.by_label("spool_set_aside", "reason"),
        torn=look.number("spool_torn_total"),
        torn_bytes=look.number("spool_torn_bytes_total"),
        refused=look.by_label("events_refused_total", "reason"),
        rekeyed=look.number("events_rekeyed_total"),
        relay_paused=bool(look.number("relay_paused")),
        relay_held=look.number("relay_held"),
        problems=list(look.by_label("spool_problem", "problem")),
        oldest_age=look.number("oldest_event_age_seconds"),
        last_success_age=look.number("last_success_age_seconds"),
        failing_for=look.number("failing_seconds"),
        failures=look.number("failures_in_row"),
        attempts=look.by_label("attempts_total", "result"),
        mean_attempt=_mean_attempt(look, rates.get("attempts", 0.0), seconds),
    )


def _backlog(look: Scrape) -> float | None:
    in_memory = look.number("events_in_hand")
    return backlog_of(look.number("spool_size_bytes"), look.number("queue_depth"), in_memory)


def _time_left(backlog: float | None, change: float | None) -> float | None:
    """Return the seconds until nothing waits any more, at the current rate."""
    if not backlog:
        return backlog
    return round(backlog / -change, 1) if change is not None and change < 0 else None


def _mean_attempt(look: Scrape, attempts: float, seconds: float) -> float | None:
    """Return the mean of the attempts of the last ten seconds; since the start if there were none."""
    if not attempts:
        attempts, seconds = look.total("attempt_seconds_count"), look.total("attempt_seconds_sum")
    return round(seconds / attempts, 6) if attempts else None


def format_json(status: Status) -> str:
    """Return a status as one JSON object on one line; counts are whole numbers."""
    return json.dumps(dataclasses.asdict(status))


def format_status(status: Status, *, colour: bool) -> list[str]:
    """Return a status for people, as lines."""
    said = "delivering" if status.ready else f"not delivering: {_shown(status.unready or '')}"
    if colour:
        said = paint(said, Colour.GREEN if status.ready else Colour.RED)
    rates = status.rates or {}
    failing = f"for {_age(status.failing_for)}, {_counted(status.failures, 'attempt')} in a row"
    transports = [name if up else f"{name} (not created yet)" for name, up in status.transports.items()]
    rows = [
        (
            "queue",
            _shown(status.queue) + f" (publisher {_shown(status.version)}, up {_age(status.uptime)})",
        ),
        ("state", said),
        *(("problem", _shown(problem)) for problem in status.problems),
        *(
            [("restart", f"needed for {_shown(', '.join(status.restart_needed))}")]
            if status.restart_needed
            else []
        ),
        ("transport", _shown(" and ".join(transports))),
        ("collector", _collector(status)),
        ("", ""),
        *([("in the queue", _in_the_queue(status))] if status.queue_depth is not None else []),
        *(_spool_rows(status) if status.spool_size is not None else []),
        ("in memory", _counted(status.in_hand, "event")),
        ("backlog", _in_words(status)),
        ("oldest", f"{_age(status.oldest_age)}" if status.oldest_age else "nothing waits"),
        ("", ""),
        ("received", _count(status.received) + _rate(rates.get("received"))),
        ("delivered", _count(status.delivered) + _rate(rates.get("delivered"))),
        ("dead letters", _count(status.dead_lettered)),
        ("dropped", _counts(status.dropped) or "0"),
        ("refused", _refused(status)),
        *([("returned", _count(status.returned))] if status.returned else []),
        ("", ""),
        ("requests", (_counts(status.attempts) or "none") + _rate(rates.get("attempts"))),
        ("mean time", "-" if status.mean_attempt is None else f"{status.mean_attempt * 1_000:,.1f} ms"),
        (
            "last success",
            "never" if status.last_success_age is None else f"{_age(status.last_success_age)} ago",
        ),
        ("failing", failing if status.failures else "no"),
    ]
    return format_table(rows)


def _collector(status: Status) -> str:
    """Say where events go, and what that answered last."""
    number = status.last_answer_status
    if number is None:
        return f"{_shown(status.collector)}, no answer yet"
    phrase = http.HTTPStatus(int(number)).phrase if number in set(http.HTTPStatus) else ""
    answer = f"{number:.0f} {phrase}".rstrip()
    return f"{_shown(status.collector)}, last answer {answer} {_age(status.last_answer_age)} ago"


def _in_words(status: Status) -> str:
    """Say what waits to be delivered, and how long that takes."""
    noun = "event" if status.spool_size is None else "byte"
    if not status.backlog:
        return "-" if status.backlog is None else "nothing waits"
    text, change = _counted(status.backlog, noun), status.backlog_change
    if status.backlog_time is not None:
        return f"{text}, delivered in {_age(status.backlog_time)} at the current rate"
    if change is None:
        return text
    return f"{text}, growing by {_counted(change, noun)} a second" if round(change) else f"{text}, steady"


def _refused(status: Status) -> str:
    """Say what services could not put."""
    if status.spool_size is not None:
        return f"{_counts(status.refused) or '0'} (by services)"
    full = _counted(status.queue_full, "time")
    return f"not known without a spool; the queue was found full {full}" if status.queue_full else "0 seen"


def _in_the_queue(status: Status) -> str:
    text = _share(status.queue_depth, status.queue_capacity, "event")
    text += ", which another publisher reads too" if status.queue_shared else ""
    if status.queue_highest_depth:
        text += f", lately up to {_count(status.queue_highest_depth)}"
    return f"{text}, found full {_counted(status.queue_full, 'time')}" if status.queue_full else text


def _spool_rows(status: Status) -> list[tuple[str, str]]:
    """Return the rows about the spool; those of problems only if there are some."""
    inodes = "" if status.spool_free_inodes is None else f", {_counted(status.spool_free_inodes, 'inode')}"
    torn = f"{_counted(status.torn_bytes, 'byte')} in {_counted(status.torn, 'place')}"
    set_aside = _counts(status.set_aside)
    held = f"paused, holds {_counted(status.relay_held, 'event')} of the queue"
    size = _share(status.spool_size, status.spool_max_size, "byte")
    events = f"{_counted(status.spool_segments, 'segment')}, {_counted(status.spooled, 'event')} read"
    return [
        ("in the spool", f"{size}, {events}"),
        *([("oldest segment", _age(status.spool_oldest_age))] if status.spool_oldest_age else []),
        ("free", f"{_counted(status.spool_free_bytes, 'byte')}{inodes}"),
        *([("set aside", f"{set_aside} (segments)")] if set_aside else []),
        *([("torn", torn)] if status.torn else []),
        *([("relay", held)] if status.relay_paused else []),
        *([("new keys", _counted(status.rekeyed, "event"))] if status.rekeyed else []),
    ]


def _counts(numbers: Mapping[str, float]) -> str:
    """List what isn't zero."""
    return ", ".join(f"{_count(count)} {_shown(name)}" for name, count in numbers.items() if count)


def _shown(text: str) -> str:
    return printable(text, MAX_FOREIGN)


def _count(number: float | None) -> str:
    return "-" if number is None else f"{number:,.0f}"


def _counted(number: float | None, noun: str) -> str:
    return "-" if number is None else counted(number, noun)


def _share(part: float | None, whole: float | None, noun: str) -> str:
    percent = f" ({part * 100 / whole:.0f} %)" if part is not None and whole else ""
    return f"{_count(part)} of {_counted(whole, noun)}{percent}"


def _rate(rate: float | None) -> str:
    return "" if rate is None else f" ({rate:,.1f} a second)"


def _age(seconds: float | None) -> str:
    return "-" if seconds is None else format_age(seconds)
