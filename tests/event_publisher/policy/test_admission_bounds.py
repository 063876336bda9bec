"""The bounds of memory and of the queue, to the byte; and which messages can be events, by example."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from baseplate_events.errors import EventError
from baseplate_events.event_publisher.policy.accounting import Accounting, DropReason
from baseplate_events.event_publisher.policy.admission import MAX_PARKED, Admission
from baseplate_events.event_publisher.policy.batching import FORMATS, Batcher
from baseplate_events.event_publisher.policy.pending import PendingBatch, PendingBatches
from baseplate_events.event_publisher.policy.rejection import Rejections
from baseplate_events.event_publisher.policy.span import EventRun, Span, records_size
from tests.support.simulated_publisher import MemoryJournal

if TYPE_CHECKING:
    from collections.abc import Sequence


class Scene:
    """An admission for batches of 400 bytes, of which memory may hold three, with what it looks at."""

    def __init__(self, *, capacity: int = 5, message_size: int = 100) -> None:
        self.journal = MemoryJournal()
        self.accounting = Accounting()
        self.batcher = Batcher(FORMATS["2j"], max_size=400, max_events=100, max_age=1.0)
        self.pending = PendingBatches(may_park=True)
        self.rejections = Rejections(self.journal, self.accounting)
        self.admission = Admission(
            self.batcher,
            self.pending,
            self.rejections,
            self.accounting,
            max_memory=1_200,
            max_size=400,
            queue_capacity=capacity,
            queue_message_size=message_size,
        )


def test_memory_is_left_for_three_batches_less_what_is_there() -> None:
    """Batches that wait, the open one and dead letters that can't be written count, each for its bytes."""
    scene = Scene()
    assert scene.admission.memory_left == 1_200
    assert scene.admission.spare == math.inf
    scene.pending.memory = 50
    assert scene.admission.memory_left == 1_150
    scene.rejections.size = 30
    assert scene.admission.memory_left == 1_120
    scene.admission.offer_run(EventRun([b"{}"], ()), 0.0)
    assert scene.admission.memory_left == 1_116
    assert scene.admission.spare == 1_516
    scene.pending.held_memory = 500
    assert scene.admission.memory_left == 616
    assert scene.admission.spare == 1_016


@pytest.mark.parametrize(("held", "left"), [(0, 1_200), (300, 900), (800, 400), (1_000, 400), (1_300, 300)])
def test_held_events_leave_one_batch_if_that_keeps_the_bound(held: int, left: int) -> None:
    """A fourth batch is allowed beside them, and all together never exceed four."""
    scene = Scene()
    scene.pending.held_memory = held
    assert scene.admission.memory_left == left


def test_no_more_is_read_with_ten_thousand_places_parked() -> None:
    """One less leaves all the memory."""
    scene = Scene()
    assert MAX_PARKED == 10_000
    scene.pending.parked_places = 9_999
    assert scene.admission.memory_left == 1_200
    scene.pending.parked_places = 10_000
    assert scene.admission.memory_left == 0


@pytest.mark.parametrize(("used", "room"), [(0, 12), (99, 12), (100, 11), (1_199, 1), (1_200, 0), (1_500, 0)])
def test_room_is_for_whole_events_of_the_largest_size(used: int, room: int) -> None:
    """The last one may exceed the memory that is left."""
    scene = Scene()
    scene.pending.memory = used
    assert scene.admission.room(healthy=True) == room
    scene.rejections.size = 1
    assert scene.admission.room(healthy=True) == 0


@pytest.mark.parametrize(
    ("in_hand", "held", "room"), [(0, 0, 5), (3, 0, 2), (5, 4, 0), (4, 4, 1), (5, 5, 1), (6, 6, 0), (7, 0, 0)]
)
def test_room_while_the_collector_is_failing(in_hand: int, held: int, room: int) -> None:
    """As many as the queue takes back, and one beside those that are all held."""
    scene = Scene(capacity=5)
    scene.accounting.receive(in_hand)
    scene.pending.held_count = held
    assert scene.admission.room(healthy=False) == room
    assert scene.admission.room(healthy=True) == 12
    scene.admission.resize_queue(50, 1_200)
    assert scene.admission.room(healthy=False) == 1


CAN_BE_SENT = [b"{}", b" {} ", b"[1]", b'"a"', b"12", b"0", b"-1", b"true", b"false", b"null", b"\t{}\r\n"]
CANNOT_BE_SENT = [
    b"",
    b" ",
    b"{",
    b"}",
    b'"',
    b"[",
    b"{]",
    b"[}",
    b'"}',
    b"x",
    b"\0",
    b"x}",
    b"{x",
    b"{x}}\0",
]


@pytest.mark.parametrize("message", [*CAN_BE_SENT, *CANNOT_BE_SENT])
def test_what_can_be_an_event(message: bytes) -> None:
    """A message is looked at at its ends, which find what is empty, cut off or binary."""
    scene = Scene(capacity=100)
    rejected = scene.admission.offer([b"{}", message, b'{"a":1}'], 1.0, healthy=True)
    batch = scene.batcher.take()
    assert batch is not None
    if message in CAN_BE_SENT:
        assert (rejected, scene.journal.letters) == ([], [])
        assert batch.events == (b"{}", message, b'{"a":1}')
    else:
        assert [(size, rejection.fate) for size, rejection in rejected] == [
            (len(message), DropReason.INVALID)
        ]
        assert scene.journal.letters == [message]
        assert batch.events == (b"{}", b'{"a":1}')
    assert scene.accounting.received == 3


