"""The file fails at any moment while it is used: only letters raise, and no event is lost."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.ledger import ledger as ledger_module
from baseplate_events.event_publisher.ledger.file import LedgerError
from baseplate_events.event_publisher.policy.span import Span
from tests.support.clocks import FakeClock
from tests.support.disks import largest_file
from tests.support.examples import examples
from tests.support.ledgers import (
    IDENTITIES,
    NAME,
    RESOLVED,
    all_events,
    aside_of,
    batch_of,
    copied,
    events_written,
    filled,
    letter_of,
    locked,
    opened,
    resolved_of,
)
from tests.support.queues import needs_root
from tests.support.sandbox import sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


A, B, C = IDENTITIES
few = examples(60)


class FailingConnection(sqlite3.Connection):
    """A connection of which the n-th statement fails, counted over all of them, before or after it happened.

    Attributes:
        left: Statements until one fails; negative: none does.
        error: What that one raises.
        happens: Whether it happens nevertheless.
    """

    left: int = -1
    error: Exception = sqlite3.OperationalError("disk I/O error")
    happens: bool = False

    def execute(self, *arguments: Any) -> sqlite3.Cursor:  # noqa: ANN401
        cls = FailingConnection
        cls.left -= 1
        if cls.left == -1:
            if cls.happens:
                super().execute(*arguments)
            raise cls.error
        return super().execute(*arguments)


_connect = sqlite3.connect


def _connect_failing(*arguments: Any, **options: Any) -> sqlite3.Connection:  # noqa: ANN401
    return _connect(*arguments, factory=FailingConnection, **options)


@contextlib.contextmanager
def failing(at: int, error: Exception, *, happens: bool) -> Generator[None]:
    """Let a statement of any connection fail."""
    FailingConnection.left, FailingConnection.error, FailingConnection.happens = at, error, happens
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", _connect_failing)
        yield
    FailingConnection.left = -1


class CopyingConnection(sqlite3.Connection):
    """A connection that copies the files after each statement, as a kill would leave them.

    Attributes:
        folder: Where the files are.
        copies: Where the copies are.
    """

    folder: Path
    copies: Path

    def execute(self, *arguments: Any) -> sqlite3.Cursor:  # noqa: ANN401
        cursor = super().execute(*arguments)
        copy = self.copies / str(len(list(self.copies.iterdir())))
        copy.mkdir()
        copied(self.folder, copy)
        return cursor


def _connect_copying(*arguments: Any, **options: Any) -> sqlite3.Connection:  # noqa: ANN401
    return _connect(*arguments, factory=CopyingConnection, **options)


def test_a_kill_during_the_first_start_is_no_damage(tmp_path: Path) -> None:
    """A ledger is there whole or not at all, whichever statement was the last."""
    CopyingConnection.folder, CopyingConnection.copies = tmp_path / "folder", tmp_path / "copies"
    CopyingConnection.folder.mkdir()
    CopyingConnection.copies.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", _connect_copying)
        opened(CopyingConnection.folder).close()
    found: set[bool] = set()
    for copy in CopyingConnection.copies.iterdir():
        killed = opened(copy)
        assert killed.start_problem is None
        assert killed.error is None
        found.add(killed.is_new)
        killed.close()
        assert not (copy / f"{NAME}.part").exists()
    assert found == {True, False}


ERRORS: Final = (
    sqlite3.OperationalError("disk I/O error"),
    sqlite3.OperationalError("database or disk is full"),
    sqlite3.OperationalError("attempt to write a readonly database"),
    sqlite3.OperationalError("database is locked"),
    sqlite3.DatabaseError("database disk image is malformed"),
    sqlite3.IntegrityError("constraint failed"),
    OSError(5, "Input/output error"),
    MemoryError(),
)


#: What SQLite raises for a record whose damaged length is beyond the memory, or beyond its limit.
BEYOND: Final = (MemoryError(), sqlite3.DataError("string or blob too big"))


@pytest.mark.parametrize("error", BEYOND, ids=repr)
@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_length_beyond_the_memory_may_be_damage(tmp_path: Path, error: Exception, is_damaged: bool) -> None:
    """After such an error, the file is read: only a damaged one is kept aside, and the letter is written."""
    filled(tmp_path)
    if is_damaged:
        _damage_free_space(tmp_path / NAME, "letters")
    with failing(-1, error, happens=False):
        ledger = opened(tmp_path)
        assert ledger.start_problem is None
        FailingConnection.left = 0
        ledger.resolve([], [letter_of(b"new")])
        assert ledger.error is None
        ledger.close()
    assert (aside_of(tmp_path) != []) == is_damaged
    assert b"new" in events_written(tmp_path)


@pytest.mark.parametrize("is_short", [False, True])
def test_a_list_of_tables_beyond_the_memory_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_short: bool
) -> None:
    """Then not even a check of the file has enough memory. If memory is short, the file may be whole.

    Newer releases of SQLite notice such damage themselves.
    """
    filled(tmp_path)
    with (tmp_path / NAME).open("r+b") as file:
        # The lengths in the record of the last table; see "B-tree Pages" of https://sqlite.org/fileformat.html.
        file.seek(100 + 3)
        (count,) = struct.unpack(">H", file.read(2))
        file.seek(100 + 8 + 2 * (count - 1))
        (place,) = struct.unpack(">H", file.read(2))
        file.seek(place + 1)
        file.write(b"\xff" * 18)
    is_left = False
    with contextlib.closing(sqlite3.connect(tmp_path / NAME)) as connection:
        try:
            connection.execute("PRAGMA quick_check(1)").fetchall()
        except MemoryError:
            is_left = is_short
        except sqlite3.DatabaseError:
            pass
    if is_short:
        monkeypatch.setattr("baseplate_events.event_publisher.ledger.file._ENOUGH", 1 << 62)
    ledger = opened(tmp_path)
    error = ledger.error
    if not is_left:
        ledger.resolve([], [letter_of(b"new")])
    ledger.close()
    assert (error is not None) == is_left
    assert (aside_of(tmp_path) == []) == is_left
    assert is_left or b"new" in events_written(tmp_path)


def _damage_free_space(path: Path, table: str) -> None:
    """Let the first page of a table say that it has a free block where none can be."""
    with contextlib.closing(_connect(path)) as connection:
        ((page_size,),) = connection.execute("PRAGMA page_size").fetchall()
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        ((page,),) = connection.execute(query, (table,)).fetchall()
    with path.open("r+b") as file:
        file.seek((page - 1) * page_size + 1)  # see "B-tree Pages" of https://sqlite.org/fileformat.html
        file.write(b"\xff\xff")


@examples(200)
@given(st.integers(0, 45), st.sampled_from(ERRORS), st.booleans(), st.booleans(), st.booleans())
def test_a_failure_anywhere_loses_nothing(
    at: int, error: Exception, happens: bool, starts: bool, is_killed: bool
) -> None:
    """Any statement may fail, at the start or later. Only letters raise, and are written later."""
    clock = FakeClock()
    unwritten: list[Callable[[], object]] = []
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as copy:
        filled(folder)
        with failing(at if starts else -1, error, happens=happens):
            ledger = opened(folder, clock=clock)
            known = resolved_of(ledger)
            assert known in (RESOLVED, set())
            assert known or ledger.start_problem is not None
            if not starts:
                assert known
                FailingConnection.left = at
            ledger.enter(batch_of(7, (C, 0, 3), (C, 5, 7)))
            ledger.enter(batch_of(8, (C, 3, 5)))
            ledger.finish((7, 0))
            writes: list[Callable[[], object]] = [
                lambda: ledger.finish((8, 0), [letter_of(b"new")]),
                lambda: ledger.resolve([Span(C, 7, 8)], [letter_of(b"newer")]),
            ]
            for write in writes:
                try:
                    write()
                except LedgerError:
                    unwritten.append(write)
            ledger.forget([B])
            if is_killed:
                copied(folder, copy)
        FailingConnection.left = -1
        clock.now += 100
        ledger.retry()
        assert ledger.error is None
        for write in unwritten:
            write()
        expected = resolved_of(ledger)
        assert {(C, offset) for offset in range(8)} <= expected
        ledger.close()
        again = opened(folder)
        assert again.start_problem is None
        assert expected == resolved_of(again)
        events = all_events(folder)
        assert {b"new", b"newer"} <= set(events)
        assert events.count(b"new") == 1 or happens
        again.close()
        if is_killed:
            killed = opened(copy)
            left = resolved_of(killed)
            present = all_events(copy)
            assert left <= expected | RESOLVED
            assert (C, 3) not in left or b"new" in present
            assert (C, 7) not in left or b"newer" in present
            killed.close()


@few
@given(st.integers(0, 120_000), st.integers(1, 12))
def test_a_file_that_cannot_grow(limit: int, count: int) -> None:
    """While the file can't be written, delivery goes on; letters are refused until it can."""
    clock = FakeClock()
    left: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        ledger = opened(folder, clock=clock)
        with largest_file(limit):
            for number in range(count):
                ledger.enter(batch_of(number + 1, (A, number, number + 1)))
                try:
                    ledger.finish((number + 1, 0), [letter_of(os.urandom(9_000))])
                except LedgerError:
                    left.append(number + 1)
                clock.now += 0.5
        assert left == [batch.order[0] for batch in ledger.unfinished()]
        clock.now += 100
        for number in left:
            ledger.finish((number, 0), [letter_of(os.urandom(9_000))])
        assert ledger.error is None
        assert [(0, count)] == ledger.resolved(A)
        assert count == ledger.letters[0] == len(events_written(folder))
        ledger.close()


