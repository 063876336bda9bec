"""The events of a spool, as the one who owns it takes them away: in the place of a publisher.

Rules:

1. Only who holds the publisher's lock opens the ledger and takes events.
2. What the ledger has as delivered isn't taken, and what was printed is written into the ledger, also of a
   batch that a publisher had begun to send. So no event is printed and delivered later, or the other way
   round, unless a kill comes between printing and writing that down.
3. That is done for some events at once, and at the latest before the command waits or ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple, final

from ..._words import counted
from ...errors import EventError, EventQueueUnavailableError
from ...event_publisher.exit_status import say
from ...event_publisher.ledger.file import SPOOL_NAME
from ...event_publisher.ledger.ledger import Ledger
from ...event_publisher.policy.journal import EnteredBatch
from ...event_publisher.policy.span import EventRun, cut_spans, records_size
from ...event_publisher.spool_reader.files import ReaderFolder
from ...event_publisher.spool_reader.reader import SpoolReader
from ...event_publisher.spool_reader.watch import SpoolWatch
from .spool_info import inspect_spool

if TYPE_CHECKING:
    from collections.abc import Generator

    from .spool_info import SpoolInfo
    from .spool_place import SpoolPlace
    from .transfer import Interrupts

#: Events that are read at once, and their bytes: what a kill may deliver although it was printed.
_RUN_EVENTS: Final = 1_000
_RUN_BYTES: Final = 1 << 20

#: Seconds that an event may wait if nothing announces it.
_POLL_PAUSE: Final = 1.0

#: Seconds for which a ledger may be locked by another command, and between two attempts to write it.
_PATIENCE: Final = 2.0
_PAUSE: Final = 0.05


class OwnedSpool(NamedTuple):
    """A spool that this process alone reads.

    Attributes:
        info: What it was before that.
        files: Its folder, locked.
        ledger: What has become of its events.
        reader: Reads them.
    """

    info: SpoolInfo
    files: ReaderFolder
    ledger: Ledger
    reader: SpoolReader


@contextlib.contextmanager
def own_spool(place: SpoolPlace) -> Generator[OwnedSpool]:
    """Own a spool for a while, as its publisher does.

    Raises:
        EventQueueUnavailableError: There is none, a publisher reads it, or it can't be used.
        LedgerError: Its ledger can't be used.
    """
    info = inspect_spool(place.path)
    if info is None:
        raise EventQueueUnavailableError(place.path, place.absence())
    if info.has_reader:
        raise EventQueueUnavailableError(place.path, "an event publisher reads it; stop that one first")
    directory = place.at(info.file_mode)
    directory.prepare()
    with contextlib.ExitStack() as stack:
        files = ReaderFolder(directory)
        stack.callback(files.close)
        ledger = Ledger(
            os.path.join(place.path, SPOOL_NAME),  # noqa: PTH118 - strings throughout
            clock=time.monotonic,
            wall_time=time.time,
            mode=info.file_mode,
            sync=True,
            max_letters_size=sys.maxsize,
            queue_name=place.name,
        )
        stack.callback(ledger.close)  # if there will be no reader
        if ledger.start_problem is not None:
            say(ledger.start_problem)
        _check(ledger, "nothing was done")
        watch = SpoolWatch(place.path, time.monotonic)
        reader = SpoolReader(files, watch, event_format=None, clock=time.monotonic, resolved=ledger.resolved)
        stack.callback(reader.close)
        stack.callback(ledger.close)  # first of all, as the lock ends with the reader
        yield OwnedSpool(info, files, ledger, reader)


@final
class SpoolEvents:
    """The events of a spool; a `Source`. A context manager that writes down what was printed.

    Args:
        spool: It.
    """

    unprinted: str = "the event is still in the spool"

    def __init__(self, spool: OwnedSpool) -> None:
        self._ledger = spool.ledger
        self._reader = spool.reader
        self._ledger.retain(self._reader.identities())
        self._batches = self._ledger.unfinished()
        self._batch: EnteredBatch | None = None  # that the run is
        self._run = EventRun([], ())
        self._printed = 0  # events of the run

    def try_take(self) -> bytes | None:
        """Return the next event, which stays in the spool until `settle` was called."""
        if self._printed == len(self._run.events):
            self._write_down()
            self._run = self._next_run()
        return self._run.events[self._printed] if self._run.events else None

    def settle(self) -> None:
        """Note that the event was printed."""
        self._printed += 1

    def give_back(self, event: bytes, interrupts: Interrupts) -> None:
        """Do nothing: the event is still in the spool."""

    def wait(self, seconds: float, interrupts: Interrupts) -> None:
        """Wait for an event, after `try_take` returned none."""
        self._tidy()
        pause = min(seconds, self._reader.wait_time(_POLL_PAUSE))
        poller = select.poll()
        if self._reader.wait_descriptor is not None:
            poller.register(self._reader.wait_descriptor, select.POLLIN)
        with interrupts.waiting():
            poller.poll(pause * 1_000)

    def finish(self) -> None:
        """Write down what was printed, and give back its space; what is left may be taken afterwards.

        Raises:
            EventError: The ledger can't be written.
        """
        self._write_down()
        self._tidy()

    def __enter__(self) -> SpoolEvents:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()
        refusals = self._reader.status().refusals
        if refusals:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(refusals.items()))
            say(f"services report events that they refused: {reasons}")

    def _next_run(self) -> EventRun:
        """Return the events of a batch that was begun, and later other events."""
        while self._batches:
            self._batch = batch = self._batches.pop(0)
            events = self._reader.load(batch.spans)
            if events:
                return EventRun(events, batch.spans)
            self._ledger.replace(batch.order, ())  # what is whole of it counts as new
        self._batch = None
        return self._reader.read(_RUN_EVENTS, _RUN_BYTES)

    def _write_down(self) -> None:
        """Have the ledger and the reader know what was printed of the run, which is over then.

        Raises:
            LedgerError: The ledger can't be written.
        """
        (events, spans), printed, batch = self._run, self._printed, self._batch
        self._run, self._printed = EventRun([], ()), 0
        if not printed:
            return
        done, rest = cut_spans(spans, records_size(events[:printed]))
        if batch is not None and rest:
            number, first = batch.order
            part = EnteredBatch((number, first + printed), len(events) - printed, rest, batch.record)
            self._ledger.replace(batch.order, [part])
        elif batch is not None:
            self._ledger.finish(batch.order)
        self._ledger.resolve(done)
        self._reader.resolve(done)
        _check(self._ledger, f"the last {counted(printed, 'event')} may be delivered although printed")

    def _tidy(self) -> None:
        """Give back the space of what was printed."""
        self._ledger.forget(self._reader.tidy())


def _check(ledger: Ledger, consequence: str) -> None:
    """Wait a little until the ledger is written, as another command may have locked it for a moment."""
    give_up_at = time.monotonic() + _PATIENCE
    while ledger.error is not None and time.monotonic() < give_up_at:
        time.sleep(_PAUSE)
        ledger.retry()
    if ledger.error is not None:
        raise EventError(f"the ledger {ledger.path} can't be written: {ledger.error}; {consequence}")
