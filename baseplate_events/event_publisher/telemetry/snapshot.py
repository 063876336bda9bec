"""The state of a publisher, as a value that other threads can read. Pure.

Rules:

1. Only the deciding thread makes a `Snapshot`, between two steps, at least once in `SNAPSHOT_INTERVAL`. So
   its counters balance, and reading it takes no time from delivery.
2. A snapshot never changes. Readers use the last one. If it is recent, the publisher is alive.
3. It holds moments of the monotonic clock. Ages are computed when they are shown, so they keep growing if the
   publisher hangs.
"""

from __future__ import annotations

import bisect
import enum
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ..._compat import assert_never
from ..._words import counted
from ..policy.outcome import Accepted, Misconfigured, Outcome, Refused, Retryable, TooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..policy.accounting import Accounting

#: Most seconds between two snapshots. Scrapers poll every 10 to 60 seconds.
SNAPSHOT_INTERVAL: Final = 1.0

#: Seconds after which a publisher without a new snapshot counts as stuck. A step is a burst of 1,000 events,
#: and with `spool.fsync = event` on a slow disk that takes seconds.
STUCK_AFTER: Final = 30.0

#: Fewest seconds for which the highest depth of a queue is shown: the longest usual scrape interval.
PEAK_TIME: Final = 60.0

#: Upper bounds of the histogram of attempts in seconds, those of Prometheus' own clients.
BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class AttemptResult(enum.Enum):
    """How an attempt ended, as metrics report it."""

    ACCEPTED = "accepted"
    TOO_LARGE = "too_large"
    REFUSED = "refused"
    RETRYABLE = "retryable"
    MISCONFIGURED = "misconfigured"
    UNANSWERED = "unanswered"
    """There was no HTTP response, whatever the reason."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """The distribution of values.

    Attributes:
        bounds: Upper bounds of the classes, inclusive, ascending.
        counts: Values in each class, and those above the last bound.
        total: The sum of all values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class AttemptCounts:
    """The results of all attempts so far.

    Attributes:
        results: Attempts by how they ended; every result has an entry.
        seconds: How long they took.
        last_error: Why the last attempt failed, in words for an operator; None if it was accepted.
        failing_since: When the first of the failures in a row occurred; None if the last attempt didn't fail.
        last_success_at: When the last batch was accepted; None if none was.
        last_status: HTTP status of the last response, None if there was none.
        last_answer_at: When that arrived.
    """

    results: Mapping[AttemptResult, int]
    seconds: Distribution
    last_error: str | None
    failing_since: float | None
    last_success_at: float | None
    last_status: int | None = None
    last_answer_at: float | None = None


class Peak:
    """The highest of some numbers, for readers who look at least once in `PEAK_TIME`."""

    def __init__(self) -> None:
        self._ends_at = -math.inf
        self._last = 0  # the peak of the last complete `PEAK_TIME`
        self._current = 0

    def record(self, number: int, now: float) -> int:
        """Add the number of this moment, and return the highest of the last one to two `PEAK_TIME`."""
        if now >= self._ends_at:
            follows = now < self._ends_at + PEAK_TIME
            self._last = self._current if follows else 0
            self._current = 0
            self._ends_at = (self._ends_at if follows else now) + PEAK_TIME
        self._current = max(self._current, number)
        return max(self._last, self._current)


