"""How long a put into a spool keeps a request waiting, against a bare `posix_ipc` send and a bare write(2).

Rules:

1. The mean is CPU time over whole bursts, with the start of a segment. Percentiles are of single puts by the
   wall clock. The time of the clocks themselves is measured in the same rounds, and subtracted.
2. While another process syncs the disk, puts come at the rate of a busy service, and all time counts.
"""

from __future__ import annotations

import contextlib
import importlib
import secrets
import statistics
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from baseplate_events.transport.limits import read_limits
from baseplate_events.transport.posix import MessageQueue
from benchmarks.report import Line, Report, Target
from benchmarks.rounds import interleave, medians, on_one_core, percentile, seconds_of, without_collections
from benchmarks.spool_rig import BURST, EVENT, MESSAGE, RECORD, TMPFS, notes, places
from tests.support.processes import PIPE, hear, started

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from benchmarks.scale import Scale
    from benchmarks.spool_rig import Place

#: Bytes of a message of the POSIX queue, and messages at most; as in `put`.
_MESSAGE_SIZE: Final = 1_024
_MOST_MESSAGES: Final = 256

#: Times the bare send that a put may take, by file system, and times the bare write.
_SEND_BOUNDS: Final = {TMPFS: 2.5, "ext4": 3.5}
_WRITE_BOUND: Final = 1.8

#: Seconds between two puts while the disk is synced.
_PAUSE: Final = 0.000_5

#: What the process that syncs the disk runs: it writes 4 MiB, forces them to the disk, and counts that by a
#: byte in the other file.
_SYNCER: Final = """
import os
above = os.getppid()
with open("synced", "wb", buffering=0) as synced, open("counted", "wb", buffering=0) as counted:
    while os.getppid() == above:
        synced.seek(0)
        for _ in range(64):
            synced.write(bytes(65536))
        os.fsync(synced)
        counted.write(b".")
        if counted.tell() == 1:
            print(flush=True)
"""

#: What is called with the argument that is next to it. Its type is known to the two alone.
_Call: TypeAlias = "tuple[Callable[[Any], object], Any]"


