from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.ledger.file import LedgerError
from baseplate_events.event_publisher.ledger.letters import (
    MAX_EXCERPT,
    DamagedLetterError,
    LetterFile,
)
from baseplate_events.event_publisher.ledger.rows import OVERHEAD
from baseplate_events.event_publisher.policy.journal import DeadLetter
from baseplate_events.event_publisher.policy.span import Span
from tests.support.examples import examples
from tests.support.ledgers import (
    NAME,
    events_written,
    fill,
    letter_file,
    letter_of,
    letters_in,
    opened,
    written,
)
from tests.support.processes import PIPE, Process, finish, hear, say, started
from tests.support.queues import needs_root
from tests.support.strategies import answers, any_events, refusals, texts

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

few = examples(40)


def size_of(letter: DeadLetter) -> int:
    """Return the accounted bytes of a letter."""
    return OVERHEAD + len(letter.event) + len(letter.reason.encode()) + len(letter.excerpt[:MAX_EXCERPT])


@few
@given(st.lists(st.tuples(any_events, refusals, texts, answers, st.floats(0, 1e10)), max_size=4))
def test_what_is_written_is_read(given_letters: list[tuple[bytes, int | None, str, bytes, float]]) -> None:
    """A letter keeps the exact event, time, status, reason, queue, and the start of its excerpt."""
    with tempfile.TemporaryDirectory() as folder:
        moments = [time for *_, time in given_letters]
        ledger = opened(folder, wall_time=iter(moments).__next__)
        expected: list[DeadLetter] = []
        for event, status, text, excerpt, _ in given_letters:
            ledger.resolve((), [DeadLetter(event, status, text, excerpt)])
            reason = text.encode(errors="backslashreplace").decode()
            expected.append(DeadLetter(event, status, reason, excerpt[:MAX_EXCERPT]))
        assert expected == written(folder)
        assert (len(expected), sum(map(size_of, expected))) == ledger.letters
        found = letters_in(folder)
        ledger.close()
    assert [(time, "v2") for time in moments] == [(letter.time, letter.queue) for letter in found]
    for letter in found:  # what describes one shows neither its event nor the collector's words
        assert repr(letter) == f"<letter of queue 'v2', status {letter.status}>"


@few
@given(
    st.lists(st.lists(st.integers(0, 400), min_size=1, max_size=3), max_size=15),
    st.integers(1, 2_000),
    st.integers(1, 2_000),
)
def test_the_oldest_are_dropped_and_counted(
    groups: list[list[int]], max_size: int, next_max_size: int
) -> None:
    """Letters never exceed their limit, except a single one; only as few as necessary are dropped."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = opened(folder, max_letters_size=max_size)
        all_letters: list[DeadLetter] = []
        for group in groups:
            some = [letter_of(b"e" * size) for size in group]
            before = ledger.letters_dropped
            assert ledger.resolve((), some) == ledger.letters_dropped - before
            all_letters += some
            check_bound(all_letters, written(folder), max_size)
            assert len(all_letters) == ledger.letters_dropped + ledger.letters[0]
        ledger.close()
        left = written(folder)
        again = opened(folder, max_letters_size=next_max_size)
        if all_letters:
            check_bound(left, written(folder), next_max_size)
        assert len(left) == again.letters_dropped + again.letters[0]
        again.close()


def check_bound(all_letters: list[DeadLetter], left: list[DeadLetter], max_size: int) -> None:
    """Check that the newest letters that fit are left, at least one."""
    sizes = [size_of(letter) for letter in all_letters]
    count = next(
        (count for count in range(len(sizes), 0, -1) if sum(sizes[len(sizes) - count :]) <= max_size), 1
    )
    assert all_letters[len(all_letters) - count :] == left


def test_a_reason_may_be_any_text(tmp_path: Path) -> None:
    """SQLite takes no lone surrogates, which are escaped."""
    fill(tmp_path, [b"e"], reason="a\udcffb\0c")
    assert ["a\\udcffb\0c"] == [letter.reason for letter in written(tmp_path)]


def test_a_letter_counts_for_its_bytes() -> None:
    """The limit includes the overhead of letters."""
    assert OVERHEAD + 5 + 2 + 7 == size_of(letter_of(b"event"))


@few
@given(st.integers(0, 250), st.sets(st.integers(1, 250)))
def test_purge_deletes_what_it_is_given(count: int, chosen: set[int]) -> None:
    """Only the given letters are deleted, no number is reused, and the publisher's counts stay right."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = opened(folder)
        ledger.resolve((), [letter_of(b"%d" % number) for number in range(count)])
        with letter_file(folder) as file:
            numbers = file.numbers()
            assert list(range(1, count + 1)) == numbers
            gone = chosen & set(numbers)
            assert len(gone) == file.purge(sorted(chosen))
            assert file.purge(sorted(gone)) == 0
            left = [letter_of(b"%d" % (number - 1)) for number in numbers if number not in gone]
            assert (len(left), sum(map(size_of, left))) == ledger.letters == file.totals()
            assert [number for number in numbers if number not in gone] == file.numbers()
            ledger.resolve((), [letter_of(b"new")])
            assert ledger.letters[0] == len(left) + 1
            file.purge(file.numbers())
            ledger.close()
            again = opened(folder)
            again.resolve((), [letter_of(b"newer")])
            (number,) = file.numbers()
            assert number > max(numbers, default=0)
            again.close()