class Attempts:
    """Counts attempts; used only by the main loop.

    Attributes:
        last_error: Why the last attempt failed; see `AttemptCounts`.
    """

    def __init__(self) -> None:
        self.last_error: str | None = None
        self._results = dict.fromkeys(AttemptResult, 0)
        self._classes = [0] * (len(BOUNDS) + 1)
        self._total = 0.0
        self._failing_since: float | None = None
        self._last_success_at: float | None = None
        self._refused = False
        self._last_status: int | None = None
        self._last_answer_at: float | None = None

    def record(self, outcome: Outcome, seconds: float, now: float) -> AttemptResult:
        """Count an attempt that ended at `now` and took `seconds`; return how it ended."""
        result = _result_of(outcome)
        self._results[result] += 1
        self._classes[bisect.bisect_left(BOUNDS, seconds)] += 1
        self._total += seconds
        self.last_error = describe_failure(outcome)
        if self.last_error is None:
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = now
        if isinstance(outcome, Accepted):
            self._last_success_at = now
        self._refused = isinstance(outcome, TooLarge | Refused)
        if outcome.status is not None:
            self._last_status, self._last_answer_at = outcome.status, now
        return result

    def settle(self) -> None:
        """Note that nothing is left to deliver: what the collector refused last was given up.

        So that refusal concerned its event alone, and is no error any more. Other failures stay.
        """
        if self._refused:
            self.last_error = self._failing_since = None

    def counts(self) -> AttemptCounts:
        """Return what was counted so far."""
        return AttemptCounts(
            results=dict(self._results),
            seconds=Distribution(BOUNDS, tuple(self._classes), self._total),
            last_error=self.last_error,
            failing_since=self._failing_since,
            last_success_at=self._last_success_at,
            last_status=self._last_status,
            last_answer_at=self._last_answer_at,
        )


@dataclass(frozen=True, slots=True)
class SpoolLevel:
    """The level and the problems of a spool.

    Attributes:
        size: Bytes in it that aren't delivered; the number of events isn't known.
        max_size: Bytes beyond which nothing is moved from the queue into it.
        segments: Segments that are there and can be delivered.
        oldest_at: When the oldest of them with something to deliver was created, by the monotonic clock, as
            far as the wall clock can say; None if there is none.
        aside: Segments that are set aside, by reason.
        torn_bytes: Bytes that are part of no whole record, found in this run.
        torn_gaps: Runs of such bytes.
        refusals: Events that services refused, by reason, as reported in this run.
        free_space: Free bytes on the disk; None if unknown.
        free_inodes: Free inodes; None if unknown or unlimited.
        rekeyed: Events resent under another idempotency key than before a restart.
        error: Why nothing can be read from it, or None.
        paused: Why no events are moved from the queue into it at the moment, or None.
        held: Events that were received but couldn't be moved into it: none, or one.
        problems: Other problems: locks, inotify, the ledger.
    """

    size: int
    max_size: int
    segments: int = 0
    oldest_at: float | None = None
    aside: Mapping[str, int] = field(default_factory=dict[str, int])
    torn_bytes: int = 0
    torn_gaps: int = 0
    refusals: Mapping[str, int] = field(default_factory=dict[str, int])
    free_space: int | None = None
    free_inodes: int | None = None
    rekeyed: int = 0
    error: str | None = None
    paused: str | None = None
    held: int = 0
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a publisher.

    Times are monotonic seconds.

    Attributes:
        queue_name: The NAME of `/events-NAME`.
        version: The version of this package.
        started_at: When the publisher was made.
        made_at: When this snapshot was made.
        accounting: The fates of all events, a copy.
        queue_depth: Events that wait in the POSIX queue; None if there is none.
        queue_capacity: Events that it holds, likewise.
        attempts: What became of all attempts.
        failures: Failed attempts in a row.
        oldest_at: When the oldest event that isn't delivered arrived; None if there is none.
        spool: How full the spool is; None if there is none.
        queue_highest: The highest depth that was seen since the last snapshot.
        queue_full: How often the queue was full when it was looked at: before each burst, and for each
            snapshot.
        transports: What services may put events into, and whether events can be taken from it.
        disk_error: What the disk said when it took no dead letters; None while it does.
        stopping: Whether the publisher is stopping.
        metrics_dropped: Lines for statsd that couldn't be sent.
        log_lines_dropped: Log lines that couldn't be written to stderr.
        collector: Where batches are posted.
        settings: The values of options in effect, numbers or texts; see `config.in_force`.
        waiting: Options that were changed in the file and need a restart.
        queue_shared: Whether another publisher reads the same POSIX queue.
        rates: Changes per second over the last ten seconds; see `rates.Rates`.
    """

    queue_name: str
    version: str
    started_at: float
    made_at: float
    accounting: Accounting
    queue_depth: int | None
    queue_capacity: int | None
    attempts: AttemptCounts = field(default_factory=lambda: Attempts().counts())
    failures: int = 0
    oldest_at: float | None = None
    spool: SpoolLevel | None = None
    queue_highest: int = 0
    queue_full: int = 0
    transports: Mapping[str, bool] = field(default_factory=lambda: {"posix": True})
    disk_error: str | None = None
    stopping: bool = False
    metrics_dropped: int = 0
    log_lines_dropped: int = 0
    collector: str = ""
    settings: Mapping[str, float | str] = field(default_factory=dict[str, "float | str"])
    waiting: Sequence[str] = ()
    queue_shared: bool = False
    rates: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def backlog(self) -> int:
        """What waits to be delivered; see `backlog_of`."""
        backlog = backlog_of(
            None if self.spool is None else self.spool.size, self.queue_depth, self.accounting.in_hand
        )
        return int(backlog or 0)

    def unready(self, now: float) -> str | None:
        """Return why events aren't being delivered at `now`, in words for an operator; None if they are."""
        if not self.alive(now):
            return f"stuck: no activity for {counted(now - self.made_at, 'second')}"
        if self.stopping:
            return "stopping"
        errors = [self.attempts.last_error, self.disk_error]
        if self.spool is not None:
            errors.append(self.spool.error)
            success = self.attempts.last_success_at
            # While batches are accepted, a full spool or disk is being emptied.
            if success is None or now - success > STUCK_AFTER:
                errors.append(self.spool.paused)
        found = [error for error in errors if error is not None]
        return "; ".join(found) if found else None

    def alive(self, now: float) -> bool:
        """Return whether the publisher did something lately."""
        return now - self.made_at <= STUCK_AFTER

    def in_words(self, now: float) -> str:
        """Describe in one line what the publisher is doing."""
        unready = self.unready(now)
        doing = "delivering" if unready is None else f"not delivering: {unready}"
        parts = [f"{self.accounting.delivered:,} delivered", f"{self.accounting.in_hand:,} in memory"]
        if self.spool is not None:
            parts.append(f"{counted(self.spool.size, 'byte')} in the spool")
        if self.queue_depth is not None:
            parts.append(f"{self.queue_depth:,} in the queue")
        return f"{doing} ({', '.join(parts)})"


