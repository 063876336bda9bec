"""Requests of signals to a publisher."""

from __future__ import annotations

import select
import signal
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.control import Control
from tests.support.queues import open_files
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Generator

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture
def control_of_signals() -> Generator[Control]:
    """A control that handles signals, for as long as a test."""
    handlers = [signal.getsignal(number) for number in HANDLED]
    control = Control(lambda: 0.0)
    control.handle_signals()
    try:
        yield control
    finally:
        control.close()
        for number, handler in zip(HANDLED, handlers, strict=True):
            signal.signal(number, handler)


@pytest.mark.parametrize("number", HANDLED)
def test_a_signal_to_another_thread_wakes_the_one_that_waits(
    number: signal.Signals, control_of_signals: Control
) -> None:
    """The wait isn't interrupted, as when the signal comes just before it: only a descriptor can end it."""
    poller = select.poll()
    poller.register(control_of_signals.fileno(), select.POLLIN)
    begins = threading.Event()

    def send() -> None:
        begins.wait()
        signal.pthread_kill(threading.get_ident(), number)

    thread = threading.Thread(target=send)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1_000.0)  # the other thread runs once this one waits
    try:
        begins.set()
        assert poller.poll(PATIENCE * 1_000)
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert control_of_signals.stops == (number != signal.SIGHUP)
    assert control_of_signals.reload_wanted == (number == signal.SIGHUP)


def test_after_the_end_a_signal_writes_to_no_descriptor(control_of_signals: Control) -> None:
    """The number of a closed descriptor may soon be another file's."""
    control_of_signals.close()
    assert signal.set_wakeup_fd(-1) == -1
    signal.raise_signal(signal.SIGTERM)
    assert control_of_signals.stops == 1


def is_ready(control: Control) -> bool:
    """Whether a poller would wake now."""
    poller = select.poll()
    poller.register(control.fileno(), select.POLLIN)
    return bool(poller.poll(0))


@given(st.lists(st.sampled_from(["stop", "reload", "wake", "clear"]), max_size=30))
def test_requests_are_kept_until_they_are_read(calls: list[str]) -> None:
    """Whatever is called, however often: stops are counted from the first one's time, and a wake stays."""
    moments = iter(range(1, 1_000))
    control = Control(lambda: float(next(moments)))
    try:
        wakes = False
        for call in calls:
            getattr(control, call)()
            wakes = call != "clear"
            assert is_ready(control) == wakes
        assert control.stops == calls.count("stop")
        assert control.stopped_at == (1.0 if "stop" in calls else 0.0)
        assert control.reload_wanted == ("reload" in calls)
        assert is_ready(control) == wakes
    finally:
        control.close()


def test_a_thousand_requests_fill_nothing() -> None:
    """A publisher that is busy for long is woken once, and its requests are all known."""
    control = Control(lambda: 0.0)
    for _ in range(10_000):
        control.stop()
    assert control.stops == 10_000
    while is_ready(control):
        control.clear()
    control.close()


def test_a_request_after_the_end_hits_nothing() -> None:
    """Once closed, requests are harmless, and no descriptor is left."""
    before = open_files()
    control = Control(lambda: 0.0)
    control.close()
    control.stop()
    control.reload()
    assert open_files() <= before
