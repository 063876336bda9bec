from __future__ import annotations

import logging
import os
import re
import threading
from collections import Counter
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import EventError, EventQueueFullError, EventTooLargeError
from baseplate_events.counting.reasons import reason_of
from baseplate_events.counting.refusal_log import PAUSE, RefusalLog
from baseplate_events.counting.refusals import RefusalCounts
from tests.support.clocks import FakeClock

if TYPE_CHECKING:
    from collections.abc import Generator

#: What is refused.
ERRORS = (EventQueueFullError("/events-v2", 10), EventTooLargeError(2_000, 1_000), EventError("other"))

#: What happens: an event is refused or taken, or time goes by.
steps = st.lists(
    st.sampled_from(ERRORS) | st.just("taken") | st.sampled_from([0.0, 0.1, PAUSE / 2, PAUSE, 3 * PAUSE])
)

MESSAGE = re.compile(
    r"Event queue v2 refused (1 event|[\d,]+ events)(?: in ([\d,]+) s)? \(([\w ,]+)\)(.*)", re.DOTALL
)


class Messages(logging.Handler):
    """Keeps the messages that are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert record.levelno == logging.WARNING
        assert record.exc_info is None
        self.texts.append(record.getMessage())


class Rig:
    """A log, its clock, and what was logged."""

    def __init__(self, handler: logging.Handler) -> None:
        self.clock = FakeClock()
        self.refusals = RefusalCounts()
        self.log = RefusalLog("v2", self.refusals, self.clock)
        self.handler = handler

    def refuse(self, error: EventError) -> None:
        self.refusals.count(reason_of(error))
        self.log.note(error)

    def take(self) -> None:
        if self.log.pending:
            self.log.recovered()


@pytest.fixture
def messages() -> Generator[Messages]:
    """Return what is logged."""
    handler = Messages()
    logger = logging.getLogger(RefusalLog.__module__)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def parse(text: str) -> tuple[Counter[str], str]:
    """Return the counts of a message, and how it ends."""
    match = MESSAGE.fullmatch(text)
    assert match, text
    total, _, reasons, ending = match.groups()
    counts: Counter[str] = Counter()
    for part in re.findall(r"[\d,]*\d \w+", reasons):
        number, reason = part.split()
        counts[reason] = int(number.replace(",", ""))
    assert total == ("1 event" if counts.total() == 1 else f"{counts.total():,} events")
    return counts, ending


@given(steps)
def test_every_refusal_is_in_one_message_and_messages_are_rare(
    happenings: list[EventError | float | str],
) -> None:
    """The first is logged at once, then one message in ten seconds at most; `close` logs the rest."""
    handler = Messages()
    logger = logging.getLogger(RefusalLog.__module__)
    logger.addHandler(handler)
    try:
        rig = Rig(handler)
        expected: Counter[str] = Counter()
        logged_at: list[float] = []
        for happening in happenings:
            before = len(handler.texts)
            if isinstance(happening, (int, float)):
                rig.clock.now += happening
                continue
            if isinstance(happening, str):
                rig.take()
            else:
                expected[reason_of(happening)] += 1
                rig.refuse(happening)
            due = not logged_at or rig.clock.now >= logged_at[-1] + PAUSE
            waiting = expected - sum((parse(text)[0] for text in handler.texts[:before]), Counter[str]())
            assert (due and bool(waiting)) == (len(handler.texts) > before)
            if len(handler.texts) > before:
                logged_at.append(rig.clock.now)
        rig.log.close()
        rig.log.close()
        found = sum((parse(text)[0] for text in handler.texts), Counter[str]())
        assert expected == found
    finally:
        logger.removeHandler(handler)


def test_the_messages(messages: Messages) -> None:
    """A message has the number, the time, the reasons, and the last error or what happened then."""
    rig = Rig(messages)
    full, large, _ = ERRORS
    rig.refuse(full)
    for _ in range(1_998):
        rig.refuse(full)
    rig.refuse(large)
    rig.clock.now += PAUSE - 0.001
    rig.refuse(full)
    rig.take()
    rig.clock.now += 0.001
    rig.refuse(full)
    rig.refuse(large)
    rig.clock.now += 2 * PAUSE
    rig.take()
    rig.refuse(full)
    rig.log.close()
    assert [
        f"Event queue v2 refused 1 event (1 full), the last: {full}",
        f"Event queue v2 refused 2,001 events in 10 s (2,000 full, 1 too_large), the last: {full}",
        "Event queue v2 refused 1 event in 20 s (1 too_large); it takes events again",
        "Event queue v2 refused 1 event in 0 s (1 full); it is closed",
    ] == messages.texts


def test_what_put_refused_counts_too(messages: Messages) -> None:
    """Refusals that the service handled itself are in the next message."""
    rig = Rig(messages)
    rig.refusals.count("full", 41)
    rig.refuse(ERRORS[0])
    assert Counter(full=42) == parse(messages.texts[0])[0]


def test_threads_log_once(messages: Messages) -> None:
    """However many threads have an event refused at once, one message counts them all."""
    rig = Rig(messages)
    start = threading.Barrier(8)

    def refuse() -> None:
        start.wait()
        for _ in range(200):
            rig.refuse(ERRORS[0])

    threads = [threading.Thread(target=refuse) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(messages.texts) == 1
    rig.log.close()
    assert Counter(full=1_600) == sum((parse(text)[0] for text in messages.texts), Counter[str]())


class Failing(logging.Handler):
    """A log handler may have a bug, or put events itself."""

    def __init__(self, rig: Rig | None = None) -> None:
        super().__init__()
        self.rig = rig
        self.calls = 0

    def emit(self, record: logging.LogRecord) -> NoReturn:
        del record
        self.calls += 1
        if self.rig is not None:
            self.rig.refuse(ERRORS[0])
            self.rig.log.close()
        raise OSError


def test_a_handler_that_fails_or_puts_events_is_no_problem(messages: Messages) -> None:
    """What it raises goes no further, and what it has refused waits for the next message."""
    rig = Rig(messages)
    failing = Failing(rig)
    logger = logging.getLogger(RefusalLog.__module__)
    logger.addHandler(failing)
    try:
        rig.refuse(ERRORS[0])
    finally:
        logger.removeHandler(failing)
    assert failing.calls == 1
    rig.log.close()
    assert [Counter(full=1), Counter(full=1)] == [parse(text)[0] for text in messages.texts]


class NestedError(EventError):
    """An error, while whose text is made another thread logs, and has one more event refused."""

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self.rig = rig

    def __str__(self) -> str:
        self.rig.refuse(ERRORS[0])
        self.rig.refuse(ERRORS[0])
        return "nested"


def test_a_thread_that_finds_another_one_faster_logs_nothing(messages: Messages) -> None:
    """The pause begins with the message of the other thread."""
    rig = Rig(messages)
    rig.refuse(NestedError(rig))
    assert [Counter(full=1, other=1)] == [parse(text)[0] for text in messages.texts]
    rig.log.close()
    assert Counter(full=1) == parse(messages.texts[1])[0]


def test_a_forked_child_logs_its_own(messages: Messages) -> None:
    """It logs its first refusal at once, even if a thread of the parent was logging, and not the parent's."""
    rig = Rig(messages)
    rig.refuse(ERRORS[0])
    rig.refuse(ERRORS[0])
    with rig.log._logged.get().lock:  # pyright: ignore[reportPrivateUsage]
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                rig.refuse(ERRORS[1])
                status = 0 if [Counter(too_large=1)] == [parse(text)[0] for text in messages.texts[1:]] else 2
            finally:
                os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(messages.texts) == 1
