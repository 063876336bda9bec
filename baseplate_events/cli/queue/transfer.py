"""Events of a queue as lines: read from it, and written to it.

Rules:

1. What was taken out of the queue and can't be written to stdout goes back into it, ahead of everything else.
   What another program has in its pipe is that program's.
2. Each event is put in full or not at all; the first that can't be put ends the work.
3. Signals count between two events, or while there is nothing to do but wait.
"""

from __future__ import annotations

import contextlib
import io
import math
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, BinaryIO, Final, final

from ...errors import ConfigurationError, EventError, EventQueueUnavailableError, EventTooLargeError
from ...event_publisher.exit_status import EXIT_FAILURE, say
from ...event_publisher.standard_streams import is_open, report
from ...transport.descriptor import find_queue
from ...transport.posix import RETURN_PRIORITY
from ..common import command, counted, short_queue_name
from ..terminal import event_for_terminal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Generator
    from types import FrameType, TracebackType

    from ...transport.descriptor import Descriptor

#: Seconds that an empty queue is polled at a time: how long it takes to notice that it was removed, or that
#: nobody reads the output any more.
_WATCH_INTERVAL: Final = 1.0

#: Seconds that a full queue is polled at a time.
_SLICE: Final = 0.5

#: JSON has line breaks only between tokens, where a blank does as well.
_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")

#: What JSON counts as blank.
_BLANKS: Final = b" \t\r\n"


@final
class Interrupts:
    """Makes SIGINT and SIGTERM count between two events. A context manager.

    Attributes:
        came: Whether one has come.
    """

    def __init__(self) -> None:
        self.came: bool = False
        self._waiting = False
        self._handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True
        if self._waiting:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def waiting(self) -> Generator[None]:
        """Let a signal end what is done meanwhile, by a `KeyboardInterrupt`; no event may be in hand."""
        self._waiting = True
        try:
            if self.came:
                raise KeyboardInterrupt
            yield
        finally:
            self._waiting = False

    def __enter__(self) -> Interrupts:
        for number in self._handlers:
            signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


def read(arguments: argparse.Namespace) -> int:
    """Perform the action `read`, and return the exit status."""
    count: int | None = arguments.count
    follow: bool = arguments.follow
    output = _stdout()
    terminal = output.isatty()
    printed = 0
    removed = False
    with _open(arguments.name, read=True) as queue, Interrupts() as interrupts:
        try:
            while printed != count and not interrupts.came:
                if _reader_has_gone(output):
                    return 0
                event = queue.try_receive()
                if event is not None:
                    shown = event_for_terminal(event) if terminal else event.translate(_ONE_LINE)
                    problem = _print(output, shown)
                    if problem is not None:
                        put_back(queue, event, interrupts)
                        return _say_unwritable(problem)
                    printed += 1
                elif not follow:
                    return 0
                elif removed:
                    say(f"the queue {arguments.name} was removed; everything in it was printed")
                    return EXIT_FAILURE
                else:
                    # Producers may put on it for another moment, so it is waited for once more.
                    removed = queue.removed()
                    with interrupts.waiting():
                        _wait(queue.fd, select.POLLIN, _WATCH_INTERVAL)
        except KeyboardInterrupt:
            pass
        if interrupts.came and not follow:
            say("interrupted; what wasn't printed is still in the queue")
            return EXIT_FAILURE
    return 0


def _print(output: io.FileIO, event: bytes) -> OSError | None:
    """Write an event as a line, or give what is in the way of that."""
    rest = memoryview(event + b"\n")
    try:
        while rest:
            rest = rest[output.write(rest) :]
    except OSError as exc:
        return exc
    return None


def _say_unwritable(problem: OSError) -> int:
    if isinstance(problem, BrokenPipeError):
        return 0
    say(f"can't write to stdout: {problem.strerror}; the event is back in the queue, ahead of all others")
    return EXIT_FAILURE


