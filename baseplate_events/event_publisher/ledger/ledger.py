"""The publisher's ledger: its state in memory, the file that mirrors it, and what happens if the file fails.

    enter ──▶ unfinished ──finish──▶ resolved ──▶ the segment is deleted ──▶ forget
               │   ▲
               └───┘ enter (another fault record), replace (by the parts of a split)

1. *Delivery outranks bookkeeping.* The state of this run is in memory. If the file can't be written, `error`
   says why, and the publisher goes on in memory. `retry` writes the whole state in one transaction as soon as
   that works, at pauses from 0.1 to 30 seconds. A kill before that duplicates events and loses none.
2. Only a change with dead letters may fail: the letters and the end of their events are one transaction.
3. Memory is small: the resolved parts of a segment are few ranges, at most one more than the unfinished
   spans.
4. A file that is damaged, deleted or replaced while it is open is recreated at the next write, with the whole
   state. Its dead letters are in the file that was kept aside, if there is one.
5. Each transaction costs some 40 microseconds. So the end of a delivered batch goes with the next change
   (`finish_later`), which is the next batch if the publisher is busy.
6. At the start, a file that can't be trusted or read means an empty ledger: everything in the spool counts as
   new, which duplicates events.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sqlite3
from typing import TYPE_CHECKING, Final

from ..policy.byte_ranges import ByteRanges
from ..policy.span import spans_without
from .file import (
    JOURNAL,
    LEDGER_ERRORS,
    LedgerError,
    LedgerVersionError,
    connect,
    create,
    find_damage,
    finding_damage,
    keep_aside,
    transaction,
)
from .letters import add_letters, drop_oldest, totals
from .rows import (
    DELETE_BATCH,
    DELETE_SEGMENT,
    DamagedLedgerError,
    put_batch,
    put_segment,
    read_batch,
    read_segment,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from ..policy.journal import DeadLetter, EnteredBatch
    from ..policy.span import Span
    from .rows import Statement

logger: logging.Logger = logging.getLogger(__name__)

#: Seconds until a failed file is retried: the first and the longest pause.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 30.0

#: Consecutive failures that aren't logged if they are due to a lock, which a command may hold briefly.
_QUIET_FAILURES: Final = 4

#: Seconds to wait for a lock at the start, before anything is delivered.
_START_PATIENCE: Final = 5.0

#: Bytes of the journal to keep after a transaction.
_JOURNAL_LIMIT: Final = 256 * 1024


class Ledger:
    """What the publisher knows of its batches, in memory and in a file; a `Journal`. Used by one thread.

    Without a spool, batches have no spans: then nothing is entered, and the file contains only dead letters.

    Args:
        path: The file. Its folder must exist, and no other publisher may use it.
        clock: The monotonic clock, in seconds.
        wall_time: The wall clock, in seconds since 1970.
        mode: Permission bits of the file: 0600, or 0660 in a folder shared with a group.
        sync: Whether each change is synced to the disk.
        max_letters_size: Most bytes of all dead letters; beyond that the oldest are dropped.
        queue_name: NAME of the queue whose events become dead letters.

    Raises:
        LedgerVersionError: The file was written by a later release.

    Attributes:
        path: The file.
        error: Why the file can't be written, or None.
        retry_at: When to retry the file after an error, in monotonic seconds.
        start_problem: The problem of the file at the start, to be logged as an error; None if there was none.
        is_new: Whether there was no file at the start, as at the very first start.
        letters_dropped: How many dead letters were dropped to make room since the start.
    """

    def __init__(
        self,
        path: str,
        *,
        clock: Callable[[], float],
        wall_time: Callable[[], float],
        mode: int = 0o600,
        sync: bool = False,
        max_letters_size: int,
        queue_name: str,
    ) -> None:
        self.path: str = path
        self.error: str | None = None
        self.retry_at: float = -math.inf
        self.start_problem: str | None = None
        self.is_new: bool = False
        self.letters_dropped: int = 0
        self._clock = clock
        self._wall_time = wall_time
        self._mode = mode
        self._sync = sync
        self._max_letters_size = max_letters_size
        self._queue_name = queue_name
        self._connection: sqlite3.Connection | None = None  # None if and only if there is an error
        self._is_started = False
        self._was_there = False  # whether the file existed, since it was last found missing
        self._letters = (0, 0)
        self._damage: str | None = None  # the damage found while the file was open
        self._failures = 0  # consecutive
        self._is_logged = False
        self._batches: dict[tuple[int, int], EnteredBatch] = {}
        self._resolved: dict[bytes, ByteRanges] = {}
        self._later: list[Statement] = []  # to be written with the next change
        try:
            self._open(_START_PATIENCE)
        except LedgerVersionError:
            raise
        except LEDGER_ERRORS as exc:
            self._fail(exc)
            self._report(f"can't be read: {self.error}; events of the spool may be delivered again")
        self._is_started = True

    @property
    def letters(self) -> tuple[int, int]:
        """How many dead letters are in the file, and their bytes, when last read successfully."""
        if self._connection is not None:
            with contextlib.suppress(*LEDGER_ERRORS):
                self._letters = totals(self._connection)
        return self._letters

    def unfinished(self) -> list[EnteredBatch]:
        """Return the unfinished batches in order, with the fault records of this run."""
        return [self._batches[order] for order in sorted(self._batches)]

    def resolved(self, identity: bytes) -> list[tuple[int, int]]:
        """Return the resolved ranges of a segment: few pairs of start and end, ascending."""
        ranges = self._resolved.get(identity)
        return ranges.pairs() if ranges is not None else []

    def enter(self, batch: EnteredBatch) -> None:
        """Enter a batch before its first attempt, or again with a changed fault record; see `Journal`."""
        if batch.spans:
            self._batches[batch.order] = batch
            self._write([put_batch(batch)])

    def replace(self, order: tuple[int, int], parts: Sequence[EnteredBatch]) -> None:
        """Replace a batch by its parts; see `Journal`."""
        if self._batches.pop(order, None) is not None:
            self._batches.update((part.order, part) for part in parts)
            self._write([(DELETE_BATCH, order), *map(put_batch, parts)])

    def shrink(self, rest: EnteredBatch, lost: int) -> None:
        """End events of a batch that are gone; see `Journal`."""
        del lost
        if not rest.count:
            self.finish(rest.order)
        elif rest.order in self._batches:
            self.relocate([rest], spans_without(self._batches[rest.order].spans, rest.spans))

    def finish(self, order: tuple[int, int], letters: Sequence[DeadLetter] = ()) -> int:
        """End a batch; see `Journal`."""
        batch = self._batches.get(order)
        if batch is None:
            return self.resolve((), letters)
        dropped = self._settle(batch.spans, letters, [(DELETE_BATCH, order)])
        del self._batches[order]
        return dropped

    def finish_later(self, order: tuple[int, int], spans: Sequence[Span]) -> None:
        """End a batch that has these spans; the file follows with the next change, or by `retry`.

        A kill before that delivers the batch again, as a kill before its response does.
        """
        self._batches.pop(order, None)
        changed = self._with(spans)
        self._later += [(DELETE_BATCH, order), *(put_segment(*item) for item in changed.items())]
        self._resolved.update(changed)

    def resolve(self, spans: Sequence[Span], letters: Sequence[DeadLetter] = ()) -> int:
        """End events that are in no batch; see `Journal`."""
        return self._settle(spans, letters, [])

    def relocate(self, batches: Sequence[EnteredBatch], left: Sequence[Span]) -> None:
        """Change the places of entered batches, and resolve their former places."""
        self._batches.update((batch.order, batch) for batch in batches)
        self._settle(left, (), list(map(put_batch, batches)))

    def forget(self, identities: Iterable[bytes]) -> None:
        """Forget segments that were deleted."""
        gone = [identity for identity in identities if self._resolved.pop(identity, None) is not None]
        if gone:
            self._write([(DELETE_SEGMENT, (identity,)) for identity in gone])

    def retain(self, identities: Collection[bytes] | None) -> None:
        """Forget all segments except these, and batches with spans in others. Call it once, at the start.

        The events of such a batch in existing segments count as new.

        Args:
            identities: The existing segments; None if unknown: then nothing is forgotten.
        """
        if identities is None:
            return
        for order, batch in list(self._batches.items()):
            if not all(span.identity in identities for span in batch.spans):
                del self._batches[order]
                self._write([(DELETE_BATCH, order)])
        self.forget([identity for identity in self._resolved if identity not in identities])

    def retry(self) -> None:
        """Write pending changes, after an error if `retry_at` has passed; every change does this too."""
        if self._later or self.error is not None:
            self._write([])

    def close(self) -> None:
        """Try to write pending changes, and close the file; a second call does nothing."""
        if self.retry_at < math.inf:
            self.retry_at = -math.inf
            self.retry()
            self._fail(LedgerError(self.path, "it was closed"))
            self.retry_at = math.inf

    def _settle(
        self, spans: Sequence[Span], letters: Sequence[DeadLetter], statements: list[Statement]
    ) -> int:
        """Mark spans as resolved. With letters this may fail; then nothing has changed."""
        changed = self._with(spans)
        dropped = self._write([*statements, *(put_segment(*item) for item in changed.items())], letters)
        self._resolved.update(changed)
        return dropped

    def _with(self, spans: Sequence[Span]) -> dict[bytes, ByteRanges]:
        """Return the resolved ranges of the segments of spans, with these."""
        changed: dict[bytes, ByteRanges] = {}
        for identity, start, end in spans:
            if identity not in changed:
                changed[identity] = ByteRanges(self.resolved(identity))
            changed[identity].add(start, end)
        return changed

    def _write(self, statements: Sequence[Statement], letters: Sequence[DeadLetter] = ()) -> int:
        """Write a change and letters to the file; return how many letters were dropped.

        Raises:
            LedgerError: The letters can't be written.
        """
        statements = [*self._later, *statements]
        self._later.clear()  # after an error, the whole state is written
        is_due = self.error is None or self._clock() >= self.retry_at
        while is_due:
            try:
                dropped = self._transact(statements, letters)
            except LEDGER_ERRORS as exc:
                # An open file may be gone or damaged: go on immediately in a new one.
                is_due = self.error is None and "locked" not in str(exc)
                self._fail(exc)
            else:
                self._recover()
                self.letters_dropped += dropped
                return dropped
        self._log()
        if letters:
            problem = f"dead letters can't be written: {self.error}; free space or fix the cause"
            raise LedgerError(self.path, f"{problem}; their events are kept until then")
        return 0

    def _transact(self, statements: Sequence[Statement], letters: Sequence[DeadLetter]) -> int:
        connection = self._connection
        if connection is None:
            connection = self._open(0.0)
            statements = [
                ("DELETE FROM batches", ()),
                ("DELETE FROM segments", ()),
                *map(put_batch, self._batches.values()),
                *(put_segment(*item) for item in self._resolved.items()),
                *statements,
            ]
        if len(statements) == 1 and not letters:
            (statement,) = statements
            connection.execute(*statement)  # is a transaction by itself, which saves two calls
            return 0
        dropped = 0
        with transaction(connection):
            for statement in statements:
                connection.execute(*statement)
            if letters:
                add_letters(connection, letters, wall_time=self._wall_time(), queue=self._queue_name)
                dropped = drop_oldest(connection, self._max_letters_size)
        return dropped

    def _open(self, patience: float) -> sqlite3.Connection:
        """Open the file; create a new one if it doesn't exist or is damaged, and keep a damaged one aside."""
        damage = self._damage
        if damage is None:
            try:
                return self._attach(patience)
            except FileNotFoundError:
                self.is_new = not self._is_started
            except DamagedLedgerError as exc:
                damage = str(exc)
        if damage is not None:
            self._damage = damage
            with contextlib.suppress(FileNotFoundError):
                self._report(f"{damage}; it is kept as {keep_aside(self.path)}, and a new one is created")
        elif self._was_there:
            self._was_there = False
            self._report("was deleted; a new one is created, and the dead letters of the old one are lost")
        create(self.path, self._mode, sync=self._sync)
        self._damage = None
        return self._attach(patience)

    def _attach(self, patience: float) -> sqlite3.Connection:
        """Open an existing file; at the start, load the state of earlier runs."""
        connection = connect(self.path, patience=patience, sync=self._sync, journal_limit=_JOURNAL_LIMIT)
        try:
            for path in (self.path, self.path + JOURNAL):
                with contextlib.suppress(OSError):  # the journal may not exist, or belong to another user
                    os.chmod(path, self._mode)  # noqa: PTH101 - beside the other paths
            if not self._is_started:
                with finding_damage(connection):
                    self._load(connection)
            connection.execute("PRAGMA busy_timeout = 0")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._was_there = True
        return connection

    def _load(self, connection: sqlite3.Connection) -> None:
        # Fetched first: a cursor that outlives an error here would keep the file open.
        batches = connection.execute("SELECT * FROM batches").fetchall()
        segments = connection.execute("SELECT * FROM segments").fetchall()
        now = self._clock()
        entered = [read_batch(row, now) for row in batches]
        resolved = dict(map(read_segment, segments))
        # A full disk must not prevent the start.
        with contextlib.suppress(sqlite3.OperationalError), transaction(connection):
            connection.execute("DELETE FROM totals")
            connection.execute("INSERT INTO totals SELECT count(*), coalesce(sum(size), 0) FROM sizes")
            self.letters_dropped = drop_oldest(connection, self._max_letters_size)
        self._batches = {batch.order: batch for batch in entered}
        self._resolved = resolved

    def _fail(self, error: BaseException) -> None:
        """Record a failure: close the file, and try again later."""
        connection, self._connection = self._connection, None
        damage = find_damage(error, connection)
        if damage:
            self._damage = f"was damaged while it was open: {damage}"
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        self.error = str(error) or type(error).__name__
        self.retry_at = self._clock() + min(FIRST_PAUSE * 2 ** min(self._failures, 16), LONGEST_PAUSE)
        self._failures += 1

    def _recover(self) -> None:
        if self._is_logged:
            logger.warning("the ledger %s can be written again", self.path)
        self.error = None
        self._failures = 0
        self._is_logged = False

    def _log(self) -> None:
        """Log once that the file can't be written, unless a command holds its lock briefly."""
        is_brief = "locked" in str(self.error) and self._failures <= _QUIET_FAILURES
        if not self._is_logged and not is_brief:
            self._is_logged = True
            logger.error(
                "the ledger %s can't be written: %s; events are still delivered, but a crash may "
                "deliver some of them twice",
                self.path,
                self.error,
            )

    def _report(self, problem: str) -> None:
        """Report a problem of the file: at the start in `start_problem`, later in the log."""
        if self._is_started:
            logger.error("the ledger %s %s", self.path, problem)
        else:
            self.start_problem = f"the ledger {self.path} {problem}"
