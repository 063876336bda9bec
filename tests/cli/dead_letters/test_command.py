from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.__main__ import main
from baseplate_events.cli.dead_letters import command as command_module
from baseplate_events.errors import EventError
from baseplate_events.transport.posix import MessageQueue
from tests.support.commands import Result, call
from tests.support.dead_letters import (
    entries,
    events_in,
    few,
    files,
    folder,
    letters_in,
    queue_of_name,
    replay,
    replay_options,
    write_all,
    writer,
)
from tests.support.queues import FEW, SMALL, drain, fresh_name, reader
from tests.support.strategies import any_events
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def lines_of(events: Sequence[bytes]) -> str:
    """Return what `show` writes for these events."""
    return b"".join(event + b"\n" for event in events).decode(errors="surrogateescape")


def test_list_shows_everything_but_the_event(tmp_path: Path) -> None:
    """`list` shows number, time, status, size and reason, for people and as JSON, and never the event."""
    path = str(tmp_path)
    with writer(path, now=1_000_000_000.25) as letters:
        letters.write(b"private", status=400, reason="bad\x1b[31m caf\xe9", excerpt=b"no")
        letters.write(b"private too", status=None, reason="retry.max_age")
    said = call("dead-letters", "list", path)
    head, first, second = said.out.splitlines()
    assert ["NUMBER", "TIME", "STATUS", "SIZE", "REASON"] == head.split()
    assert ["1:1", "2001-09-09T01:46:40.250Z", "400", "7", r"bad\x1b[31m", "caf\xe9"] == first.split()
    assert ["1:2", "2001-09-09T01:46:40.250Z", "-", "11", "retry.max_age"] == second.split()
    assert (0, "") == (said.status, said.err)
    said = call("dead-letters", "list", path, "--json")
    assert {
        "number": "1:1",
        "time": "2001-09-09T01:46:40.250Z",
        "status": 400,
        "size": 7,
        "reason": "bad\x1b[31m caf\xe9",
        "excerpt": "no",
    } == json.loads(said.out.splitlines()[0])
    assert "private" not in said.out
    empty = tmp_path / "empty"
    empty.mkdir()
    assert Result(0, "", "") == call("dead-letters", "list", str(empty))


@few
@given(st.lists(any_events, max_size=4), st.data())
def test_show_gives_the_events_themselves(events: list[bytes], data: st.DataObject) -> None:
    """`show` writes the events that are meant, to the byte and in their order, each with a newline."""
    with folder() as path:
        for event in events:  # each in a file of its own
            with writer(path) as letters:
                write_all(letters, [event])
        assert Result(0, lines_of(events), "") == call("dead-letters", "show", path, "--all")
        there = letters_in(path)
        if there:
            named = data.draw(st.lists(st.sampled_from(there), min_size=1), label="named")
            said = call("dead-letters", "show", path, *(str(letter.number) for letter in named))
            numbers = {letter.number for letter in named}
            shown = [letter.event for letter in there if letter.number in numbers]
            assert Result(0, lines_of(shown), "") == said


def test_a_number_that_isnt_there_is_told(tmp_path: Path) -> None:
    """`show` and `replay` do what they can and end with 1 where a letter that was named isn't there."""
    path = str(tmp_path)
    with writer(path) as letters:
        write_all(letters, [b"1"])
    said = call("dead-letters", "show", path, "1:1", "1:2", "7:1")
    assert Result(1, "1\n", "there is no letter 1:2\nthere is no letter 7:1\n") == said
    with queue_of_name() as (name, queue):
        said = replay(path, name, "1:1", "1:2")
        assert (1, "there is no letter 1:2\n") == (said.status, said.err)
        assert [b"1"] == drain(queue)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show", "{path}"], "--all"),
        (["show", "{path}", "--all", "1:1"], "--all"),
        (["show", "{path}", "1"], "3:17"),
        (["replay", "{path}"], "--queue-name"),
        (["replay", "{path}", "--queue-name", "a/b"], "slash"),
        (["replay", "{path}", "--queue-name", "a", "--timeout", "3"], "30 seconds"),
        (["replay", "{path}", "--queue-name", "a", "--max-queue-size", "0"], "max_messages"),
        (["purge", "{path}", "--older-than", "-1 days"], "7 days"),
        (["purge", "{path}"], "--yes"),
        (["list", "{path}/nowhere"], "no such folder"),
        (["list"], "DIRECTORY"),
        (["lost", "{path}"], "replay"),
        ([], "ACTION"),
    ],
)
def test_a_mistake_in_the_command_line_is_told(tmp_path: Path, words: list[str], told: str) -> None:
    """A mistake ends the command with 2 and a line on stderr, and changes nothing."""
    path = str(tmp_path)
    with writer(path) as letters:
        write_all(letters, [b"1"])
    said = call("dead-letters", *(word.format(path=path) for word in words))
    assert (2, "") == (said.status, said.out)
    assert told in said.err
    assert [b"1"] == events_in(path)


