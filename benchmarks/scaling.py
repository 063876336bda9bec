"""What many producers, bursts and a backlog do to a publisher, and what a put into a full queue costs."""

from __future__ import annotations

import contextlib
import shutil
import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from baseplate_events import EventQueue, EventQueueFullError
from benchmarks.deep_queue import bare_queue
from benchmarks.light_collector import LightCollector
from benchmarks.original import is_installed, original_events
from benchmarks.producer import MAX_EVENT_SIZE
from benchmarks.publisher_rig import rig
from benchmarks.report import Line, Report, Target
from benchmarks.rounds import interleave, medians, seconds_of
from benchmarks.varied_events import make_events
from tests.interop.original import original
from tests.support.spools_written import write_segment
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from benchmarks.publisher_rig import Producer, Publisher, Rig
    from benchmarks.scale import Scale

#: Numbers of producers.
_PRODUCERS: Final = (1, 2, 4, 8, 16)

#: Events of a batch, about as many as fit into its 512,000 bytes.
_BATCH: Final = 700

#: An event of a backlog, a small one, so that many fit onto a disk; and how many a segment of 4 MiB has.
_SMALL: Final = b'{"1":{"str":"page_load"},"2":{"i64":%d}}'
_SEGMENT: Final = 70_000

#: Seconds from the start of a publisher to its first batch, at most.
_START_BOUND: Final = 2.0

#: Seconds after which a publisher needn't go on with its backlog.
_ENOUGH: Final = 20.0

#: How much more memory a large backlog may take than a small one, as a factor and in bytes.
_MEMORY_FACTOR: Final = 1.1
_MEMORY_BYTES: Final = 2 * 1024 * 1024

_MIB: Final = 1024 * 1024

#: Runs a publisher: ours or baseplate.py's.
_Runner: TypeAlias = "Callable[[LightCollector], contextlib.AbstractContextManager[Publisher]]"


def run(scale: Scale) -> Iterator[Report]:
    """Measure many producers, a full queue, bursts and a backlog; yield each report at once."""
    with rig() as made:
        yield _producers(made, scale)
        yield _full_queue(made, scale)
        yield _bursts(made, scale)
        yield _backlog(made, scale)


@dataclass(frozen=True)
class _Crowd:
    """The outcome with some producers that put as services do.

    Attributes:
        rate: Events a second that were delivered.
        refused: Share of the puts that found the queue full.
    """

    rate: float
    refused: float


def _runners(made: Rig, scale: Scale) -> dict[str, _Runner]:
    settings = scale.pick(full={}, quick={}, tiny={"batch.max_age": "20 milliseconds"})
    runners: dict[str, _Runner] = {"ours": lambda collector: made.ours(collector, settings)}
    if is_installed():
        runners["original"] = made.original
    return runners


def _producers(made: Rig, scale: Scale) -> Report:
    numbers = scale.pick(full=_PRODUCERS, quick=(1, 16), tiny=(2,))
    seconds = scale.pick(full=1.5, quick=1.0, tiny=0.05)
    with contextlib.ExitStack() as stack:
        producers = [stack.enter_context(made.producer("--refuse")) for _ in range(max(numbers))]
        results = interleave(
            {
                f"{who} {number}": partial(_crowd, made, runner, producers[:number], seconds)
                for number in numbers
                for who, runner in _runners(made, scale).items()
            },
            scale.pick(full=3, quick=1, tiny=1),
        )
    rates = medians({name: [crowd.rate for crowd in crowds] for name, crowds in results.items()})
    refused = medians({name: [crowd.refused for crowd in crowds] for name, crowds in results.items()})
    lines: list[Line] = []
    for number in numbers:
        what = "1 producer" if number == 1 else f"{number} producers"
        ours, theirs = f"ours {number}", f"original {number}"
        lines += [
            Line(f"{what}, delivered", "events/s", rates[ours], rates.get(theirs), more_is_better=True),
            Line(f"{what}, refused", "% of puts", 100 * refused[ours], _percent(refused.get(theirs))),
        ]
    notes = (
        made.note,
        "A producer puts as fast as it can and pauses for a millisecond when it finds the queue full.",
    )
    return Report("Publisher with many producers", tuple(lines), (), notes)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _crowd(made: Rig, runner: _Runner, producers: Sequence[Producer], seconds: float) -> _Crowd:
    with contextlib.closing(LightCollector()) as collector, runner(collector) as publisher:
        with made.producer() as first:
            first.go(_BATCH)
            publisher.wait_for(lambda: len(collector))  # it has started
        for producer in producers:
            producer.go()
        speed = publisher.watch(collector, seconds)
        results = [producer.stop() for producer in producers]
    refused = sum(result["refused"] for result in results)
    return _Crowd(speed.rate, refused / (refused + sum(result["put"] for result in results)))


def _full_queue(made: Rig, scale: Scale) -> Report:
    """Measure a put that is refused: no publisher runs."""
    count = scale.pick(full=2_000, quick=1_000, tiny=10)
    event = make_events(1)[0]
    while made.queue.current_messages < made.queue.max_messages:
        made.queue.put(event)
    bare, busy = bare_queue(made.queue.name, read=False)
    ours = EventQueue[bytes](
        made.name, bytes, max_queue_size=made.queue.max_messages, max_event_size=MAX_EVENT_SIZE
    )
    puts: dict[str, Callable[[], float]] = {
        "ours": partial(_refused, ours.put, EventQueueFullError, event, count),
        "floor": partial(_refused, bare.send, busy, event, count),
    }
    theirs = original_events()
    if theirs is not None:
        put = theirs.EventQueue(made.name, bytes).put
        puts["original"] = partial(_refused, put, original("lib.events").EventQueueFullError, event, count)
    found = medians(interleave(puts, scale.pick(full=21, quick=5, tiny=1)))
    ours.close()
    bare.close()
    line = Line(
        "put that is refused", "µs", 1e6 * found["ours"], _micro(found.get("original")), 1e6 * found["floor"]
    )
    return Report("Put into a full queue", (line,), (), ("The floor is the bare send of `posix_ipc`.",))


