"""Writes lines of the log to stderr in a thread, so that nothing waits for whoever reads them.

Rules:

1. `put` never waits and never raises. A thread of its own writes, and it alone waits.
2. Memory is bounded. When there is no room, the oldest lines are dropped: the newest say what is happening
   now, and the last ones how the process ended.
3. Lines that are dropped are counted. The number is logged before the next line that can be written.
4. `flush` waits for a limited time, so a publisher ends even if no one reads its log.
5. A line that was written only in part spoils no other: the next one starts on a new line.

Why a thread: stderr is a terminal, a file, a pipe or a socket that other processes write to as well. The flag
O_NONBLOCK belongs to the open file description, so it would be set for all of them. poll(2) reports whether a
pipe has room for PIPE_BUF bytes, but another writer may take that room first; and it can't report that a disk
hangs.
"""

from __future__ import annotations

import collections
import os
import select
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

#: Most bytes of waiting lines: some ten thousand lines, or an hour of INFO.
CAPACITY: Final = 1 << 20

#: Seconds that `flush` waits. A pipe with a reader takes everything in a few milliseconds.
FLUSH_TIME: Final = 2.0


class LineWriter:
    """Writes lines to a stream, in a daemon thread that starts with the first line.

    Args:
        stream: Where lines go, by its descriptor.
        format_notice: Formats the line with the number of dropped lines.
        capacity: Most bytes of waiting lines.

    Attributes:
        dropped: Lines dropped so far.
    """

    def __init__(
        self, stream: TextIO, format_notice: Callable[[int], str], *, capacity: int = CAPACITY
    ) -> None:
        self._stream = stream
        self._encoding = stream.encoding or "utf-8"  # a closed stream has none
        self._format_notice = format_notice
        self._capacity = capacity
        self._changed = threading.Condition()
        self._lines: collections.deque[bytes] = collections.deque()
        self._size = 0  # bytes in _lines
        self.dropped: int = 0
        self._reported = 0  # dropped lines that a notice has counted
        self._asked_to_flush = False
        self._torn = False  # used only by the thread
        self._thread: threading.Thread | None = None

    def put(self, line: str) -> None:
        """Queue a line, which has no line break at its end, to be written."""
        data = line.encode(self._encoding, "backslashreplace") + b"\n"
        with self._changed:
            if len(data) > self._capacity or not self._has_thread():
                self.dropped += 1
                return
            self._lines.append(data)
            self._size += len(data)
            while self._size > self._capacity:
                self._size -= len(self._lines.popleft())
                self.dropped += 1
            self._changed.notify_all()

    def lose(self) -> None:
        """Count a line that could not be formatted as dropped."""
        with self._changed:
            self.dropped += 1

    def flush(self, seconds: float = FLUSH_TIME) -> bool:
        """Wait until every line is written or dropped, and report dropped lines.

        Returns:
            Whether nothing is left.
        """
        with self._changed:
            if self._thread is None and not self.dropped:
                return True
            if not self._has_thread():
                return False
            self._asked_to_flush = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._asked_to_flush, seconds)

    def _has_thread(self) -> bool:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the thread limit; the next line tries again
                return False
            self._thread = thread
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._asked_to_flush)
                line = self._lines.popleft() if self._lines else None
                self._size -= len(line or b"")
                missing = self.dropped - self._reported
            noticed = not missing or self._write(self._format_notice(missing).encode("ascii") + b"\n")
            written = noticed and (line is None or self._write(line))
            with self._changed:
                self._reported += missing if noticed else 0
                self.dropped += line is not None and not written
                # Lines dropped during the write need a notice, unless nothing can be written.
                if not self._lines and (not written or self.dropped == self._reported):
                    self._asked_to_flush = False
                    self._changed.notify_all()

    def _write(self, line: bytes) -> bool:
        """Write a line, however long that takes; return whether it was written."""
        rest = memoryview(b"\n" + line if self._torn else line)
        size = len(rest)
        try:
            descriptor = self._stream.fileno()
            while rest:
                try:
                    rest = rest[os.write(descriptor, rest) :]
                except BlockingIOError:  # another process set O_NONBLOCK
                    poller = select.poll()
                    poller.register(descriptor, select.POLLOUT)
                    poller.poll()
        except (OSError, ValueError):  # no reader, a full disk, a closed stream, ...
            self._torn |= len(rest) < size
            return False
        self._torn = False
        return True
