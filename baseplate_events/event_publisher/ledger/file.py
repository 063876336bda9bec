"""The file of the ledger: created safely, checked before use, and kept aside if damaged.

1. A ledger appears whole: it is created under another name and renamed. So an empty file is damaged.
2. Symbolic links aren't followed. The file has the requested mode, and exactly the schema of `rows`.
3. A damaged or foreign file is renamed to `PATH.damaged-N`, with its journal. The newest three are kept.
4. A ledger of a later schema is refused, not kept aside: a new ledger would hide its dead letters, and the
   spool's events would be delivered again. Refusing loses nothing, since services go on filling the spool.
5. The journal mode is PERSIST. It maps no memory, so that neither a full disk nor a truncated file can kill
   the process by SIGBUS, and it works on every file system. The journal keeps its space on the disk, so that
   a full disk still accepts most changes. A killed process loses nothing. Without `sync`, a power cut can
   damage the file, which costs duplicates and the dead letters; with it, nothing recorded is lost.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from ... import __version__
from ...errors import EventError
from .rows import APPLICATION_ID, SCHEMA, SCHEMA_VERSION, DamagedLedgerError

if TYPE_CHECKING:
    from collections.abc import Generator

#: File names of the ledger in the folder of a spool, and of one with dead letters only.
SPOOL_NAME: Final = "ledger.sqlite"
LETTERS_NAME: Final = "dead-letters.sqlite"

#: How many damaged files are kept.
KEPT_ASIDE: Final = 3

#: Suffix of SQLite's journal, which is kept aside with the file.
JOURNAL: Final = "-journal"

#: First bytes of an SQLite file, and the offsets of its write and read versions; 1 means a rollback
#: journal. See https://sqlite.org/fileformat.html.
_MAGIC: Final = b"SQLite format 3\0"
_HEADER_SIZE: Final = 20
_FORMATS: Final = b"\1\1"

#: Bytes of memory for any statement: four times the largest event, the longest value in a ledger.
_ENOUGH: Final = 64 * 1024 * 1024

#: Prefixes of SQLite messages that mean damage but have no error class of their own.
_SIGNS_OF_DAMAGE: Final = ("no such ", "malformed ", "unsupported file format", "Could not decode")


class LedgerError(EventError):
    """Raised when the ledger can't be used.

    Attributes:
        path: The file.
        problem: What is wrong, and what to do.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"Ledger {self.path}: {self.problem}"


class LedgerVersionError(LedgerError):
    """Raised when the ledger was written by a later release, whose schema this one doesn't know."""


#: Errors of the file: locked, full, read-only or failing disk, no memory, damaged, replaced by another.
LEDGER_ERRORS: Final = (
    *(sqlite3.Error, OSError, MemoryError, UnicodeDecodeError),  # for an SQLite message that isn't UTF-8
    *(DamagedLedgerError, LedgerVersionError),
)


def connect(path: str, *, patience: float, sync: bool, journal_limit: int) -> sqlite3.Connection:
    """Open an existing ledger.

    Closing the descriptor of its header releases this process's locks on it, so none may be held.

    Args:
        path: Its path.
        patience: Seconds to wait for a lock of another process, each time.
        sync: Whether transactions are synced to the disk.
        journal_limit: Bytes of the journal to keep after a transaction.

    Raises:
        FileNotFoundError: It doesn't exist.
        DamagedLedgerError: It is damaged, or isn't a ledger.
        LedgerVersionError: It is of a later schema.
        OSError: It can't be opened.
        sqlite3.Error: Likewise, or it is locked.
    """
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise DamagedLedgerError("isn't a regular file")
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        header = os.read(handle, _HEADER_SIZE)
    finally:
        os.close(handle)
    if not header.startswith(_MAGIC) or not header.endswith(_FORMATS):
        raise DamagedLedgerError("isn't a ledger" if header else "is empty")
    connection = _connect(path, patience)
    try:
        with finding_damage(connection):
            _check_schema(connection, path)
            connection.execute("PRAGMA journal_mode = PERSIST")
            connection.execute(f"PRAGMA journal_size_limit = {journal_limit}")
            connection.execute(f"PRAGMA synchronous = {'FULL' if sync else 'OFF'}")
    except BaseException:
        connection.close()
        raise
    return connection


