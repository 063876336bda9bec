"""Counters, depth and capacity of an `EventQueue`; `try_put`; and a queue that is switched off."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import (
    EventEmptyError,
    EventError,
    EventNotSerializableError,
    EventQueue,
    EventQueueFullError,
    EventTooLargeError,
    QueueCounters,
    RefusedEvents,
)
from baseplate_events.events import ENABLED_VARIABLE
from baseplate_events.testing import InMemoryEventQueue
from tests.support.commands import IMPORTING, run
from tests.support.queues import (
    EVENTS,
    FEW,
    SMALL,
    drain,
    fresh_event_name,
    open_files,
    outlast_trust,
    reader,
)
from tests.support.spools_written import read_events

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

#: What is put: some can't be.
GOOD = (b"{}", b"{x}", b"{%b}" % (b"x" * (SMALL - 2)))
BAD = {b"": "empty", b"fail": "not_serializable", b"{%b}" % (b"x" * SMALL): "too_large", b"own": "other"}
events = st.lists(st.sampled_from([*GOOD, *BAD]), max_size=2 * FEW)


def serialize(event: bytes) -> bytes:
    """Serialize all events except some."""
    if event == b"fail":
        raise RuntimeError
    if event == b"own":
        raise EventError
    return event


def small(name: str) -> EventQueue[bytes]:
    """Create a small POSIX queue."""
    return EventQueue(name, serialize, max_queue_size=FEW, max_event_size=SMALL)


# --- counters ---


@given(st.lists(st.tuples(events, st.sampled_from(["put", "try_put", "put_many", "take"]), st.booleans())))
def test_each_event_is_counted_once(happenings: list[tuple[list[bytes], str, bool]]) -> None:
    """An event counts as put if it is in the queue, otherwise under its error's reason, for any method."""
    expected: dict[str, int] = QueueCounters().by_outcome()
    with fresh_event_name() as name, small(name) as queue, reader(EVENTS + name) as other:
        depth = 0
        for batch, how, trusted in happenings:
            if not trusted:
                outlast_trust()
            if how == "take":
                assert depth == len(drain(other))
                depth = 0
            elif how == "put_many":
                bad = next((BAD[event] for event in batch if event in BAD), "")
                done = 0 if bad else min(len(batch), FEW - depth)
                with contextlib.suppress(EventError):
                    queue.put_many(batch)
                expected["put"] += done
                expected[bad or "full"] += len(batch) - done
                depth += done
            else:
                for event in batch:
                    done = event not in BAD and depth < FEW
                    if how == "try_put":
                        assert done == queue.try_put(event)
                    else:
                        with contextlib.suppress(EventError):
                            queue.put(event)
                    expected["put" if done else BAD.get(event, "full")] += 1
                    depth += done
            assert expected == queue.counters().by_outcome()
            assert (depth, FEW) == (queue.depth, queue.capacity)
        assert queue.refused == {reason: n for reason, n in queue.counters().refused._asdict().items() if n}


