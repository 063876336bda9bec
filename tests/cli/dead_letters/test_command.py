from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import sqlite3
import stat
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.__main__ import main
from baseplate_events._words import counted
from baseplate_events.cli.dead_letters import command as command_module
from baseplate_events.errors import EventError
from baseplate_events.event_publisher.ledger.file import LETTERS_NAME, LedgerError
from baseplate_events.event_publisher.ledger.letters import LetterFile, damage_of
from baseplate_events.events import SPOOL_VARIABLE
from baseplate_events.spool.directory import SpoolDirectory
from baseplate_events.spool.permissions import PRIVATE, SHARED
from baseplate_events.transport.posix import MessageQueue
from tests.support.commands import Result, call
from tests.support.examples import examples
from tests.support.ledgers import NAME, events_written, fill, letter_file, letter_of, opened
from tests.support.processes import PIPE, finish, started
from tests.support.queues import FEW, SMALL, drain, fresh_name, reader
from tests.support.spool_reader import SpoolFileReader
from tests.support.strategies import any_events
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from contextlib import AbstractContextManager

    from tests.support.processes import Process

#: Fewer examples, as each makes files.
few = examples(40)


@contextlib.contextmanager
def queue_of_name() -> Generator[tuple[str, MessageQueue]]:
    """Create a small queue; yield the NAME of its `/events-NAME`, and the queue."""
    with fresh_name("/events-test-") as name, reader(name) as queue:
        yield name.removeprefix("/events-"), queue


def replay(directory: str, queue_name: str, *words: str, timeout: str = "0 seconds") -> Result:
    """Run `dead-letters replay` for a small queue, in this process."""
    return call("dead-letters", "replay", directory, *replay_options(queue_name, timeout), *words)


def replay_options(queue_name: str, timeout: str) -> list[str]:
    """Return the options of `dead-letters replay` for a small queue."""
    sizes = ["--max-queue-size", str(FEW), "--max-event-size", str(SMALL)]
    return ["--queue-name", queue_name, "--timeout", timeout, *sizes]


def lines_of(events: Sequence[bytes]) -> str:
    """Return what `show` writes for these events."""
    return b"".join(event + b"\n" for event in events).decode(errors="surrogateescape")


def test_list_shows_everything_but_the_event(tmp_path: Path) -> None:
    """`list` shows number, time, status, size and reason, for people and as JSON, and never the event."""
    path = str(tmp_path)
    now = 1_000_000_000.25
    fill(path, [b"private"], now=now, reason="bad\x1b[31m caf\xe9", excerpt=b"no\xff")
    fill(path, [b"private too"], now=now, status=None, reason="retry.max_age")
    said = call("dead-letters", "list", path)
    head, first, second = said.out.splitlines()
    assert ["NUMBER", "TIME", "STATUS", "SIZE", "REASON"] == head.split()
    assert ["1", "2001-09-09T01:46:40.250Z", "400", "7", "bytes", r"bad\x1b[31m", "caf\xe9"] == first.split()
    assert ["2", "2001-09-09T01:46:40.250Z", "-", "11", "bytes", "retry.max_age"] == second.split()
    assert (0, "") == (said.status, said.err)
    said = call("dead-letters", "list", path, "--json")
    assert {
        "number": 1,
        "time": "2001-09-09T01:46:40.250Z",
        "status": 400,
        "size": 7,
        "reason": "bad\x1b[31m caf\xe9",
        "excerpt": "no\N{REPLACEMENT CHARACTER}",
    } == json.loads(said.out.splitlines()[0])
    assert "private" not in said.out
    empty = tmp_path / "empty"
    empty.mkdir()
    fill(empty, [])
    assert Result(0, "", "") == call("dead-letters", "list", str(empty))