def test_the_largest_event_is_what_fits_in_a_batch_alone() -> None:
    """One byte more is given up, wherever it comes."""
    scene = Scene(message_size=500)
    fits, exceeds = b"{%b}" % (b"x" * 396), b"{%b}" % (b"x" * 397)
    assert scene.admission.offer([fits], 0.0, healthy=True) == []
    ((size, rejection),) = scene.admission.offer([exceeds, fits], 0.0, healthy=True)
    assert (size, rejection.fate) == (399, DropReason.OVERSIZE)
    assert scene.journal.letters == [exceeds]
    scene.admission.flush()
    for _ in range(2):
        taken = scene.pending.take(0.0, 0)
        assert isinstance(taken, PendingBatch)
        assert taken.batch.events == (fits,)


def test_batches_are_in_the_spool_or_in_memory() -> None:
    """The open batch is closed where one turns into the other; what is unsent in memory comes back."""
    scene = Scene()
    segment = b"A" * 16
    place = Span(segment, 0, records_size([b"{}"]))
    scene.admission.offer_run(EventRun([b"{}"], (place,)), 0.0)
    scene.admission.offer_run(EventRun([], ()), 0.0)
    assert len(scene.batcher) == 1
    scene.admission.offer([b'{"a":1}'], 0.0, healthy=True)
    assert len(scene.batcher) == 1
    first = scene.pending.take(0.0, 0)
    assert isinstance(first, PendingBatch)
    assert (first.batch.events, first.batch.spans) == ((b"{}",), (place,))
    assert scene.pending.take(0.0, 0) is None
    assert scene.admission.take_unsent() == [b'{"a":1}']
    assert scene.admission.take_unsent() == []
    scene.admission.offer_run(EventRun([b"{}"], (place,)), 0.0)
    assert scene.admission.take_unsent() == []
    assert (scene.accounting.spooled, scene.accounting.in_hand) == (2, 1)


def test_a_full_batch_is_closed_at_once() -> None:
    """It has as many events as it may."""
    batcher = Batcher(FORMATS["2j"], max_size=400, max_events=2, max_age=1.0)
    pending = PendingBatches(may_park=False)
    accounting = Accounting()
    admission = Admission(
        batcher,
        pending,
        Rejections(None, accounting),
        accounting,
        max_memory=1_200,
        max_size=400,
        queue_capacity=100,
        queue_message_size=100,
    )
    admission.offer([b"{}"] * 2, 0.0, healthy=True)
    assert (len(batcher), pending.has_line) == (0, True)
    admission.flush()
    assert pending.memory == 7


def test_what_cannot_be_written_is_given_up_later() -> None:
    """Its bytes count until then, as those of a record in a segment."""
    scene = Scene()
    scene.journal.broken = True
    scene.admission.offer([b"x"], 5.0, healthy=True)
    assert (scene.rejections.size, scene.rejections.retry_at) == (records_size([b"x"]), 6.0)
    assert str(scene.rejections.error) == str(EventError("the disk is broken"))
    scene.journal.broken = False
    scene.rejections.retry(5.99)
    assert scene.journal.letters == []
    scene.rejections.retry(6.0)
    assert (scene.journal.letters, scene.rejections.size) == ([b"x"], 0)
    assert scene.rejections.error is None
    assert scene.accounting.dead_lettered == 1


def test_events_whose_dead_letters_cannot_be_written_come_back() -> None:
    """At the end, those in memory only; what is in the spool stays there."""
    scene = Scene()
    assert scene.rejections.size == 0
    scene.journal.broken = True
    scene.admission.offer([b"x"], 5.0, healthy=True)
    place = Span(b"A" * 16, 0, records_size([b"y"]))
    scene.admission.offer_run(EventRun([b"y"], (place,)), 5.0)
    assert scene.rejections.size == records_size([b"x", b"y"])
    scene.rejections.retry(7.0)
    assert (scene.rejections.size, scene.rejections.retry_at) == (records_size([b"x", b"y"]), 8.0)
    assert scene.rejections.take_unsent() == [b"x"]
    assert (scene.rejections.size, scene.rejections.take_unsent()) == (0, [])


class CountingBatcher(Batcher):
    """A batcher that counts how often it is given many events."""

    calls = 0

    def add_many(self, events: Sequence[bytes], now: float) -> int:
        self.calls += 1
        return super().add_many(events, now)


@pytest.mark.parametrize(
    ("odd", "calls"),
    [
        (b"{}", 1),
        (b'{"a":1}', 1),
        (b"{%b}" % (b"x" * 46), 1),
        (b" {}", 5),
        (b"{} ", 5),
        (b"[1]", 5),
        (b"", 4),
    ],
)
def test_a_burst_of_objects_is_gathered_at_once(odd: bytes, calls: int) -> None:
    """Only if one of them isn't an object at first sight, each is looked at: that takes much longer."""
    batcher = CountingBatcher(FORMATS["2j"], max_size=50, max_events=100, max_age=1.0)
    accounting = Accounting()
    admission = Admission(
        batcher,
        PendingBatches(may_park=False),
        Rejections(None, accounting),
        accounting,
        max_memory=1_000,
        max_size=50,
        queue_capacity=100,
        queue_message_size=10,
    )
    admission.offer([odd, b"{}", b"{}", b"{}", b"{}"], 0.0, healthy=True)
    assert batcher.calls == (calls if len(odd) < 48 else 2)
