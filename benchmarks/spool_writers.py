"""Many processes with many threads put into one spool, compared with as many that write bare.

Run by itself, this is one of the processes. It reads a task from a line of stdin, prepares it, prints
`ready`, waits for another line, runs the task, and prints when it began and ended, and how much CPU it used.

Rules:

1. All processes start before the first round, and begin a task together. Threads of a process share a queue,
   or a file; all processes share a folder.
2. The bare writers go on to the next file about where a segment would end. They open all files before the
   clock starts, and each of our processes its first segment.
3. On a host with other load, many writers get a larger share of the cores than one. So the ratio
   is also that of the CPU time, which excludes waits.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from benchmarks.report import Line, Report, Target
from benchmarks.rounds import interleave, medians
from benchmarks.spool_rig import BURST, EVENT, RECORD, notes, open_queue, places
from tests.support.processes import PIPE, Process, hear, say, started

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from benchmarks.scale import Scale
    from benchmarks.spool_rig import Place

#: Processes, and threads of each: few and many.
_CROWDS: Final = ((1, 1), (16, 8))

#: Times the ratio of one writer to one bare writer that the ratio of many to as many should be at most.
_BOUND: Final = 1.1

#: What the line begins with for our put, and for the bare write.
_OURS: Final = "ours"
_BARE: Final = "bare"

#: Puts so many events, in one thread.
_Run: TypeAlias = "Callable[[int], None]"


class _Took(NamedTuple):
    """The figures of a process for a task.

    Attributes:
        began: When it began, by the monotonic clock.
        ended: When its last thread ended.
        cpu: Seconds of CPU that it took.
    """

    began: float
    ended: float
    cpu: float


class _Figure(NamedTuple):
    """What a round took for each event, in seconds: by the clock, and of CPU."""

    wall: float
    cpu: float


def run(scale: Scale) -> list[Report]:
    """Measure one writer and many, in memory and on a disk."""
    crowds = scale.pick(full=_CROWDS, quick=_CROWDS, tiny=((1, 1), (2, 2)))
    where = places()
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(_writer()) for _ in range(max(crowds)[0])]
        return [_measure(place, writers, crowds, scale) for place in where]


def _measure(
    place: Place, writers: Sequence[Process], crowds: Sequence[tuple[int, int]], scale: Scale
) -> Report:
    total = scale.pick(full=128_000, quick=64_000, tiny=32)
    rounds = scale.pick(full=25, quick=7, tiny=1)
    candidates: dict[str, Callable[[], _Figure]] = {}
    for processes, threads in crowds:
        count = total // (processes * threads)
        for who in (_OURS, _BARE):
            candidates[f"{who} {processes}x{threads}"] = partial(
                _round, place, writers[:processes], who, threads, count
            )
    found = interleave(candidates, rounds)
    walls = medians({name: [figure.wall for figure in figures] for name, figures in found.items()})
    cpus = medians({name: [figure.cpu for figure in figures] for name, figures in found.items()})
    lines: list[Line] = []
    ratios: list[tuple[float, float]] = []
    for processes, threads in crowds:
        ours, bare = f"{_OURS} {processes}x{threads}", f"{_BARE} {processes}x{threads}"
        ratios.append((walls[ours] / walls[bare], cpus[ours] / cpus[bare]))
        what = f"{place.file_system}, processes x threads: {processes} x {threads}"
        lines += [
            Line(what, "events/s", 1 / walls[ours], floor=1 / walls[bare], more_is_better=True),
            Line(f"{what}, CPU", "µs", cpus[ours] * 1e6, floor=cpus[bare] * 1e6),
        ]
    what = f"{place.file_system}, ratio of many to as many bare writers, times that of one"
    return Report(
        "Many writers of a spool",
        tuple(lines),
        tuple(
            Target(f"{what}, {clock}", many / one, _BOUND, at_least=False)
            for clock, one, many in zip(("wall clock", "CPU time"), ratios[0], ratios[-1], strict=True)
        ),
        (
            *notes([place]),
            "The floor is as many bare writers. They share files as our threads share segments.",
            f"{total:,} events a round, by the wall clock, on all cores.",
        ),
    )


def _round(place: Place, writers: Sequence[Process], who: str, threads: int, count: int) -> _Figure:
    """Have all writers put, and return the time per event."""
    with place.folder() as path:
        for writer in writers:
            say(writer, json.dumps([who, path, threads, count]))
        for writer in writers:
            hear(writer)
        for writer in writers:
            say(writer, "go")
        took = [_Took(*json.loads(hear(writer))) for writer in writers]
    wall = max(one.ended for one in took) - min(one.began for one in took)
    events = len(writers) * threads * count
    return _Figure(wall / events, sum(one.cpu for one in took) / events)


def _writer() -> contextlib.AbstractContextManager[Process]:
    """Start a process that waits for tasks."""
    return started(sys.executable, "-m", __name__, stdin=PIPE, stdout=PIPE)


@contextlib.contextmanager
def _putting(path: str) -> Generator[_Run]:
    """Yield the put into a spool."""

    def run(count: int) -> None:
        for event in itertools.repeat(EVENT, count):
            put(event)

    with open_queue(path) as queue:
        put = queue.put
        put(EVENT)
        yield run


@contextlib.contextmanager
def _writing(path: str, threads: int, count: int) -> Generator[_Run]:
    """Yield the bare write, to one file after the other."""
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(Path(path, secrets.token_hex(8)).open("ab", buffering=0))
            for _ in range(-(-threads * count // BURST))
        ]

        def run(count: int) -> None:
            size = -(-count // len(files))
            for number, file in enumerate(files):
                write = file.write
                for record in itertools.repeat(RECORD, min(size, count - number * size)):
                    write(record)

        yield run


def _in_threads(task: _Run, threads: int, count: int) -> _Took:
    """Have threads run a task as soon as a line comes."""
    start = threading.Barrier(threads + 1)

    def run() -> None:
        start.wait()
        task(count)

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    print("ready", flush=True)
    sys.stdin.readline()
    cpu, began = time.process_time(), time.monotonic()
    start.wait()
    for thread in running:
        thread.join()
    return _Took(began, time.monotonic(), time.process_time() - cpu)


def main() -> None:
    """Run one of the processes."""
    for line in sys.stdin:
        who, path, threads, count = json.loads(line)
        with _putting(path) if who == _OURS else _writing(path, threads, count) as task:
            took = _in_threads(task, threads, count)
        print(json.dumps(took), flush=True)


if __name__ == "__main__":
    main()
