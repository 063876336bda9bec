"""Dead letters in a ledger: written by the publisher; commands read, replay and delete them while it runs.

1. The publisher writes a letter in the transaction that finishes its event. Commands only delete letters.
2. All letters together have at most `max_size` bytes. The oldest are dropped for a new one, which is stored
   whatever its size. Letter numbers ascend and are never reused.
3. A replayed letter is deleted after its event was put, and before the next one is. So a killed replay leaves
   at most one letter whose event was put. A lock prevents two replays at the same time.
4. Transactions of commands are short; none is open while a command writes to a terminal or puts an event.
5. Deleted letters are overwritten, in the file and in its journal.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, cast

from .file import LEDGER_ERRORS, LedgerError, connect, finding_damage, transaction
from .rows import DamagedLedgerError, seal, unseal

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Generator, Iterable, Sequence

    from ..policy.journal import DeadLetter

_Columns: TypeAlias = "tuple[float, int | None, str, str, bytes, bytes]"

#: Bytes of a collector's response in a letter.
MAX_EXCERPT: Final = 1_024

#: Seconds that a command waits for a lock.
_PATIENCE: Final = 5.0

#: Letters deleted in one transaction.
_STEP: Final = 100


class DamagedLetterError(LedgerError):
    """Raised for a letter that isn't what the publisher wrote."""


class Letter(NamedTuple):
    """A dead letter.

    Attributes:
        time: When its event was given up on, by the wall clock, in seconds since 1970.
        status: The HTTP status that was the reason, or None.
        queue: NAME of its queue.
        reason: What was wrong.
        excerpt: The beginning of the collector's response.
        event: The bytes of the event, as received.
    """

    time: float
    status: int | None
    queue: str
    reason: str
    excerpt: bytes
    event: bytes

    def __repr__(self) -> str:
        return f"<letter of queue {self.queue!r}, status {self.status}>"


def add_letters(
    connection: sqlite3.Connection, letters: Iterable[DeadLetter], *, wall_time: float, queue: str
) -> None:
    """Write letters, within the transaction of the caller.

    Raises:
        sqlite3.Error: They can't be written.
    """
    for letter in letters:
        reason = letter.reason.encode(errors="backslashreplace")  # SQLite accepts no lone surrogates
        excerpt = letter.excerpt[:MAX_EXCERPT]
        row = seal(float(wall_time), letter.status, queue, reason.decode(), excerpt, letter.event)
        connection.execute("INSERT INTO letters VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", row)


def drop_oldest(connection: sqlite3.Connection, max_size: int) -> int:
    """Drop the oldest letters until the rest fits, but never the newest; return how many were dropped.

    Raises:
        sqlite3.Error: None was dropped, if the caller rolls back.
    """
    excess = totals(connection)[1] - max_size
    count = last = 0
    rows = connection.execute("SELECT number, size FROM sizes ORDER BY number")
    while excess > 0 and (row := rows.fetchone()) is not None:
        last = row[0]
        excess -= row[1]
    rows.close()
    if last:
        query = "DELETE FROM letters WHERE number <= ? AND number < (SELECT max(number) FROM letters)"
        count = connection.execute(query, (last,)).rowcount
    return count


