from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.foreign_text import printable
from baseplate_events.event_publisher.telemetry.systemd import Notifier
from tests.support.clocks import FakeClock
from tests.support.strategies import hostile_texts

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


class Systemd:
    """The other end: a real socket of datagrams."""

    def __init__(self, address: str) -> None:
        self.environ = {"NOTIFY_SOCKET": address}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """Return what has come since the last time."""
        messages: list[str] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append(self._socket.recv(65_536).decode())
        return messages

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@pytest.fixture(scope="module")
def systemd(tmp_path_factory: pytest.TempPathFactory) -> Generator[Systemd]:
    """A systemd for all tests that leave it as it is."""
    with contextlib.closing(Systemd(str(tmp_path_factory.mktemp("notify") / "socket"))) as server:
        yield server


@pytest.mark.parametrize("abstract", [False, True])
def test_the_life_of_a_publisher(tmp_path: Path, *, abstract: bool) -> None:
    """What systemd hears is what sd_notify(3) says, over a path and over an abstract address."""
    clock = FakeClock()
    address = f"@{uuid.uuid4().hex}" if abstract else str(tmp_path / "socket")
    with contextlib.closing(Systemd(address)) as systemd:
        with contextlib.closing(Notifier(systemd.environ, clock)) as notifier:
            notifier.ready()
            notifier.status("delivering")
            notifier.reloading()
            notifier.ready()
            notifier.stopping()
        notifier.ready()
        assert [
            "READY=1",
            "STATUS=delivering",
            "RELOADING=1\nMONOTONIC_USEC=100000000",
            "READY=1",
            "STOPPING=1",
        ] == systemd.heard()


def test_the_time_of_a_reload_is_the_systems() -> None:
    """The clock by default is the one that systemd's MONOTONIC_USEC is of."""
    assert time.monotonic() == pytest.approx(time.clock_gettime(time.CLOCK_MONOTONIC), abs=10)


@given(st.lists(hostile_texts, max_size=5))
def test_a_status_is_one_line(systemd: Systemd, texts: list[str]) -> None:
    """Whatever a status contains, it can't be anything but a status, and is sent only when it changes."""
    with contextlib.closing(Notifier(systemd.environ)) as notifier:
        for text in texts:
            notifier.status(text)
    heard = systemd.heard()
    changes = [text for last, text in zip(["", *texts], texts, strict=False) if text != last]
    assert len(changes) == len(heard)
    for text, message in zip(changes, heard, strict=True):
        assert message == f"STATUS={printable(text)}"


def test_a_long_status_is_cut(systemd: Systemd) -> None:
    """A status has a bound in bytes, and no half character at its end."""
    with contextlib.closing(Notifier(systemd.environ)) as notifier:
        notifier.status("x" + "é" * 10_000)
    (message,) = systemd.heard()
    assert message == "STATUS=x" + "é" * 249


@given(
    st.integers(2_000, 10**9),
    st.sampled_from(["", "own"]),
    st.lists(st.floats(0, 0.6), max_size=20),
)
def test_the_watchdog_is_fed_in_time(
    systemd: Systemd, microseconds: int, pid: str, shares: list[float]
) -> None:
    """Called whenever it is due, or more often, it notifies at least twice in the allowed time."""
    clock = FakeClock()
    environ = {**systemd.environ, "WATCHDOG_USEC": str(microseconds)}
    if pid:
        environ["WATCHDOG_PID"] = str(os.getpid())
    sent: list[float] = []
    with contextlib.closing(Notifier(environ, clock)) as notifier:
        for share in [0.0, *shares]:
            clock.now = min(clock.now + share * microseconds / 1_000_000, max(clock.now, notifier.alive_at))
            due = clock.now >= notifier.alive_at
            notifier.alive()
            heard = systemd.heard()
            assert (["WATCHDOG=1"] if due else []) == heard
            sent += [clock.now] * len(heard)
            assert clock.now < notifier.alive_at
    assert sent[0] == 100.0
    assert all(
        later - sooner <= microseconds / 2_000_000 * 1.001 for sooner, later in itertools.pairwise(sent)
    )


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "x"},
    ],
)
def test_no_watchdog_where_none_is_meant(systemd: Systemd, environ: dict[str, str]) -> None:
    """Without a time, or if another process is meant, nothing is sent and nothing is due."""
    with contextlib.closing(Notifier({**systemd.environ, **environ})) as notifier:
        assert notifier.alive_at == float("inf")
        notifier.alive()
    assert systemd.heard() == []


@pytest.mark.parametrize(
    "address", [None, "", "vsock:2:1", "relative/path", "/a\0b", "/nowhere/at/all", "/" + "x" * 300]
)
def test_without_systemd_nothing_happens(address: str | None) -> None:
    """Without an address, or with one that can't be, nothing is raised, and nothing waits."""
    environ = {"WATCHDOG_USEC": "1000000", **({} if address is None else {"NOTIFY_SOCKET": address})}
    with contextlib.closing(Notifier(environ)) as notifier:
        notifier.ready()
        notifier.status("delivering")
        notifier.alive()
        notifier.stopping()
        if address in {None, ""}:
            assert notifier.alive_at == float("inf")


def test_a_systemd_that_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    """When the socket is full, datagrams are lost, and the publisher goes on."""
    with (
        contextlib.closing(Systemd(str(tmp_path / "socket"))) as systemd,
        contextlib.closing(Notifier(systemd.environ)) as notifier,
    ):
        for number in range(5_000):
            notifier.status(f"{number}" * 50)
        assert 0 < len(systemd.heard()) < 5_000
        notifier.ready()
        assert systemd.heard() == ["READY=1"]