def test_the_file_is_found_where_operators_look(tmp_path: Path) -> None:
    """DIRECTORY may be the spool's folder, the directory around it, that of letters alone, or the file."""
    spool, alone = tmp_path / "spool", tmp_path / "alone"
    for folder in (spool, spool / "events-v2", alone):
        folder.mkdir()
    fill(spool / "events-v2", [b"1"])
    fill(alone, [b"2"], name=LETTERS_NAME)
    for path in (spool, spool / "events-v2", spool / "events-v2" / NAME):
        assert Result(0, "1\n", "") == call("dead-letters", "show", str(path), "--all")
    for path in (alone, alone / LETTERS_NAME):
        assert Result(0, "2\n", "") == call("dead-letters", "show", str(path), "--all")
    (spool / "events-v3").mkdir()
    fill(spool / "events-v3", [])
    said = call("dead-letters", "list", str(spool))
    assert (2, "") == (said.status, said.out)
    assert f"{spool}/events-v2/{NAME}, {spool}/events-v3/{NAME}; give one of these" in said.err
    said = call("dead-letters", "list", str(tmp_path))
    assert said.status == 2
    assert f"no {NAME} and no {LETTERS_NAME}; give the folder events-NAME" in said.err


@few
@given(st.lists(any_events, max_size=4), st.data())
def test_show_gives_the_events_themselves(events: list[bytes], data: st.DataObject) -> None:
    """`show` writes the selected events unchanged and in order, each with a newline."""
    with tempfile.TemporaryDirectory() as path:
        fill(path, events)
        assert Result(0, lines_of(events), "") == call("dead-letters", "show", path, "--all")
        if events:
            numbers = st.integers(1, len(events))
            named = data.draw(st.lists(numbers, min_size=1), label="named")
            said = call("dead-letters", "show", path, *map(str, named))
            assert Result(0, lines_of([events[number - 1] for number in sorted(set(named))]), "") == said


def test_a_number_that_isnt_there_is_reported(tmp_path: Path) -> None:
    """`show` and `replay` do what they can, and exit with 1 if a named letter doesn't exist."""
    path = str(tmp_path)
    fill(path, [b"1"])
    said = call("dead-letters", "show", path, "1", "2", "71")
    assert Result(1, "1\n", "there is no letter 2\nthere is no letter 71\n") == said
    with queue_of_name() as (name, queue):
        said = replay(path, name, "1", "2")
        assert (1, "there is no letter 2\n") == (said.status, said.err)
        assert [b"1"] == drain(queue)


def test_a_damaged_letter_costs_itself(tmp_path: Path) -> None:
    """All actions report a damaged letter, and go on with the others; `purge` deletes it."""
    path = str(tmp_path)
    fill(path, [b"1", b"2", b"3"])
    with sqlite3.connect(tmp_path / NAME) as connection:
        connection.execute("UPDATE letters SET time = 'noon' WHERE number = 2")
    connection.close()
    expected = f"{damage_of(2)}\n"
    said = call("dead-letters", "list", path)
    assert (1, 3, expected) == (said.status, len(said.out.splitlines()), said.err)
    assert Result(1, "1\n3\n", expected) == call("dead-letters", "show", path, "--all")
    with queue_of_name() as (name, queue):
        said = replay(path, name)
        assert (1, expected) == (said.status, said.err)
        assert [b"1", b"3"] == drain(queue)
    assert Result(0, "deleted 1 letter\n", "") == call("dead-letters", "purge", path, "--yes")
    assert [] == events_written(path)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["show", "{path}"], "--all"),
        (["show", "{path}", "--all", "1"], "--all"),
        (["show", "{path}", "1:1"], "whole number"),
        (["show", "{path}", "0"], "whole number"),
        (["replay", "{path}", "--queue-name", "a", "--spool-directory", "{path}"], "the spool"),
        (["replay", "{path}"], "--queue-name"),
        (["replay", "{path}", "--queue-name", "a/b"], "slash"),
        (["replay", "{path}", "--queue-name", "a", "--timeout", "3"], "30 seconds"),
        (["replay", "{path}", "--queue-name", "a", "--max-queue-size", "0"], "max_messages"),
        (["purge", "{path}", "--older-than", "-1 days"], "7 days"),
        (["purge", "{path}"], "--yes"),
        (["list", "{path}/nowhere"], "no such folder or file"),
        (["list"], "CONFIG|DIRECTORY"),
        (["lost", "{path}"], "replay"),
        ([], "ACTION"),
    ],
)
def test_a_mistake_in_the_command_line_is_reported(tmp_path: Path, words: list[str], expected: str) -> None:
    """A mistake ends the command with 2 and a line on stderr, and changes nothing."""
    path = str(tmp_path)
    fill(path, [b"1"])
    said = call("dead-letters", *(word.format(path=path) for word in words))
    assert (2, "") == (said.status, said.out)
    assert expected in said.err
    assert [b"1"] == events_written(path)


