"""How long a put keeps a request waiting: ours, baseplate.py's, and the bare send of `posix_ipc`.

Rules:

1. All candidates put on one queue, as deep as the host allows, which is emptied between bursts, outside
   of the time that counts. No publisher runs, so that nothing but the put is measured.
2. The mean is CPU time over whole bursts. Percentiles are of single puts by the wall clock. The time of the
   clocks themselves is measured in the same rounds, and subtracted.
3. Each event is created before its burst.
"""

from __future__ import annotations

import contextlib
import importlib
import secrets
import statistics
import time
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast

from baseplate_events import EventQueue, serialize_v2_event
from baseplate_events.transport.limits import read_limits
from baseplate_events.transport.posix import MessageQueue
from benchmarks.original import original_events
from benchmarks.report import Line, Report, Target
from benchmarks.rounds import interleave, medians, on_one_core, percentile, seconds_of, without_collections
from tests.support.schema_samples import rich_event, small_event

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from benchmarks.scale import Scale
    from tests.support.schema_samples import Struct

#: Bytes of a message, which the rich event fits in, and messages at most: a third of what a stock Linux lets
#: all queues of a user take, so that others find room too.
_MESSAGE_SIZE: Final = 1_024
_MOST_MESSAGES: Final = 256

#: Seconds between two puts at a low rate.
_PAUSE: Final = 0.002

#: Times our time that baseplate.py should take for a rich event, and times the bare send that we may take.
_SERIALIZED_BOUND: Final = 8.0
_BARE_BOUND: Final = 1.5

#: What is put without serialization.
_READY: Final = serialize_v2_event(rich_event())

#: The serializer for that: it gives back the bytes that it is given, at next to no cost.
_unchanged: Final = cast("Callable[[Struct], bytes]", bytes)

#: What makes each kind of event.
_KINDS: Final[dict[str, Callable[[int], Struct]]] = {
    "ready bytes": lambda _: _READY,
    "small event": lambda serial: small_event(serial=serial),
    "rich event": lambda serial: rich_event(serial=serial),
}

#: Takes an event and puts it; the clock is measured with a builtin that does next to nothing.
_Put: TypeAlias = "Callable[[Struct], object]"

#: The kind of event and who puts it.
_Key: TypeAlias = tuple[str, str]

#: Who measures the clock.
_CLOCK: Final[_Key] = ("ready bytes", "clock")


class _BareQueue(Protocol):
    """The part of `posix_ipc.MessageQueue` that is measured."""

    block: bool

    def send(self, message: bytes, /) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class _Bench:
    """A queue, and all candidates that put on it."""

    queue: MessageQueue
    puts: dict[_Key, _Put]

    def mean(self, key: _Key, bursts: int) -> float:
        """Return the CPU seconds of a put, on average over bursts."""
        return statistics.fmean(
            seconds_of(self.puts[key], self._events(key, number)) for number in range(bursts)
        )

    def singles(self, key: _Key, bursts: int) -> list[float]:
        """Return the seconds of each put of some bursts, with those of the clock."""
        put, taken = self.puts[key], list[int]()
        for number in range(bursts):
            events = self._events(key, number)
            with without_collections():
                for event in events:
                    began = perf_counter_ns()
                    put(event)
                    taken.append(perf_counter_ns() - began)
        return [nanoseconds / 1e9 for nanoseconds in taken]

    def lonely(self, key: _Key, count: int) -> list[float]:
        """Return the seconds of puts at a low rate, each after a sleep, with those of the clock."""
        put, make, taken = self.puts[key], _KINDS[key[0]], list[int]()
        for serial in range(count):
            event = make(serial)
            time.sleep(_PAUSE)
            began = perf_counter_ns()
            put(event)
            taken.append(perf_counter_ns() - began)
            self._drain()
        return [nanoseconds / 1e9 for nanoseconds in taken]

    def _events(self, key: _Key, number: int) -> list[Struct]:
        """Make the events of a burst, and room for them."""
        self._drain()
        first = number * self.queue.max_messages
        return [_KINDS[key[0]](serial) for serial in range(first, first + self.queue.max_messages)]

    def _drain(self) -> None:
        while self.queue.get() is not None:
            pass