@dataclass(frozen=True)
class _Candidate:
    """A candidate.

    Attributes:
        open: Yields the function to call, ready for a burst.
        size: Most calls of a burst.
    """

    open: Callable[[], contextlib.AbstractContextManager[_Call]]
    size: int

    def mean(self, count: int) -> float:
        """Return the CPU seconds of a call, on average over bursts of this many calls in total."""
        size = min(self.size, count)
        found: list[float] = []
        for _ in range(-(-count // size)):
            with self.open() as (call, argument):
                found.append(seconds_of(call, [argument] * size))
        return statistics.fmean(found)

    def singles(self, count: int) -> list[float]:
        """Return the seconds of each of this many calls, with those of the clock."""
        size = min(self.size, count)
        taken: list[int] = []
        while len(taken) < count:
            with self.open() as (call, argument), without_collections():
                for _ in range(size):
                    began = perf_counter_ns()
                    call(argument)
                    taken.append(perf_counter_ns() - began)
        return [nanoseconds / 1e9 for nanoseconds in taken]

    def paced(self, count: int) -> list[float]:
        """Return the seconds of each of this many calls, a pause before each, with those of the clock."""
        taken: list[int] = []
        with self.open() as (call, argument):
            for _ in range(count):
                time.sleep(_PAUSE)
                began = perf_counter_ns()
                call(argument)
                taken.append(perf_counter_ns() - began)
        return [nanoseconds / 1e9 for nanoseconds in taken]


@contextlib.contextmanager
def _ours(place: Place) -> Generator[_Call]:
    with place.ours() as put:
        yield put, EVENT


@contextlib.contextmanager
def _write(place: Place) -> Generator[_Call]:
    with place.bare() as write:
        yield write, RECORD


@contextlib.contextmanager
def _least(place: Place) -> Generator[_Call]:
    with place.least() as put:
        yield put, MESSAGE


@contextlib.contextmanager
def _clock() -> Generator[_Call]:
    yield id, EVENT


@contextlib.contextmanager
def _queue() -> Generator[_Candidate]:
    """Make a POSIX queue for the bare send, which is emptied between two bursts."""
    depth = min(read_limits().msg_max, _MOST_MESSAGES)
    name = f"/events-benchmark-{secrets.token_hex(8)}"
    with contextlib.ExitStack() as stack:
        queue = stack.enter_context(MessageQueue(name, max_messages=depth, max_message_size=_MESSAGE_SIZE))
        stack.callback(queue.unlink)
        bare = importlib.import_module("posix_ipc").MessageQueue(name)
        bare.block = False
        stack.callback(bare.close)

        @contextlib.contextmanager
        def emptied() -> Generator[_Call]:
            while queue.get() is not None:
                pass
            yield cast("Callable[[bytes], object]", bare.send), MESSAGE

        yield _Candidate(emptied, queue.max_messages)


def run(scale: Scale) -> list[Report]:
    """Measure puts in bursts, and while another process syncs the disk."""
    where = places()
    with _queue() as send:
        candidates = {"clock": _Candidate(_clock, BURST), "send": send}
        for place in where:
            candidates[f"write {place.file_system}"] = _Candidate(partial(_write, place), BURST)
            candidates[f"least {place.file_system}"] = _Candidate(partial(_least, place), BURST)
            candidates[f"ours {place.file_system}"] = _Candidate(partial(_ours, place), BURST)
        with on_one_core():
            reports = [_in_bursts(candidates, where, scale)]
    reports += [_while_synced(place, scale) for place in where if place.file_system != TMPFS]
    return reports


def _in_bursts(candidates: dict[str, _Candidate], where: Sequence[Place], scale: Scale) -> Report:
    count = scale.pick(full=BURST, quick=BURST, tiny=20)
    rounds = scale.pick(full=60, quick=15, tiny=1)
    runs = {name: partial(candidate.mean, count) for name, candidate in candidates.items()}
    means = medians(interleave(runs, rounds))
    means = {name: seconds - means["clock"] for name, seconds in means.items()}
    singles = interleave(
        {name: partial(candidate.singles, count) for name, candidate in candidates.items()}, rounds
    )
    figures = {"mean": means}
    for percent in (50, 99, 99.9):
        figures[f"p{percent:g}"] = _percentiles(singles, percent)
    lines: list[Line] = []
    targets: list[Target] = []
    for place in where:
        kind = place.file_system
        for figure, found in figures.items():
            ours, least, write, send = (
                found[name] * 1e6 for name in (f"ours {kind}", f"least {kind}", f"write {kind}", "send")
            )
            lines += [
                Line(f"{kind}, {figure}, beside the least of a put", "µs", ours, floor=least),
                Line(f"{kind}, {figure}, beside the bare write", "µs", ours, floor=write),
                Line(f"{kind}, {figure}, beside the bare send", "µs", ours, floor=send),
            ]
        first = statistics.median(values[0] for values in singles[f"ours {kind}"])
        lines.append(Line(f"{kind}, p50 of puts that start a segment", "µs", first * 1e6))
        ours, write, send = (means[name] for name in (f"ours {kind}", f"write {kind}", "send"))
        if kind in _SEND_BOUNDS:
            bound = _SEND_BOUNDS[kind]
            targets.append(Target(f"{kind}, times the bare send", ours / send, bound, at_least=False))
        targets.append(Target(f"{kind}, times the bare write", ours / write, _WRITE_BOUND, at_least=False))
    return Report(
        "Put an event into a spool, in bursts",
        tuple(lines),
        tuple(targets),
        (
            *notes(where),
            f"Bursts of {min(count, BURST):,}, with the start of a segment, on one core.",
            "The least of a put is CRC-32, prefix and write(2), with no queue, checks, counts or segments.",
            f"The bare send is `posix_ipc.MessageQueue.send` in bursts of {candidates['send'].size}.",
            "The mean is CPU time; percentiles are of single puts by the wall clock, which others disturb.",
        ),
    )


def _while_synced(place: Place, scale: Scale) -> Report:
    count = scale.pick(full=4_000, quick=1_000, tiny=3)
    rounds = scale.pick(full=10, quick=4, tiny=1)
    candidates = {
        "clock": _Candidate(_clock, BURST),
        "write": _Candidate(partial(_write, place), BURST),
        "ours": _Candidate(partial(_ours, place), BURST),
    }
    runs = {name: partial(candidate.paced, count) for name, candidate in candidates.items()}
    idle = interleave(runs, rounds)
    with _syncer(place) as synced:
        began = time.monotonic()
        before = synced()
        busy = interleave(runs, rounds)
        rate = (synced() - before) / (time.monotonic() - began)
    lines: list[Line] = []
    for name, singles in (("idle disk", idle), ("synced disk", busy)):
        found = {f"p{percent:g}": _percentiles(singles, percent) for percent in (50, 99, 99.9)}
        found["max"] = {who: max(map(max, values)) for who, values in singles.items()}
        lines += [
            Line(f"{place.file_system}, {name}, {figure}", "µs", of["ours"] * 1e6, floor=of["write"] * 1e6)
            for figure, of in found.items()
        ]
    return Report(
        "Put an event into a spool, while another process syncs the disk",
        tuple(lines),
        notes=(
            *notes([place]),
            f"Up to {1 / _PAUSE:,.0f} puts a second, each after a sleep, with cold caches; wall clock.",
            f"The other process writes 4 MiB and calls fsync(2) again and again: {rate:.0f} times a second.",
            f"The floor is the bare write. The maximum is that of {rounds * count:,} puts.",
        ),
    )


@contextlib.contextmanager
def _syncer(place: Place) -> Generator[Callable[[], int]]:
    """Run a process that syncs the disk; yield a function that returns its syncs so far, at least one."""
    with (
        place.folder() as path,
        started(sys.executable, "-c", _SYNCER, stdout=PIPE, cwd=path) as process,
    ):
        hear(process)
        yield lambda: Path(path, "counted").stat().st_size


def _percentiles(singles: dict[str, list[list[float]]], percent: float) -> dict[str, float]:
    """Return the median over the rounds of a percentile, less that of the clock itself."""
    found = {
        name: statistics.median(percentile(values, percent) for values in values_of_rounds)
        for name, values_of_rounds in singles.items()
    }
    clock = statistics.median(percentile(values, 50) for values in singles["clock"])
    return {name: max(seconds - clock, 0.0) for name, seconds in found.items()}