@pytest.mark.parametrize("action", ["list", "show", "replay", "purge"])
def test_every_action_has_a_help_page(action: str) -> None:
    """`--help` of an action lists its arguments."""
    said = call("dead-letters", action, "--help")
    assert said.status == 0
    assert "CONFIG|DIRECTORY" in said.out


def test_replay_makes_the_queue_that_isnt_there(tmp_path: Path) -> None:
    """A queue that doesn't exist is created, as by a publisher."""
    path = str(tmp_path)
    fill(path, [b"1", b"2"])
    with fresh_name("/events-test-") as name:
        said = replay(path, name.removeprefix("/events-"))
        assert Result(0, f"put 2 events on {name}\n", "") == said
        with reader(name) as queue:
            assert [b"1", b"2"] == drain(queue)
            assert (FEW, SMALL) == (queue.max_messages, queue.max_message_size)
    assert not events_written(path)


@few
@given(st.lists(any_events, min_size=1, max_size=4), st.booleans(), st.sampled_from((PRIVATE, SHARED)))
def test_replay_into_a_spool(events: list[bytes], by_variable: bool, mode: int) -> None:
    """With --spool-directory or the variable of services, events go into the spool, as a service's do."""
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        place = SpoolDirectory(directory, "v2", mode=mode)
        place.prepare()
        fill(place.path, events)
        words = ["replay", place.path, "--queue-name", "v2"]
        if by_variable:
            patch.setenv(SPOOL_VARIABLE, directory)
        else:
            words += ["--spool-directory", directory]
        said = call("dead-letters", *words)
        assert Result(0, f"put {counted(len(events), 'event')} on {place.path}\n", "") == said
        with SpoolFileReader(Path(place.path)) as found:
            assert events == found.drain()
        assert not events_written(place.path)


def test_replay_leaves_a_private_spool_private(tmp_path: Path) -> None:
    """Also one whose folder its own group may write to, which setgid alone would make shared."""
    place = SpoolDirectory(str(tmp_path), "v2", mode=PRIVATE)
    place.prepare()
    Path(place.path).chmod(0o770)
    fill(tmp_path, [b"1"])
    words = ["replay", str(tmp_path), "--queue-name", "v2", "--spool-directory", str(tmp_path)]
    assert call("dead-letters", *words).status == 0
    assert stat.S_IMODE(Path(place.path).stat().st_mode) == 0o770
    assert [stat.S_IMODE(path.stat().st_mode) for path in Path(place.path).glob("*.segment")] == [PRIVATE]