FULL = """
import os, sys
from baseplate_events.event_publisher.ledger.file import LedgerError
from tests.support.clocks import FakeClock
from tests.support.ledgers import *
folder, is_killed = sys.argv[1], sys.argv[2] == "True"
A, B, C = IDENTITIES
clock = FakeClock()
if not os.fork():
    ledger = opened(folder, clock=clock)
    ledger.enter(batch_of(1, (A, 0, 10)))
    ledger.enter(batch_of(2, (B, 0, 10)))
    ledger.finish((1, 0), [letter_of(b"old")])
    if not is_killed:
        ledger.close()
    os._exit(0)
os.wait()
filler = os.open(folder + "/filler", os.O_WRONLY | os.O_CREAT)
try:
    while True:
        os.write(filler, bytes(4096))
except OSError:
    pass
ledger = opened(folder, clock=clock)
assert ledger.start_problem is None, ledger.start_problem
assert resolved_of(ledger) == {(A, offset) for offset in range(10)}, resolved_of(ledger)
assert [batch.order for batch in ledger.unfinished()] == [(2, 0)]
ledger.enter(batch_of(3, (C, 0, 1)))
print("error of a small change:", ledger.error)
letter = letter_of(os.urandom(100_000))
try:
    ledger.finish((3, 0), [letter])
except LedgerError as exc:
    print(exc)
else:
    raise AssertionError
ledger.finish((2, 0))
assert [batch.order for batch in ledger.unfinished()] == [(3, 0)]
os.unlink(folder + "/filler")
os.close(filler)
clock.now += 100
ledger.finish((3, 0), [letter])
assert ledger.error is None, ledger.error
assert len(written(folder)) == 2
ledger.close()
again = opened(folder)
assert again.unfinished() == []
assert len(resolved_of(again)) == 21
again.close()
"""