def backlog_of(spool_size: float | None, queue_depth: float | None, in_memory: float | None) -> float | None:
    """Return what waits to be delivered.

    Args:
        spool_size: Bytes in the spool that aren't delivered; None if there is no spool.
        queue_depth: Events in the POSIX queue; None if there is none.
        in_memory: Events in memory; None if that isn't known.

    Returns:
        Bytes of the spool or, without one, events; None if neither is known.
    """
    if spool_size is not None or in_memory is None:
        return spool_size
    return in_memory + (queue_depth or 0)


def describe_failure(outcome: Outcome) -> str | None:
    """Return why an attempt failed, and the remedy if that is known; None if the batch was accepted."""
    failure: str | None
    match outcome:
        case TooLarge(reason=reason) | Refused(reason=reason):
            failure = f"everything since the last accepted batch was refused: {reason}"
        case Retryable(reason=reason):
            failure = reason
        case Misconfigured(reason=reason, remedy=remedy):
            failure = f"{reason}; {remedy}"
        case Accepted():
            failure = None
        case _:
            assert_never(outcome)
    return failure


def _result_of(outcome: Outcome) -> AttemptResult:
    match outcome:
        case Accepted():
            result = AttemptResult.ACCEPTED
        case TooLarge():
            result = AttemptResult.TOO_LARGE
        case Refused():
            result = AttemptResult.REFUSED
        case Retryable(from_collector=from_collector):
            result = AttemptResult.RETRYABLE if from_collector else AttemptResult.UNANSWERED
        case Misconfigured(from_collector=from_collector):
            result = AttemptResult.MISCONFIGURED if from_collector else AttemptResult.UNANSWERED
        case _:
            assert_never(outcome)
    return result