@pytest.mark.parametrize("action", ["list", "show", "replay", "purge"])
def test_every_action_has_a_help_page(action: str) -> None:
    """`--help` of an action tells its arguments."""
    said = call("dead-letters", action, "--help")
    assert said.status == 0
    assert "DIRECTORY" in said.out


def test_replay_makes_the_queue_that_isnt_there(tmp_path: Path) -> None:
    """A queue that doesn't exist is made, as a publisher would."""
    path = str(tmp_path)
    with writer(path) as letters:
        write_all(letters, [b"1", b"2"])
        with fresh_name("/events-test-") as name:
            said = replay(path, name.removeprefix("/events-"))
            assert Result(0, f"put 2 events on {name}\n", "") == said
            with reader(name) as queue:
                assert [b"1", b"2"] == drain(queue)
                assert (FEW, SMALL) == (queue.max_messages, queue.max_message_size)
        assert not entries(path)


def test_a_full_queue_is_waited_for_and_told(tmp_path: Path) -> None:
    """`replay` waits for room up to its timeout, then ends with 1; letters that weren't put stay."""
    path = str(tmp_path)
    events = [b"%d" % index for index in range(FEW + 2)]
    with writer(path) as letters, queue_of_name() as (name, queue):
        write_all(letters, events)
        said = replay(path, name, timeout="150 milliseconds")
        assert said.status == 1
        assert "full" in said.err
        assert f"put {FEW} events" in said.out
        assert events[FEW:] == events_in(path)
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
        assert not entries(path)


def test_an_event_too_large_for_the_queue_stays(tmp_path: Path) -> None:
    """A letter whose event the queue can't take stays and is told; the others are put."""
    path = str(tmp_path)
    with writer(path) as letters, queue_of_name() as (name, queue):
        write_all(letters, [b"1", b"2" * (SMALL + 1), b"3"])
        said = replay(path, name)
        assert said.status == 1
        assert "letter 1:2 stays" in said.err
        assert "222" not in said.err
        assert [b"1", b"3"] == drain(queue)
        assert [b"2" * (SMALL + 1)] == events_in(path)


