"""What happens to a simulated fleet, and what became of it: input and output of `simulation`."""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from baseplate_events.event_publisher.policy.delivery import Delivery
    from tests.support.simulated_publisher import MemoryJournal

#: Events of a block: with events of 1 KiB a block is a tenth of `batch.max_size`.
BLOCK: Final = 50

#: How many windows of a second start in each second.
SLICES: Final = 10


class Mode(enum.Enum):
    """What the collector does with requests."""

    UP = "up"
    """Serves as many as it can."""
    REFUSING = "connection refused"
    """Nothing listens."""
    UNAVAILABLE = "503"
    """What stands before it answers 503."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the simulated time. When a phase other than UP begins, all connections are reset.

    Attributes:
        name: What it is called in reports.
        seconds: How long it lasts.
        mode: What the collector does meanwhile.
        announced: Whether 503 responses say in Retry-After when the phase ends.
    """

    name: str
    seconds: float
    mode: Mode = Mode.UP
    announced: bool = False


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the collector is able to.

    Attributes:
        requests: Requests a second.
        events: Events a second.
        latency: Seconds of a request's round trip, including its own work.
        patience: Longest time that a request waits for its turn, in seconds.
        retry_after: Seconds in the Retry-After of a 503 for overload; 0 for no such header.
    """

    requests: float
    events: float
    latency: float = 0.05
    patience: float = 0.5
    retry_after: int = 0

    def cost(self, blocks: int) -> float:
        """Return the seconds that a request of so many blocks takes."""
        return max(1.0 / self.requests, blocks * BLOCK / self.events)


@dataclass(slots=True)
class Slice:
    """What happened in a tenth of a second.

    Attributes:
        requests: Requests that were sent.
        events: Events in them.
        load: Seconds that the collector would need for them.
        accepted: Requests that were accepted.
        accepted_events: Events in them.
        rejected: Requests that were answered 503.
        backlog: Events that had come but weren't delivered at its end.
    """

    requests: int = 0
    events: int = 0
    load: float = 0.0
    accepted: int = 0
    accepted_events: int = 0
    rejected: int = 0
    backlog: int = 0


@dataclass(slots=True, eq=False)
class Publisher:
    """A publisher of the fleet.

    Attributes:
        delivery: Its policy.
        journal: What it has written down.
        wake_at: When it must be asked again.
        appended: Blocks that are in its spool, or were.
        read: Those of them that it has read.
        committed: How often the collector took each block.
    """

    delivery: Delivery
    journal: MemoryJournal
    wake_at: float = float("inf")
    appended: int = 0
    read: int = 0
    committed: list[int] = field(default_factory=list[int])


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a fleet.

    Attributes:
        capacity: The collector's.
        phases: What happened to the collector.
        slices: What happened, by tenth of a second.
        publishers: The fleet at the end.
        resets: Blocks in requests whose connection was reset after the collector had taken them.
        ended_at: When the last event was delivered, in seconds from the start.
    """

    capacity: Capacity
    phases: Sequence[Phase]
    slices: Sequence[Slice]
    publishers: Sequence[Publisher]
    resets: int
    ended_at: float

    @property
    def spans(self) -> list[tuple[Phase, float, float]]:
        """Each phase with its beginning and end; then what it took until all was delivered, if it did."""
        spans: list[tuple[Phase, float, float]] = []
        at = 0.0
        for phase in self.phases:
            spans.append((phase, at, at + phase.seconds))
            at += phase.seconds
        if self.ended_at > at:
            spans.append((Phase("drain", self.ended_at - at), at, self.ended_at))
        return spans

    def busiest(
        self, measure: Callable[[Slice], float], since: float, until: float, *, seconds: float = 1.0
    ) -> float:
        """Return the highest rate, per second, over any window of `seconds` that starts within a span."""
        first, width = round(since * SLICES), round(seconds * SLICES)
        values = [measure(piece) for piece in self.slices[first : round(until * SLICES) + width - 1]]
        sums = list(itertools.accumulate(values, initial=0.0))
        return (
            max((after - before for before, after in zip(sums, sums[width:], strict=False)), default=0.0)
            / seconds
        )

    def mean(self, measure: Callable[[Slice], float], since: float, until: float) -> float:
        """Return the mean rate, per second, over a span."""
        return sum(map(measure, self.slices[round(since * SLICES) : round(until * SLICES)])) / (until - since)

    @property
    def undelivered(self) -> int:
        """Blocks that the collector never got."""
        return sum(publisher.committed.count(0) for publisher in self.publishers)

    @property
    def duplicates(self) -> int:
        """How often the collector got a block again."""
        return sum(times - 1 for publisher in self.publishers for times in publisher.committed if times > 1)

    @property
    def given_up(self) -> int:
        """Blocks that became dead letters."""
        return sum(len(publisher.journal.letters) for publisher in self.publishers)

    @property
    def unbalanced(self) -> int:
        """Publishers whose counts don't say that every event that came was delivered or given up."""
        return sum(
            not publisher.delivery.accounting.balanced
            or publisher.delivery.accounting.received != publisher.appended
            or publisher.delivery.accounting.spooled + publisher.delivery.accounting.in_hand > 0
            for publisher in self.publishers
        )