def test_a_full_spool_and_a_large_event(tmp_path: Path) -> None:
    """A spool has its own limits; letters that don't fit stay."""
    place = SpoolDirectory(str(tmp_path), "v2", mode=PRIVATE)
    place.prepare()
    fill(tmp_path, [b"1" * 2_000, b"2"])
    words = ["replay", str(tmp_path), "--queue-name", "v2", "--spool-directory", str(tmp_path)]
    said = call("dead-letters", *words, "--spool-max-size", "1000")
    assert (2, "") == (said.status, said.out)
    assert "--spool-max-size must be 1,048,576 or more" in said.err
    said = call("dead-letters", *words, "--max-event-size", "1000")
    assert (1, f"put 1 event on {place.path}\n") == (said.status, said.out)
    assert "letter 1 is unchanged" in said.err
    (Path(place.path) / "ballast.segment").write_bytes(os.urandom(1_100_000))
    said = call("dead-letters", *words, "--spool-max-size", "1048576", "--timeout", "0 seconds")
    assert (1, f"put 0 events on {place.path}\n") == (said.status, said.out)
    assert "full" in said.err
    assert [b"1" * 2_000] == events_written(tmp_path)


def test_a_full_queue_is_waited_for_and_reported(tmp_path: Path) -> None:
    """`replay` waits for room up to its timeout, then ends with 1; letters that weren't put stay."""
    path = str(tmp_path)
    events = [b"%d" % index for index in range(FEW + 2)]
    fill(path, events)
    with queue_of_name() as (name, queue):
        said = replay(path, name, timeout="150 milliseconds")
        assert said.status == 1
        assert "full" in said.err
        assert f"put {FEW} events" in said.out
        assert events[FEW:] == events_written(path)
        got: list[bytes] = []

        def take_one_after_the_other() -> None:
            while len(got) < len(events):
                event = queue.get(timeout=PATIENCE)
                got.append(event or b"nothing came")

        consumer = threading.Thread(target=take_one_after_the_other)
        consumer.start()
        said = replay(path, name, timeout="30 seconds")
        consumer.join(PATIENCE)
        assert (0, "") == (said.status, said.err)
        assert events == got
        assert not events_written(path)


def test_an_event_too_large_for_the_queue_stays(tmp_path: Path) -> None:
    """A letter whose event the queue can't take stays and is reported; the others are put."""
    path = str(tmp_path)
    fill(path, [b"1", b"2" * (SMALL + 1), b"3"])
    with queue_of_name() as (name, queue):
        said = replay(path, name)
        assert said.status == 1
        assert "letter 2 is unchanged" in said.err
        assert "222" not in said.err
        assert [b"1", b"3"] == drain(queue)
        assert [b"2" * (SMALL + 1)] == events_written(path)


def test_a_disk_that_fails_after_a_put_is_reported(tmp_path: Path) -> None:
    """A letter that can't be deleted after its put is the only one that is put twice."""
    path = str(tmp_path)
    fill(path, [b"1", b"2"])
    with queue_of_name() as (name, queue):
        error = LedgerError(path, "letters can't be deleted: disk I/O error")
        with mock.patch.object(LetterFile, "purge", side_effect=error):
            said = replay(path, name)
        assert (1, f"put 1 event on /events-{name}\n") == (said.status, said.out)
        assert "can't be deleted: disk I/O error" in said.err
        assert replay(path, name).status == 0
        assert [b"1", b"1", b"2"] == drain(queue)


