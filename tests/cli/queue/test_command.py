"""The command `queue`, on real queues: what it says, what it takes away and what it leaves."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import io
import json
import os
import re
import signal
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.cli.common import posix_queue_name
from baseplate_events.cli.queue import command, posix_ends, transfer
from baseplate_events.cli.queue.info import MOUNT_COMMAND, QueueInfo, inspect_queue, user_name
from baseplate_events.errors import EventError, EventQueuePermissionError
from baseplate_events.event_publisher.standard_streams import NO_STDOUT
from baseplate_events.transport.descriptor import find_queue
from baseplate_events.transport.limits import QueueSize, read_limits
from baseplate_events.transport.posix import MAX_NAME_SIZE, MessageQueue
from tests.cli.queue.processes import process
from tests.support.commands import call
from tests.support.examples import examples
from tests.support.processes import finish, hear, say
from tests.support.queues import as_user, bytes_of_queues, drain, fresh_name, needs_root
from tests.support.strategies import json_events
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

#: Events and bytes of the queues here.
FEW, SMALL = 6, 400


@contextlib.contextmanager
def small_queue(max_messages: int = FEW, *, mode: int = 0o600) -> Generator[tuple[str, MessageQueue]]:
    """Make a queue; give its POSIX name and the queue."""
    with (
        fresh_name("/events-test-") as name,
        MessageQueue(name, max_messages=max_messages, max_message_size=SMALL, mode=mode) as queue,
    ):
        yield name, queue


def count_put(out: str, name: str) -> int:
    """Return how many events `write` says that it put on the queue of this name, which it says last."""
    assert name in out
    return numbers(out.replace(name, ""))[-1]


def numbers(text: str) -> list[int]:
    """Return the numbers in a text."""
    return [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", text)]


# --- names ---


@given(st.one_of(st.text(max_size=8), st.sampled_from(["v2", ".", "..", "/", "/.", "/..", "a/b", "é" * 140])))
def test_every_name_that_is_accepted_is_one_for_the_kernel(text: str) -> None:
    """A NAME gives a POSIX name that the kernel accepts, and a POSIX name gives itself."""
    try:
        name = posix_queue_name(text)
    except argparse.ArgumentTypeError:
        return
    assert name.startswith("/")
    assert len(os.fsencode(name)) <= MAX_NAME_SIZE
    assert name == posix_queue_name(name)
    with contextlib.suppress(EventQueuePermissionError):  # another user's queue is a queue too
        descriptor = find_queue(name, read=False)
        if descriptor is not None:
            descriptor.close()


@pytest.mark.parametrize("name", ["", "a/b", "/", "/..", "/a/b", "x" * 300])
def test_a_name_that_cant_be_is_a_mistake_of_usage(name: str) -> None:
    """It ends with 2, and says what a name may be."""
    result = call("queue", "stat", name)
    assert result.status == 2
    assert "can't name a queue" in result.err


@pytest.mark.parametrize("action", ["stat", "read", "write", "unlink"])
def test_a_queue_that_isnt_there_is_reported_and_not_created(action: str, tmp_path: Path) -> None:
    """Every action except `create` exits with 1, says how to create a queue, and leaves nothing behind."""
    lines = tmp_path / "events"
    lines.write_text("{}\n")
    with fresh_name("/events-test-") as name:
        words = [str(lines)] if action == "write" else []
        result = call("queue", action, name.removeprefix("/events-"), *words)
        assert result.status == 1
        assert f"queue create {name}`" in result.err
        assert inspect_queue(name) is None


# --- stat ---


@given(st.integers(1, FEW), st.data())
@examples(15)
def test_stat_reports_what_the_queue_is(capacity: int, data: st.DataObject) -> None:
    """The JSON has the queue's own numbers, and the table has them too."""
    depth = data.draw(st.integers(0, capacity))
    with small_queue(capacity) as (name, queue):
        for _ in range(depth):
            queue.put(b"{}")
        result = call("queue", "stat", name, "--json")
        info = json.loads(result.out)
        assert result.status == 0
        assert {
            "name": name,
            "transport": "posix",
            "depth": depth,
            "capacity": capacity,
            "max_event_size": SMALL,
            "bytes_charged": QueueSize(capacity, SMALL).bytes_charged,
            "uid": os.geteuid(),
            "gid": os.getegid(),
            "mode": "0600",
            "readers": f"user {user_name(os.geteuid())}",
            "warnings": [],
        } == info
        table = call("queue", "stat", name.removeprefix("/events-"))
        assert re.search(rf"depth +{depth} of {capacity} events?", table.out)
        assert "0600" in table.out
        assert table.err == ""
        assert depth == queue.current_messages


