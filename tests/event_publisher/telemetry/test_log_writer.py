"""Writing log lines to stderr: nothing waits for a reader, and lost lines are counted."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import threading
from typing import TYPE_CHECKING, TextIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baseplate_events.event_publisher.telemetry.log_writer import FLUSH_TIME, LineWriter
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

#: Bytes of the smallest pipe: a page.
PAGE = 4_096

#: Bytes of lines that may wait in these tests.
CAPACITY = 500


def notice(missing: int) -> str:
    """Return how many lines are missing."""
    return f"missing {missing}"


@contextlib.contextmanager
def small_pipe() -> Generator[tuple[int, TextIO]]:
    """Yield a pipe with room for a page: its read end, and a stream for the write end."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PAGE)
    with contextlib.closing(os.fdopen(writer, "w")) as stream:
        try:
            yield reader, stream
        finally:
            os.close(reader)  # which ends the waiting of a thread that a failed test left behind


def read_available(reader: int) -> bytes:
    """Read what is in a pipe now."""
    data = b""
    while select.select([reader], [], [], 0)[0] and (more := os.read(reader, PAGE)):
        data += more
    return data


def read_all(reader: int, writer: LineWriter) -> bytes:
    """Read until a writer has written everything."""
    pieces: list[bytes] = []

    def has_written_all() -> bool:
        done = writer.flush(0.01)
        pieces.append(read_available(reader))
        return done

    wait_until(has_written_all, "lines are left", interval=0.0)
    return b"".join(pieces)


def fill(stream: TextIO) -> None:
    """Leave no room in a pipe."""
    os.write(stream.fileno(), b"." * (PAGE - 1) + b"\n")