def test_purge_gives_room_back_and_leaves_no_traces(tmp_path: Path) -> None:
    """The files get smaller and have nothing left of the events, also while the publisher has them open."""
    ledger = opened(tmp_path)
    ledger.resolve((), [letter_of(b"secret" + os.urandom(10_000)) for _ in range(60)])
    ledger.resolve((), [letter_of(b"small secret"), letter_of(b"other")])
    with letter_file(tmp_path) as file:
        assert file.purge(file.numbers()[:-1]) == 61
    assert all(b"secret" not in path.read_bytes() for path in tmp_path.iterdir())
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 100_000
    ledger.close()


@few
@given(st.lists(st.booleans(), max_size=8), st.integers(0, 8))
def test_replay_deletes_what_was_put(answers_given: list[bool], fails_at: int) -> None:
    """A letter is deleted after its put and before the next; an error leaves it and the rest."""
    with tempfile.TemporaryDirectory() as folder:
        fill(folder, [b"%d" % number for number in range(len(answers_given))])
        seen: list[int] = []
        left: list[int] = []
        with letter_file(folder) as file:
            numbers = file.numbers()

            def put(number: int, event: bytes) -> bool:
                assert [*left, *numbers[len(seen) :]] == file.numbers()
                if len(seen) == fails_at:
                    raise InterruptedError
                assert event == b"%d" % len(seen)
                answer = answers_given[len(seen)]
                seen.append(number)
                if not answer:
                    left.append(number)
                return answer

            if fails_at < len(answers_given):
                with pytest.raises(InterruptedError):
                    file.replay(numbers, put)
            else:
                file.replay([*numbers, 999], put)
            assert [*left, *numbers[len(seen) :]] == file.numbers()


def test_a_damaged_letter_is_never_replayed(tmp_path: Path) -> None:
    """A damaged letter is reported, affects no other, and can be purged."""
    fill(tmp_path, [b"one", b"two", b"three"])
    with sqlite3.connect(tmp_path / NAME) as connection:
        connection.execute("UPDATE letters SET event = x'74774f' WHERE number = 2")
    connection.close()
    with letter_file(tmp_path) as file:
        with pytest.raises(DamagedLetterError, match="letter 2 is damaged; purge it"):
            file.read(2)
        seen: list[bytes] = []

        def put(number: int, event: bytes) -> bool:
            seen.append(event)
            return number == 1

        assert [2] == file.replay(file.numbers(), put)
        assert [b"one", b"three"] == seen
        assert file.purge([2]) == 1
        assert file.read(2) is None
        assert [3] == file.numbers()


@pytest.mark.parametrize(
    "damage",
    ["UPDATE letters SET event = NULL", "UPDATE totals SET size = 9000000000", "DELETE FROM totals"],
)
def test_damage_drops_no_letters_and_stops_none(damage: str, tmp_path: Path) -> None:
    """The accounted bytes are recomputed at the start; a damaged letter counts as 0."""
    fill(tmp_path, [b"one", b"two"])
    with sqlite3.connect(tmp_path / NAME) as connection:
        connection.execute(damage)
    connection.close()
    ledger = opened(tmp_path)
    assert ledger.resolve((), [letter_of(b"three")]) == 0
    assert ledger.letters[0] == 3
    assert ledger.letters[1] <= 3 * size_of(letter_of(b"three"))
    ledger.close()