@pytest.mark.parametrize(("mode", "readers"), [(0o644, "every user"), (0o640, "group"), (0o200, "only root")])
def test_stat_reports_who_may_read_events(mode: int, readers: str) -> None:
    """Read access of all users is a warning with the command that ends it; that of a group isn't."""
    with small_queue(mode=mode) as (name, _):
        result = call("queue", "stat", name)
        assert result.status == 0
        assert readers in result.out
        assert (mode == 0o644) == (f"chmod 0640 /dev/mqueue{name}" in result.err)


@needs_root
def test_the_queue_of_another_user_is_reported_as_such() -> None:
    """A queue of another user ends it with 1, the user and the remedy."""
    with small_queue() as (name, _), as_user(65_534):
        result = call("queue", "stat", name)
        with pytest.raises(EventQueuePermissionError) as refused:
            find_queue(name, read=False)
    assert (1, f"{refused.value}\n") == (result.status, result.err)


def test_a_queue_that_doesnt_show_has_to_be_mounted_first() -> None:
    """If `/dev/mqueue` isn't there, the command that changes a mode begins with the mount."""
    shown = QueueInfo("/a b", QueueSize(1, 1), 0, 0, 0, 0o644, shown=True)
    assert shown.chmod_command(0o600) == "`chmod 0600 '/dev/mqueue/a b'` as its owner"
    hidden = replace(shown, shown=False)
    assert MOUNT_COMMAND in hidden.chmod_command(0o600)


def test_an_owner_without_a_name_is_shown_by_number() -> None:
    """A user id without a name is shown as a number."""
    assert user_name(4_000_000_123) == "4000000123"


# --- write and read ---


@given(st.lists(json_events.filter(lambda event: len(event) <= SMALL), max_size=FEW), st.booleans())
@examples(30)
def test_what_is_written_is_read_in_order(events: list[bytes], ended: bool) -> None:
    """`write` puts each line, `read` prints the same lines and leaves nothing; both end with 0."""
    with small_queue() as (name, queue), open_lines(events, ended=ended) as path:
        written = call("queue", "write", name, path)
        assert (0, len(events), "") == (written.status, count_put(written.out, name), written.err)
        result = call("queue", "read", name)
        assert result.status == 0
        assert [event.strip(b" \t") for event in events] == result.out.encode().splitlines()
        assert queue.current_messages == 0


@contextlib.contextmanager
def open_lines(events: list[bytes], *, ended: bool = True) -> Generator[str]:
    """Yield the path of a file with these lines, blank ones between them."""
    reader, writer = os.pipe()
    text = b"\n \r\n".join(events) + (b"\n" if ended else b"")
    os.write(writer, text)  # a few kilobytes: a pipe holds 64 KiB
    os.close(writer)
    try:
        yield f"/dev/fd/{reader}"
    finally:
        os.close(reader)


@given(st.lists(st.text("\n\r\v x{\x85é\x1b", min_size=1, max_size=9).map(str.encode), max_size=FEW))
@examples(30)
def test_read_prints_each_event_as_one_line(events: list[bytes]) -> None:
    """Whatever events contain, each is one line, and only line breaks are changed."""
    with small_queue() as (name, queue):
        for event in events:
            queue.put(event)
        result = call("queue", "read", name)
        lines = result.out_bytes.split(b"\n")[:-1]
        assert [event.replace(b"\n", b" ").replace(b"\r", b" ") for event in events] == lines


@given(st.integers(1, FEW), st.integers(1, FEW + 2))
@examples(10)
def test_count_leaves_the_rest(depth: int, count: int) -> None:
    """`--count N` takes N events, or all if there are fewer, and leaves the others in their order."""
    with small_queue() as (name, queue):
        for number in range(depth):
            queue.put(b"%d" % number)
        result = call("queue", "read", name, "--count", str(count))
        assert result.status == 0
        assert [str(number) for number in range(min(count, depth))] == result.out.splitlines()
        assert [b"%d" % number for number in range(min(count, depth), depth)] == drain(queue)