def _micro(seconds: float | None) -> float | None:
    return None if seconds is None else 1e6 * seconds


def _refused(put: Callable[[bytes], object], full: type[Exception], event: bytes, count: int) -> float:
    """Return the mean seconds of a put that is refused."""

    def try_to_put(message: bytes) -> None:
        try:
            put(message)
        except full:
            return
        raise AssertionError("the queue isn't full")

    return seconds_of(try_to_put, [event] * count)


def _bursts(made: Rig, scale: Scale) -> Report:
    sizes = scale.pick(full=(700, 7_000, 70_000), quick=(700, 20_000), tiny=(300,))
    found = medians(
        interleave(
            {
                f"{who} {size}": partial(_burst, made, runner, size)
                for size in sizes
                for who, runner in _runners(made, scale).items()
            },
            scale.pick(full=3, quick=1, tiny=1),
        )
    )
    lines = [
        Line(
            f"{size:,} events at once, until all are delivered",
            "s",
            found[f"ours {size}"],
            found.get(f"original {size}"),
        )
        for size in sizes
    ]
    notes = (made.note, "The last batch waits for a second whether more events come.")
    return Report("Bursts into an idle publisher", tuple(lines), (), notes)


def _burst(made: Rig, runner: _Runner, size: int) -> float:
    with (
        contextlib.closing(LightCollector()) as collector,
        runner(collector) as publisher,
        made.producer() as producer,
    ):
        producer.go(1)
        publisher.wait_for(lambda: len(collector))  # it has started, and has nothing to do now
        began = time.monotonic()
        producer.go(size)
        publisher.wait_for(lambda: _events(collector) == size + 1)
        return collector.arrivals()[-1].at - began


def _events(collector: LightCollector) -> int:
    return sum(arrival.events for arrival in collector.arrivals())


@dataclass(frozen=True)
class _Recovery:
    """The outcome of a backlog.

    Attributes:
        first: Seconds from the start of the publisher to the first batch.
        rate: Events a second from then on.
        memory: Peak of the resident bytes.
    """

    first: float
    rate: float
    memory: int


def _backlog(made: Rig, scale: Scale) -> Report:
    small, large = scale.pick(full=(10_000, 10_000_000), quick=(10_000, 500_000), tiny=(300, 600))
    results = interleave(
        {str(count): partial(_recover, made, count) for count in (small, large)},
        scale.pick(full=2, quick=1, tiny=1),
    )
    lines: list[Line] = []
    for count in (small, large):
        recoveries = results[str(count)]
        what = f"{count:,} events in the spool"
        lines += [
            Line(f"{what}, from start to the first batch", "s", _median(r.first for r in recoveries)),
            Line(f"{what}, delivered", "events/s", _median(r.rate for r in recoveries), more_is_better=True),
            Line(f"{what}, resident at most", "MiB", _median(r.memory for r in recoveries) / _MIB),
        ]
    few, many = (_median(recovery.memory for recovery in results[str(count)]) for count in (small, large))
    bound = few * _MEMORY_FACTOR + _MEMORY_BYTES
    first = _median(recovery.first for recovery in results[str(large)])
    targets = (
        Target(f"MiB resident with {large:,} events in the spool", many / _MIB, bound / _MIB, at_least=False),
        Target(f"s to the first batch with {large:,} events", first, _START_BOUND, at_least=False),
    )
    notes = (made.note, f"Events of some 45 bytes. A publisher is stopped after {_ENOUGH:g} seconds.")
    return Report("Publisher with a backlog", tuple(lines), targets, notes)


def _recover(made: Rig, count: int) -> _Recovery:
    folder = made.folder / "spool"
    spool = folder / f"events-{made.name}"
    spool.mkdir(mode=0o700, parents=True)
    fill_spool(spool, count)
    settings = {"spool.directory": str(folder), "queue.transport": "spool"}
    began = time.monotonic()
    try:
        with contextlib.closing(LightCollector()) as collector, made.ours(collector, settings) as publisher:
            publisher.wait_for(lambda: len(collector))
            wait_until(
                lambda: _events(collector) == count or time.monotonic() > began + _ENOUGH,
                "",
                process=publisher.process,
                patience=2 * _ENOUGH,
                interval=0.05,
            )
            arrivals = collector.arrivals()
            memory = publisher.peak_memory
    finally:
        shutil.rmtree(folder)
    rate = sum(arrival.events for arrival in arrivals[1:]) / (arrivals[-1].at - arrivals[0].at or 1.0)
    return _Recovery(arrivals[0].at - began, rate, memory)


def fill_spool(spool: Path, count: int) -> None:
    """Leave this many events in the folder of a spool, as services without a publisher would."""
    for start in range(0, count, _SEGMENT):
        write_segment(spool, [_SMALL % number for number in range(start, min(start + _SEGMENT, count))], "2")


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)