def create(path: str, mode: int, *, sync: bool) -> None:
    """Create an empty ledger; a leftover journal of another one is deleted.

    Raises:
        OSError: The disk is full or fails. Afterwards there is either no ledger or a whole one.
        sqlite3.Error: Likewise.
    """
    temporary = f"{path}.part"  # not .new, which means an unpublished segment
    for name in (temporary, temporary + JOURNAL, path + JOURNAL):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108 - beside the other calls of `os`
    os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode))
    try:
        with contextlib.closing(_connect(temporary, 0.0)) as connection:
            connection.execute("PRAGMA journal_mode = OFF")  # if this fails, the file is deleted
            connection.execute(f"PRAGMA synchronous = {'FULL' if sync else 'OFF'}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            with transaction(connection):
                for statement in SCHEMA:
                    connection.execute(statement)
                connection.execute("INSERT INTO written_by VALUES (?, ?)", (SCHEMA_VERSION, __version__))
                connection.execute("INSERT INTO totals VALUES (0, 0)")
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        os.rename(temporary, path)  # noqa: PTH104
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise
    if sync:
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)  # noqa: PTH120
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def keep_aside(path: str) -> str:
    """Rename a damaged file, delete the oldest ones kept before, and return the new path.

    Raises:
        OSError: It couldn't be renamed.
    """
    folder, name = os.path.split(path)
    prefix = f"{name}.damaged-"
    numbers = [entry.removeprefix(prefix) for entry in os.listdir(folder or ".") if entry.startswith(prefix)]  # noqa: PTH208
    kept = sorted(int(number) for number in numbers if number.isdecimal())
    aside = f"{path}.damaged-{max(kept, default=0) + 1}"
    os.rename(path, aside)  # noqa: PTH104 - a link is renamed, not followed
    with contextlib.suppress(FileNotFoundError):
        os.rename(path + JOURNAL, aside + JOURNAL)  # noqa: PTH104
    for number in kept[: -KEPT_ASIDE + 1]:
        for suffix in ("", JOURNAL):
            with contextlib.suppress(OSError):
                os.unlink(f"{path}.damaged-{number}{suffix}")  # noqa: PTH108
    return aside


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """Run the block as a transaction, which is rolled back after an exception."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # some errors have already ended it
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def finding_damage(connection: sqlite3.Connection) -> Generator[None]:
    """Translate the errors of SQLite for a damaged file, which `connection` has open.

    Raises:
        DamagedLedgerError: It is damaged.
    """
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError, MemoryError) as exc:
        damage = find_damage(exc, connection)
        if damage or str(exc).startswith(_SIGNS_OF_DAMAGE):
            raise DamagedLedgerError(damage or str(exc)) from exc
        raise


def find_damage(error: BaseException, connection: sqlite3.Connection | None) -> str:
    """Return what is damaged, or "" if an error has another cause: the file is locked, full or inaccessible.

    Args:
        error: One of `LEDGER_ERRORS`.
        connection: The file that it came from, if it could be opened; it is read if the error leaves a doubt.
    """
    # `sqlite_errorcode` is new in 3.11, and there is no class for SQLITE_CORRUPT and SQLITE_NOTADB. A message
    # that quotes a damaged name isn't UTF-8, so that `sqlite3` fails to raise its own error.
    if isinstance(error, (DamagedLedgerError, UnicodeDecodeError)) or type(error) is sqlite3.DatabaseError:
        return str(error)
    if connection is None or isinstance(error, (sqlite3.OperationalError, OSError)):
        return ""
    # A damaged length asks for more memory than there is (MemoryError), or than SQLite allows (DataError).
    try:
        ((found,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
    except (MemoryError, sqlite3.DataError) as exc:
        return f"a length in it asks for too much memory ({exc!r})" if _has_memory() else ""
    except LEDGER_ERRORS as exc:
        return find_damage(exc, None)
    return "" if found == "ok" else str(found)


def _has_memory() -> bool:
    """Return whether memory suffices for any statement on a whole ledger."""
    try:
        bytes(_ENOUGH)
    except MemoryError:
        return False
    return True


def _connect(path: str, patience: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(os.path.abspath(path)))}?mode=rw",  # noqa: PTH100 - a link must not be resolved
        uri=True,
        timeout=patience,
        isolation_level=None,
        check_same_thread=False,  # opened in one thread and used in another, one at a time
    )
    try:
        for setting in ("trusted_schema = OFF", "mmap_size = 0", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {setting}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _check_schema(connection: sqlite3.Connection, path: str) -> None:
    """Check that a file is a ledger of this schema. Damage within its tables shows when they are read."""
    (identity,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    written_by = connection.execute("SELECT version, release FROM written_by").fetchall()
    if identity != APPLICATION_ID or not version or [version] != [row[0] for row in written_by]:
        raise DamagedLedgerError("isn't a ledger, or doesn't contain the release that wrote it")
    if version > SCHEMA_VERSION:
        ((_, release),) = written_by
        raise LedgerVersionError(
            path,
            f"was written by release {release!a} (schema {version}), but release {__version__} knows only "
            f"schema {SCHEMA_VERSION}; run release {release!a} or later, or move the file away, which makes "
            "its dead letters inaccessible and may deliver events of the spool twice",
        )
    query = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name != 'sqlite_sequence'"
    if {sql for (sql,) in connection.execute(query).fetchall()} != set(SCHEMA):
        raise DamagedLedgerError("has tables other than those of a ledger")
