"""A thousand publishers against one collector: an outage of an hour, the recovery, and a deploy.

    python -m tests.soak.fleet [--plot docs/fleet.svg]

Simulated, with the real policy: see `simulation.py`. Prints what happened and what is claimed, and
ends with 1 if a claim doesn't hold.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.soak.fleet.picture import draw
from tests.soak.fleet.report import BLOCK, SLICES, Capacity, Mode, Phase, Report
from tests.soak.fleet.simulation import CAP, Fleet

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The collector's capacity: 1.5 times the requests that the fleet sends when all is well, and three times
#: the events.
_REQUESTS_PER_PUBLISHER: Final = 1.5
_EVENTS_PER_PUBLISHER: Final = 3.0 * BLOCK

#: Load that the collector may be offered in any second while it is up, as a multiple of its capacity.
_MOST_LOAD: Final = 2.0

#: Share of the collector's capacity that must be used while there is a backlog.
_LEAST_USE: Final = 0.8

#: Seconds after which a fleet has slowed down if its collector is down, or has settled if it is up.
_SETTLED: Final = 120.0


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that must hold.

    Attributes:
        text: The claim, with figures.
        holds: Whether it does.
    """

    text: str
    holds: bool


def plan_phases(outage: float, *, announced: bool) -> list[Phase]:
    """Return the phases of the simulation.

    Args:
        outage: Seconds for which nothing listens.
        announced: Whether the deploy's 503 responses say in Retry-After when it ends.
    """
    return [
        Phase("normal", 300.0),
        Phase("outage", outage, Mode.REFUSING),
        Phase("recovery", outage * 2 / 3 + 300.0),
        Phase("deploy", 30.0, Mode.UNAVAILABLE, announced),
        Phase("afterwards", 270.0),
    ]


def check(report: Report) -> list[Claim]:
    """Compare a report with the claims."""
    size = len(report.publishers)
    claims: list[Claim] = []
    for phase, since, until in report.spans:
        if phase.mode is Mode.UP:
            load = report.busiest(lambda piece: piece.load, since, until - 1.0)
            text = f"{phase.name}: at most {_MOST_LOAD:g}x the capacity offered in any second: {load:.2f}x"
            claims.append(Claim(text, load <= _MOST_LOAD))
            if phase.name == "recovery":
                claims.append(_check_use(report, since, until))
        elif until - since > _SETTLED:
            probes = report.busiest(
                lambda piece: piece.requests, since + _SETTLED, until - 10.0, seconds=10.0
            )
            bound = 2.0 * size / (CAP / 2.0)  # a pause takes half its ceiling on average
            text = f"{phase.name}: at most {bound:.1f} probes/s in any 10 seconds: {probes:.1f}"
            claims.append(Claim(text, probes <= bound))
    claims += [
        Claim(f"every event is delivered: {report.undelivered} blocks missing", not report.undelivered),
        Claim(f"none is given up: {report.given_up} blocks", not report.given_up),
        Claim(f"all books are balanced: {report.unbalanced} of {size} are not", not report.unbalanced),
        Claim(
            f"duplicates come from resets after commit only: {report.duplicates} blocks of {report.resets}",
            report.duplicates == report.resets,
        ),
    ]
    return claims


def _check_use(report: Report, since: float, until: float) -> Claim:
    """Check that the collector is kept busy, from soon after its recovery, until little is left to do."""
    slices = report.slices
    first, end = round((since + _SETTLED) * SLICES), round(until * SLICES)
    little = slices[round(since * SLICES) - 1].backlog / 5
    last = next((at for at in range(first + SLICES, end) if slices[at].backlog < little), end)
    events = report.mean(lambda piece: piece.accepted_events, first / SLICES, last / SLICES)
    use = events / report.capacity.events
    return Claim(
        f"with a backlog at least {_LEAST_USE:.0%} of the capacity is used: {use:.0%}", use >= _LEAST_USE
    )


def describe(report: Report) -> list[str]:
    """Return a table of what happened."""
    figures = "load: mean  any second  any 10 s  events/s  backlog"
    lines = [f"phase        seconds  offered/s  accepted/s  503/s  {figures}"]
    for phase, since, until in report.spans:
        requests = report.mean(lambda piece: piece.requests, since, until)
        accepted = report.mean(lambda piece: piece.accepted, since, until)
        rejected = report.mean(lambda piece: piece.rejected, since, until)
        events = report.mean(lambda piece: piece.accepted_events, since, until)
        load = report.mean(lambda piece: piece.load, since, until)
        second = report.busiest(lambda piece: piece.load, since, until - 1.0)
        ten = report.busiest(lambda piece: piece.load, since, until - 10.0, seconds=10.0)
        backlog = report.slices[round(until * SLICES) - 1].backlog
        lines.append(
            f"{phase.name:12} {until - since:7,.0f}  {requests:9,.0f}  {accepted:10,.0f}  {rejected:5,.0f}"
            f"  {load:10.2f}  {second:10.2f}  {ten:8.2f}  {events:8,.0f}  {backlog:,}"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Send a fleet of publishers through an outage and a deploy.")
    parser.add_argument("--size", type=int, default=1000, help="publishers (default 1000)")
    parser.add_argument("--outage", type=float, default=3600.0, help="seconds (default 3600)")
    parser.add_argument(
        "--retry-after", type=int, default=0, help="seconds that an overloaded collector names"
    )
    parser.add_argument("--announced", action="store_true", help="the deploy names its end in Retry-After")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, metavar="SVG", help="where to draw a picture")
    options = parser.parse_args(arguments)
    size: int = options.size
    capacity = Capacity(
        requests=_REQUESTS_PER_PUBLISHER * size,
        events=_EVENTS_PER_PUBLISHER * size,
        retry_after=options.retry_after,
    )
    phases = plan_phases(options.outage, announced=options.announced)
    report = Fleet(size, capacity, phases, seed=options.seed).run()
    print(
        f"{size:,} publishers; a collector of {capacity.requests:,.0f} requests/s"
        f" and {capacity.events:,.0f} events/s; seed {options.seed}"
    )
    print(*describe(report), sep="\n")
    claims = check(report)
    for claim in claims:
        print("ok  " if claim.holds else "FAIL", claim.text)
    if options.plot is not None:
        plot: Path = options.plot
        plot.write_text(draw(report), encoding="utf-8")
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