@given(st.lists(st.integers(0, CAPACITY) | st.none(), max_size=60))
@example([CAPACITY // 2] * 30)
@example([CAPACITY - 1, None, CAPACITY])
def test_every_line_is_written_or_counted(sizes: list[int | None]) -> None:
    """Whatever the reader does, each line arrives in order or is counted as missing."""
    with small_pipe() as (reader, stream):
        writer = LineWriter(stream, notice, capacity=CAPACITY)
        lines: list[str] = []
        data = b""
        for size in sizes:
            if size is None:
                data += read_available(reader)
            else:
                lines.append(f"{len(lines)} ".ljust(size, "x"))
                writer.put(lines[-1])
        data += read_all(reader, writer)
        found = data.decode().splitlines()
        missing = [int(line.removeprefix("missing ")) for line in found if line.startswith("missing ")]
        assert sum(missing) == writer.dropped
        kept = [line for line in found if not line.startswith("missing ")]
        assert kept == [line for line in lines if line in kept]
        assert len(lines) - len(kept) == writer.dropped


def test_no_line_waits_for_a_reader_and_the_newest_are_kept() -> None:
    """An unread pipe blocks nothing; a late reader gets the last lines and the number of missing ones."""
    with small_pipe() as (reader, stream):
        fill(stream)
        writer = LineWriter(stream, notice, capacity=CAPACITY)
        for number in range(1_000):
            writer.put(f"line {number}")
        assert not writer.flush(0.01)
        writer.put("the last words")
        found = read_all(reader, writer).decode().splitlines()[1:]
        missing = [int(line.removeprefix("missing ")) for line in found if line.startswith("missing ")]
        assert sum(missing) == writer.dropped
        assert len(found) - len(missing) + writer.dropped == 1_001
        assert found[-2:] == ["line 999", "the last words"]
        assert writer.flush()


def test_lines_that_are_dropped_during_the_last_write_are_reported() -> None:
    """A flush waits for the notice of a line that was dropped while the one before it was written."""
    with small_pipe() as (reader, stream):
        fill(stream)
        writer = LineWriter(stream, notice, capacity=CAPACITY)
        writer.put("the last line")
        lines = writer._lines  # pyright: ignore[reportPrivateUsage]
        wait_until(lambda: not lines, "the thread doesn't write", interval=0.0)
        writer.put("x" * CAPACITY)
        assert not writer.flush(0.01)
        assert read_all(reader, writer).endswith(b"the last line\nmissing 1\n")


def test_a_line_longer_than_a_pipe_is_whole() -> None:
    """A line that needs several writes arrives whole, and one without room is counted."""
    with small_pipe() as (reader, stream):
        writer = LineWriter(stream, notice, capacity=5 * PAGE)
        writer.put("x" * 4 * PAGE)
        assert read_all(reader, writer).decode().splitlines() == ["x" * 4 * PAGE]
        writer.put("y" * 5 * PAGE)
        writer.put("z")
        assert read_all(reader, writer).decode().splitlines() == ["missing 1", "z"]


def test_a_pipe_that_others_made_nonblocking_loses_nothing() -> None:
    """Another process may have set O_NONBLOCK on the pipe: the lines wait for room, and arrive whole."""
    with small_pipe() as (reader, stream):
        os.set_blocking(stream.fileno(), False)
        writer = LineWriter(stream, notice, capacity=20 * PAGE)
        lines = [str(number) * 700 for number in range(20)]
        for line in lines:
            writer.put(line)
        assert read_all(reader, writer).decode().splitlines() == lines
        assert writer.dropped == 0


def broken_pipe() -> int:
    """Return a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("error", ["EPIPE", "ENOSPC", "EBADF"])
def test_lines_that_cant_be_written_are_counted_until_they_can(error: str, tmp_path: Path) -> None:
    """Nothing is raised; the number is written before the first line that can be written again."""
    log_file = tmp_path / "log"
    with log_file.open("w") as stream, contextlib.ExitStack() as undo:
        good = os.dup(stream.fileno())
        undo.callback(os.close, good)
        if error == "EBADF":
            bad = os.open(log_file, os.O_RDONLY)  # as good as none
        elif error == "ENOSPC":
            bad = os.open("/dev/full", os.O_WRONLY)
        else:
            bad = broken_pipe()
        undo.callback(os.close, bad)
        writer = LineWriter(stream, notice)
        writer.put("before")
        assert writer.flush(PATIENCE)
        os.dup2(bad, stream.fileno())
        for _ in range(3):
            writer.put("lost")
        assert writer.flush(PATIENCE)
        assert writer.dropped == 3
        os.dup2(good, stream.fileno())
        writer.put("after")
        assert writer.flush(PATIENCE)
        assert log_file.read_text() == "before\nmissing 3\nafter\n"
        assert writer.dropped == 3


def test_at_the_end_the_number_is_written_without_another_line(tmp_path: Path) -> None:
    """`flush` reports what was dropped even if no line follows."""
    log_file = tmp_path / "log"
    with log_file.open("w") as stream:
        writer = LineWriter(stream, notice, capacity=10)
        writer.put("x")
        writer.put("x" * 10)
        writer.lose()
        assert writer.flush(PATIENCE)
        writer.flush()
    lines = log_file.read_text().splitlines()
    assert lines.count("x") == 1
    assert sum(int(line.removeprefix("missing ")) for line in lines if line != "x") == 2


def test_a_torn_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    """After a partial write to a full disk, the next line starts on a new line."""
    log_file = tmp_path / "log"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with log_file.open("w") as stream:
        writer = LineWriter(stream, notice)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        try:
            writer.put("x" * 20)
            writer.put("y")
            assert writer.flush(PATIENCE)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        writer.put("z")
        assert writer.flush(PATIENCE)
    assert log_file.read_text().splitlines() == ["x" * 10, "missing 2", "z"]


def test_without_a_stderr_lines_are_counted(tmp_path: Path) -> None:
    """A stream that was closed loses lines and raises nothing."""
    with (tmp_path / "log").open("w") as stream:
        writer = LineWriter(stream, notice)
    for _ in range(2):
        writer.put("line")
    assert writer.flush(PATIENCE)
    assert writer.dropped == 2


def test_what_stderr_cant_encode_is_escaped(tmp_path: Path) -> None:
    """A stream in ASCII gets ASCII, and a lone surrogate is no error."""
    log_file = tmp_path / "log"
    for encoding, expected in (("ascii", "\\xe9\\udc80\n"), ("utf-8", "é\\udc80\n")):
        with log_file.open("w", encoding=encoding) as stream:
            writer = LineWriter(stream, notice)
            writer.put("é\udc80")
            assert writer.flush(PATIENCE)
        assert log_file.read_text(encoding="utf-8") == expected


def test_a_thread_that_cant_start_costs_lines_until_one_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit of threads lines are counted; the first line after that brings the number."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    log_file = tmp_path / "log"
    with log_file.open("w") as stream:
        writer = LineWriter(stream, notice)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            writer.put("lost")
            assert not writer.flush(FLUSH_TIME)
        writer.put("after")
        assert writer.flush(PATIENCE)
    assert log_file.read_text() == "missing 1\nafter\n"
