"""Compares what was put with what arrived after a power cut, and with what docs/operations.md promises.

A service reports each event for which `put` returned, with how many events the POSIX queue held then. So what
the queue has given away is known: it is what the publisher has received, and of that the promise is.

The promise of `batch` and `event` is about time: nothing is lost that is older than `batch.max_age`, except
for the time that the publisher waited for the disk, or didn't run. The kernel of the machine says when it
waited (`parse_syncs`).
"""

from __future__ import annotations

import json
import math
import re
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

#: Seconds by which the publisher may be late: the emulated machine has one slow core, which the load shares.
LATE: Final = 0.5

#: A line of the kernel's trace: a process, the clock, and the begin or the end of a sync.
_TRACED: Final = re.compile(r"(?m)^ *(?P<process>\S+-\d+) .*? (?P<at>\d+\.\d+): sys_\w+(?P<what>\(| -> )")


#: Seconds of the machine's clock: the begin and the end.
Period = tuple[float, float]


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
        busy: How many of these seconds the publisher waited for the disk, or didn't run.
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
    busy: float
    holes: int
    duplicates: int
    damaged: int


def parse_reports(text: str) -> list[Report]:
    """Return the reports of a service, without a last line that was cut off."""
    whole, _, _ = text.rpartition("\n")
    fields = (line.split() for line in whole.splitlines())
    return [Report(int(number), int(held), float(at)) for number, held, at in fields]


def parse_syncs(text: str) -> list[Period]:
    """Return when processes waited for the disk; the end of a wait that had none is infinite."""
    begun: dict[str, float] = {}
    syncs: list[Period] = []
    for line in _TRACED.finditer(text.rpartition("\n")[0]):
        if line["what"] == "(":
            begun[line["process"]] = float(line["at"])
        elif line["process"] in begun:
            syncs.append((begun.pop(line["process"]), float(line["at"])))
    return [*syncs, *((begin, math.inf) for begin in begun.values())]


def covered(periods: Iterable[Period], begin: float, end: float) -> float:
    """Return how many of the seconds from begin to end are in one of the periods."""
    seconds = 0.0
    for first, last in sorted(periods):
        first, last = max(first, begin), min(last, end)  # noqa: PLW2901 - only this part counts
        if last > first:
            seconds += last - first
            begin = last
    return seconds


def compare(
    series: str,
    reports: Sequence[Report],
    cut_at: float,
    arrived: Iterable[bytes],
    excused: Sequence[Period] = (),
) -> Outcome:
    """Return what came of a power cut.

    Args:
        series: What the ids of the events begin with.
        reports: What the service reported, in its order.
        cut_at: Seconds of the machine's clock at the cut.
        arrived: The events that the collector took before and after the cut.
        excused: When the publisher waited for the disk, or didn't run.
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
    oldest_at = received_at[lost[0]] if lost else cut_at
    return Outcome(
        put=reports[-1].number if reports else 0,
        received=received,
        delivered=received - len(lost),
        lost=len(lost),
        lost_bytes=sum(len(numbered(series, number)) for number in lost),
        oldest=round(cut_at - oldest_at, 2),
        busy=round(covered(excused, oldest_at, cut_at), 2),
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
        # Each publisher may lose the one event between receive and sync: also the one that was killed.
        allowed = 1 + (cut.kind is Kind.RESTART)
        if outcome.lost > allowed:
            broken.append(f"{outcome.lost} events lost, at most {allowed} allowed")
    elif cut.fsync != "never" and outcome.oldest - outcome.busy > BATCH_MAX_AGE + LATE:
        broken.append(
            f"an event of {outcome.oldest} seconds before the cut is lost, with {cut.fsync}, "
            f"and the publisher was busy for only {outcome.busy} of them"
        )
    return broken