def totals(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return how many letters there are, and their bytes.

    Raises:
        sqlite3.Error: They can't be read.
    """
    query = "SELECT coalesce(sum(count), 0), coalesce(sum(size), 0) FROM totals"  # one row in any case
    return cast("tuple[int, int]", connection.execute(query).fetchone())


def damage_of(number: int) -> str:
    """Return how a command reports a damaged letter."""
    return f"letter {number} is damaged; purge it"


class LetterFile:
    """The dead letters of a ledger, for a command.

    Args:
        path: The ledger.
        patience: Seconds to wait for a lock of another process.

    Raises:
        LedgerError: It doesn't exist, is damaged, was written by a later release, or can't be opened.
    """

    def __init__(self, path: str, *, patience: float = _PATIENCE) -> None:
        self._path = path
        with self._translated("can't be opened"):
            self._connection: sqlite3.Connection = connect(
                path, patience=patience, sync=True, journal_limit=0
            )
            try:
                self._connection.execute("PRAGMA secure_delete = ON").fetchall()
            except BaseException:
                self._connection.close()
                raise

    def totals(self) -> tuple[int, int]:
        """Return how many letters there are, and their accounted bytes.

        Raises:
            LedgerError: They can't be read.
        """
        with self._translated("can't be read"):
            return totals(self._connection)

    def numbers(self) -> list[int]:
        """Return the numbers of all letters, oldest first.

        Raises:
            LedgerError: They can't be read.
        """
        with self._translated("can't be read"):
            rows = self._connection.execute("SELECT number FROM letters ORDER BY number").fetchall()
        return [number for (number,) in rows]

    def read(self, number: int) -> Letter | None:
        """Return a letter; None if the number doesn't exist.

        Raises:
            DamagedLetterError: It isn't what the publisher wrote.
            LedgerError: It can't be read.
        """
        query = "SELECT time, status, queue, reason, excerpt, event, crc FROM letters WHERE number = ?"
        with self._translated(f"letter {number} can't be read"):
            try:
                with finding_damage(self._connection):
                    row = self._connection.execute(query, (number,)).fetchone()
                    return Letter(*cast("_Columns", tuple(unseal(row)))) if row is not None else None
            except DamagedLedgerError as exc:
                raise DamagedLetterError(self._path, damage_of(number)) from exc

    def purge(self, numbers: Sequence[int]) -> int:
        """Delete letters, and free their space; return how many existed.

        Raises:
            LedgerError: The rest couldn't be deleted.
        """
        deleted = 0
        for start in range(0, len(numbers), _STEP):
            some = numbers[start : start + _STEP]
            query = f"DELETE FROM letters WHERE number IN ({', '.join('?' * len(some))})"  # noqa: S608 - question marks
            with self._translated("letters can't be deleted"):
                with transaction(self._connection):
                    deleted += self._connection.execute(query, tuple(some)).rowcount
                # Each page yields a row without columns, after which cursors of Python 3.11 stop.
                self._connection.executescript("PRAGMA incremental_vacuum")
        return deleted

    def replay(self, numbers: Iterable[int], put: Callable[[int, bytes], bool]) -> list[int]:
        """Pass the events of letters to `put`; delete each letter after True, before the next put.

        Args:
            numbers: The letters; missing ones are skipped.
            put: Returns whether the event of a letter is stored elsewhere now. Its exceptions end the replay.

        Returns:
            The damaged letters, which were skipped.

        Raises:
            LedgerError: A letter can't be read or deleted, or another command is replaying letters.
        """
        damaged: list[int] = []
        with self._translated("can't be locked"):
            handle = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for number in numbers:
                try:
                    letter = self.read(number)
                except DamagedLetterError:
                    damaged.append(number)
                    continue
                if letter is not None and put(number, letter.event):
                    self.purge([number])
        except BlockingIOError as exc:
            problem = "another command is replaying its letters; wait until it has finished"
            raise LedgerError(self._path, problem) from exc
        finally:
            os.close(handle)  # this also releases SQLite's locks, and none is held here
        return damaged

    def close(self) -> None:
        """Close it; a second call does nothing."""
        self._connection.close()

    @contextlib.contextmanager
    def _translated(self, problem: str) -> Generator[None]:
        try:
            yield
        except LedgerError:
            raise
        except DamagedLedgerError as exc:
            remedy = "restart its publisher, which keeps it aside and creates a new one"
            raise LedgerError(self._path, f"{exc}; {remedy}") from exc
        except LEDGER_ERRORS as exc:
            raise LedgerError(self._path, f"{problem}: {exc}") from exc
