"""Moves events between a queue and lines of text, for any transport.

Rules:

1. An event that was removed from a POSIX queue and can't be written to stdout is put back at its head; an
   event in a spool stays there until it was written to stdout. Events in the pipe of another program belong
   to that program.
2. Each event is put whole or not at all; the first that can't be put ends the command.
3. Signals take effect between two events, or during a wait.
"""

from __future__ import annotations

import contextlib
import io
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, final

from ..._words import counted
from ...errors import ConfigurationError, EventError, EventTooLargeError
from ...event_publisher.exit_status import EXIT_FAILURE, print_stderr
from ...event_publisher.standard_streams import NO_STDOUT, is_open, report
from ..terminal import event_for_terminal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Generator
    from types import FrameType, TracebackType

#: Seconds for which an empty queue is polled at a time, and so how long it takes to notice that the queue was
#: removed, or that the reader of stdout is gone.
_WATCH_INTERVAL: Final = 1.0

#: Seconds of one wait for a full queue.
SLICE: Final = 0.5

#: JSON has line breaks only between tokens, where a blank works as well.
_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")

#: JSON's whitespace.
_BLANKS: Final = b" \t\r\n"


@final
class Interrupts:
    """Lets SIGINT and SIGTERM take effect between two events. A context manager.

    Attributes:
        came: Whether a signal has arrived.
    """

    def __init__(self) -> None:
        self.came: bool = False
        self._waiting = False
        self._handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def _record(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True
        if self._waiting:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def waiting(self) -> Generator[None]:
        """Let a signal raise `KeyboardInterrupt` within the context; no event may be in memory then."""
        self._waiting = True
        try:
            if self.came:
                raise KeyboardInterrupt
            yield
        finally:
            self._waiting = False

    def __enter__(self) -> Interrupts:
        for number in self._handlers:
            signal.signal(number, self._record)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


class Source(Protocol):
    """A queue from which events are read.

    Attributes:
        unprinted: What happened to an event that couldn't be printed, in words.
    """

    unprinted: str

    def try_take(self) -> bytes | None:
        """Read the next event; None if there is none now."""
        ...

    def settle(self) -> None:
        """Record that the last event was printed."""

    def put_back(self, event: bytes, interrupts: Interrupts, /) -> None:
        """Put back the last event, which couldn't be printed."""

    def wait(self, seconds: float, interrupts: Interrupts, /) -> None:
        """Wait for an event, at most about `seconds`.

        Raises:
            EventError: There will be no more events.
        """


class Sink(Protocol):
    """A queue on which events are put.

    Attributes:
        max_event_size: Largest event in bytes.
    """

    max_event_size: int

    def try_put(self, event: bytes, /) -> str:
        """Put an event and return "", or return why there is no room now.

        Raises:
            EventError: It can't be put, now or later.
        """
        ...

    def wait(self, seconds: float, /) -> None:
        """Wait for room, at most `seconds`."""


def read(source: Source, arguments: argparse.Namespace) -> int:
    """Print events of a queue, and return the exit status."""
    count: int | None = arguments.count
    follow: bool = arguments.follow
    output = _stdout()
    terminal = output.isatty()
    printed = 0
    with Interrupts() as interrupts:
        try:
            while printed != count and not interrupts.came:
                if _reader_has_gone(output):
                    return 0
                event = source.try_take()
                if event is not None:
                    shown = event_for_terminal(event) if terminal else event.translate(_ONE_LINE)
                    problem = _print(output, shown)
                    if problem is not None:
                        source.put_back(event, interrupts)
                        return _say_unwritable(problem, source.unprinted)
                    source.settle()
                    printed += 1
                elif not follow:
                    return 0
                else:
                    source.wait(_WATCH_INTERVAL, interrupts)
        except KeyboardInterrupt:
            pass
        if interrupts.came and not follow:
            print_stderr("interrupted; events that weren't printed are still in the queue")
            return EXIT_FAILURE
    return 0


def _print(output: io.FileIO, event: bytes) -> OSError | None:
    """Write an event as a line; return the error, or None."""
    rest = memoryview(event + b"\n")
    try:
        while rest:
            rest = rest[output.write(rest) :]
    except OSError as exc:
        return exc
    return None


def _say_unwritable(problem: OSError, unprinted: str) -> int:
    if isinstance(problem, BrokenPipeError):
        return 0
    print_stderr(f"can't write to stdout: {problem.strerror}; {unprinted}")
    return EXIT_FAILURE


def _reader_has_gone(output: io.FileIO) -> bool:
    poller = select.poll()
    poller.register(output, 0)
    return any(event & select.POLLERR for _, event in poller.poll(0))


def write(sink: Sink, name: str, lines: BinaryIO, timeout: float) -> int:
    """Put lines on a queue, and return the exit status."""
    put = 0
    with Interrupts() as interrupts:
        # Two more bytes for the line break after the longest event.
        limit = sink.max_event_size + 2
        number = 0
        problem = ""
        try:
            while not problem:
                number += 1
                with interrupts.waiting():
                    line = lines.readline(limit)
                if not line:
                    break
                event = line.strip(_BLANKS)
                if not event:
                    continue
                problem = _put(sink, event, timeout, interrupts)
                put += not problem
        except OSError as exc:
            problem = f"reading failed: {exc.strerror}"
        except EventError as exc:
            problem = str(exc)
        except KeyboardInterrupt:
            problem = "interrupted"
        if problem:
            print_stderr(f"{problem}; line {number:,} and the lines after it weren't put")
    report(f"put {counted(put, 'event')} on {name}")
    return EXIT_FAILURE if problem else 0


def _put(sink: Sink, event: bytes, timeout: float, interrupts: Interrupts) -> str:
    """Put an event; return "", or why it can't be put."""
    deadline = time.monotonic() + timeout
    if len(event) > sink.max_event_size:
        return str(EventTooLargeError(len(event), sink.max_event_size))
    while problem := sink.try_put(event):
        remaining = deadline - time.monotonic()
        if not remaining > 0:
            return problem
        with interrupts.waiting():
            sink.wait(min(remaining, SLICE))
    return ""


def _stdout() -> io.FileIO:
    """Return stdout without a buffer, in which an event could be lost."""
    if not is_open(sys.stdout):
        raise ConfigurationError(NO_STDOUT)
    return io.FileIO(sys.stdout.fileno(), "w", closefd=False)


def open_input(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Open a FILE for reading; `-` is stdin."""
    if path == "-":
        if not is_open(sys.stdin):
            raise ConfigurationError("there is no stdin to read from; give a FILE")
        return contextlib.nullcontext(sys.stdin.buffer)
    try:
        return open(path, "rb")  # noqa: PTH123 - takes whatever names a file
    except OSError as exc:
        raise ConfigurationError(f"{path!a} can't be read: {exc.strerror}") from exc
