"""Stop and reload requests, accepted from the start of the process."""

from __future__ import annotations

import contextlib
import signal
import socket
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Callable


@final
class Control:
    """Takes requests from signal handlers and other threads, and wakes the deciding thread.

    It exists before the publisher does, so that a signal that comes while a large spool is recovered is not
    lost. Every method may be called from a signal handler.

    Args:
        monotonic: Gives seconds of the monotonic clock.

    Attributes:
        stops: How often `stop` was called.
        stopped_at: When it was called first, by the monotonic clock; 0 before.
        reload_wanted: Whether `reload` was called; the publisher resets it.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.stops: int = 0
        self.stopped_at: float = 0.0
        self.reload_wanted: bool = False
        # Sockets rather than a pipe: a call that comes after they were closed hits no one else's descriptor.
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._handles_signals = False

    def handle_signals(self) -> None:
        """Let SIGTERM and SIGINT call `stop`, and SIGHUP `reload`, until `close`; for the main thread alone.

        Python runs a handler between two instructions of the main thread, and not while that waits for
        descriptors. A signal that comes just before the wait begins, or that the system hands to another
        thread, doesn't end it. So the interpreter itself wakes the main thread (`signal.set_wakeup_fd`).
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self.stop())
        signal.signal(signal.SIGHUP, lambda _number, _frame: self.reload())
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handles_signals = True

    def stop(self) -> None:
        """Ask to stop; a second call asks to stop at once."""
        if not self.stops:
            self.stopped_at = self._monotonic()
        self.stops += 1
        self.wake()

    def reload(self) -> None:
        """Ask to read the configuration again."""
        self.reload_wanted = True
        self.wake()

    def wake(self) -> None:
        """End the wait of the deciding thread, or its next one."""
        with contextlib.suppress(OSError):  # it is full, which wakes as well, or closed
            self._writer.send(b"!")

    def fileno(self) -> int:
        """Return a descriptor that is readable after a `wake`."""
        return self._reader.fileno()

    def clear(self) -> None:
        """Take note of every `wake` so far."""
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(1_024)

    def close(self) -> None:
        """Close the descriptors; requests that come later change nothing."""
        if self._handles_signals:
            signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()