@needs_root
@pytest.mark.parametrize("is_killed", [True, False])
def test_a_full_disk_is_survived(is_killed: bool, tmp_path: Path) -> None:
    """The disk may be full at the start, when the ledger is still read, or later."""
    with sandbox(tmp_path) as place:
        disk = tmp_path / "disk"
        disk.mkdir()
        place.set_up("mount", "-t", "tmpfs", "-o", "size=512k", "none", str(disk))
        place.run("python", "-c", FULL, str(disk), str(is_killed)).check()


def _replaced_by(content: bytes) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.with_name("new").write_bytes(content)
        path.with_name("new").rename(path)

    return replace


def _replaced_by_an_older_one(path: Path) -> None:
    filled(path.parent / "older")
    (path.parent / "older" / NAME).rename(path)


CHANGES: Final[dict[str, Callable[[Path], object]]] = {
    "deleted": Path.unlink,
    "replaced by an empty file": _replaced_by(b""),
    "replaced by garbage": _replaced_by(b"x" * 5_000),
    "emptied": lambda path: os.truncate(path, 0),
    "overwritten": lambda path: path.write_bytes(b"\xa5" * 60_000),
    "replaced by an older ledger": _replaced_by_an_older_one,
}


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("has_letter", [True, False])
def test_a_file_that_changes_under_a_publisher_gets_a_successor(
    kind: str, has_letter: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that changes is recreated with the state in memory at the next change; that is logged once."""
    ledger = opened(tmp_path)
    ledger.enter(batch_of(1, (A, 0, 1)))
    ledger.enter(batch_of(2, (A, 1, 2)))
    CHANGES[kind](tmp_path / NAME)
    is_older = "older" in kind
    ledger.finish((1, 0), [letter_of(b"e")] if has_letter else [])
    assert ledger.error is None
    if not is_older:
        assert [logging.ERROR] == [record.levelno for record in caplog.records]
    copied(tmp_path, tmp_path / "copy")
    ledger.close()
    killed = opened(tmp_path / "copy")
    assert killed.start_problem is None
    assert [batch_of(2, (A, 1, 2))] == killed.unfinished()
    assert {(A, 0)} == resolved_of(killed)
    dead = [b"dead"] if is_older else []
    assert [*dead, *([b"e"] if has_letter else [])] == events_written(tmp_path / "copy")
    killed.close()


@few
@given(st.integers(0, 8), st.integers(1, 20_000), st.booleans())
def test_a_file_that_is_overwritten_while_it_is_open(page: int, size: int, garbage: bool) -> None:
    """Only letters raise, and whatever a later run reads from the file is true."""
    clock = FakeClock()
    with tempfile.TemporaryDirectory() as folder:
        filled(folder)
        ledger = opened(folder, clock=clock)
        with Path(folder, NAME).open("r+b") as file:
            file.seek(page * 4_096)
            file.write((b"\xa5" if garbage else b"\0") * size)
        for number in range(40):
            order = (number + 10, 0)
            ledger.enter(batch_of(number + 10, (C, number, number + 1)))
            try:
                ledger.finish(order, [letter_of(b"%d" % number * 500)] if number % 7 == 0 else [])
            except LedgerError:
                clock.now = ledger.retry_at
                ledger.finish(order)
            clock.now += 0.5
        assert [(0, 40)] == ledger.resolved(C)
        ledger.close()
        again = opened(folder)
        assert resolved_of(again) <= RESOLVED | {(C, number) for number in range(40)}
        assert again.error is None
        again.close()


def test_a_file_that_cannot_be_read_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With a permanent lock, delivery starts with an empty ledger, and letters stay in the file."""
    monkeypatch.setattr(ledger_module, "_START_PATIENCE", 0.0)
    filled(tmp_path)
    lock = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    clock = FakeClock()
    ledger = opened(tmp_path, clock=clock)
    assert "locked" in str(ledger.error)
    assert "may be delivered again" in str(ledger.start_problem)
    assert set() == resolved_of(ledger)
    assert [] == ledger.unfinished()
    ledger.enter(batch_of(2, (C, 0, 1)))
    lock.close()
    clock.now = ledger.retry_at
    ledger.retry()
    assert ledger.error is None
    assert caplog.text == ""  # it was brief
    ledger.close()
    again = opened(tmp_path)
    assert [batch_of(2, (C, 0, 1))] == again.unfinished()
    assert [b"dead"] == events_written(tmp_path)
    again.close()


def test_a_bound_that_got_smaller_holds_at_the_start(tmp_path: Path) -> None:
    """Letters beyond the limit are dropped and counted."""
    ledger = opened(tmp_path)
    ledger.resolve((), [letter_of(b"%d" % number * 1_000) for number in range(10)])
    ledger.close()
    again = opened(tmp_path, max_letters_size=3_500)
    assert (7, 3) == (again.letters_dropped, again.letters[0])
    assert again.letters[1] <= 3_500
    again.close()


def test_trouble_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A failure is logged when it begins and when it ends; a brief lock by a command isn't logged."""
    clock = FakeClock()
    ledger = opened(tmp_path, clock=clock)
    for failures, lines in ((2, 0), (12, 2)):
        caplog.clear()
        lock = locked(tmp_path)
        for number in range(failures):
            clock.now = max(clock.now, ledger.retry_at)
            ledger.resolve([Span(A, number, number + 1)])
        lock.close()
        clock.now = ledger.retry_at
        ledger.retry()
        assert ledger.error is None
        assert lines == len(caplog.records)
    assert [logging.ERROR, logging.WARNING] == [record.levelno for record in caplog.records]
    ledger.close()
    ledger.close()
    ledger.resolve([Span(B, 0, 1)])  # after the end it has no file, and raises nothing
    assert ledger.error is not None


def test_a_file_that_was_never_there_was_not_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On a disk that takes no file no dead letters are lost, and what was deleted is logged once."""
    clock = FakeClock()
    ledger = opened(tmp_path / "none", clock=clock)
    messages: list[str] = []
    for made in (False, False, True, False, False):
        if made:
            (tmp_path / "none").mkdir()
        elif messages:
            shutil.rmtree(tmp_path / "none", ignore_errors=True)
        clock.now = max(clock.now, ledger.retry_at)
        ledger.resolve([Span(A, 0, 1)])
        messages = [record.getMessage() for record in caplog.records]
    assert len([message for message in messages if "was deleted" in message]) == 1
    ledger.close()


def test_a_missing_folder_is_trouble(tmp_path: Path) -> None:
    """The ledger doesn't create its folder; once that exists again, it goes on."""
    clock = FakeClock()
    ledger = opened(tmp_path / "none", clock=clock)
    assert "No such file" in str(ledger.error)
    ledger.enter(batch_of(1, (A, 0, 1)))
    (tmp_path / "none").mkdir()
    clock.now = ledger.retry_at
    ledger.retry()
    assert ledger.error is None
    ledger.close()
    again = opened(tmp_path / "none")
    assert [batch_of(1, (A, 0, 1))] == again.unfinished()
    again.close()


def test_damage_that_shows_only_at_a_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that can be opened but not written is kept aside; the state in memory goes into a new one."""
    clock = FakeClock()
    ledger = opened(tmp_path, clock=clock)
    ledger.enter(batch_of(1, (A, 0, 1)))
    lock = locked(tmp_path)
    ledger.enter(batch_of(2, (B, 0, 1)))
    query = "SELECT rootpage FROM sqlite_master WHERE name = 'batches'"
    (page,) = lock.execute(query).fetchone()
    lock.close()
    path = tmp_path / NAME
    with path.open("r+b") as file:
        file.seek((page - 1) * 4_096)
        file.write(b"\xa5" * 4_096)
    for _ in range(2):
        clock.now = ledger.retry_at
        ledger.retry()
    assert ledger.error is None
    assert len(aside_of(tmp_path)) == 1
    assert f"kept as {path}.damaged-1" in caplog.text
    ledger.close()
    again = opened(tmp_path)
    assert [batch_of(1, (A, 0, 1)), batch_of(2, (B, 0, 1))] == again.unfinished()
    again.close()
