from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import pty
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings, stateful
from hypothesis import strategies as st

from baseplate_events.__main__ import main
from baseplate_events.cli.dead_letters import command as command_module
from baseplate_events.errors import EventError
from baseplate_events.event_publisher.dead_letters import store
from baseplate_events.event_publisher.dead_letters.record import (
    MAX_EXCERPT,
    Letter,
    Number,
    Unreadable,
    format_letter,
    parse_line,
)
from baseplate_events.event_publisher.dead_letters.store import (
    DeadLetterError,
    DeadLetters,
    file_numbers,
    read_letters,
    take_out,
)
from baseplate_events.event_publisher.storage import Folder
from baseplate_events.transport.posix import MessageQueue
from tests.support.machines import check_machine
from tests.support.publishers import PATIENCE
from tests.support.queues import FEW, SMALL, drain, fresh_name, reader
from tests.support.strategies import answers, any_events, refusals, texts, wall_times

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from baseplate_events.event_publisher.dead_letters.record import Entry

#: Room for all letters of a test that isn't about the room.
PLENTY = 1_000_000

DAY = 86_400.0

#: Fewer examples where each makes files.
few = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@contextlib.contextmanager
def folder() -> Generator[str]:
    """Give the path of an empty folder, for properties, whose examples can't share one."""
    with tempfile.TemporaryDirectory() as path:
        yield path


@contextlib.contextmanager
def writer(
    directory: str, *, max_size: int = PLENTY, sync: bool = False, now: float | None = None
) -> Generator[DeadLetters]:
    """Open a folder to write letters, all at one time if one is given."""
    clock = time.time if now is None else lambda: now
    letters = DeadLetters(directory, max_size=max_size, sync=sync, wall_clock=clock)
    try:
        yield letters
    finally:
        letters.close()


@contextlib.contextmanager
def queue_of_name() -> Generator[tuple[str, MessageQueue]]:
    """Make a small queue and give the NAME of its `/events-NAME` with it."""
    with fresh_name("/events-test-") as name, reader(name) as queue:
        yield name.removeprefix("/events-"), queue


def entries(directory: str) -> list[Entry]:
    """Read everything in a folder."""
    return [entry for number in file_numbers(directory) for entry in read_letters(directory, number)]


def letters_in(directory: str) -> list[Letter]:
    """Read the letters in a folder."""
    return [entry for entry in entries(directory) if isinstance(entry, Letter)]


def events_in(directory: str) -> list[bytes]:
    """Read the events in a folder."""
    return [letter.event for letter in letters_in(directory)]


def files(directory: str) -> list[Path]:
    """Give the files of letters, oldest first."""
    return sorted(Path(directory).glob("letters-*"))


def size(directory: str) -> int:
    """Measure the letters in a folder."""
    return sum(path.stat().st_size for path in files(directory))


def bury_all(letters: DeadLetters, events: Sequence[bytes]) -> int:
    """Bury events for a reason that doesn't matter, and return how many were dropped."""
    return sum(letters.write(event, status=400, reason="refused") for event in events)


@contextlib.contextmanager
def largest_file(limit: int) -> Generator[None]:
    """Let no file of this process grow beyond a size: a real write that is cut short, then a real error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@dataclass(frozen=True)
class Said:
    """What a command said."""

    status: object
    out: bytes
    err: str


def command(*words: str, stdin: str = "") -> Said:
    """Run `dead-letters` with these words, in this process, without a terminal."""
    out, err = io.BytesIO(), io.StringIO()
    status: object
    with (
        contextlib.redirect_stdout(io.TextIOWrapper(out, encoding="utf-8", write_through=True)),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "stdin", io.StringIO(stdin)),
    ):
        try:
            status = main(["dead-letters", *words])
        except SystemExit as exc:
            status = exc.code
        return Said(status, out.getvalue(), err.getvalue())


def replay(directory: str, queue_name: str, *words: str, timeout: str = "0 seconds") -> Said:
    """Run `dead-letters replay` for a small queue."""
    return command(
        "replay",
        directory,
        "--queue-name",
        queue_name,
        "--timeout",
        timeout,
        "--max-queue-size",
        str(FEW),
        "--max-event-size",
        str(SMALL),
        *words,
    )


# --- what is buried is read ---


@few
@given(st.lists(st.tuples(any_events, refusals, texts, answers, wall_times), max_size=5))
def test_what_is_buried_is_read(buried: list[tuple[bytes, int | None, str, bytes, float]]) -> None:
    """Letters are read in their order with their event to the byte, time, status, reason and excerpt."""
    now = 0.0
    with folder() as path:
        letters = DeadLetters(path, max_size=PLENTY, wall_clock=lambda: now)
        for event, status, reason, excerpt, now in buried:  # noqa: B007  the clock reads it
            assert letters.write(event, status=status, reason=reason, excerpt=excerpt) == 0
        letters.close()
        read = letters_in(path)
        assert len(buried) == len(entries(path))
    assert [
        (event, status, reason, excerpt[:MAX_EXCERPT].decode(errors="replace"), round(now * 1_000))
        for event, status, reason, excerpt, now in buried
    ] == [
        (
            letter.event,
            letter.status,
            letter.reason,
            letter.excerpt,
            round(letter.time.timestamp() * 1_000),
        )
        for letter in read
    ]
    numbers = [letter.number for letter in read]
    assert sorted(set(numbers)) == numbers


@given(any_events, refusals, texts, answers, wall_times)
def test_a_letter_is_a_line_of_json(
    event: bytes, status: int | None, reason: str, answer: bytes, now: float
) -> None:
    """A letter is one line of printable ASCII that readers of JSON lines take, with the documented keys."""
    line = format_letter(event, wall_time=now, status=status, reason=reason, excerpt=answer)
    assert line.endswith(b"\n")
    assert line[:-1].decode("ascii").replace("\x7f", "").isprintable()
    letter: dict[str, object] = json.loads(line)
    body = letter.pop("event", None) or letter.pop("event_base64", None)
    assert isinstance(body, str) or not event
    assert {"time", "status", "reason", "excerpt"} == letter.keys() - {"event"}
    moment = datetime.strptime(str(letter["time"]), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    assert round(now * 1_000) == round(moment.timestamp() * 1_000)


_junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda values: (
        st.lists(values, max_size=2)
        | st.dictionaries(
            st.sampled_from(["time", "status", "reason", "excerpt", "event", "event_base64"]),
            values,
            max_size=6,
        )
    ),
    max_leaves=6,
)


@given(
    st.one_of(
        st.binary(max_size=60),
        _junk.map(json.dumps).map(str.encode),
        st.just(b"[" * 200_000),
        st.just(b'{"time":' + b"9" * 5_000),
    )
)
def test_no_line_breaks_a_reader(junk: bytes) -> None:
    """Whatever a line holds, reading it gives a letter, a line that can't be read, or nothing."""
    line = junk.replace(b"\n", b"") + b"\n"
    number = Number(1, 1)
    entry = parse_line(line, number)
    assert entry is None or isinstance(entry, Letter) or entry == Unreadable(number, torn=False)


