"""Dead letters in a ledger: written by its publisher, and looked after by commands while that runs.

1. The publisher writes a letter in the transaction that finishes its event. Commands only delete letters.
2. All letters together have at most `max_size` bytes. The oldest are dropped for a new one, which is taken
   whatever its size. A letter's number is never given again, and later letters have greater ones.
3. A letter that is replayed is deleted after its event was put, and before the next one is. So a replay that
   is killed leaves at most one letter whose event was put. A lock keeps two replays apart.
4. Commands hold no transaction while they write to a terminal or put an event, and each of theirs is short.
5. What a command deletes is overwritten, in the file and in its journal.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, cast

from .file import TROUBLE, LedgerError, connect, finding_damage, transaction
from .rows import DamagedLedgerError, seal, unseal

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Generator, Iterable, Sequence

    from ..policy.journal import DeadLetter

_Columns: TypeAlias = "tuple[float, int | None, str, str, bytes, bytes]"

#: Bytes of a collector's response that a letter keeps.
MAX_EXCERPT: Final = 1_024

#: Seconds that a command waits for a lock.
_PATIENCE: Final = 5.0

#: Letters that are deleted in one transaction.
_STEP: Final = 100


class DamagedLetterError(LedgerError):
    """Raised for a letter that isn't what the publisher wrote."""


class Letter(NamedTuple):
    """A dead letter.

    Attributes:
        time: When its event was given up, by the wall clock, in seconds since 1970.
        status: The HTTP status that decided it, or None.
        queue: NAME of the queue that it came from.
        reason: What was wrong.
        excerpt: How the collector's response began.
        event: The bytes of the event, as they were received.
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
        reason = letter.reason.encode(errors="backslashreplace")  # SQLite takes no lone surrogates
        excerpt = letter.excerpt[:MAX_EXCERPT]
        row = seal(float(wall_time), letter.status, queue, reason.decode(), excerpt, letter.event)
        connection.execute("INSERT INTO letters VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", row)


def drop_oldest(connection: sqlite3.Connection, max_size: int) -> int:
    """Drop the oldest letters until the rest is small enough, but never the newest; return how many.

    Raises:
        sqlite3.Error: None is dropped, if the caller rolls back.
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
    query = "SELECT coalesce(sum(count), 0), coalesce(sum(size), 0) FROM totals"  # one row, whatever is there
    return cast("tuple[int, int]", connection.execute(query).fetchone())


class LetterFile:
    """The dead letters of a ledger, for a command.

    Args:
        path: The ledger.
        patience: Seconds to wait for a lock of another process.

    Raises:
        LedgerError: It isn't there, is damaged, of a later release, or can't be opened.
    """

    def __init__(self, path: str, *, patience: float = _PATIENCE) -> None:
        self._path = path
        with self._translated("can't be opened"):
            self._connection: sqlite3.Connection = connect(
                path, patience=patience, sync=True, journal_limit=0
            )
            self._connection.execute("PRAGMA secure_delete = ON").fetchall()

    def totals(self) -> tuple[int, int]:
        """Return how many letters there are, and the bytes that they count for.

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
        """Return a letter; None if there is none of that number.

        Raises:
            DamagedLetterError: It isn't what the publisher wrote.
            LedgerError: It can't be read.
        """
        query = "SELECT time, status, queue, reason, excerpt, event, crc FROM letters WHERE number = ?"
        with self._translated(f"letter {number} can't be read"):
            try:
                with finding_damage():
                    row = self._connection.execute(query, (number,)).fetchone()
                    return Letter(*cast("_Columns", tuple(unseal(row)))) if row is not None else None
            except DamagedLedgerError as exc:
                raise DamagedLetterError(self._path, f"letter {number} is damaged; purge it") from exc

    def purge(self, numbers: Sequence[int]) -> int:
        """Delete letters, and give their room back; return how many were there.

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
                # Each page is a row without columns, which the cursors of Python 3.11 don't go on after.
                self._connection.executescript("PRAGMA incremental_vacuum")
        return deleted

    def replay(self, numbers: Iterable[int], put: Callable[[int, bytes], bool]) -> list[int]:
        """Give events of letters to `put`, and delete each for which it returned True before the next.

        Args:
            numbers: Which letters; one that isn't there is skipped.
            put: Says whether the event of a letter is safe elsewhere now. What it raises ends this.

        Returns:
            Which letters are damaged, and were left where they are.

        Raises:
            LedgerError: A letter can't be read or deleted, or another command replays letters.
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
            problem = "another command replays its letters; wait for its end"
            raise LedgerError(self._path, problem) from exc
        finally:
            os.close(handle)  # this ends the locks of SQLite too, and here it has none
        return damaged

    def close(self) -> None:
        """Close it; closing again does nothing."""
        self._connection.close()

    @contextlib.contextmanager
    def _translated(self, problem: str) -> Generator[None]:
        try:
            yield
        except LedgerError:
            raise
        except DamagedLedgerError as exc:
            remedy = "restart its publisher, which keeps it aside and makes a new one"
            raise LedgerError(self._path, f"{exc}; {remedy}") from exc
        except TROUBLE as exc:
            raise LedgerError(self._path, f"{problem}: {exc}") from exc
