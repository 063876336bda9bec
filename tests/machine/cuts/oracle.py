"""Compares what was put with what arrived after a power cut, and with what docs/operations.md promises.

A service reports each event for which `put` returned, with how many events the POSIX queue held then. So what
the queue has given away is known: it is what the publisher has received, and of that the promise is.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.machine.cuts.plan import Kind, Way
from tests.machine.guest.numbered import numbered

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.machine.cuts.plan import Cut

#: Seconds after which `batch` and `event` force events of services onto the disk: the default of
#: `batch.max_age`.
BATCH_MAX_AGE: Final = 1.0

#: Seconds that it may take, "while the disk was busy": the emulated machine has one slow core, which the load
#: shares.
BUSY: Final = 3.0


@dataclass(frozen=True)
class Report:
    """What a service reported of an event for which `put` returned.

    Attributes:
        number: That of the event.
        held: Events that the POSIX queue held then; 0 with the spool.
        at: Seconds of the machine's clock.
    """

    number: int
    held: int
    at: float


@dataclass(frozen=True)
class Outcome:
    """What came of a power cut.

    Attributes:
        put: Events for which `put` returned, as far as it was reported.
        received: How many of them were not in the POSIX queue any more, which is the first so many.
        delivered: How many of those that were received arrived.
        lost: How many didn't.
        lost_bytes: The bytes of these.
        oldest: Seconds before the cut at which the oldest of these was received, or put into the spool; 0 if
            none was lost.
        holes: How many of these were put before one that arrived.
        duplicates: Arrivals of events that had arrived already.
        damaged: Arrivals that are no event that was put.
    """

    put: int
    received: int
    delivered: int
    lost: int
    lost_bytes: int
    oldest: float
    holes: int
    duplicates: int
    damaged: int


def parse_reports(text: str) -> list[Report]:
    """Return the reports of a service, without a last line that was cut off."""
    whole, _, _ = text.rpartition("\n")
    fields = (line.split() for line in whole.splitlines())
    return [Report(int(number), int(held), float(at)) for number, held, at in fields]


def compare(series: str, reports: Sequence[Report], cut_at: float, arrived: Iterable[bytes]) -> Outcome:
    """Return what came of a power cut.

    Args:
        series: What the ids of the events begin with.
        reports: What the service reported, in its order.
        cut_at: Seconds of the machine's clock at the cut.
        arrived: The events that the collector took before and after the cut.
    """
    counts = Counter(_number(series, event) for event in arrived)
    damaged = counts.pop(0, 0)
    received_at: dict[int, float] = {}
    received = 0
    for report in reports:
        for number in range(received + 1, report.number - report.held + 1):
            received_at[number] = report.at
        received = max(received, report.number - report.held)
    lost = [number for number in range(1, received + 1) if number not in counts]
    last = max(counts, default=0)
    return Outcome(
        put=reports[-1].number if reports else 0,
        received=received,
        delivered=received - len(lost),
        lost=len(lost),
        lost_bytes=sum(len(numbered(series, number)) for number in lost),
        oldest=round(cut_at - received_at[lost[0]], 2) if lost else 0.0,
        holes=sum(number < last for number in lost),
        duplicates=sum(counts.values()) - len(counts),
        damaged=damaged,
    )


def _number(series: str, event: bytes) -> int:
    """Return the number of an event of a series; 0 if it isn't one, down to the last byte."""
    try:
        name = json.loads(event)["id"]
        begin, _, end = name.rpartition("-")
        number = int(end)
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0
    return number if begin == series and number > 0 and event == numbered(series, number) else 0


def broken_promises(cut: Cut, outcome: Outcome) -> list[str]:
    """Return what docs/operations.md promises of such a cut and doesn't hold.

    With `never` it promises nothing of how much is lost; of all, that what arrives is whole.
    """
    broken: list[str] = []
    if outcome.damaged:
        broken.append(f"{outcome.damaged} arrivals are no event that was put")
    if cut.fsync == "event" and cut.way is Way.RELAY:
        # Each kill of the publisher may take the one event between receive and append.
        allowed = 1 + (cut.kind in {Kind.KILL, Kind.RESTART})
        if outcome.lost > allowed:
            broken.append(f"{outcome.lost} events lost, at most {allowed} allowed")
    elif cut.fsync != "never" and outcome.oldest > BATCH_MAX_AGE + BUSY:
        broken.append(f"an event of {outcome.oldest} seconds before the cut is lost, with {cut.fsync}")
    return broken
