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
    """Accepts requests from signal handlers and other threads, and wakes the main loop.

    It exists before the publisher does, so that a signal during the recovery of a large spool isn't lost.
    Every method may be called from a signal handler.

    Args:
        monotonic: The monotonic clock, in seconds.

    Attributes:
        stops: How often `stop` was called.
        stopped_at: When `stop` was first called, by the monotonic clock; 0 before.
        reload_wanted: Whether `reload` was called; the publisher resets it.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.stops: int = 0
        self.stopped_at: float = 0.0
        self.reload_wanted: bool = False
        # Sockets rather than a pipe: a call after they were closed can't hit another descriptor.
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._handles_signals = False

    def handle_signals(self) -> None:
        """Let SIGTERM and SIGINT call `stop`, and SIGHUP `reload`, until `close`; for the main thread only.

        Python runs a handler between two instructions of the main thread, not while it waits for descriptors.
        A signal that arrives just before the wait begins, or that the system delivers to another thread,
        doesn't end the wait. So the interpreter itself wakes the main thread (`signal.set_wakeup_fd`).
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self.stop())
        signal.signal(signal.SIGHUP, lambda _number, _frame: self.reload())
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handles_signals = True

    def stop(self) -> None:
        """Request a stop; a second call requests an immediate stop."""
        if not self.stops:
            self.stopped_at = self._monotonic()
        self.stops += 1
        self.wake()

    def reload(self) -> None:
        """Request a reload of the configuration."""
        self.reload_wanted = True
        self.wake()

    def wake(self) -> None:
        """End the current or next wait of the main loop."""
        with contextlib.suppress(OSError):  # it is full, which wakes the loop anyway, or closed
            self._writer.send(b"!")

    def fileno(self) -> int:
        """Return a descriptor that is readable after a `wake`."""
        return self._reader.fileno()

    def clear(self) -> None:
        """Consume every `wake` so far."""
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(1_024)

    def close(self) -> None:
        """Close the descriptors; later requests are ignored."""
        if self._handles_signals:
            signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()
