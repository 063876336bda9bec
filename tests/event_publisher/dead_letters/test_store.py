from __future__ import annotations

import contextlib
import itertools
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from hypothesis import given, stateful
from hypothesis import strategies as st

from baseplate_events.errors import EventError
from baseplate_events.event_publisher.dead_letters import store
from baseplate_events.event_publisher.dead_letters.record import (
    MAX_EXCERPT,
    Letter,
    Number,
    Unreadable,
    format_letter,
)
from baseplate_events.event_publisher.dead_letters.store import (
    DeadLetterError,
    DeadLetters,
    file_numbers,
    read_letters,
    take_out,
)
from baseplate_events.event_publisher.storage import Folder
from tests.support.commands import call
from tests.support.dead_letters import (
    PLENTY,
    entries,
    events_in,
    few,
    files,
    folder,
    letters_in,
    queue_of_name,
    replay,
    size,
    write_all,
    writer,
)
from tests.support.disks import largest_file
from tests.support.machines import check_machine
from tests.support.queues import FEW, SMALL, drain
from tests.support.strategies import answers, any_events, refusals, texts, wall_times
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from baseplate_events.event_publisher.dead_letters.record import Entry

DAY = 86_400.0


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
        write_all(letters, [b"%d" % index for index in range(50)])
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
            write_all(letters, [*events, in_flight])
        (file,) = files(path)
        lines = file.read_bytes().splitlines(keepends=True)
        cut = data.draw(st.integers(0, len(lines[-1]) - 1), label="bytes of the last line")
        file.write_bytes(b"".join(lines[:-1]) + lines[-1][:cut])
        torn = [Unreadable(Number(1, len(lines)), torn=True)] if cut else []
        assert torn == entries(path)[len(events) :]
        with writer(path) as letters:
            write_all(letters, [b"later"])
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
        write_all(letters, events)
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
        write_all(letters, [b"first"])
        with (
            mock.patch.object(Folder, "truncate", side_effect=OSError(5, "Input/output error")),
            largest_file(size(path) + 20),
            pytest.raises(DeadLetterError),
        ):
            write_all(letters, [b"second"])
        write_all(letters, [b"third"])
        assert [b"first", b"third"] == events_in(path)
        assert [Unreadable(Number(1, 2), torn=True)] == [
            entry for entry in entries(path) if isinstance(entry, Unreadable)
        ]


def test_letters_dropped_by_a_call_that_failed_are_counted_later(tmp_path: Path) -> None:
    """What an unsuccessful call dropped is in the count of the next that succeeds."""
    path = str(tmp_path)
    with writer(path) as letters:
        write_all(letters, [b"%d" % index for index in range(5)])
    with writer(path, max_size=1) as letters:
        with largest_file(0), pytest.raises(DeadLetterError):
            letters.write(b"fails", status=None, reason="r")
        assert letters.write(b"last", status=None, reason="r") == 5
        assert [b"last"] == events_in(path)


def test_a_deletion_that_fails_is_the_next_calls_error(tmp_path: Path) -> None:
    """Where the oldest can't be deleted, the letter at hand is there; no more are added beyond the size."""
    path = str(tmp_path)
    with writer(path, max_size=1) as letters:
        write_all(letters, [b"first"])
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
            write_all(letters, [b"1", b"2"])
        assert not synced
        with writer(path, sync=True) as letters:
            write_all(letters, [b"3", b"4"])
    assert len(synced) == 2
    assert files(path)[-1].stat().st_size == synced[-1]
    with writer(path, sync=True) as letters:
        write_all(letters, [b"5"])
        failing = mock.patch.object(Folder, "sync", side_effect=OSError(5, "Input/output error"))
        with failing, pytest.raises(DeadLetterError, match="Input/output error"):
            write_all(letters, [b"6"])
        assert [b"1", b"2", b"3", b"4", b"5"] == events_in(path)
        write_all(letters, [b"6"])
        *_, before, after = letters_in(path)
        assert before.number.file < after.number.file  # for what a failed sync left is unknown
        assert b"6" == after.event


def test_with_sync_a_file_that_may_not_be_there_isnt_used(tmp_path: Path) -> None:
    """With `sync`, where a new file isn't known to be on the disk, nothing is buried in it."""
    path = str(tmp_path)
    with writer(path, sync=True) as letters:
        failing = mock.patch.object(Folder, "sync_names", side_effect=OSError(5, "Input/output error"))
        with failing, pytest.raises(DeadLetterError, match="Input/output error"):
            write_all(letters, [b"1"])
        write_all(letters, [b"2"])
    assert [(Number(2, 1), b"2")] == [(letter.number, letter.event) for letter in letters_in(path)]


# --- the folder ---


