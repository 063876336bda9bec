"""Dead letters for tests: written, read and replayed."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings

from baseplate_events.event_publisher.dead_letters.record import Letter
from baseplate_events.event_publisher.dead_letters.store import DeadLetters, file_numbers, read_letters
from tests.support.commands import Result, call
from tests.support.queues import FEW, SMALL, fresh_name, reader

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from baseplate_events.event_publisher.dead_letters.record import Entry
    from baseplate_events.transport.posix import MessageQueue

#: Room for all letters of a test that isn't about the room.
PLENTY = 1_000_000

#: Fewer examples where each makes files.
few = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@contextlib.contextmanager
def folder() -> Generator[str]:
    """Give the path of an empty folder, for properties, whose examples can't share one."""
    with tempfile.TemporaryDirectory() as path:
        yield path


@contextlib.contextmanager
def writer(
    directory: str, *, max_size: int = PLENTY, sync: bool = False, now: float | None = None
) -> Generator[DeadLetters]:
    """Open a folder to write letters, all at one time if one is given."""
    clock = time.time if now is None else lambda: now
    letters = DeadLetters(directory, max_size=max_size, sync=sync, wall_clock=clock)
    try:
        yield letters
    finally:
        letters.close()


@contextlib.contextmanager
def queue_of_name() -> Generator[tuple[str, MessageQueue]]:
    """Make a small queue and give the NAME of its `/events-NAME` with it."""
    with fresh_name("/events-test-") as name, reader(name) as queue:
        yield name.removeprefix("/events-"), queue


def entries(directory: str) -> list[Entry]:
    """Read everything in a folder."""
    return [entry for number in file_numbers(directory) for entry in read_letters(directory, number)]


def letters_in(directory: str) -> list[Letter]:
    """Read the letters in a folder."""
    return [entry for entry in entries(directory) if isinstance(entry, Letter)]


def events_in(directory: str) -> list[bytes]:
    """Read the events in a folder."""
    return [letter.event for letter in letters_in(directory)]


def files(directory: str) -> list[Path]:
    """Give the files of letters, oldest first."""
    return sorted(Path(directory).glob("letters-*"))


def size(directory: str) -> int:
    """Measure the letters in a folder."""
    return sum(path.stat().st_size for path in files(directory))


def write_all(letters: DeadLetters, events: Sequence[bytes]) -> int:
    """Write events for a reason that doesn't matter, and return how many were dropped."""
    return sum(letters.write(event, status=400, reason="refused") for event in events)


def replay(directory: str, queue_name: str, *words: str, timeout: str = "0 seconds") -> Result:
    """Run `dead-letters replay` for a small queue, in this process."""
    return call("dead-letters", "replay", directory, *replay_options(queue_name, timeout), *words)


def replay_options(queue_name: str, timeout: str) -> list[str]:
    """Return the options of `dead-letters replay` for a small queue."""
    sizes = ["--max-queue-size", str(FEW), "--max-event-size", str(SMALL)]
    return ["--queue-name", queue_name, "--timeout", timeout, *sizes]