def test_an_event_that_cant_be_printed_goes_back_ahead_of_all() -> None:
    """A full disk costs nothing: the events are there in their old order, and the status is 1."""
    with small_queue() as (name, queue), open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        for number in range(3):
            queue.put(b"%d" % number)
        with contextlib.redirect_stdout(full), contextlib.redirect_stderr(io.StringIO()) as err:
            status = command.run(parse("read", name))
        assert status == 1
        assert "No space left" in err.getvalue()
        assert [b"0", b"1", b"2"] == drain(queue)


def test_an_event_that_no_one_reads_goes_back_quietly() -> None:
    """If the reader of stdout leaves between receiving and printing, the event is put back silently."""
    ours, theirs = socket.socketpair()
    theirs.close()
    with small_queue() as (name, queue), ours, ours.makefile("w") as output:
        queue.put(b"0")
        queue.put(b"1")
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()) as err:
            status = command.run(parse("read", name))
        assert (0, "") == (status, err.getvalue())
        assert [b"0", b"1"] == drain(queue)


def parse(*words: str) -> argparse.Namespace:
    """Parse arguments of the command."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_nothing_is_taken_for_a_reader_that_has_gone() -> None:
    """With a broken pipe for stdout `read` takes nothing, also while it follows, and ends with 0."""
    with small_queue() as (name, queue):
        reader, writer = os.pipe()
        os.close(reader)
        queue.put(b"{}")
        with process("read", name, stdout=writer) as running:
            os.close(writer)
            assert running.wait(PATIENCE) == 0
        assert drain(queue) == [b"{}"]
        with process("read", name, "--follow") as running:
            queue.put(b"{}")
            assert hear(running) == "{}"
            assert running.stdout is not None
            running.stdout.close()
            assert running.wait(PATIENCE) == 0


def test_an_interrupted_read_leaves_the_rest() -> None:
    """SIGINT ends a read between two events, with 1; what wasn't printed is still in the queue."""
    with small_queue() as (name, queue):
        for number in range(FEW):
            queue.put(b"%d" % number * SMALL)
        reader, writer = os.pipe()
        # Full after three events, so that the fourth is being put when the signal arrives.
        held = b"x" * (fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ) - 3 * (SMALL + 1))
        os.write(writer, held)
        with process("read", name, stdout=writer) as running, os.fdopen(reader, "rb") as output:
            os.close(writer)
            wait_until(lambda: queue.current_messages <= FEW - 4, "too few were read")
            running.send_signal(signal.SIGINT)
            printed = output.read().removeprefix(held).splitlines()
            result = finish(running)
        assert (1, True) == (result.status, "still in the queue" in result.err)
        assert [b"%d" % number * SMALL for number in range(4)] == printed
        assert [b"%d" % number * SMALL for number in range(4, FEW)] == drain(queue)


def test_nothing_is_taken_without_a_stdout() -> None:
    """If there is no stdout at all, that is a mistake of usage."""
    with small_queue() as (name, queue):
        queue.put(b"{}")
        with contextlib.redirect_stdout(None), contextlib.redirect_stderr(io.StringIO()) as err:
            status = command.run(parse("read", name))
        assert (2, f"{NO_STDOUT}\n") == (status, err.getvalue())
        assert drain(queue) == [b"{}"]


def test_an_event_waits_for_room_to_go_back_to() -> None:
    """If producers have filled the queue, the event is put back at its head as soon as there is room."""
    with small_queue(2) as (name, queue):
        queue.put(b"a")
        queue.put(b"b")
        descriptor = find_queue(name, read=True)
        assert descriptor is not None
        taken: list[bytes | None] = []
        warned = threading.Event()

        class Warned(io.StringIO):
            def flush(self) -> None:
                warned.set()

        def make_room() -> None:
            warned.wait(PATIENCE)
            taken.append(queue.get())

        thread = threading.Thread(target=make_room)
        thread.start()
        with contextlib.redirect_stderr(Warned()) as err, transfer.Interrupts() as interrupts:
            posix_ends.PosixSource(name, descriptor).put_back(b"held", interrupts)
        thread.join(PATIENCE)
        descriptor.close()
        assert "waiting for room" in err.getvalue()
        assert [b"a"] == taken
        assert [b"held", b"b"] == drain(queue)


