"""A service in a container: it puts the events of requests at the rate given.

Usage: python -m benchmarks.container_service NAME LANE FOLDER RATE EVENTS SECONDS

Events go where `$EVENT_SPOOL_DIRECTORY` says. It prints `ready`, reads a line, and prints figures as JSON.

Each request is followed, or preceded, by one that serializes the same events, and appends as many bytes to a
file by write(2) alone, so both meet the same load. The contents of events are made, and files are
opened, outside of the time that counts.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, TypedDict

from baseplate_events import EventQueue, serialize_v2j_event
from baseplate_events.errors import EventQueueFullError, EventQueueUnavailableError
from baseplate_events.spool.format import OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: Bytes of a bare file, as of a segment.
_FILE_SIZE: Final = 4 * 1024 * 1024

#: What differs from event to event, in bytes, and what doesn't: an event has about 500.
_NOISE: Final = 60
_SAME: Final = [{"user_agent": "Mozilla/5.0 (X11; Linux)", "logged_in": True, "subreddit": "all"}] * 4

#: What a record has around an event.
_AROUND: Final = bytes(OVERHEAD)

Event: TypeAlias = "dict[str, object]"


def make_event(lane: int, number: int, noise: str) -> Event:
    """Make an event from its number."""
    return {"lane": lane, "number": number, "noise": noise, "same": _SAME}


def make_noises(count: int = 500) -> list[str]:
    """Return the varying contents of events, without their numbers."""
    chance = random.Random(0)
    return [chance.randbytes(_NOISE).hex() for _ in range(count)]


class Load(NamedTuple):
    """The task of a service.

    Attributes:
        rate: Requests a second.
        events: Events of a request.
        seconds: Duration.
    """

    rate: float
    events: int
    seconds: float


class BareWriter:
    """Appends records to files of their own, by write(2)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._serial = 0
        self._left = 0
        self._fd = -1

    def prepare(self, size: int) -> None:
        """Begin another file if this many bytes don't fit."""
        self._left -= size
        if self._left < 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            path = self._folder / f"bare-{os.getpid()}-{self._serial}"
            self._serial += 1
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            path.unlink()
            self._left = _FILE_SIZE - size

    def write(self, events: Iterable[Event]) -> None:
        """Append events, each by a call of its own."""
        write, fd = os.write, self._fd
        for event in events:
            write(fd, serialize_v2j_event(event) + _AROUND)


def put_all(put: Callable[[Event], object], events: Sequence[Event]) -> list[int]:
    """Put events, and return the indexes of those that were refused."""
    refused: list[int] = []
    for place, event in enumerate(events):
        try:
            put(event)
        except (EventQueueFullError, EventQueueUnavailableError):
            refused.append(place)
    return refused


class Figures(TypedDict):
    """The figures of a service.

    Attributes:
        put: Events that it put.
        refused: Numbers of those that were refused.
        seconds: Duration.
        ours: Seconds of each request.
        bare: Seconds of each request of bare writes.
    """

    put: int
    refused: list[int]
    seconds: float
    ours: list[float]
    bare: list[float]


def run(queue: EventQueue[Event], bare: BareWriter, lane: int, load: Load) -> Figures:
    """Put the events of all requests, each when it is due, and return the figures."""
    noises = itertools.cycle(make_noises())
    ours: list[float] = []
    theirs: list[float] = []
    refused: list[int] = []
    number = 0
    began = time.perf_counter()
    for request in range(round(load.rate * load.seconds)):
        due = began + request / load.rate
        now = time.perf_counter()
        if due > now:
            time.sleep(due - now)
        events = [make_event(lane, number + place, next(noises)) for place in range(load.events)]
        bare.prepare(sum(len(serialize_v2j_event(event)) + OVERHEAD for event in events))
        if request % 2:
            theirs.append(_seconds(bare.write, events))
        at = time.perf_counter()
        places = put_all(queue.put, events)
        ours.append(time.perf_counter() - at)
        if not request % 2:
            theirs.append(_seconds(bare.write, events))
        refused += [number + place for place in places]
        number += load.events
    return {
        "put": number,
        "refused": refused,
        "seconds": time.perf_counter() - began,
        "ours": ours,
        "bare": theirs,
    }


def _seconds(write: Callable[[Sequence[Event]], object], events: Sequence[Event]) -> float:
    at = time.perf_counter()
    write(events)
    return time.perf_counter() - at


def main(words: Sequence[str]) -> None:
    """Run the process."""
    name, lane, folder, rate, events, seconds = words
    load = Load(float(rate), int(events), float(seconds))
    queue, bare = EventQueue(name, serialize_v2j_event), BareWriter(Path(folder))
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(run(queue, bare, int(lane), load)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