@given(batches=st.lists(events, max_size=3))
def test_the_same_holds_for_a_spool(
    batches: list[list[bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Events in the spool count as put, all others as refused."""
    folder = tmp_path_factory.mktemp("spool")
    with EventQueue("main", serialize, spool_directory=folder, max_event_size=SMALL) as queue:
        for batch in batches:
            with contextlib.suppress(EventError):
                queue.put_many(batch)
            for event in batch:
                queue.try_put(event)
        queue.put(b"{last}")
        counters = queue.counters()
        assert (None, None, 2**30) == (queue.depth, queue.capacity, queue.spool_max_size)
        assert (queue.spool_size or 0) > 0
    assert counters.put == len(read_events(folder / "events-main"))
    assert counters.put + counters.refused.total == 2 * sum(map(len, batches)) + 1


@given(st.integers(0, FEW), st.integers(0, 2 * FEW))
def test_many_that_are_put_in_part_are_counted_in_part(before: int, count: int) -> None:
    """Of `put_many`, as many events as the error says count as put, the rest as refused."""
    with fresh_event_name() as name, small(name) as queue:
        queue.put_many([b"{x}"] * before)
        with contextlib.suppress(EventQueueFullError):
            queue.put_many([b"{y}"] * count)
        put = min(FEW, before + count)
        assert QueueCounters(put, RefusedEvents(full=before + count - put)) == queue.counters()


def test_counts_take_little_memory() -> None:
    """Counters don't grow in memory, even if they are never read."""
    queue = InMemoryEventQueue("main", serialize)
    for _ in range(10_000):
        queue.put(b"{x}")
    assert len(queue._taken.fresh) < 1_500  # pyright: ignore[reportPrivateUsage]
    assert queue.counters().put == 10_000


@pytest.mark.unmeasured
@pytest.mark.parametrize("transport", ["posix", "spool"])
def test_counters_are_exact_with_threads(transport: str, name: str, tmp_path: Path) -> None:
    """Counts are exact, however many threads put and read; a forked child counts its own."""
    queue = EventQueue(
        name,
        serialize,
        max_queue_size=FEW,
        max_event_size=SMALL,
        spool_directory=tmp_path if transport == "spool" else None,
    )
    threads, each, received, going = 8, 1_500, 0, True
    seen: list[int] = []

    def put(worker: int) -> None:
        for number in range(each):
            queue.try_put(b"{%d %d}" % (worker, number) if number % 10 else b"")

    def look() -> None:
        while going:
            seen.append(queue.counters().put)

    with queue, reader(EVENTS + name) as other:
        workers = [threading.Thread(target=put, args=(worker,)) for worker in range(threads)]
        looker = threading.Thread(target=look)
        for thread in [looker, *workers]:
            thread.start()
        while any(thread.is_alive() for thread in workers):
            received += len(drain(other))
        for thread in workers:
            thread.join()
        received += len(drain(other))
        going = False
        looker.join()
        if transport == "spool":
            received = len(read_events(tmp_path / f"events-{name}"))
        counters = queue.counters()
        assert received == counters.put
        assert threads * each == counters.put + counters.refused.total
        assert threads * each // 10 == counters.refused.empty
        assert seen == sorted(seen)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                queue.put(b"{child}")
                expected = QueueCounters(1, RefusedEvents(empty=1))
                status = 0 if not queue.try_put(b"") and expected == queue.counters() else 2
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert counters == queue.counters()


def test_depth_and_capacity_of_what_is_not_open_are_unknown(name: str, tmp_path: Path) -> None:
    """A closed queue and one that couldn't be opened have neither, and nothing raises."""
    queue = small(name)
    queue.close()
    missing = EventQueue("main", serialize, spool_directory=tmp_path / "missing")
    for one in (queue, missing):
        assert (None, None, None, None) == (one.depth, one.capacity, one.spool_size, one.spool_max_size)


def test_the_test_double_has_them_too() -> None:
    """A queue in memory has depth and capacity like a POSIX queue."""
    queue = InMemoryEventQueue("main", serialize, max_queue_size=FEW)
    queue.put_many([b"{a}", b"{b}"])
    assert not queue.try_put(b"")
    assert (2, FEW, None) == (queue.depth, queue.capacity, queue.spool_size)
    assert QueueCounters(2, RefusedEvents(empty=1)) == queue.counters()
    assert isinstance(queue.errors[0], EventEmptyError)


# --- try_put ---


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (b"", EventEmptyError),
        (b"fail", EventNotSerializableError),
        (b"{%b}" % (b"x" * 99), EventTooLargeError),
    ],
)
def test_try_put_logs_what_put_would_raise(
    event: bytes, error: type[EventError], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for many refusals, with the message of the error and without a traceback."""
    with small(name) as queue:
        assert queue.try_put(b"{x}")
        assert caplog.records == []
        for _ in range(100):
            assert not queue.try_put(event)
        with pytest.raises(error) as caught:
            queue.put(event)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert not record.exc_info
        assert str(caught.value) in record.getMessage()
        assert f"Event queue {name} refused 1 event (1 " in record.getMessage()
    assert "refused 100 events" in caplog.messages[-1]


def test_what_is_left_is_logged_when_events_are_put_again(
    name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first put after the pause logs the refusals, once."""
    with small(name) as queue:
        for _ in range(3):
            assert not queue.try_put(b"")
        assert queue.try_put(b"{x}")
        assert len(caplog.messages) == 1
        monkeypatch.setattr("baseplate_events.counting.refusal_log.PAUSE", 0.0)
        assert queue.try_put(b"{x}")
        assert queue.try_put(b"{x}")
        (message,) = caplog.messages[1:]
        assert name in message
        assert "(2 empty)" in message


def test_try_put_lets_other_exceptions_through(name: str) -> None:
    """KeyboardInterrupt and SystemExit aren't refusals."""

    def stop(event: bytes) -> bytes:
        raise KeyboardInterrupt(event)

    with EventQueue(name, stop, max_queue_size=FEW, max_event_size=SMALL) as queue:
        with pytest.raises(KeyboardInterrupt):
            queue.try_put(b"{x}")
        assert QueueCounters() == queue.counters()


# --- switched off ---


def never(event: object) -> bytes:
    """Fail the test: a queue that is switched off doesn't serialize."""
    raise AssertionError(event)


def off_by_argument(name: str, monkeypatch: pytest.MonkeyPatch) -> EventQueue[object]:
    """Switch a queue off by the argument, which counts more than the variable."""
    monkeypatch.setenv(ENABLED_VARIABLE, "on")
    return EventQueue(name, never, enabled=False, put_timeout=1e9, strict_size=True)


def off_by_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> EventQueue[object]:
    """Switch a queue off by the environment."""
    monkeypatch.setenv(ENABLED_VARIABLE, " Off")
    return EventQueue(name, never, max_event_size=1)


def off_by_configuration(name: str, monkeypatch: pytest.MonkeyPatch) -> EventQueue[object]:
    """Switch a queue off by what the framework's configuration says."""
    monkeypatch.delenv(ENABLED_VARIABLE, raising=False)
    queue = EventQueue(name, never, max_queue_size=FEW, max_event_size=SMALL)
    assert queue("on") is queue
    assert queue.enabled
    assert queue("false") is queue
    assert queue("on") is queue  # off is off
    return queue


def off_in_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> EventQueue[object]:
    """Switch an in-memory queue off."""
    del monkeypatch
    return InMemoryEventQueue(name, never, enabled=False)


def test_an_event_that_is_being_put_at_that_moment_is_no_error(name: str) -> None:
    """A configuration may switch a queue off while other threads put."""

    def switch_off(event: bytes) -> bytes:
        queue("off")
        return event

    queue = EventQueue(name, switch_off, max_queue_size=FEW, max_event_size=SMALL)
    queue.put(b"{the first}")
    queue.put(b"{the second}")
    assert QueueCounters().refused == queue.counters().refused
    assert not queue.enabled


def test_only_a_bool_switches_a_queue_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word as an argument is an error; an empty variable counts as unset."""
    with pytest.raises(ValueError, match="True, False or None"):
        EventQueue(name, serialize, enabled="off")  # type: ignore[arg-type]
    monkeypatch.setenv(ENABLED_VARIABLE, " ")
    with small(name) as queue:
        assert queue.enabled


@pytest.mark.parametrize("make", [off_by_argument, off_by_variable, off_by_configuration, off_in_memory])
def test_a_queue_that_is_off_takes_everything_and_counts(
    make: Callable[[str, pytest.MonkeyPatch], EventQueue[object]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is serialized, put, refused, waited for or logged as a problem; also after `close`."""
    with fresh_event_name() as name:
        before = open_files()
        caplog.set_level(logging.INFO)
        queue = make(name, monkeypatch)
        assert open_files() <= before
        assert not queue.enabled
        for _ in range(3_000):
            queue.put(object())
        queue.put_many([1, None, "x"])
        queue.put_many([])
        assert queue.try_put(None)
        queue.close()
        queue.put(b"")
        assert QueueCounters(discarded=3_005) == queue.counters()
        assert {} == queue.refused
        assert (None, None, None, None) == (
            queue.depth,
            queue.capacity,
            queue.spool_size,
            queue.spool_max_size,
        )
        queue.report_runtime_metrics(None)  # type: ignore[arg-type]
        assert [f"Event queue {name} is switched off: its events are discarded"] == caplog.messages
        if isinstance(queue, InMemoryEventQueue):
            assert ([], [], []) == (queue.events, queue.messages, queue.errors)


def test_nothing_is_made_or_imported_for_a_queue_that_is_off() -> None:
    """It works where there are no POSIX queues, and no directory for a spool."""
    program = """if True:
        import sys
        sys.modules["posix_ipc"] = None
        from baseplate_events import EventQueue, serialize_v2j_event
        queue = EventQueue("v2", serialize_v2j_event, spool_directory="/nowhere", strict_size=True)
        queue.put({"action": object()})
        print(queue.counters().discarded, "logging" in sys.modules)
    """
    environ = {**IMPORTING, ENABLED_VARIABLE: "0"}
    assert run(sys.executable, "-c", program, environ=environ).check().split()[0] == "1"


@given(st.sampled_from(["on", "true", "yes", "1", "off", "false", "no", "0"]), st.data())
def test_the_variable_takes_words_in_any_case(word: str, data: st.DataObject) -> None:
    """Words may have any case, and blanks around them; the argument takes precedence."""
    spelled = "".join(data.draw(st.sampled_from([c.lower(), c.upper()])) for c in f" {word} ")
    with pytest.MonkeyPatch.context() as patch, fresh_event_name() as name:
        patch.setenv(ENABLED_VARIABLE, spelled)
        with small(name) as queue:
            assert (word in {"on", "true", "yes", "1"}) == queue.enabled
        for enabled in (True, False):
            with EventQueue(name, serialize, max_queue_size=1, max_event_size=1, enabled=enabled) as queue:
                assert enabled == queue.enabled


@given(st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=5))
def test_the_variable_takes_no_other_words(word: str) -> None:
    """A word that means neither is an error that names the variable, at the start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENABLED_VARIABLE, word)
        if word.strip().lower() in {"", "on", "true", "yes", "1", "off", "false", "no", "0"}:
            return
        with pytest.raises(ValueError, match=f"{ENABLED_VARIABLE} must be one of on, true"):
            EventQueue("main", serialize)
        InMemoryEventQueue("main", serialize).put(b"{x}")  # tests of a service don't depend on it


def test_an_empty_variable_is_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable counts as unset, like the spool's."""
    monkeypatch.setenv(ENABLED_VARIABLE, "")
    with small(name) as queue:
        assert queue.enabled


def test_a_configuration_that_says_something_else_is_ignored(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Another value is ignored with a warning that doesn't show it."""
    with small(name) as queue:
        assert queue("") is queue
        assert caplog.messages == []
        assert queue("sceret") is queue
        assert queue.enabled
        (message,) = caplog.messages
        assert name in message
        assert "sceret" not in message


def test_a_full_queue_in_an_outage_is_counted_by_all_ways(name: str) -> None:
    """`put`, `try_put` and `put_many` count the same refusals."""
    with small(name) as queue:
        queue.put_many([b"{x}"] * FEW)
        refusals: Sequence[Callable[[], object]] = (
            lambda: queue.put(b"{x}"),
            lambda: queue.put_many([b"{x}", b"{y}"]),
        )
        for refuse in refusals:
            with pytest.raises(EventQueueFullError):
                refuse()
        assert not queue.try_put(b"{x}")
        assert QueueCounters(FEW, RefusedEvents(full=4)) == queue.counters()
