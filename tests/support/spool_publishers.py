"""The parts of a publisher that use its spool."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

from baseplate_events.event_publisher.ledger.file import SPOOL_NAME
from baseplate_events.event_publisher.ledger.ledger import Ledger
from baseplate_events.event_publisher.policy.journal import EnteredBatch
from baseplate_events.event_publisher.spool_reader.files import ReaderFolder
from baseplate_events.event_publisher.spool_reader.reader import SpoolReader
from baseplate_events.event_publisher.spool_reader.watch import SpoolWatch
from baseplate_events.spool.directory import SpoolDirectory
from baseplate_events.spool.permissions import PRIVATE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path


def open_spool_reader(
    directory: SpoolDirectory,
    *,
    event_format: str,
    clock: Callable[[], float],
    resolved: Callable[[bytes], Iterable[tuple[int, int]]],
) -> SpoolReader:
    """Return a reader of a prepared spool; the arguments are those of `SpoolReader`.

    Raises:
        EventQueueUnavailableError: The spool can't be used, or another publisher is using it.
    """
    files = ReaderFolder(directory)
    try:
        watch = SpoolWatch(files.path, clock)
        return SpoolReader(files, watch, event_format=event_format, clock=clock, resolved=resolved)
    except BaseException:
        files.close()
        raise


@contextlib.contextmanager
def publisher_of(folder: Path, event_format: str = "2") -> Generator[tuple[Ledger, SpoolReader]]:
    """Yield the ledger and the reader of a spool, `events-NAME`; its lock is held within the context."""
    name = folder.name.removeprefix("events-")
    directory = SpoolDirectory(str(folder.parent), name, mode=PRIVATE)
    directory.prepare()
    with contextlib.ExitStack() as stack:
        ledger = Ledger(
            str(folder / SPOOL_NAME),
            clock=time.monotonic,
            wall_time=time.time,
            max_letters_size=sys.maxsize,
            queue_name=name,
        )
        reader = open_spool_reader(
            directory, event_format=event_format, clock=time.monotonic, resolved=ledger.resolved
        )
        stack.callback(reader.close)
        stack.callback(ledger.close)
        yield ledger, reader


def begin(ledger: Ledger, reader: SpoolReader, size: int) -> list[bytes]:
    """Enter a batch of at most so many events in the ledger, as if it was sent; return them."""
    events, spans = reader.read(size, sys.maxsize)
    if events:
        ledger.enter(EnteredBatch((len(ledger.unfinished()) + 1, 0), len(events), spans))
    return events


def what_is_left(folder: Path, event_format: str = "2") -> list[bytes]:
    """Return what a publisher started now would deliver: batches in flight, then the rest."""
    with publisher_of(folder, event_format) as (ledger, reader):
        ledger.retain(reader.identities())
        left: list[bytes] = []
        for batch in ledger.unfinished():
            events = reader.load(batch.spans)
            assert events is not None
            assert batch.count == len(events)
            left += events
        return left + reader.read(sys.maxsize, sys.maxsize).events