def test_two_commands_that_replay_are_kept_apart(tmp_path: Path) -> None:
    """A second replay is an error; reading works in the meantime."""
    fill(tmp_path, [b"one"])
    with (tmp_path / NAME).open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with letter_file(tmp_path) as file:
            with pytest.raises(LedgerError, match="another command"):
                file.replay([1], lambda _number, _event: True)
            assert [1] == file.numbers()
    with letter_file(tmp_path) as file:
        file.replay([1], lambda _number, _event: True)
        assert [] == file.numbers()


@needs_root
def test_what_root_does_leaves_the_files_to_their_owner(tmp_path: Path) -> None:
    """After a command of root, the ledger's owner can still use all files, also the journal."""
    fill(tmp_path, [b"one", b"two"])
    (tmp_path / f"{NAME}-journal").unlink()
    os.chown(tmp_path / NAME, 12_345, 12_346)
    with letter_file(tmp_path) as file:
        file.replay([1], lambda _number, _event: True)
        owners = {(path.stat().st_uid, path.stat().st_gid) for path in tmp_path.iterdir()}
        assert {(12_345, 12_346)} == owners
        assert (tmp_path / f"{NAME}-journal").exists()


def test_a_ledger_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    """Commands name the file and what is wrong; they create and change none."""
    path = tmp_path / NAME
    with pytest.raises(LedgerError, match="No such file"):
        LetterFile(str(path))
    path.write_bytes(b"")
    with pytest.raises(LedgerError, match="is empty; restart its publisher"):
        LetterFile(str(path))
    path.write_bytes(b"x" * 5_000)
    with pytest.raises(LedgerError, match="isn't a ledger"):
        LetterFile(str(path))
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerError, match="regular file"):
        LetterFile(str(path))


REPLAY = """
import sys
from baseplate_events.event_publisher.ledger.letters import LetterFile
file = LetterFile(sys.argv[1])
numbers = file.numbers()
print("ready", flush=True)
sys.stdin.readline()
def put(number, event):
    print(number, flush=True)
    return True
file.replay(numbers, put)
"""


@contextlib.contextmanager
def replaying(folder: Path) -> Generator[Process]:
    """Run `REPLAY` in a process of its own, from the moment when it begins to put events."""
    with started(sys.executable, "-c", REPLAY, folder / NAME, stdin=PIPE, stdout=PIPE) as process:
        assert hear(process) == "ready"
        say(process)
        yield process


@pytest.mark.parametrize("after", [1, 7, 40])
def test_a_killed_replay_repeats_at_most_one(after: int, tmp_path: Path) -> None:
    """A real process that is killed leaves at most one letter whose event was put."""
    fill(tmp_path, [b"%d" % number for number in range(60)])
    with replaying(tmp_path) as process:
        put = [int(hear(process)) for _ in range(after)]
        process.kill()
        put += [int(line) for line in finish(process).out.splitlines()]
    with letter_file(tmp_path) as file:
        left = file.numbers()
    assert list(range(1, 61)) == sorted({*put, *left})
    assert len(set(put) & set(left)) <= 1


def test_a_publisher_writes_letters_while_a_command_deletes_some(tmp_path: Path) -> None:
    """Publisher and command don't block each other for long, and no letter is lost."""
    ledger = opened(tmp_path, clock=time.monotonic)
    ledger.resolve((), [letter_of(b"old %d" % number) for number in range(60)])
    with replaying(tmp_path) as process:
        assert process.stdout is not None
        kept: list[bytes] = []
        lines = 0
        while process.stdout.readline():
            lines += 1
            with contextlib.suppress(LedgerError):
                ledger.resolve([Span(b"A" * 16, lines, lines + 1)], [letter_of(b"new %d" % lines)])
                kept.append(b"new %d" % lines)
    assert (0, 60) == (process.returncode, lines)
    ledger.retry_at = 0.0
    ledger.retry()
    assert ledger.error is None
    assert kept == events_written(tmp_path)
    assert len(kept) == ledger.letters[0]
    ledger.close()
