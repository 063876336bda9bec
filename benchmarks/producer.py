"""A process that puts ready-made rich events into a queue: the load of the publisher's benchmarks.

It makes its events first and prints `ready`. Then it reads lines from stdin, each with a number of
events to put, or 0 for no limit, and waits for room while the queue is full.

With `--noise` its events hardly compress. With `--spool DIRECTORY` it puts them into the spool there.

With `--refuse` it puts from one line to the next as a service does, through `EventQueue`. An event that finds
the queue full is refused, and a pause of a millisecond follows, as a service has other things to do. Then it
prints in a line of JSON how many were put and refused, and reads the next line.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from baseplate_events import EventQueue, EventQueueFullError
from benchmarks.deep_queue import bare_queue
from benchmarks.varied_events import make_events, make_noise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: Bytes of the largest event.
MAX_EVENT_SIZE: Final = 1_024

#: Seconds of a pause while a deep queue is full. Emptying it takes several of these, so that the publisher
#: neither finds it empty nor has to wake a producer with each event that it takes.
_PAUSE: Final = 0.000_5

#: Events of a queue from which on a pause is short enough.
_DEEP: Final = 300

#: Bytes of a backlog that a publisher doesn't read in a pause, seconds of that, and events between two looks.
_BACKLOG: Final = 64 * 1024 * 1024
_FULL_PAUSE: Final = 0.02
_BURST: Final = 2_000

#: Seconds of a pause after an event that was refused.
_REFUSED_PAUSE: Final = 0.001


def wait_for_room(depth: int) -> Callable[[], None]:
    """Return what a producer does while a queue of this depth is full; it ends with its parent process."""
    above = os.getppid()

    def wait() -> None:
        if depth < _DEEP:
            os.sched_yield()
        else:
            time.sleep(_PAUSE)
        if os.getppid() != above:
            sys.exit("the measurement has ended")

    return wait


def fill(name: str, events: Sequence[bytes], counts: Iterable[int]) -> None:
    """Put this many events at a time, as fast as there is room."""
    queue, busy = bare_queue(name, read=False)
    send, wait = queue.send, wait_for_room(queue.max_messages)
    endless = itertools.cycle(events)
    for count in counts:
        for event in itertools.islice(endless, count or None):
            while True:
                try:
                    send(event)
                except busy:
                    wait()
                else:
                    break


def fill_spool(name: str, directory: str, events: Sequence[bytes], counts: Iterable[int]) -> None:
    """Put this many events into a spool at a time, as fast as possible while the backlog is too short."""
    queue = EventQueue(_short(name), bytes, spool_directory=directory)
    folder = Path(directory, name.removeprefix("/"))
    above = os.getppid()
    endless = itertools.cycle(events)
    for count in counts:
        put = 0
        while put < count or not count:
            while _size(folder) > _BACKLOG:
                time.sleep(_FULL_PAUSE)
                if os.getppid() != above:
                    sys.exit("the measurement has ended")
            size = min(_BURST, count - put) if count else _BURST
            for event in itertools.islice(endless, size):
                queue.put(event)
            put += size


def put(name: str, events: Sequence[bytes], keeps_on: Callable[[], bool]) -> tuple[int, int]:
    """Put events as a service does until asked to stop; return how many were put, and refused."""
    queue = EventQueue[bytes](_short(name), bytes, max_queue_size=1, max_event_size=MAX_EVENT_SIZE)
    done = refused = 0
    for event in itertools.cycle(events):
        try:
            queue.put(event)
        except EventQueueFullError:
            refused += 1
            time.sleep(_REFUSED_PAUSE)
        else:
            done += 1
        if not keeps_on():
            break
    queue.close()
    return done, refused


def _size(folder: Path) -> int:
    size = 0
    for path in folder.glob("*.segment"):
        with contextlib.suppress(FileNotFoundError):  # it was delivered in the meantime
            size += path.stat().st_size
    return size


def _short(name: str) -> str:
    return name.removeprefix("/events-")


def main() -> None:
    """Run the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="POSIX name of the queue")
    parser.add_argument("--refuse", action="store_true", help="put as a service does")
    parser.add_argument("--noise", action="store_true", help="put events that hardly compress")
    parser.add_argument("--spool", metavar="DIRECTORY", help="put into the spool in this directory")
    arguments = parser.parse_args()
    events = make_noise() if arguments.noise else make_events()
    print("ready", flush=True)
    if arguments.refuse:
        while sys.stdin.readline():
            end = threading.Thread(target=sys.stdin.readline, daemon=True)
            end.start()
            done, refused = put(arguments.name, events, end.is_alive)
            print(json.dumps({"put": done, "refused": refused}), flush=True)
    elif arguments.spool:
        fill_spool(arguments.name, arguments.spool, events, map(int, sys.stdin))
    else:
        fill(arguments.name, events, map(int, sys.stdin))


if __name__ == "__main__":
    main()