def test_a_disk_that_fails_after_a_put_is_told(tmp_path: Path) -> None:
    """A letter that can't be deleted after its put is the only one that is put twice."""
    path = str(tmp_path)
    with writer(path) as letters:
        write_all(letters, [b"1", b"2"])
    with queue_of_name() as (name, queue):
        with mock.patch.object(os, "pwrite", side_effect=OSError(5, "Input/output error")):
            said = replay(path, name)
        assert said.status == 1
        assert "letter 1:1 can't be taken out: Input/output error" in said.err
        assert replay(path, name).status == 0
        assert [b"1", b"1", b"2"] == drain(queue)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_replay_puts_nothing_twice(tmp_path: Path, number: signal.Signals) -> None:
    """A replay that is interrupted ends with 1: what it put is deleted, what it didn't put is there."""
    path = str(tmp_path)
    events = [b"%d" % index for index in range(FEW + 4)]
    with writer(path, max_size=2_000) as letters, queue_of_name() as (name, queue):
        write_all(letters, events)
        assert len(files(path)) == 4
        process = _start_replay(path, name)
        with process:
            wait_until(
                lambda: queue.current_messages == FEW and len(events_in(path)) == 4,
                "the queue does not fill up",
                process=process,
            )
            process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE)
        assert (1, f"put {FEW} events on {queue.name}\n") == (process.returncode, out)
        assert err.startswith("interrupted")
        assert events == [*drain(queue), *events_in(path)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cant_come_between_a_put_and_its_deletion(tmp_path: Path, number: signal.Signals) -> None:
    """A signal right after a put lets that letter be deleted, and no other be put; handlers are put back."""
    path = str(tmp_path)
    put = MessageQueue.put

    def put_and_raise(queue: MessageQueue, message: bytes, timeout: float = 0.0) -> None:
        put(queue, message, timeout)
        signal.raise_signal(number)

    before = signal.getsignal(number)
    with writer(path) as letters, queue_of_name() as (name, queue):
        write_all(letters, [b"1", b"2"])
        with mock.patch.object(MessageQueue, "put", put_and_raise):
            said = replay(path, name)
        assert (1, "interrupted") == (said.status, said.err.partition(";")[0])
        assert [b"1"] == drain(queue)
        assert [b"2"] == events_in(path)
    assert before == signal.getsignal(number)


def test_a_killed_replay_loses_nothing(tmp_path: Path) -> None:
    """A replay that is killed leaves every event on the queue or on disk, at most one of them on both."""
    path = str(tmp_path)
    events = [b"%d" % index for index in range(FEW + 2)]
    with writer(path) as letters, queue_of_name() as (name, queue):
        write_all(letters, events)
        process = _start_replay(path, name)
        with process:
            wait_until(lambda: queue.current_messages >= 1, "nothing is put", process=process)
            process.kill()
        found = [*drain(queue), *events_in(path)]
        assert set(events) == set(found)
        assert len(found) <= len(events) + 1
        letters.write(b"later", status=None, reason="r")  # its lock ended with it
        assert [b"later"] == events_in(path)[-1:]


def _start_replay(path: str, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "baseplate_events", "dead-letters", "replay", path),
            *replay_options(name, "1 hour"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_queue_that_goes_away_leaves_the_letters(tmp_path: Path) -> None:
    """A replay whose queue can't be opened ends with 1 and changes nothing."""
    path = str(tmp_path)
    with writer(path) as letters:
        write_all(letters, [b"1"])
    error = EventError("no queue")
    with mock.patch.object(command_module, "MessageQueue", side_effect=error):
        assert Result(1, "", "no queue\n") == replay(path, "main")
    assert [b"1"] == events_in(path)


def _on_terminal(words: Sequence[str], keys: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Run a command whose stdin and stderr are a terminal on which keys are pressed; give what it showed."""
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
    """`purge` says how much it is about, and deletes only after a clear yes."""
    path = str(tmp_path)
    with writer(path) as letters:
        write_all(letters, [b"1", b"2"])
    status, shown = _on_terminal(["purge", path], f"{answer}\n".encode(), monkeypatch)
    assert f"Delete 2 letters of {path} for good?" in shown
    agreed = answer in {"y", "YES"}
    assert (0 if agreed else 1) == status
    assert ([] if agreed else [b"1", b"2"]) == events_in(path)


@dataclass(frozen=True)
class _Terminal:
    """As much of a terminal as a question needs."""

    readline: Callable[[], str]

    def isatty(self) -> bool:
        return True


def test_purge_deletes_only_what_was_asked_about(tmp_path: Path) -> None:
    """What is buried while `purge` waits for its answer stays."""
    path = str(tmp_path)

    def answer() -> str:
        letters.write(b"3", status=None, reason="r")
        return "y\n"

    with writer(path) as letters:
        write_all(letters, [b"1", b"2"])
        with mock.patch.object(sys, "stdin", _Terminal(answer)):
            assert main(["dead-letters", "purge", path]) == 0
        assert [b"3"] == events_in(path)


def test_interrupting_the_question_deletes_nothing(tmp_path: Path) -> None:
    """Ctrl-C at the question ends with 1, without a traceback."""
    path = str(tmp_path)

    def answer() -> str:
        raise KeyboardInterrupt

    with writer(path) as letters:
        write_all(letters, [b"1"])
    with mock.patch.object(sys, "stdin", _Terminal(answer)):
        assert main(["dead-letters", "purge", path]) == 1
    assert [b"1"] == events_in(path)


def test_replay_shows_its_progress_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a replay that takes long says how far it is; the result is on stdout all the same."""
    path = str(tmp_path)
    with writer(path) as letters, queue_of_name() as (name, _):
        write_all(letters, [b"%d" % index for index in range(FEW + 1)])
        words = ["replay", path, *replay_options(name, "500 milliseconds")]
        status, shown = _on_terminal(words, b"", monkeypatch)
    assert status == 1
    assert f"\r{FEW} events put" in shown
    assert "full" in shown


def test_nobody_reading_on_is_no_traceback(tmp_path: Path) -> None:
    """A reader that goes away in the middle, as `head` does, ends the command with 1 and without words."""
    path = str(tmp_path)
    with writer(path) as letters:
        write_all(letters, [b"e" * 1_000] * 200)
    for words in (["show", path, "--all"], ["list", path, "--json"]):
        process = subprocess.Popen(
            [sys.executable, "-m", "baseplate_events", "dead-letters", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # With a buffer, in which Python finds something to write once more at its end.
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        )
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 1