@given(
    st.sampled_from(
        [
            {"time": "2026-01-01T00:00:00.000"},
            {"time": "yesterday"},
            {"time": 5},
            {"status": "400"},
            {"status": 4.5},
            {"reason": None},
            {"excerpt": 1},
            {"event": 1},
            {"event": "\ud800"},
        ]
    )
)
def test_a_damaged_member_is_seen(damage: dict[str, object]) -> None:
    """A letter one of whose members isn't what it should be is a line that can't be read."""
    good = format_letter(b"{}", wall_time=0, status=400, reason="refused", excerpt=b"no")
    number = Number(1, 1)
    assert isinstance(parse_line(good, number), Letter)
    line = json.dumps({**json.loads(good), **damage}).encode() + b"\n"
    assert Unreadable(number, torn=False) == parse_line(line, number)


@given(st.integers(0, 9_999_999_999), st.integers(0, 9_999_999_999))
def test_a_number_is_read_as_it_is_written(file: int, line: int) -> None:
    """A letter's number is read back from its text."""
    number = Number(file, line)
    assert number == Number.parse(str(number))


@given(st.one_of(st.text(max_size=5), st.sampled_from(["3", "3:", ":17", "3:17\n", "-3:17", "3:1:7", "٣:1"])))
def test_no_other_text_is_a_number(text: str) -> None:
    """Whatever isn't two numbers in digits with a colon between them is refused."""
    file, colon, line = text.partition(":")
    if colon and all(part.isascii() and part.isdigit() for part in (file, line)):
        assert Number(int(file), int(line)) == Number.parse(text)
    else:
        with pytest.raises(ValueError, match="3:17"):
            Number.parse(text)


def test_no_content_in_a_repr() -> None:
    """The repr of a letter holds neither the event nor what the collector answered."""
    letter = parse_line(
        format_letter(b"private", wall_time=0, status=None, reason="r", excerpt=b"private"), Number(1, 1)
    )
    assert "private" not in repr(letter)


@given(texts, texts)
def test_an_error_names_path_and_problem(path: str, problem: str) -> None:
    """An error is an `EventError` with its facts as attributes and in its text."""
    error = DeadLetterError(path, problem)
    assert isinstance(error, EventError)
    assert (path, problem) == (error.path, error.problem)
    assert path in str(error)
    assert problem in str(error)


# --- size ---


@few
@given(st.lists(st.integers(0, 500), max_size=40), st.integers(1, 3_000))
def test_the_oldest_are_dropped_and_counted(sizes: list[int], max_size: int) -> None:
    """The folder never exceeds its size but for a single letter; what is gone is the oldest, and counted."""
    buried: list[bytes] = []
    dropped = 0
    with folder() as path, writer(path, max_size=max_size) as letters:
        for index, length in enumerate(sizes):
            event = b"%d" % index + b"e" * length
            buried.append(event)
            dropped += letters.write(event, status=413, reason="too large")
            present = events_in(path)
            assert buried[dropped:] == present
            assert size(path) <= max_size or len(present) == 1
            # A file at a time and no more than needed: about an eighth goes for one letter.
            longest = max(sizes) + 150
            assert not dropped or size(path) > max_size - max_size // 8 - 2 * longest


