"""Notifies systemd of what the publisher is doing, by datagrams to the socket that $NOTIFY_SOCKET names.

    READY=1                          it publishes; `systemctl start` of a Type=notify unit ends
    RELOADING=1, MONOTONIC_USEC=…    it reloads its configuration; READY=1 follows
    STOPPING=1                       it ends
    STATUS=…                         a line for `systemctl status`
    WATCHDOG=1                       it isn't stuck; with WatchdogSec=, systemd kills it when these stop

Rules:

1. Nothing here raises or waits. A datagram that can't be sent is lost.
2. Without $NOTIFY_SOCKET nothing happens at all.
3. The thread that decides feeds the watchdog, at half of the time that systemd allows. No other thread does,
   so none can hide that this one is stuck.

See sd_notify(3) and sd_watchdog_enabled(3).
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from typing import TYPE_CHECKING, Final

from ..foreign_text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Most bytes of a status line; `systemctl status` shows one line.
_STATUS_SIZE: Final = 500


class Notifier:
    """Sends notifications. Used by one thread.

    Args:
        environ: The environment variables: NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
        clock: The monotonic clock, in seconds, which is also systemd's.

    Attributes:
        alive_at: When `alive` is to be called next, by that clock; infinite if systemd expects nothing.
    """

    def __init__(self, environ: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        self._status = ""
        self._interval = _watchdog_interval(environ) if self._address is not None else math.inf
        self.alive_at: float = clock() if math.isfinite(self._interval) else math.inf
        if self._address is not None:
            with contextlib.suppress(OSError):
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)

    @property
    def listening(self) -> bool:
        """Whether notifications are sent."""
        return self._socket is not None

    def ready(self) -> None:
        """Notify that the publisher publishes, for the first time or after `reloading`."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Notify that the publisher reloads its configuration."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={self._clock() * 1_000_000:.0f}")

    def stopping(self) -> None:
        """Notify that the publisher ends."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Send what the publisher is doing, if it has changed."""
        if text == self._status:
            return
        self._status = text
        self._send("STATUS=" + printable(text).encode()[:_STATUS_SIZE].decode(errors="ignore"))

    def alive(self) -> None:
        """Notify that the publisher isn't stuck, if that is due; cheap enough for each step."""
        now = self._clock()
        if now >= self.alive_at:
            self.alive_at = now + self._interval
            self._send("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket; nothing is sent afterwards."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> None:
        if self._socket is not None and self._address is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(message.encode(), self._address)


def _address(text: str) -> str | None:
    """Read $NOTIFY_SOCKET; None if no datagram can be sent there."""
    if "\0" in text or not text.startswith(("/", "@")):
        return None
    return "\0" + text[1:] if text.startswith("@") else text


def _watchdog_interval(environ: Mapping[str, str]) -> float:
    """Return half of the seconds after which systemd considers this process stuck; infinite if never."""
    pid = environ.get("WATCHDOG_PID", "")
    if pid not in {"", str(os.getpid())}:
        return math.inf
    with contextlib.suppress(ValueError):
        microseconds = int(environ.get("WATCHDOG_USEC", ""))
        if microseconds > 0:
            return microseconds / 2_000_000
    return math.inf