def test_an_event_that_cant_go_back_is_reported_as_lost() -> None:
    """Interrupting that wait loses an event, and says so."""
    with small_queue(1) as (name, queue):
        queue.put(b"a")
        descriptor = find_queue(name, read=True)
        assert descriptor is not None
        with contextlib.redirect_stderr(io.StringIO()), transfer.Interrupts() as interrupts:
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(EventError, match="1 event lost"):
                posix_ends.PosixSource(name, descriptor).put_back(b"held", interrupts)
        descriptor.close()
        assert drain(queue) == [b"a"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_follow_prints_what_comes_until_a_signal(number: signal.Signals) -> None:
    """`--follow` prints events as they arrive; SIGINT and SIGTERM end it with 0 and lose nothing."""
    with small_queue() as (name, queue), process("read", name, "--follow") as running:
        for event in (b'{"a":1}', b'{"b":2}'):
            queue.put(event)
            assert event.decode() == hear(running)
        running.send_signal(number)
        assert running.wait(PATIENCE) == 0
        queue.put(b"{}")
        assert drain(queue) == [b"{}"]


def test_follow_ends_when_the_queue_is_removed() -> None:
    """A queue that no one can put on any more is reported, after its events."""
    with small_queue() as (name, queue), process("read", name, "--follow") as running:
        queue.put(b"1")
        assert hear(running) == "1"
        queue.put(b"2")
        queue.unlink()
        result = finish(running)
    assert (1, "2\n") == (result.status, result.out)
    assert "was removed" in result.err


def test_a_full_queue_stops_write_with_the_count(tmp_path: Path) -> None:
    """It exits with 1, and says how many were put and which line is next; no event is incomplete."""
    lines = tmp_path / "events"
    lines.write_text("\n".join(str(number) for number in range(FEW + 3)))
    with small_queue() as (name, queue):
        result = call("queue", "write", name, str(lines), "--timeout", "0 seconds")
        assert (1, FEW) == (result.status, count_put(result.out, name))
        assert numbers(result.err) == [FEW, FEW + 1]  # the capacity, and the line
        assert [b"%d" % number for number in range(FEW)] == drain(queue)


def test_the_words_of_write(tmp_path: Path) -> None:
    """It says how many events it put, and where and why it stopped."""
    lines = tmp_path / "events"
    lines.write_text("1\n2\n")
    with small_queue(1) as (name, _):
        result = call("queue", "write", name, str(lines), "--timeout", "0 seconds")
        assert result.out == f"put 1 event on {name}\n"
        assert result.err == "the queue is full (1 event); line 2 and the lines after it weren't put\n"


def test_write_waits_for_room() -> None:
    """It waits for a full queue up to its timeout, and every line of stdin is put."""
    with small_queue(2) as (name, queue), process("write", name) as running:
        for number in range(20):
            say(running, str(number))
        assert [b"%d" % number for number in range(20)] == [queue.get(PATIENCE) for _ in range(20)]
        assert count_put(finish(running).check(), name) == 20


@given(st.integers(SMALL - 2, SMALL + 1_000))
@examples(15)
def test_a_line_that_is_too_large_stops_write(size: int) -> None:
    """An event is put whole or not at all; the first that doesn't fit is reported by its line."""
    event = b"x" * size
    with small_queue() as (name, queue), open_lines([b"first", event, b"last"]) as path:
        result = call("queue", "write", name, path)
        if size <= SMALL:
            assert result.status == 0
            assert [b"first", event, b"last"] == drain(queue)
        else:
            assert (1, 1) == (result.status, count_put(result.out, name))
            assert numbers(result.err)[-2:] == [SMALL, 3]  # the limit, and the line after a blank one
            assert [b"first"] == drain(queue)


def test_write_can_be_interrupted_while_it_waits_for_lines() -> None:
    """SIGINT ends it with 1 and the count; what was put stays."""
    with small_queue() as (name, queue), process("write", name) as running:
        say(running, "1")
        say(running, "2")
        assert [b"1", b"2"] == [queue.get(PATIENCE), queue.get(PATIENCE)]
        running.send_signal(signal.SIGINT)
        result = finish(running)
    assert (1, 2) == (result.status, count_put(result.out, name))
    assert numbers(result.err) == [3]  # the line


def test_write_stops_when_the_queue_is_removed() -> None:
    """Nothing is put on a queue that no one can find any more."""
    with small_queue() as (name, queue), process("write", name) as running:
        say(running, "1")
        assert queue.get(PATIENCE) == b"1"
        queue.unlink()
        say(running, "2")
        assert finish(running).status == 1
        assert queue.current_messages == 0


def test_a_file_that_cant_be_read_is_a_mistake_of_usage(tmp_path: Path) -> None:
    """A missing FILE ends with 2, a folder with 1, each with its name or reason."""
    with small_queue() as (name, _):
        missing = call("queue", "write", name, str(tmp_path / "nothing"))
        assert missing.status == 2
        assert "nothing" in missing.err


# --- create and unlink ---


def test_create_makes_what_was_asked_for_or_finds_it() -> None:
    """It prints size and mode; a second call leaves the queue unchanged, and reports a mode that differs."""
    with fresh_name("/events-test-") as name:
        words = ["queue", "create", name, "--max-queue-size", "3", "--max-event-size", "100"]
        made = call(*words, "--queue-mode", "0660", "--strict")
        assert (0, f"{name} created: 3 events of at most 100 bytes, mode 0660\n", "") == (
            made.status,
            made.out,
            made.err,
        )
        again = call(*words)
        assert again.status == 0
        assert again.out.startswith(f"{name} already exists: ")
        assert made.out.endswith(again.out.partition(": ")[2])
        assert f"chmod 0600 /dev/mqueue{name}" in again.err


@needs_root
def test_create_accepts_the_limits_and_names_the_remedy(capfd: pytest.CaptureFixture[str]) -> None:
    """By default it requests the size of an event queue; if that is refused, it says how to raise limits."""
    read_limits()  # another user may not be able to read what Python needs for that
    with fresh_name("/events-test-") as name, bytes_of_queues(50_000):
        strict = call("queue", "create", name, "--strict")
        assert strict.status == 1
        assert "ulimit -q 1024960000" in strict.err
        assert inspect_queue(name) is None
        assert call("queue", "create", name).status == 0
        info = inspect_queue(name)
        assert info is not None
        assert info.size.bytes_charged <= 50_000
        call("queue", "unlink", name)
    capfd.readouterr()  # the warning, which logging writes to the stderr that there was


@pytest.mark.parametrize(
    "words",
    [
        ["--max-queue-size", "0"],
        ["--max-queue-size", "x"],
        ["--max-queue-size", "65537"],
        ["--queue-mode", "9"],
        ["--queue-mode", "7777"],
    ],
)
def test_a_size_or_mode_that_cant_be_is_a_mistake_of_usage(words: list[str]) -> None:
    """A bad argument ends it with 2, and nothing is created."""
    with fresh_name("/events-test-") as name:
        assert call("queue", "create", name, *words).status == 2
        assert inspect_queue(name) is None


def test_unlink_loses_no_event_unless_forced() -> None:
    """A queue with events stays, unless by `--force`, which counts them; an empty one goes."""
    with small_queue() as (name, queue):
        queue.put(b"{}")
        refused = call("queue", "unlink", name)
        assert refused.status == 1
        assert "holds 1 event," in refused.err
        assert "--force" in refused.err
        assert inspect_queue(name) is not None
        forced = call("queue", "unlink", name, "--force")
        assert (0, f"removed {name} with 1 event\n") == (forced.status, forced.out)
        assert queue.removed
        assert call("queue", "unlink", name, "--force").status == 1
    with small_queue() as (name, queue):
        removed = call("queue", "unlink", name)
        assert (0, f"removed {name}\n", "") == (removed.status, removed.out, removed.err)
        assert queue.removed


@pytest.mark.parametrize("action", [[], ["stat"], ["read"], ["write"], ["create"], ["unlink"]])
def test_every_action_has_a_help_page_with_examples(action: list[str]) -> None:
    """`--help` ends with 0 and shows examples with the whole command; `read` warns that it removes events."""
    result = call("queue", *action, "--help")
    assert result.status == 0
    assert "examples:" in result.out
    assert f"queue {' '.join(action)}".strip() + " " in result.out.split("examples:")[1]
    if action == ["read"]:
        assert "REMOVES THE EVENTS" in result.out
