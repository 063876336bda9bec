"""Beside baseplate.py under load: thousands of events of several producers, through either's publisher."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from baseplate_events import serialize_v2_event
from baseplate_events.dev_collector import AcceptedBatch, DevCollector
from tests.interop.original import original_publisher
from tests.interop.producer import event
from tests.support.processes import Process, started
from tests.support.publishers import (
    KEY_NAME,
    MAX_MESSAGE_SIZE,
    MAX_MESSAGES,
    SECRET,
    publisher_process,
    small_queue,
)
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Generator

#: Events of each producer.
EVENTS: Final = 1_500

#: Producers of a kind, each in a process of its own.
PRODUCERS: Final = 3

_PRODUCER: Final = Path(__file__).with_name("producer.py")


class Count:
    """How often each event has arrived at a collector for development, which accepts signed events only."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._events: Counter[bytes] = Counter()

    def add(self, batch: AcceptedBatch) -> None:
        """Take a batch; given to the collector."""
        with self._changed:
            self._events.update(batch.events)
            self._changed.notify_all()

    def wait_for(self, expected: Counter[bytes]) -> Counter[bytes]:
        """Return the events as soon as there are as many as expected."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._events.total() >= expected.total(), PATIENCE):
                raise TimeoutError(f"{self._events.total()} of {expected.total()} events came")
            return Counter(self._events)


@contextmanager
def producers(queue_name: str, *kinds: str) -> Generator[list[Process]]:
    """Run a producer of each kind, `ours` or `theirs`; the n-th begins with the event n * EVENTS."""
    with ExitStack() as stack:
        processes: list[Process] = []
        for number, kind in enumerate(kinds):
            arguments = [kind, queue_name, str(number * EVENTS), str(EVENTS)]
            sizes = [str(MAX_MESSAGES), str(MAX_MESSAGE_SIZE)]
            command = (sys.executable, str(_PRODUCER), *arguments, *sizes)
            processes.append(stack.enter_context(started(*command)))
        yield processes


def events_of_producers(number: int) -> Counter[bytes]:
    """Return the events of this many producers, as either serializer writes them."""
    return Counter(serialize_v2_event(event(serial)) for serial in range(number * EVENTS))


@pytest.mark.parametrize(
    ("publisher", "kinds"),
    [
        pytest.param("theirs", ["ours"] * PRODUCERS, id="our services, their publisher"),
        pytest.param("ours", ["theirs"] * PRODUCERS, id="their services, our publisher"),
        pytest.param("ours", ["ours", "theirs"] * 2, id="both services, our publisher"),
        pytest.param("theirs", ["ours", "theirs"] * 2, id="both services, their publisher"),
    ],
)
def test_all_events_arrive(publisher: str, kinds: list[str], *, name: str, tmp_path: Path) -> None:
    """Each event arrives once, byte for byte, in a signed batch, with any pair."""
    count = Count()
    expected = events_of_producers(len(kinds))
    run = publisher_process if publisher == "ours" else original_publisher
    with (
        small_queue(name),
        DevCollector({KEY_NAME: SECRET}, count.add) as collector,
        run(tmp_path, name, collector.url, collector__version="2"),
        producers(name, *kinds) as processes,
    ):
        assert expected == count.wait_for(expected)
        assert [0] * len(kinds) == [process.wait(PATIENCE) for process in processes]
    assert not collector.counts.rejected


def test_both_publishers_share_a_queue(name: str, tmp_path: Path) -> None:
    """With both publishers on one queue, as while a host is moved, each event arrives once."""
    count = Count()
    kinds = ["ours", "theirs"] * 2
    expected = events_of_producers(len(kinds))
    ours = tmp_path / "ours"
    ours.mkdir()
    with (
        small_queue(name),
        DevCollector({KEY_NAME: SECRET}, count.add) as collector,
        original_publisher(tmp_path, name, collector.url, collector__version="2"),
        publisher_process(ours, name, collector.url, collector__version="2") as publisher,
    ):
        publisher.wait_for_log("publishing events")  # before the other one has delivered everything
        with producers(name, *kinds) as processes:
            assert expected == count.wait_for(expected)
            assert [0] * len(kinds) == [process.wait(PATIENCE) for process in processes]
            assert publisher.stop() == 0
            assert " 0 events received" not in publisher.log
    assert not collector.counts.rejected