def test_one_writer_a_folder_and_only_its_user_reads(tmp_path: Path) -> None:
    """A second writer is refused while the first is open; files are 0600 in a folder that is 0700."""
    path = str(tmp_path / "a" / "rejected")
    with writer(path) as letters:
        write_all(letters, [b"1"])
        with pytest.raises(DeadLetterError, match="another publisher") as caught:
            DeadLetters(path, max_size=PLENTY)
        assert path == caught.value.path
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o700
        assert [0o600] == [stat.S_IMODE(file.stat().st_mode) for file in files(path)]
    with writer(path) as letters:
        write_all(letters, [b"2"])
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
        assert call("dead-letters", "purge", path, "--yes").status == 1
        with pytest.raises(DeadLetterError):
            write_all(letters, [b"e"])
    assert before == outside.read_bytes()


def test_a_writer_stays_in_a_folder_that_is_moved(tmp_path: Path) -> None:
    """A writer whose folder is moved keeps to it and to its size, whatever takes its place."""
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    with writer(old, max_size=1) as letters:
        write_all(letters, [b"1"])
        Path(old).rename(new)
        with writer(old) as others:
            write_all(others, [b"other"])
            assert write_all(letters, [b"2", b"3"]) == 2
    assert [b"other"] == events_in(old)
    assert [b"3"] == events_in(new)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Files of other names are neither read nor counted nor dropped."""
    path = str(tmp_path)
    others = {"notes.txt", "letters-1.jsonl", "letters-0000000001.jsonl.bak"}
    for name in others:
        (tmp_path / name).write_text("not a letter\n" * 100)
    with writer(path, max_size=1) as letters:
        write_all(letters, [b"1", b"2"])
    assert [b"2"] == events_in(path)
    assert call("dead-letters", "purge", path, "--yes").status == 0
    assert others == {file.name for file in tmp_path.iterdir()}


# --- taking out, with the writer at work ---


def test_half_of_taking_out_is_enough(tmp_path: Path) -> None:
    """A letter whose line is overwritten from its first byte up to any other is out, and moves no other."""
    path = str(tmp_path)
    with writer(path) as letters:
        write_all(letters, [b"1", b"2", b"3"])
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
        write_all(letters, [b"1", b"2", b"3", b"4"])
        with pytest.raises(BrokenPipeError):
            take_out(path, 1, take)
        assert [b"3", b"4"] == events_in(path)
        # Nothing of an event that is out is left, and what is left is JSON lines to others too.
        lines = files(path)[0].read_bytes().split(b"\n")
        assert [b"", b"", b"{", b"{", b""] == [line.strip()[:1] for line in lines]
        write_all(letters, [b"5"])  # the lock was let go of
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
        write_all(letters, [b"1"])
    take_out(path, 1, take)
    assert [b"1"] == events_in(path)


def test_a_torn_line_doesnt_keep_a_file(tmp_path: Path) -> None:
    """A file whose letters are all out is deleted, torn line and all; a damaged line keeps it."""
    path = str(tmp_path)
    with writer(path) as letters:
        write_all(letters, [b"1"])
    (file,) = files(path)
    letter = file.read_bytes()
    file.write_bytes(letter + letter[:-1])
    take_out(path, 1, lambda entry: isinstance(entry, Letter))
    assert not files(path)
    file.write_bytes(letter + b"damaged\n")
    take_out(path, 1, lambda entry: isinstance(entry, Letter))
    assert [Unreadable(Number(1, 2), torn=False)] == entries(path)
    assert "1 lines can't be read" in call("dead-letters", "list", path).err
    assert call("dead-letters", "purge", path, "--older-than", "0 days", "--yes").out == "nothing to delete\n"
    assert call("dead-letters", "purge", path, "--yes").out == "deleted 1 letters\n"
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
        said = call("dead-letters", "purge", self.path, "--yes", *words)
        assert said.status == 0
        left = {event: age for event, age in self.present.items() if older is not None and age < older}
        self.purged += len(self.present) - len(left)
        assert len(self.present) == len(left) or f"deleted {len(self.present) - len(left)} " in said.out
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
            dropped.append(write_all(letters, [b"%d" % index for index in range(total)]))
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


def test_numbers_only_grow_while_a_writer_is_open(tmp_path: Path) -> None:
    """A letter never gets a number that another had under the same writer, also when that is gone."""
    path = str(tmp_path)
    seen: set[Number] = set()
    with writer(path) as letters:
        for event in map(str, itertools.chain(range(6))):
            write_all(letters, [event.encode()])
            numbers = {letter.number for letter in letters_in(path)}
            assert not numbers & seen
            seen |= numbers
            assert call("dead-letters", "purge", path, "--yes").status == 0
    assert len(seen) == 6