def put_back(queue: Descriptor, event: bytes, interrupts: Interrupts) -> None:
    """Put an event back ahead of all others; waits for room, since it has no other place.

    Raises:
        EventError: A signal ended the waiting, so that the event is lost.
    """
    if queue.try_send(event, RETURN_PRIORITY):
        return
    say("stdout is gone and the queue is full: waiting for room to put 1 event back")
    try:
        while not queue.try_send(event, RETURN_PRIORITY):
            with interrupts.waiting():
                _wait(queue.fd, select.POLLOUT, _SLICE)
    except KeyboardInterrupt:
        raise EventError("interrupted; 1 event is lost, which the queue had no room for") from None


def _reader_has_gone(output: io.FileIO) -> bool:
    poller = select.poll()
    poller.register(output, 0)
    return any(event & select.POLLERR for _, event in poller.poll(0))


def write(arguments: argparse.Namespace) -> int:
    """Perform the action `write`, and return the exit status."""
    timeout: float = arguments.timeout
    put = 0
    with (
        _open_input(arguments.file) as lines,
        _open(arguments.name, read=False) as queue,
        Interrupts() as interrupts,
    ):
        # Two more, so that the longest event is read with its line break.
        limit = queue.size.max_message_size + 2
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
                problem = _put(queue, event, timeout, interrupts)
                put += not problem
        except OSError as exc:
            problem = f"can't read on: {exc.strerror}"
        except KeyboardInterrupt:
            problem = "interrupted"
        if problem:
            say(f"{problem}; line {number:,} and what follows it wasn't put")
    report(f"put {counted(put, 'event')} on {arguments.name}")
    return EXIT_FAILURE if problem else 0


def _put(queue: Descriptor, event: bytes, timeout: float, interrupts: Interrupts) -> str:
    """Put an event, or say why it can't be put."""
    deadline = time.monotonic() + timeout
    if len(event) > queue.size.max_message_size:
        return str(EventTooLargeError(len(event), queue.size.max_message_size))
    while True:
        if queue.removed():
            return "the queue was removed"
        if queue.try_send(event, 0):
            return ""
        remaining = deadline - time.monotonic()
        if not remaining > 0:
            return f"the queue is full ({queue.size.max_messages:,} events)"
        with interrupts.waiting():
            _wait(queue.fd, select.POLLOUT, min(remaining, _SLICE))


@contextlib.contextmanager
def _open(name: str, *, read: bool) -> Generator[Descriptor]:
    """Open a queue that exists.

    Raises:
        EventQueueUnavailableError: There is none, or it can't be opened.
    """
    queue = find_queue(name, read=read)
    if queue is None:
        raise EventQueueUnavailableError(name, absence(name))
    try:
        yield queue
    finally:
        queue.close()


def absence(name: str) -> str:
    """Say that there is no queue of this POSIX name, and what makes one."""
    return f"there is no such queue; {command('queue', 'create', short_queue_name(name))} makes it"


def _stdout() -> io.FileIO:
    """Give stdout without a buffer, in which an event could be lost."""
    if not is_open(sys.stdout):
        raise ConfigurationError("there is no stdout to write to")
    return io.FileIO(sys.stdout.fileno(), "w", closefd=False)


def _open_input(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    if path == "-":
        if not is_open(sys.stdin):
            raise ConfigurationError("there is no stdin to read from; give a FILE")
        return contextlib.nullcontext(sys.stdin.buffer)
    try:
        return open(path, "rb")  # noqa: PTH123 - takes whatever names a file
    except OSError as exc:
        raise ConfigurationError(f"{path!a} can't be read: {exc.strerror}") from exc


def _wait(descriptor: int, event: int, seconds: float) -> None:
    """Wait until a queue is ready or these seconds have passed."""
    poller = select.poll()
    poller.register(descriptor, event)
    poller.poll(math.ceil(seconds * 1_000))
