"""The moments, sizes and counts of a ledger, and how its file is opened, by example."""

from __future__ import annotations

import inspect
import logging
import stat
import threading
from typing import TYPE_CHECKING, Any

import pytest

from baseplate_events.event_publisher.ledger import ledger as ledger_module
from baseplate_events.event_publisher.ledger import letters as letters_module
from baseplate_events.event_publisher.ledger.file import connect
from baseplate_events.event_publisher.policy.journal import DeadLetter
from tests.support.clocks import FakeClock
from tests.support.ledgers import (
    IDENTITIES,
    NAME,
    batch_of,
    fill,
    letter_file,
    letter_of,
    locked,
    opened,
    written,
)

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Note how files are opened."""
    found: list[dict[str, object]] = []

    def note(path: str, **settings: Any) -> sqlite3.Connection:  # noqa: ANN401 - handed on
        found.append(settings)
        return connect(path, **settings)

    monkeypatch.setattr(ledger_module, "connect", note)
    monkeypatch.setattr(letters_module, "connect", note)
    return found


def test_a_fresh_ledger_knows_nothing(tmp_path: Path) -> None:
    """It is new, has no error, and its file is for its owner only."""
    ledger = opened(tmp_path)
    assert (ledger.error, ledger.start_problem, ledger.is_new, ledger.letters_dropped) == (
        None,
        None,
        True,
        0,
    )
    assert (ledger.letters, ledger.unfinished()) == ((0, 0), [])
    assert ledger.resolved(IDENTITIES[0]) == []
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
    ledger.close()
    again = opened(tmp_path)
    assert (again.is_new, again.letters) == (False, (0, 0))
    again.close()


def test_without_a_file_no_letters_are_known(tmp_path: Path) -> None:
    """The ledger says what is wrong."""
    ledger = opened(tmp_path / "missing")
    assert ledger.error is not None
    assert (ledger.letters, ledger.letters_dropped) == ((0, 0), 0)
    ledger.close()


def test_a_start_waits_five_seconds_for_a_lock(tmp_path: Path, connections: list[dict[str, object]]) -> None:
    """What has failed later is tried without a wait. The journal keeps 256 KiB."""
    clock = FakeClock()
    ledger = opened(tmp_path, clock=clock)
    ledger.enter(batch_of(1, (IDENTITIES[0], 0, 5)))
    lock = locked(tmp_path)
    ledger.enter(batch_of(2, (IDENTITIES[0], 5, 9)))
    lock.close()
    clock.now += 1.0
    ledger.retry()
    assert ledger.error is None
    # There is no file, then a new one, and that again.
    assert [settings["patience"] for settings in connections] == [5.0, 5.0, 0.0]
    assert {(settings["sync"], settings["journal_limit"]) for settings in connections} == {(False, 262_144)}
    ledger.close()


def test_a_command_waits_five_seconds_for_a_lock(
    tmp_path: Path, connections: list[dict[str, object]]
) -> None:
    """What it deletes is on the disk then, and leaves no journal."""
    fill(tmp_path, [b"e"])
    connections.clear()
    letters_module.LetterFile(str(tmp_path / NAME)).close()
    assert connections == [{"patience": 5.0, "sync": True, "journal_limit": 0}]


def test_pauses_by_example(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """From 0.1 to 30 seconds, twice as long each time; a lock is logged at its fifth failure."""
    clock = FakeClock()
    ledger = opened(tmp_path, clock=clock)
    lock = locked(tmp_path)
    pauses: list[float] = []
    logged: list[int] = []
    ledger.enter(batch_of(1, (IDENTITIES[0], 0, 5)))
    for _ in range(12):
        pauses.append(ledger.retry_at - clock.now)
        logged.append(len(caplog.records))
        clock.now = ledger.retry_at - 0.01
        before = ledger.retry_at
        ledger.retry()
        assert before == ledger.retry_at, "it was tried too early"
        clock.now = ledger.retry_at
        ledger.retry()
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0])
    assert logged == [0, 0, 0, 0, *[1] * 8]
    lock.close()
    clock.now = ledger.retry_at
    ledger.retry()
    assert ledger.error is None
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]
    lock = locked(tmp_path)
    ledger.enter(batch_of(2, (IDENTITIES[0], 5, 9)))
    assert ledger.retry_at - clock.now == pytest.approx(0.1)
    lock.close()
    ledger.close()
    assert len(caplog.records) == 2


def test_a_letter_keeps_a_kilobyte_of_a_response(tmp_path: Path) -> None:
    """Its first bytes."""
    fill(tmp_path, [b"e"], excerpt=b"x" * 1_024 + b"y")
    assert [letter.excerpt for letter in written(tmp_path)] == [b"x" * 1_024]


@pytest.mark.parametrize(("count", "transactions"), [(0, 0), (1, 1), (100, 1), (101, 2), (200, 2)])
def test_letters_are_deleted_in_steps_of_a_hundred(tmp_path: Path, count: int, transactions: int) -> None:
    """Each is a transaction, so that the publisher can write meanwhile."""
    fill(tmp_path, [b"%d" % number for number in range(count + 1)])
    statements: list[str] = []
    with letter_file(tmp_path) as file:
        file._connection.set_trace_callback(statements.append)  # pyright: ignore[reportPrivateUsage]
        numbers = file.numbers()
        assert file.purge(numbers[:count]) == count
        assert sum(statement == "COMMIT" for statement in statements) == transactions
        assert file.numbers() == numbers[count:]


@pytest.mark.parametrize(("more", "dropped"), [(0, 0), (1, 1), (69, 1), (70, 1), (71, 2)])
def test_as_few_letters_are_dropped_as_fit(tmp_path: Path, more: int, dropped: int) -> None:
    """A letter counts for 64 bytes more than what it holds; those that fit exactly stay."""
    ledger = opened(tmp_path, max_letters_size=4 * 70 - more)
    assert ledger.resolve((), [DeadLetter(b"eeee", 400, "r", b"x") for _ in range(4)]) == dropped
    assert ledger.letters_dropped == dropped
    assert ledger.letters == (4 - dropped, 70 * (4 - dropped))
    ledger.close()


def test_one_change_is_one_statement(tmp_path: Path) -> None:
    """It needs no transaction; more changes are one together, and so are letters."""
    ledger = opened(tmp_path)
    statements: list[str] = []
    connection = ledger._connection  # pyright: ignore[reportPrivateUsage]
    assert connection is not None
    connection.set_trace_callback(statements.append)
    ledger.enter(batch_of(1, (IDENTITIES[0], 0, 5)))
    assert [statement.split(" ")[0] for statement in statements] == ["INSERT"]
    statements.clear()
    ledger.finish((1, 0))
    assert [statement.split(" ")[0] for statement in statements] == ["BEGIN", "DELETE", "INSERT", "COMMIT"]
    statements.clear()
    ledger.resolve((), [letter_of(b"e")])
    assert [statement.split(" ")[0] for statement in statements][:: len(statements) - 1] == [
        "BEGIN",
        "COMMIT",
    ]
    ledger.close()


def test_the_defaults_are_the_safe_and_fast_ones() -> None:
    """A file for its owner only, which isn't forced onto the disk."""
    parameters = inspect.signature(ledger_module.Ledger).parameters
    assert (parameters["mode"].default, parameters["sync"].default) == (0o600, False)


def test_a_ledger_may_be_used_in_another_thread_than_it_was_opened_in(tmp_path: Path) -> None:
    """One at a time."""
    ledger = opened(tmp_path)
    thread = threading.Thread(target=ledger.enter, args=(batch_of(1, (IDENTITIES[0], 0, 5)),))
    thread.start()
    thread.join()
    assert ledger.error is None
    ledger.close()
    again = opened(tmp_path)
    assert [batch.order for batch in again.unfinished()] == [(1, 0)]
    again.close()
