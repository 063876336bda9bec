"""How long an event takes, from its put to its arrival at the collector.

Rules:

1. Producer, publisher and collector are processes of their own, and the monotonic clock is that of the host.
2. An event is stamped with the time at which it is due, not with that of its put; so a put that waits for
   room in the queue, and all that are late because of it, count in full.
3. Events are due at random moments, the same ones for all publishers, and continue for a while after
   enough were counted: so neither a rhythm nor the end affects how long a batch waits to fill.
4. At half load all publishers get the same rate: half that of the slowest of them with this producer.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from baseplate_events import EventQueue
from benchmarks.ages import collector_process, event_bodies, stamped
from benchmarks.peers import PUBLISHERS, publisher, queue_for
from benchmarks.report import Line, Report, Target
from benchmarks.rounds import interleave, percentile
from tests.support.publishers import MAX_MESSAGES
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from benchmarks.ages import CollectorProcess
    from benchmarks.peers import Publisher
    from benchmarks.scale import Scale

#: Events per second of a service that puts few.
_LOW_RATE: Final = 20.0

#: The age at which a batch is sent, where ours is asked for less than the second that both have by default.
_SOON: Final = "50 milliseconds"

#: Different events that are put in turn.
_BODIES: Final = 2_000

#: Our publisher with that, and the same with a spool that services write to.
_OURS_SOON: Final = "ours, soon"
_OURS_SPOOL: Final = "ours, soon, spool"

#: Milliseconds after which half of the events are there that come through a spool at a low rate.
_SPOOL_BOUND: Final = 50.0 + 10.0

#: Seconds between two looks at what the collector has.
_GLANCE: Final = 0.02


@dataclass(frozen=True)
class _Run:
    """The outcome of one run.

    Attributes:
        ages: Seconds from put to arrival of each event.
        rate: Events a second that were put.
    """

    ages: list[float]
    rate: float


@dataclass
class _Chain:
    """A queue with a publisher and a collector of its own.

    Attributes:
        send: Puts an event.
        put: Events put so far; all arrive, in this order except for batches in flight at the same time.
    """

    send: Callable[[bytes], object]
    process: Publisher
    collector: CollectorProcess
    put: int = 0

    def run(self, bodies: list[bytes], rate: float, seconds: float, afterwards: float) -> _Run:
        """Put events, and wait until those counted have arrived.

        Args:
            bodies: The bodies to put, in turn.
            rate: Events a second, on average, at random moments; 0 for as many as there is room for.
            seconds: Duration of the measurement.
            afterwards: Seconds for which puts continue without being counted.
        """
        ages: list[float] = []
        began = time.monotonic()
        count = self._put(bodies, rate, seconds)
        taken = time.monotonic() - began
        more = self._put(bodies, rate, afterwards)

        def arrived() -> bool:
            ages[:] = self.collector.ages(self.put)
            return len(ages) >= count

        self.process.wait_for(arrived, interval=_GLANCE)
        self.put += count + more
        return _Run(ages[:count], count / taken)

    def _put(self, bodies: list[bytes], rate: float, seconds: float) -> int:
        chance = random.Random(0)
        number = 0
        due = time.monotonic_ns()
        end = due + round(seconds * 1e9)
        while due < end or not number:
            now = time.monotonic_ns()
            if due > now:
                time.sleep((due - now) / 1e9)
            self.send(stamped(bodies[number % len(bodies)], due))
            number += 1
            due = due + round(chance.expovariate(rate) * 1e9) if rate else time.monotonic_ns()
        return number


@contextlib.contextmanager
def _chain(whose: str, **settings: str) -> Generator[_Chain]:
    name = f"benchmark-{secrets.token_hex(8)}"
    with (
        tempfile.TemporaryDirectory() as folder,
        queue_for(name) as queue,
        collector_process() as collector,
        publisher(whose, Path(folder), name, collector.url, **settings) as process,
    ):
        yield _Chain(partial(queue.put, timeout=PATIENCE), process, collector)


@contextlib.contextmanager
def _spool_chain(**settings: str) -> Generator[_Chain]:
    name = f"benchmark-{secrets.token_hex(8)}"
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(EventQueue(name, bytes, spool_directory=folder, strict_size=True)) as queue,
        collector_process() as collector,
        publisher(
            "ours",
            Path(folder),
            name,
            collector.url,
            spool__directory=folder,
            queue__transport="spool",
            **settings,
        ) as process,
    ):
        yield _Chain(queue.put, process, collector)


def run(scale: Scale) -> Report:
    """Measure at a low rate and at half load."""
    bodies = event_bodies(_BODIES)
    rounds = scale.pick(full=3, quick=1, tiny=1)
    afterwards = scale.pick(full=1.2, quick=1.0, tiny=0.0)
    ours = scale.pick(full={}, quick={}, tiny={"batch__max_age": _SOON})
    with contextlib.ExitStack() as stack:
        chains = {
            "ours": stack.enter_context(_chain("ours", **ours)),
            _OURS_SOON: stack.enter_context(_chain("ours", batch__max_age=_SOON)),
        }
        if "original" in PUBLISHERS:
            chains["original"] = stack.enter_context(_chain("original"))
        spool = {_OURS_SPOOL: stack.enter_context(_spool_chain(batch__max_age=_SOON))}

        def measure(rate: float, seconds: float, rounds: int, afterwards: float) -> dict[str, list[_Run]]:
            # At full speed a spool would only be filled.
            running = {**chains, **spool} if rate else chains
            return interleave(
                {
                    name: partial(chain.run, bodies, rate, seconds, afterwards)
                    for name, chain in running.items()
                },
                rounds,
            )

        measure(0.0, scale.pick(full=0.5, quick=0.2, tiny=0.0), 1, 0.0)  # to warm up
        capacity = measure(0.0, scale.pick(full=3.0, quick=0.5, tiny=0.05), 1, 0.0)
        half_rate = min(runs[0].rate for runs in capacity.values()) / 2
        low = measure(_LOW_RATE, scale.pick(full=6.0, quick=1.5, tiny=0.1), rounds, afterwards)
        half = measure(half_rate, scale.pick(full=4.0, quick=1.0, tiny=0.1), rounds, afterwards)
    through_spool = 1e3 * percentile([age for run in low[_OURS_SPOOL] for age in run.ages], 50)
    what = f"{_LOW_RATE:g} events/s through a spool with batch.max_age = {_SOON}, p50 in ms"
    return Report(
        "From put to the collector",
        (*_lines(f"{_LOW_RATE:g} events/s", low), *_lines(f"{half_rate:,.0f} events/s", half)),
        (Target(what, through_spool, _SPOOL_BOUND, at_least=False),),
        (
            "From when an event is due, at random, to when the collector has read all of its batch.",
            "Both publishers send a batch that isn't full after 1 second, by default.",
            f"{half_rate:,.0f} events/s is half of what the slowest of them manages here.",
            f"The queue holds {MAX_MESSAGES} events, as on a stock Linux; waiting for room counts.",
        ),
    )


def _lines(what: str, found: dict[str, list[_Run]]) -> list[Line]:
    lines: list[Line] = []
    for percent in (50, 99):
        figures = {
            name: 1e3 * percentile([age for run in runs for age in run.ages], percent)
            for name, runs in found.items()
        }
        original = figures.get("original")
        lines.append(Line(f"{what}, p{percent}", "ms", figures["ours"], original))
        note = f"with batch.max_age = {_SOON}"
        lines += [
            Line(f"{what}, p{percent}, ours {note}", "ms", figures[_OURS_SOON], original),
            Line(f"{what}, p{percent}, ours {note}, spool", "ms", figures[_OURS_SPOOL], original),
        ]
    return lines
