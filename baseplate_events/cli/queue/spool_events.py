"""Reads the events of a spool, in place of its publisher.

Rules:

1. Only the holder of the publisher's lock opens the ledger and reads events.
2. Events that the ledger has as delivered aren't read again, and printed events are entered in the ledger,
   also those of a batch that a publisher had begun to send. So no event is both printed and delivered, unless
   a kill comes between printing it and entering it.
3. Events are entered in groups, and always before the command waits or ends.
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
from ...event_publisher.exit_status import print_stderr
from ...event_publisher.ledger.file import SPOOL_NAME
from ...event_publisher.ledger.ledger import Ledger
from ...event_publisher.policy.journal import EnteredBatch
from ...event_publisher.policy.span import EventRun, cut_spans, records_size
from ...event_publisher.spool_reader.files import ReaderFolder
from ...event_publisher.spool_reader.reader import SpoolReader
from ...event_publisher.spool_reader.watch import SpoolWatch

if TYPE_CHECKING:
    from collections.abc import Generator

    from .spool_info import SpoolInfo
    from .spool_place import SpoolPlace
    from .transfer import Interrupts

#: Events that are entered together, and their bytes; after a kill they may be delivered although printed.
_RUN_EVENTS: Final = 1_000
_RUN_BYTES: Final = 1 << 20

#: Seconds between polls if nothing announces new events.
_POLL_PAUSE: Final = 1.0

#: Seconds to wait for a ledger that another command has locked, and between two attempts to write it.
_PATIENCE: Final = 2.0
_PAUSE: Final = 0.05

#: Why a command doesn't take events from a spool that is being read, and the remedy.
IN_USE: Final = "an event publisher is using it; stop it first"


class OwnedSpool(NamedTuple):
    """A spool that this process alone reads.

    Attributes:
        info: Its state before it was opened.
        files: Its folder, locked.
        ledger: The fate of its events.
        reader: Reads its events.
    """

    info: SpoolInfo
    files: ReaderFolder
    ledger: Ledger
    reader: SpoolReader


@contextlib.contextmanager
def own_spool(place: SpoolPlace) -> Generator[OwnedSpool]:
    """Own a spool within the context, as its publisher does.

    Raises:
        EventQueueUnavailableError: There is none, a publisher reads it, or it can't be used.
        LedgerError: Its ledger can't be used.
    """
    info = place.inspect()
    if info.has_reader:
        raise EventQueueUnavailableError(place.path, IN_USE)
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
        stack.callback(ledger.close)  # in case no reader is created
        if ledger.start_problem is not None:
            print_stderr(ledger.start_problem)
        _check(ledger, "nothing was changed")
        watch = SpoolWatch(place.path, time.monotonic)
        stack.callback(watch.close)  # likewise
        reader = SpoolReader(files, watch, event_format=None, clock=time.monotonic, resolved=ledger.resolved)
        stack.callback(reader.close)
        stack.callback(ledger.close)  # runs first, because closing the reader releases the lock
        yield OwnedSpool(info, files, ledger, reader)


@final
class SpoolEvents:
    """The events of a spool; a `Source`. A context manager that enters what was printed in the ledger.

    Args:
        spool: The spool.
    """

    unprinted: str = "the event is still in the spool"

    def __init__(self, spool: OwnedSpool) -> None:
        self._ledger = spool.ledger
        self._reader = spool.reader
        self._ledger.retain(self._reader.identities())
        self._batches = self._ledger.unfinished()
        self._batch: EnteredBatch | None = None  # that the run belongs to, if any
        self._run = EventRun([], ())
        self._printed = 0  # events of the run

    def try_take(self) -> bytes | None:
        """Return the next event, which stays in the spool until `settle` is called."""
        if self._printed == len(self._run.events):
            self._write_down()
            self._run = self._next_run()
        return self._run.events[self._printed] if self._run.events else None

    def settle(self) -> None:
        """Record that the event was printed."""
        self._printed += 1

    def put_back(self, event: bytes, interrupts: Interrupts) -> None:
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
        """Enter what was printed in the ledger, and free its space; further events may be read afterwards.

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
            print_stderr(f"services report events that they refused: {reasons}")

    def _next_run(self) -> EventRun:
        """Return the events of batches that were begun, then all other events."""
        while self._batches:
            self._batch = batch = self._batches.pop(0)
            events = self._reader.load(batch.spans)
            if events:
                return EventRun(events, batch.spans)
            self._ledger.replace(batch.order, ())  # its complete records count as new
        self._batch = None
        return self._reader.read(_RUN_EVENTS, _RUN_BYTES)

    def _write_down(self) -> None:
        """Record in the ledger, and in the reader, what was printed of the run, and end the run.

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
        """Free the space of what was printed."""
        self._ledger.forget(self._reader.tidy())


def _check(ledger: Ledger, consequence: str) -> None:
    """Wait a little until the ledger is written, since another command may hold its lock."""
    give_up_at = time.monotonic() + _PATIENCE
    while ledger.error is not None and time.monotonic() < give_up_at:
        time.sleep(_PAUSE)
        ledger.retry()
    if ledger.error is not None:
        raise EventError(f"the ledger {ledger.path} can't be written: {ledger.error}; {consequence}")