@pytest.mark.parametrize("smaller", [1, 2_000])
def test_a_size_made_smaller_holds_after_the_next_letter(tmp_path: Path, smaller: int) -> None:
    """A writer with a smaller size drops what is too much with its first letter, and counts that."""
    path = str(tmp_path)
    with writer(path, max_size=8_000) as letters:
        bury_all(letters, [b"%d" % index for index in range(50)])
    with writer(path, max_size=smaller) as letters:
        dropped = letters.write(b"last", status=None, reason="r")
        present = events_in(path)
        assert 51 == len(present) + dropped
        assert present[-1] == b"last"
        assert size(path) <= smaller or len(present) == 1


# --- crashes and disks ---


@few
@given(st.lists(any_events, max_size=4), any_events, st.data())
def test_a_torn_line_costs_only_itself(events: list[bytes], in_flight: bytes, data: st.DataObject) -> None:
    """Wherever a crash cuts the letter under way, the others are read, and later ones are buried and read."""
    with folder() as path:
        with writer(path) as letters:
            bury_all(letters, [*events, in_flight])
        (file,) = files(path)
        lines = file.read_bytes().splitlines(keepends=True)
        cut = data.draw(st.integers(0, len(lines[-1]) - 1), label="bytes of the last line")
        file.write_bytes(b"".join(lines[:-1]) + lines[-1][:cut])
        torn = [Unreadable(Number(1, len(lines)), torn=True)] if cut else []
        assert torn == entries(path)[len(events) :]
        with writer(path) as letters:
            bury_all(letters, [b"later"])
        assert [*events, b"later"] == events_in(path)
        assert torn == [entry for entry in entries(path) if isinstance(entry, Unreadable)]


_BURY_FOR_EVER = """
import os, sys
from baseplate_events.event_publisher.dead_letters.store import DeadLetters
letters = DeadLetters(sys.argv[1], max_size=10_000_000)
for index in range(1_000_000):
    letters.write(b"%d " % index + b"e" * 5_000, status=400, reason="refused")
    os.write(1, b"%d\\n" % index)
"""