@contextlib.contextmanager
def _bench() -> Generator[_Bench]:
    name = f"benchmark-{secrets.token_hex(8)}"
    depth = min(read_limits().msg_max, _MOST_MESSAGES)
    with contextlib.ExitStack() as stack:
        queue = stack.enter_context(
            MessageQueue(f"/events-{name}", max_messages=depth, max_message_size=_MESSAGE_SIZE)
        )
        stack.callback(queue.unlink)
        bare = cast("_BareQueue", importlib.import_module("posix_ipc").MessageQueue(queue.name))
        bare.block = False
        stack.callback(bare.close)
        puts: dict[_Key, _Put] = {_CLOCK: id, ("ready bytes", "floor"): bare.send}
        original = original_events()
        for kind in _KINDS:
            ready = kind == "ready bytes"
            serialize: Callable[[Struct], bytes] = _unchanged if ready else serialize_v2_event
            ours = EventQueue(name, serialize, max_queue_size=depth, max_event_size=_MESSAGE_SIZE)
            puts[kind, "ours"] = stack.enter_context(ours).put
            if original is not None:
                theirs = original.EventQueue(name, _unchanged if ready else original.serialize_v2_event)
                puts[kind, "original"] = theirs.put
        yield _Bench(queue, puts)


def run(scale: Scale) -> list[Report]:
    """Measure puts in bursts, and at a low rate."""
    with _bench() as bench, on_one_core():
        return [_in_bursts(bench, scale), _at_a_low_rate(bench, scale)]


def _in_bursts(bench: _Bench, scale: Scale) -> Report:
    depth = bench.queue.max_messages
    bursts = -(-scale.pick(full=2_000, quick=500, tiny=10) // depth)  # so many puts a round
    rounds = scale.pick(full=15, quick=5, tiny=1)
    means = medians(interleave({_name(key): partial(bench.mean, key, bursts) for key in bench.puts}, rounds))
    means = {name: seconds - means[_name(_CLOCK)] for name, seconds in means.items()}
    singles = interleave({_name(key): partial(bench.singles, key, bursts) for key in bench.puts}, rounds)
    lines = [_line(kind, "mean", means) for kind in _KINDS]
    for percent in (50, 99, 99.9):
        figures = _percentiles(singles, percent)
        lines += [_line(kind, f"p{percent:g}", figures) for kind in _KINDS]
    ready, _, rich = lines[:3]
    targets: list[Target] = []
    if rich.times_original is not None:
        targets.append(Target(f"{rich.what}, times baseplate.py", rich.times_original, _SERIALIZED_BOUND))
    if ready.floor:
        bound = _BARE_BOUND
        targets.append(
            Target(f"{ready.what}, times the bare send", ready.ours / ready.floor, bound, at_least=False)
        )
    return Report(
        "Put an event, in bursts",
        tuple(lines),
        tuple(targets),
        (
            f"Bursts of {depth}, as many as the queue holds; it is emptied in between.",
            f"Ready bytes: those of the rich event, {len(_READY)}, with a serializer that does nothing.",
            "The floor is `posix_ipc.MessageQueue.send` of the same bytes.",
            "The mean is CPU time; percentiles are of single puts by the wall clock, which others disturb.",
        ),
    )


def _at_a_low_rate(bench: _Bench, scale: Scale) -> Report:
    count = scale.pick(full=100, quick=25, tiny=2)
    rounds = scale.pick(full=13, quick=5, tiny=1)
    singles = interleave({_name(key): partial(bench.lonely, key, count) for key in bench.puts}, rounds)
    lines: list[Line] = []
    for percent in (50, 99):
        figures = _percentiles(singles, percent)
        lines += [_line(kind, f"p{percent:g}", figures) for kind in _KINDS]
    return Report(
        "Put an event, at a low rate",
        tuple(lines),
        notes=(f"About {1 / _PAUSE:.0f} puts a second, a sleep before each, so that caches are cold.",),
    )


def _name(key: _Key) -> str:
    return " ".join(key)


def _percentiles(singles: dict[str, list[list[float]]], percent: float) -> dict[str, float]:
    """Return the median over the rounds of a percentile, less that of the clock itself."""
    clock = statistics.median(percentile(values, 50) for values in singles[_name(_CLOCK)])
    return {
        name: max(statistics.median(percentile(values, percent) for values in rounds) - clock, 0.0)
        for name, rounds in singles.items()
    }


def _line(kind: str, figure: str, seconds: dict[str, float]) -> Line:
    def of(who: str) -> float | None:
        found = seconds.get(_name((kind, who)))
        return None if found is None else found * 1e6

    return Line(f"{kind}, {figure}", "µs", seconds[_name((kind, "ours"))] * 1e6, of("original"), of("floor"))