def test_a_publisher_that_runs_counts_what_is_left(tmp_path: Path) -> None:
    """A publisher may write letters before, during and after a replay, and its counts stay right."""
    ledger = opened(tmp_path)
    ledger.resolve((), [letter_of(b"1"), letter_of(b"2")])
    put = MessageQueue.put

    def put_and_write(queue: MessageQueue, message: bytes, timeout: float = 0.0) -> None:
        ledger.resolve((), [letter_of(b"later " + message)])
        put(queue, message, timeout)

    with queue_of_name() as (name, queue):
        with mock.patch.object(MessageQueue, "put", put_and_write):
            assert replay(str(tmp_path), name).status == 0
        assert [b"1", b"2"] == drain(queue)
    assert ledger.error is None
    assert [b"later 1", b"later 2"] == events_written(tmp_path)
    with letter_file(tmp_path) as file:
        assert (2, file.totals()[1]) == ledger.letters
    ledger.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_replay_puts_nothing_twice(tmp_path: Path, number: signal.Signals) -> None:
    """An interrupted replay exits with 1: letters that were put are deleted, the others stay."""
    path = str(tmp_path)
    events = [b"%d" % index for index in range(FEW + 4)]
    fill(path, events)
    with queue_of_name() as (name, queue):
        with _replaying(path, name) as process:
            wait_until(
                lambda: queue.current_messages == FEW and len(events_written(path)) == 4,
                "the queue does not fill up",
                process=process,
            )
            process.send_signal(number)
            result = finish(process)
        assert (1, f"put {FEW} events on {queue.name}\n") == (result.status, result.out)
        assert result.err.startswith("interrupted")
        assert events == [*drain(queue), *events_written(path)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cant_come_between_a_put_and_its_deletion(tmp_path: Path, number: signal.Signals) -> None:
    """After a signal right after a put, that letter is deleted and no other is put; handlers are restored."""
    path = str(tmp_path)
    put = MessageQueue.put

    def put_and_raise(queue: MessageQueue, message: bytes, timeout: float = 0.0) -> None:
        put(queue, message, timeout)
        signal.raise_signal(number)

    before = signal.getsignal(number)
    fill(path, [b"1", b"2"])
    with queue_of_name() as (name, queue):
        with mock.patch.object(MessageQueue, "put", put_and_raise):
            said = replay(path, name)
        assert (1, "interrupted") == (said.status, said.err.partition(";")[0])
        assert [b"1"] == drain(queue)
        assert [b"2"] == events_written(path)
    assert before == signal.getsignal(number)


def test_a_killed_replay_loses_nothing(tmp_path: Path) -> None:
    """A replay that is killed leaves every event on the queue or on disk, at most one of them on both."""
    path = str(tmp_path)
    events = [b"%d" % index for index in range(FEW + 2)]
    fill(path, events)
    with queue_of_name() as (name, queue):
        with _replaying(path, name) as process:
            wait_until(lambda: queue.current_messages >= 1, "nothing is put", process=process)
            process.kill()
        found = [*drain(queue), *events_written(path)]
        assert set(events) == set(found)
        assert len(found) <= len(events) + 1
        fill(path, [b"later"])  # its locks ended with it
        assert [b"later"] == events_written(path)[-1:]
        with letter_file(path) as file:
            file.replay(file.numbers()[:1], lambda _number, _event: True)


def _replaying(path: str, name: str) -> AbstractContextManager[Process]:
    command = (sys.executable, "-m", "baseplate_events", "dead-letters", "replay", path)
    return started(*command, *replay_options(name, "1 hour"), stdout=PIPE, stderr=PIPE)


def test_a_queue_that_goes_away_leaves_the_letters(tmp_path: Path) -> None:
    """A replay whose queue can't be opened ends with 1 and changes nothing."""
    path = str(tmp_path)
    fill(path, [b"1"])
    error = EventError("no queue")
    with mock.patch.object(command_module, "MessageQueue", side_effect=error):
        assert Result(1, "", "no queue\n") == replay(path, "main")
    assert [b"1"] == events_written(path)


def _on_terminal(words: Sequence[str], keys: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Run a command on a terminal, with these keys pressed; return what it showed."""
    controller, terminal = pty.openpty()
    os.write(controller, keys)
    with (
        os.fdopen(controller, "rb", buffering=0) as screen,
        os.fdopen(terminal, encoding="utf-8", closefd=False) as stdin,
        os.fdopen(terminal, "w", encoding="utf-8") as stderr,
    ):
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stderr", stderr)
        status = main(["dead-letters", *words])
        stderr.write("\x04")
        stderr.flush()
        shown = b""
        while not shown.endswith(b"\x04"):
            shown += screen.read(1_024)
    monkeypatch.undo()
    return status, shown.decode()


@pytest.mark.parametrize("answer", ["y", "YES", "n", "", "yess"])
def test_purge_asks_on_a_terminal(tmp_path: Path, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`purge` says how many letters are affected, and deletes only after a clear yes."""
    path = str(tmp_path)
    fill(path, [b"1", b"2"])
    status, shown = _on_terminal(["purge", path], f"{answer}\n".encode(), monkeypatch)
    assert f"Delete 2 letters of {path} permanently?" in shown
    agreed = answer in {"y", "YES"}
    assert (0 if agreed else 1) == status
    assert ([] if agreed else [b"1", b"2"]) == events_written(path)


@dataclass(frozen=True)
class _Terminal:
    """The part of a terminal that a question needs."""

    readline: Callable[[], str]

    def isatty(self) -> bool:
        return True


def test_purge_deletes_only_what_was_asked_about(tmp_path: Path) -> None:
    """Letters written while `purge` waits for its answer stay."""
    path = str(tmp_path)
    ledger = opened(path)
    ledger.resolve((), [letter_of(b"1"), letter_of(b"2")])

    def answer() -> str:
        ledger.resolve((), [letter_of(b"3")])
        return "y\n"

    with mock.patch.object(sys, "stdin", _Terminal(answer)):
        assert main(["dead-letters", "purge", path]) == 0
    assert [b"3"] == events_written(path)
    assert ledger.letters[0] == 1
    ledger.close()


@few
@given(st.lists(st.integers(0, 10), max_size=6), st.integers(0, 10))
def test_purge_deletes_what_is_older(ages: list[int], limit: int) -> None:
    """Only letters older than --older-than go."""
    with tempfile.TemporaryDirectory() as path, mock.patch.object(command_module, "time") as clock:
        clock.time.return_value = 1_000_000_000.0
        fill(path, [])
        for age in ages:
            fill(path, [b"%d" % age], now=1_000_000_000.0 - 86_400 * age)
        words = ["purge", path, "--yes", "--older-than", f"{limit} days"]
        gone = sum(age > limit for age in ages)
        said = f"deleted {counted(gone, 'letter')}\n" if gone else "nothing to delete\n"
        assert Result(0, said, "") == call("dead-letters", *words)
        assert [b"%d" % age for age in ages if age <= limit] == events_written(path)


def test_interrupting_the_question_deletes_nothing(tmp_path: Path) -> None:
    """Ctrl-C at the question ends with 1, without a traceback."""
    path = str(tmp_path)

    def answer() -> str:
        raise KeyboardInterrupt

    fill(path, [b"1"])
    with mock.patch.object(sys, "stdin", _Terminal(answer)):
        assert main(["dead-letters", "purge", path]) == 1
    assert [b"1"] == events_written(path)


def test_replay_shows_its_progress_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a long replay shows its progress; the result still goes to stdout."""
    path = str(tmp_path)
    fill(path, [b"%d" % index for index in range(FEW + 1)])
    with queue_of_name() as (name, _):
        words = ["replay", path, *replay_options(name, "500 milliseconds")]
        status, shown = _on_terminal(words, b"", monkeypatch)
    assert status == 1
    assert f"\r{FEW} of {FEW + 1} events put" in shown
    assert "full" in shown


def test_a_reader_that_is_gone_is_no_traceback(tmp_path: Path) -> None:
    """A reader that leaves early, such as `head`, ends the command silently with 1."""
    path = str(tmp_path)
    fill(path, [b"e" * 1_000] * 200)
    for words in (["show", path, "--all"], ["list", path, "--json"]):
        command = (sys.executable, "-m", "baseplate_events", "dead-letters", *words)
        # With a buffer, in which Python finds something to write once more at its end.
        buffered = {"PYTHONUNBUFFERED": None}
        with started(*command, stdout=PIPE, stderr=PIPE, environ=buffered) as process:
            assert process.stdout is not None
            process.stdout.close()
            assert Result(1, "", "") == finish(process)