def test_a_killed_writer_loses_nothing_that_was_buried(tmp_path: Path) -> None:
    """Of a writer that is killed, every letter whose `write` had returned is there; the next goes on."""
    path = str(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", _BURY_FOR_EVER, path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process, process.stdout as said:
        returned = [int(said.readline()) for _ in range(30)][-1]
        process.kill()
        returned = int(([b"%d" % returned, *said.read().split(b"\n")[:-1]])[-1])
    with writer(path, max_size=10_000_000) as letters:
        letters.write(b"later", status=None, reason="r")
    events = events_in(path)
    assert events.pop() == b"later"
    assert len(events) - 1 in {returned, returned + 1}
    assert list(range(len(events))) == [int(event.split()[0]) for event in events]


@few
@given(st.lists(any_events, max_size=3), any_events, st.data())
def test_a_full_disk_is_an_error_and_leaves_nothing(
    events: list[bytes], event: bytes, data: st.DataObject
) -> None:
    """A disk that is full after any byte of a letter is an error; the letter isn't there, the others are."""
    line = format_letter(event, wall_time=0, status=None, reason="r", excerpt=b"")
    room = data.draw(st.integers(0, len(line) - 1), label="room")
    with folder() as path, writer(path, now=0) as letters:
        bury_all(letters, events)
        before = [(file.name, file.read_bytes()) for file in files(path)]
        with largest_file(size(path) + room), pytest.raises(DeadLetterError) as caught:
            letters.write(event, status=None, reason="r")
        assert path == caught.value.path
        after = [(file.name, file.read_bytes()) for file in files(path)]
        assert before or [("letters-0000000001.jsonl", b"")] == after
        assert not before or before == after
        letters.write(event, status=None, reason="r")
        assert [*events, event] == events_in(path)
        assert len(files(path)) == 1


def test_a_torn_line_that_stays_is_the_last_of_its_file(tmp_path: Path) -> None:
    """Where a write fails and can't be undone, the torn line is skipped and later letters are whole."""
    path = str(tmp_path)
    with writer(path) as letters:
        bury_all(letters, [b"first"])
        with (
            mock.patch.object(Folder, "truncate", side_effect=OSError(5, "Input/output error")),
            largest_file(size(path) + 20),
            pytest.raises(DeadLetterError),
        ):
            bury_all(letters, [b"second"])
        bury_all(letters, [b"third"])
        assert [b"first", b"third"] == events_in(path)
        assert [Unreadable(Number(1, 2), torn=True)] == [
            entry for entry in entries(path) if isinstance(entry, Unreadable)
        ]


def test_letters_dropped_by_a_call_that_failed_are_counted_later(tmp_path: Path) -> None:
    """What an unsuccessful call dropped is in the count of the next that succeeds."""
    path = str(tmp_path)
    with writer(path) as letters:
        bury_all(letters, [b"%d" % index for index in range(5)])
    with writer(path, max_size=1) as letters:
        with largest_file(0), pytest.raises(DeadLetterError):
            letters.write(b"fails", status=None, reason="r")
        assert letters.write(b"last", status=None, reason="r") == 5
        assert [b"last"] == events_in(path)


def test_a_deletion_that_fails_is_the_next_calls_error(tmp_path: Path) -> None:
    """Where the oldest can't be deleted, the letter at hand is there; no more are added beyond the size."""
    path = str(tmp_path)
    with writer(path, max_size=1) as letters:
        bury_all(letters, [b"first"])
        with mock.patch.object(Folder, "delete", side_effect=PermissionError(1, "Operation not permitted")):
            assert letters.write(b"second", status=None, reason="r") == 0
            with pytest.raises(DeadLetterError, match="Operation not permitted"):
                letters.write(b"third", status=None, reason="r")
        assert [b"first", b"second"] == events_in(path)
        assert letters.write(b"fourth", status=None, reason="r") == 2
        assert [b"fourth"] == events_in(path)


def test_with_sync_each_letter_is_forced_onto_the_disk(tmp_path: Path) -> None:
    """With `sync` every letter is synced before `write` returns, without it none; a failed sync undoes it."""
    path = str(tmp_path)
    synced: list[int] = []

    def sync(_: Folder, handle: int) -> None:
        synced.append(os.fstat(handle).st_size)

    with mock.patch.object(Folder, "sync", sync):
        with writer(path) as letters:
            bury_all(letters, [b"1", b"2"])
        assert not synced
        with writer(path, sync=True) as letters:
            bury_all(letters, [b"3", b"4"])
    assert len(synced) == 2
    assert files(path)[-1].stat().st_size == synced[-1]
    with writer(path, sync=True) as letters:
        bury_all(letters, [b"5"])
        failing = mock.patch.object(Folder, "sync", side_effect=OSError(5, "Input/output error"))
        with failing, pytest.raises(DeadLetterError, match="Input/output error"):
            bury_all(letters, [b"6"])
        assert [b"1", b"2", b"3", b"4", b"5"] == events_in(path)
        bury_all(letters, [b"6"])
        *_, before, after = letters_in(path)
        assert before.number.file < after.number.file  # for what a failed sync left is unknown
        assert b"6" == after.event


def test_with_sync_a_file_that_may_not_be_there_isnt_used(tmp_path: Path) -> None:
    """With `sync`, where a new file isn't known to be on the disk, nothing is buried in it."""
    path = str(tmp_path)
    with writer(path, sync=True) as letters:
        failing = mock.patch.object(Folder, "sync_names", side_effect=OSError(5, "Input/output error"))
        with failing, pytest.raises(DeadLetterError, match="Input/output error"):
            bury_all(letters, [b"1"])
        bury_all(letters, [b"2"])
    assert [(Number(2, 1), b"2")] == [(letter.number, letter.event) for letter in letters_in(path)]


# --- the folder ---


def test_one_writer_a_folder_and_only_its_user_reads(tmp_path: Path) -> None:
    """A second writer is refused while the first is open; files are 0600 in a folder that is 0700."""
    path = str(tmp_path / "a" / "rejected")
    with writer(path) as letters:
        bury_all(letters, [b"1"])
        with pytest.raises(DeadLetterError, match="another publisher") as caught:
            DeadLetters(path, max_size=PLENTY)
        assert path == caught.value.path
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o700
        assert [0o600] == [stat.S_IMODE(file.stat().st_mode) for file in files(path)]
    with writer(path) as letters:
        bury_all(letters, [b"2"])
    assert [b"1", b"2"] == events_in(path)


def test_a_closed_writer_refuses(tmp_path: Path) -> None:
    """Closing twice does nothing; burying afterwards is an error."""
    with writer(str(tmp_path)) as letters:
        letters.close()
        with pytest.raises(DeadLetterError, match="was closed"):
            letters.write(b"", status=None, reason="r")


def test_a_folder_that_cant_be_used_is_an_error(tmp_path: Path) -> None:
    """A folder that can't be made, read or isn't there is an error with its path."""
    file = tmp_path / "file"
    file.touch()
    uses: list[Callable[[str], object]] = [lambda path: DeadLetters(path, max_size=1), file_numbers]
    for use in uses:
        with pytest.raises(DeadLetterError) as caught:
            use(str(file / "rejected"))
        assert str(file / "rejected") == caught.value.path
    with (
        mock.patch.object(Folder, "names", side_effect=OSError(5, "Input/output error")),
        pytest.raises(DeadLetterError, match="Input/output error"),
    ):
        DeadLetters(str(tmp_path), max_size=1)
    with writer(str(tmp_path)):  # the lock was let go of
        pass


def test_a_file_that_cant_be_read_is_an_error(tmp_path: Path) -> None:
    """A file that can't be opened or read is an error, one that is gone is empty."""
    path = str(tmp_path)
    assert not list(read_letters(path, 1))
    take_out(path, 1, lambda _: True)
    (tmp_path / "letters-0000000001.jsonl").mkdir()
    with pytest.raises(DeadLetterError):
        list(read_letters(path, 1))
    with pytest.raises(DeadLetterError):
        take_out(path, 1, lambda _: True)


def test_links_and_pipes_arent_followed(tmp_path: Path) -> None:
    """A link or a pipe in the place of a file is an error to commands and writer, and stays as it is."""
    path = str(tmp_path / "rejected")
    outside = tmp_path / "outside"
    outside.write_bytes(format_letter(b"e", wall_time=0, status=None, reason="r", excerpt=b""))
    before = outside.read_bytes()
    with writer(path, max_size=1) as letters:
        (tmp_path / "rejected" / "letters-0000000001.jsonl").symlink_to(outside)
        os.mkfifo(tmp_path / "rejected" / "letters-0000000002.jsonl")
        for number in (1, 2):
            with pytest.raises(DeadLetterError):
                list(read_letters(path, number))
            with pytest.raises(DeadLetterError):
                take_out(path, number, lambda _: True)
        assert command("purge", path, "--yes").status == 1
        with pytest.raises(DeadLetterError):
            bury_all(letters, [b"e"])
    assert before == outside.read_bytes()


def test_a_writer_stays_in_a_folder_that_is_moved(tmp_path: Path) -> None:
    """A writer whose folder is moved keeps to it and to its size, whatever takes its place."""
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    with writer(old, max_size=1) as letters:
        bury_all(letters, [b"1"])
        Path(old).rename(new)
        with writer(old) as others:
            bury_all(others, [b"other"])
            assert bury_all(letters, [b"2", b"3"]) == 2
    assert [b"other"] == events_in(old)
    assert [b"3"] == events_in(new)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Files of other names are neither read nor counted nor dropped."""
    path = str(tmp_path)
    others = {"notes.txt", "letters-1.jsonl", "letters-0000000001.jsonl.bak"}
    for name in others:
        (tmp_path / name).write_text("not a letter\n" * 100)
    with writer(path, max_size=1) as letters:
        bury_all(letters, [b"1", b"2"])
    assert [b"2"] == events_in(path)
    assert command("purge", path, "--yes").status == 0
    assert others == {file.name for file in tmp_path.iterdir()}


# --- taking out, with the writer at work ---


def test_half_of_taking_out_is_enough(tmp_path: Path) -> None:
    """A letter whose line is overwritten from its first byte up to any other is out, and moves no other."""
    path = str(tmp_path)
    with writer(path) as letters:
        bury_all(letters, [b"1", b"2", b"3"])
    (file,) = files(path)
    whole = file.read_bytes()
    start, end = whole.index(b"\n") + 1, whole.index(b"\n", whole.index(b"\n") + 1)
    for stop in range(start + 1, end + 1):
        file.write_bytes(whole[:start] + b" " * (stop - start) + whole[stop:])
        assert [(Number(1, 1), b"1"), (Number(1, 3), b"3")] == [
            (letter.number, letter.event) for letter in letters_in(path)
        ]


def test_what_ends_taking_out_leaves_the_rest(tmp_path: Path) -> None:
    """An exception in the middle leaves the letter at hand and those after it; those before it are out."""
    path = str(tmp_path)

    def take(entry: Entry) -> bool:
        if entry.number.line == 3:
            raise BrokenPipeError
        return True

    with writer(path) as letters:
        bury_all(letters, [b"1", b"2", b"3", b"4"])
        with pytest.raises(BrokenPipeError):
            take_out(path, 1, take)
        assert [b"3", b"4"] == events_in(path)
        # Nothing of an event that is out is left, and what is left is JSON lines to others too.
        lines = files(path)[0].read_bytes().split(b"\n")
        assert [b"", b"", b"{", b"{", b""] == [line.strip()[:1] for line in lines]
        bury_all(letters, [b"5"])  # the lock was let go of
        assert [b"3", b"4", b"5"] == events_in(path)
        assert [1] == file_numbers(path)


def test_two_commands_dont_work_on_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that one command is at work on is refused to another, after a while."""
    path = str(tmp_path)
    monkeypatch.setattr(store, "_LOCK_PATIENCE", 0.02)

    def take(_: Entry) -> bool:
        with pytest.raises(DeadLetterError, match="another command"):
            take_out(path, 1, lambda _: True)
        return False

    with writer(path) as letters:
        bury_all(letters, [b"1"])
    take_out(path, 1, take)
    assert [b"1"] == events_in(path)


def test_a_torn_line_doesnt_keep_a_file(tmp_path: Path) -> None:
    """A file whose letters are all out is deleted, torn line and all; a damaged line keeps it."""
    path = str(tmp_path)
    with writer(path) as letters:
        bury_all(letters, [b"1"])
    (file,) = files(path)
    letter = file.read_bytes()
    file.write_bytes(letter + letter[:-1])
    take_out(path, 1, lambda entry: isinstance(entry, Letter))
    assert not files(path)
    file.write_bytes(letter + b"damaged\n")
    take_out(path, 1, lambda entry: isinstance(entry, Letter))
    assert [Unreadable(Number(1, 2), torn=False)] == entries(path)
    assert "1 lines can't be read" in command("list", path).err
    assert command("purge", path, "--older-than", "0 days", "--yes").out == b"nothing to delete\n"
    assert command("purge", path, "--yes").out == b"deleted 1 letters\n"
    assert not files(path)


class Keeping(stateful.RuleBasedStateMachine):
    """A writer, commands at any moment, crashes and full disks, against a list of what must be there."""

    #: Room for some 15 letters of the shortest kind, and files of one to two of them.
    MAX_SIZE = 2_000

    def __init__(self) -> None:
        super().__init__()
        self._resources = contextlib.ExitStack()
        self.path = self._resources.enter_context(tempfile.TemporaryDirectory())
        self.queue_name, self.queue = self._resources.enter_context(queue_of_name())
        self.letters = self._open()
        #: Days since each event was buried, by event, oldest first.
        self.present: dict[bytes, int] = {}
        self.age = 0
        self.longest = 0
        self.buried = self.dropped = self.replayed = self.purged = 0
        #: Letters that calls dropped that failed, and so couldn't tell.
        self.untold = 0

    def teardown(self) -> None:
        self.letters.close()
        self._resources.close()

    def _open(self) -> DeadLetters:
        return DeadLetters(
            self.path, max_size=self.MAX_SIZE, wall_clock=lambda: time.time() - (self.age + 0.5) * DAY
        )

    def _bury(self, length: int, age: int, held: frozenset[bytes] = frozenset()) -> None:
        """Bury an event while commands are at work on the file with these."""
        self.age = age
        event = b"%d " % self.buried + b"e" * length
        self.longest = max(self.longest, length + 150)
        dropped = self.letters.write(event, status=400, reason="refused") - self.untold
        self.untold = 0
        for old in [old for old in self.present if old not in held][:dropped]:
            del self.present[old]
        self.present[event] = age
        self.buried += 1
        self.dropped += dropped

    lengths = st.sampled_from([0, 0, 0, 20, 40, 400])
    ages = st.integers(0, 3)

    @stateful.rule(length=lengths, age=ages, times=st.integers(1, 10))
    def write(self, length: int, age: int, times: int) -> None:
        for _ in range(times):
            self._bury(length, age)
            assert size(self.path) <= self.MAX_SIZE

    @stateful.precondition(lambda self: bool(self.present))
    @stateful.rule(data=st.data(), length=lengths, times=st.integers(0, 12))
    def take_out_while_burying(self, data: st.DataObject, length: int, times: int) -> None:
        """A command at work on a file, while the writer buries in the middle of it."""
        number = data.draw(st.sampled_from(file_numbers(self.path)), label="file")
        held = frozenset(
            entry.event for entry in read_letters(self.path, number) if isinstance(entry, Letter)
        )

        def take(entry: Entry) -> bool:
            assert isinstance(entry, Letter)
            for _ in range(times):
                self._bury(length, 0, held)
                assert size(self.path) <= self.MAX_SIZE + self.longest
            if data.draw(st.booleans(), label="taken"):
                del self.present[entry.event]
                self.purged += 1
                return True
            return False

        take_out(self.path, number, take)
        self._bury(0, 0)  # after which the size holds again

    @stateful.rule(data=st.data(), waiting=st.integers(0, FEW))
    def replay(self, data: st.DataObject, waiting: int) -> None:
        """Replay all or some onto a queue that has room for all of them, or doesn't."""
        for _ in range(waiting):
            self.queue.put(b"waiting")
        there = {letter.number: letter.event for letter in letters_in(self.path)}
        named = data.draw(st.lists(st.sampled_from(list(there)), unique=True), label="named") if there else []
        meant = [event for number, event in there.items() if not named or number in named]
        fitting = [event for event in meant if len(event) <= SMALL]
        put = fitting[: FEW - waiting]
        said = replay(self.path, self.queue_name, *map(str, named))
        assert [b"waiting"] * waiting + put == drain(self.queue)
        assert (0 if meant == put else 1) == said.status, said
        for event in put:
            del self.present[event]
        self.replayed += len(put)

    @stateful.rule(older=st.none() | ages)
    def purge(self, older: int | None) -> None:
        words = [] if older is None else ["--older-than", f"{older} days"]
        said = command("purge", self.path, "--yes", *words)
        assert said.status == 0
        left = {event: age for event, age in self.present.items() if older is not None and age < older}
        self.purged += len(self.present) - len(left)
        assert len(self.present) == len(left) or f"deleted {len(self.present) - len(left)} " in str(said.out)
        self.present = left

    @stateful.rule(length=lengths, room=st.integers(0, 400))
    def fill_the_disk(self, length: int, room: int) -> None:
        """Bury on a disk on which files can't grow beyond a size."""
        try:
            with largest_file(room):
                self._bury(length, 0)
        except DeadLetterError:  # whereby the oldest may have been dropped
            left = events_in(self.path)
            gone = list(self.present)[: len(self.present) - len(left)]
            for old in gone:
                del self.present[old]
            self.dropped += len(gone)
            self.untold += len(gone)

    @stateful.rule()
    def restart(self) -> None:
        self._restart()

    @stateful.rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """Crash in the middle of a letter, and start again."""
        self.letters.close()
        line = format_letter(b"under way", wall_time=0, status=None, reason="r", excerpt=b"")
        torn = line[: data.draw(st.integers(0, len(line) - 1), label="bytes")]
        for file in files(self.path)[-1:]:
            file.write_bytes(file.read_bytes().rpartition(b"\n")[0] + b"\n" * bool(size(self.path)) + torn)
        self._restart()

    def _restart(self) -> None:
        self.letters.close()
        self.letters = self._open()
        self.untold = 0

    @stateful.invariant()
    def what_must_be_there_is_there(self) -> None:
        assert list(self.present) == events_in(self.path)
        assert self.buried == len(self.present) + self.dropped + self.replayed + self.purged
        assert all(
            entry.torn and entry.number.line for entry in entries(self.path) if isinstance(entry, Unreadable)
        )


def test_nothing_is_lost_under_any_interleaving() -> None:
    """Buried = present + dropped + replayed + purged, in order, whatever writer and commands do."""
    check_machine(Keeping, steps=20, examples=60)


def test_commands_beside_a_writer_lose_nothing(tmp_path: Path) -> None:
    """With a writer and two commands truly at work at once, every letter is in one place in the end."""
    path = str(tmp_path)
    total = 3_000
    taken: list[list[bytes]] = [[], []]
    dropped: list[int] = []
    done = threading.Event()

    def write() -> None:
        with writer(path, max_size=20_000) as letters:
            dropped.append(bury_all(letters, [b"%d" % index for index in range(total)]))
        done.set()

    def work(into: list[bytes]) -> None:
        def take(entry: Entry) -> bool:
            if isinstance(entry, Letter) and int(entry.event) % 3:
                into.append(entry.event)
                return True
            return False

        while not done.is_set():
            for number in file_numbers(path):
                take_out(path, number, take)

    threads = [threading.Thread(target=write), *(threading.Thread(target=work, args=(one,)) for one in taken)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert done.is_set()
    found = [*taken[0], *taken[1], *events_in(path)]
    assert len(found) == len(set(found))
    assert total == len(found) + sum(dropped)
    assert taken[0]
    assert taken[1]


# --- the command ---


def test_list_shows_everything_but_the_event(tmp_path: Path) -> None:
    """`list` shows number, time, status, size and reason, for people and as JSON, and never the event."""
    path = str(tmp_path)
    with writer(path, now=1_000_000_000.25) as letters:
        letters.write(b"private", status=400, reason="bad\x1b[31m caf\xe9", excerpt=b"no")
        letters.write(b"private too", status=None, reason="retry.max_age")
    said = command("list", path)
    head, first, second = said.out.decode().splitlines()
    assert ["NUMBER", "TIME", "STATUS", "SIZE", "REASON"] == head.split()
    assert ["1:1", "2001-09-09T01:46:40.250Z", "400", "7", r"bad\x1b[31m", "caf\xe9"] == first.split()
    assert ["1:2", "2001-09-09T01:46:40.250Z", "-", "11", "retry.max_age"] == second.split()
    assert (0, "") == (said.status, said.err)
    said = command("list", path, "--json")
    assert {
        "number": "1:1",
        "time": "2001-09-09T01:46:40.250Z",
        "status": 400,
        "size": 7,
        "reason": "bad\x1b[31m caf\xe9",
        "excerpt": "no",
    } == json.loads(said.out.splitlines()[0])
    assert b"private" not in said.out
    empty = tmp_path / "empty"
    empty.mkdir()
    assert Said(0, b"", "") == command("list", str(empty))


@few
@given(st.lists(any_events, max_size=4), st.data())
def test_show_gives_the_events_themselves(events: list[bytes], data: st.DataObject) -> None:
    """`show` writes the events that are meant, to the byte and in their order, each with a newline."""
    with folder() as path:
        for event in events:  # each in a file of its own
            with writer(path) as letters:
                bury_all(letters, [event])
        assert Said(0, b"".join(event + b"\n" for event in events), "") == command("show", path, "--all")
        there = letters_in(path)
        if there:
            named = data.draw(st.lists(st.sampled_from(there), min_size=1), label="named")
            said = command("show", path, *(str(letter.number) for letter in named))
            numbers = {letter.number for letter in named}
            shown = [letter.event for letter in there if letter.number in numbers]
            assert Said(0, b"".join(event + b"\n" for event in shown), "") == said


def test_a_number_that_isnt_there_is_told(tmp_path: Path) -> None:
    """`show` and `replay` do what they can and end with 1 where a letter that was named isn't there."""
    path = str(tmp_path)
    with writer(path) as letters:
        bury_all(letters, [b"1"])
    said = command("show", path, "1:1", "1:2", "7:1")
    assert Said(1, b"1\n", "there is no letter 1:2\nthere is no letter 7:1\n") == said
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
        bury_all(letters, [b"1"])
    said = command(*(word.format(path=path) for word in words))
    assert (2, b"") == (said.status, said.out)
    assert told in said.err
    assert [b"1"] == events_in(path)


@pytest.mark.parametrize("action", ["list", "show", "replay", "purge"])
def test_every_action_has_a_help_page(action: str) -> None:
    """`--help` of an action tells its arguments."""
    said = command(action, "--help")
    assert said.status == 0
    assert b"DIRECTORY" in said.out


def test_replay_makes_the_queue_that_isnt_there(tmp_path: Path) -> None:
    """A queue that doesn't exist is made, as a publisher would."""
    path = str(tmp_path)
    with writer(path) as letters:
        bury_all(letters, [b"1", b"2"])
        with fresh_name("/events-test-") as name:
            said = replay(path, name.removeprefix("/events-"))
            assert Said(0, f"put 2 events on {name}\n".encode(), "") == said
            with reader(name) as queue:
                assert [b"1", b"2"] == drain(queue)
                assert (FEW, SMALL) == (queue.max_messages, queue.max_message_size)
        assert not entries(path)


def test_a_full_queue_is_waited_for_and_told(tmp_path: Path) -> None:
    """`replay` waits for room up to its timeout, then ends with 1; letters that weren't put stay."""
    path = str(tmp_path)
    events = [b"%d" % index for index in range(FEW + 2)]
    with writer(path) as letters, queue_of_name() as (name, queue):
        bury_all(letters, events)
        said = replay(path, name, timeout="150 milliseconds")
        assert said.status == 1
        assert "full" in said.err
        assert f"put {FEW} events".encode() in said.out
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
        bury_all(letters, [b"1", b"2" * (SMALL + 1), b"3"])
        said = replay(path, name)
        assert said.status == 1
        assert "letter 1:2 stays" in said.err
        assert b"222" not in said.err.encode()
        assert [b"1", b"3"] == drain(queue)
        assert [b"2" * (SMALL + 1)] == events_in(path)


def test_a_disk_that_fails_after_a_put_is_told(tmp_path: Path) -> None:
    """A letter that can't be deleted after its put is the only one that is put twice."""
    path = str(tmp_path)
    with writer(path) as letters:
        bury_all(letters, [b"1", b"2"])
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
        bury_all(letters, events)
        assert len(files(path)) == 4
        process = _start_replay(path, name)
        with process:
            _wait(lambda: queue.current_messages == FEW and len(events_in(path)) == 4)
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
        bury_all(letters, [b"1", b"2"])
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
        bury_all(letters, events)
        process = _start_replay(path, name)
        with process:
            _wait(lambda: queue.current_messages >= 1)
            process.kill()
        found = [*drain(queue), *events_in(path)]
        assert set(events) == set(found)
        assert len(found) <= len(events) + 1
        letters.write(b"later", status=None, reason="r")  # its lock ended with it
        assert [b"later"] == events_in(path)[-1:]


def _start_replay(path: str, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "baseplate_events", "dead-letters", "replay", path, "--queue-name", name),
            *("--timeout", "1 hour", "--max-queue-size", str(FEW), "--max-event-size", str(SMALL)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait(condition: Callable[[], bool]) -> None:
    """Wait until something is so; fail if that takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline


def test_a_queue_that_goes_away_leaves_the_letters(tmp_path: Path) -> None:
    """A replay whose queue can't be opened ends with 1 and changes nothing."""
    path = str(tmp_path)
    with writer(path) as letters:
        bury_all(letters, [b"1"])
    error = EventError("no queue")
    with mock.patch.object(command_module, "MessageQueue", side_effect=error):
        assert Said(1, b"", "no queue\n") == replay(path, "main")
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
        bury_all(letters, [b"1", b"2"])
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
        bury_all(letters, [b"1", b"2"])
        with mock.patch.object(sys, "stdin", _Terminal(answer)):
            assert main(["dead-letters", "purge", path]) == 0
        assert [b"3"] == events_in(path)


def test_interrupting_the_question_deletes_nothing(tmp_path: Path) -> None:
    """Ctrl-C at the question ends with 1, without a traceback."""
    path = str(tmp_path)

    def answer() -> str:
        raise KeyboardInterrupt

    with writer(path) as letters:
        bury_all(letters, [b"1"])
    with mock.patch.object(sys, "stdin", _Terminal(answer)):
        assert main(["dead-letters", "purge", path]) == 1
    assert [b"1"] == events_in(path)


def test_replay_shows_its_progress_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a replay that takes long says how far it is; the result is on stdout all the same."""
    path = str(tmp_path)
    with writer(path) as letters, queue_of_name() as (name, _):
        bury_all(letters, [b"%d" % index for index in range(FEW + 1)])
        words = ["replay", path, "--queue-name", name, "--timeout", "500 milliseconds"]
        words += ["--max-queue-size", str(FEW), "--max-event-size", str(SMALL)]
        status, shown = _on_terminal(words, b"", monkeypatch)
    assert status == 1
    assert f"\r{FEW} events put" in shown
    assert "full" in shown


def test_nobody_reading_on_is_no_traceback(tmp_path: Path) -> None:
    """A reader that goes away in the middle, as `head` does, ends the command with 1 and without words."""
    path = str(tmp_path)
    with writer(path) as letters:
        bury_all(letters, [b"e" * 1_000] * 200)
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


def test_numbers_only_grow_while_a_writer_is_open(tmp_path: Path) -> None:
    """A letter never gets a number that another had under the same writer, also when that is gone."""
    path = str(tmp_path)
    seen: set[Number] = set()
    with writer(path) as letters:
        for event in map(str, itertools.chain(range(6))):
            bury_all(letters, [event.encode()])
            numbers = {letter.number for letter in letters_in(path)}
            assert not numbers & seen
            seen |= numbers
            assert command("purge", path, "--yes").status == 0
    assert len(seen) == 6
