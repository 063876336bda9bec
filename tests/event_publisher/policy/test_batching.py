"""Properties of the batcher: nothing lost, nothing reordered, every bound kept to the byte."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from baseplate_events.event_publisher.policy.batching import FORMATS, Batcher
from baseplate_events.event_publisher.policy.span import Span, records_size
from tests.support import strategies
from tests.support.machines import check_machine


@given(version=strategies.versions, events=st.lists(strategies.messages, min_size=1, max_size=120))
def test_size_is_the_length_of_the_body(version: str, events: list[bytes]) -> None:
    """`size` foretells the length of what `join` gives."""
    body_format = FORMATS[version]
    assert len(body_format.join(tuple(events))) == body_format.size(len(events), sum(map(len, events)))


@given(
    version=strategies.versions,
    sizes=st.lists(st.integers(0, 70_000) | st.just(65_535), min_size=1, max_size=9),
)
def test_pieces_are_the_body(version: str, sizes: list[int]) -> None:
    """A body in pieces is the wrapper and its events between commas; no piece is much more than 64 KiB."""
    events = tuple(b"%d" % (place % 10) * size for place, size in enumerate(sizes))
    body_format = FORMATS[version]
    pieces = list(body_format.pieces(events))
    counter = b"%d," % len(events) if version == "2" else b""
    assert b"".join(pieces) == body_format.prefix + counter + b",".join(events) + body_format.suffix
    assert max(map(len, pieces)) <= 65_536 + max(sizes) + 30


@given(events=st.lists(st.dictionaries(strategies.texts, st.integers()), min_size=1, max_size=30))
def test_bodies_are_the_json_of_the_protocol(events: list[dict[str, int]]) -> None:
    """A body of JSON events is JSON: the struct with a counted list (2) or an array (2j)."""
    serialized = tuple(json.dumps(event).encode() for event in events)
    assert json.loads(FORMATS["2j"].join(serialized)) == events
    wrapped = {"1": {"lst": ["rec", len(events), *events]}}
    assert json.loads(FORMATS["2"].join(serialized)) == wrapped


def test_bodies_by_example() -> None:
    """The bytes of both formats, as baseplate.py writes them."""
    assert FORMATS["2"].join((b"{}", b'{"1":{"i32":5}}')) == b'{"1":{"lst":["rec",2,{},{"1":{"i32":5}}]}}'
    assert FORMATS["2j"].join((b"{}", b'{"a":1}')) == b'[{},{"a":1}]'


class BatcherMachine(RuleBasedStateMachine):
    """The batcher against a plain list of events."""

    @initialize(
        version=strategies.versions,
        max_size=st.integers(30, 200),
        max_events=st.integers(1, 12),
        max_age=st.floats(0.001, 10),
    )
    def start(self, version: str, max_size: int, max_events: int, max_age: float) -> None:
        self.format = FORMATS[version]
        self.max_size = self.taught_size = max_size
        self.max_events = max_events
        self.max_age = max_age
        self.batcher = Batcher(self.format, max_size=max_size, max_events=max_events, max_age=max_age)
        self.open: list[tuple[bytes, float]] = []
        self.now = 100.0

    def weight(self, *events: bytes) -> int:
        return len(self.format.join(events))

    @rule(event=strategies.messages, step=st.sampled_from([0.0, 0.01, 1.0]))
    def add(self, event: bytes, step: float) -> None:
        self.now += step
        assert (len(event) <= self.batcher.largest_event) == (self.weight(event) <= self.max_size)
        weight = self.weight(*(each for each, _ in self.open), event)
        if self.open:
            fits = weight <= self.taught_size and len(self.open) < self.max_events
        else:
            fits = weight <= self.max_size
        assert self.batcher.fits(event) == fits
        if fits:
            self.batcher.add(event, self.now)
            self.open.append((event, self.now))

    @rule(events=st.lists(strategies.messages, max_size=12), step=st.sampled_from([0.0, 0.01, 1.0]))
    def add_many(self, events: list[bytes], step: float) -> None:
        self.now += step
        events = [event for event in events if self.weight(event) <= self.max_size]
        taken = self.batcher.add_many(events, self.now)
        self.open += [(event, self.now) for event in events[:taken]]
        assert taken == len(events) or not self.batcher.fits(events[taken])

    @rule()
    def take(self) -> None:
        batch = self.batcher.take()
        if batch is None:
            assert self.open == []
            return
        assert [event for event, _ in self.open] == list(batch.events)
        assert batch.opened_at == self.open[0][1]
        assert batch.size == self.weight(*batch.events) <= self.max_size
        assert 1 <= len(batch.events) <= self.max_events
        self.open = []

    @rule(max_size=st.integers(20, 250))
    def learn(self, max_size: int) -> None:
        self.batcher.learn(max_size)
        self.taught_size = min(self.taught_size, max_size)

    @invariant()
    def open_batch_is_the_model(self) -> None:
        if not hasattr(self, "batcher"):
            return
        assert len(self.batcher) == len(self.open)
        assert self.batcher.full == (len(self.open) == self.max_events)
        assert self.batcher.events_left == self.max_events - len(self.open)
        widest = self.weight(*[b""] * self.max_events) - (self.max_events - 1)
        taken = sum(len(event) + 1 for event, _ in self.open)
        assert self.batcher.spare == self.taught_size - widest - taken
        if self.open:
            assert self.batcher.opened_at == self.open[0][1]
            assert self.batcher.due_at == self.open[0][1] + self.max_age
            assert self.batcher.size == self.weight(*(event for event, _ in self.open))
        else:
            assert self.batcher.opened_at is None
            assert self.batcher.due_at is None
            assert self.batcher.size == 0


def test_batcher_against_a_list() -> None:
    """Whatever comes when, each batch is a run of the events that came, in all bounds."""
    check_machine(BatcherMachine)


@given(
    events=st.lists(strategies.messages, min_size=2, max_size=60),
    version=strategies.versions,
    opened_at=st.floats(0, 1e9),
)
def test_halves_hold_every_event_once_in_order(events: list[bytes], version: str, opened_at: float) -> None:
    """A batch that is split gives two that are smaller, as old, and hold its events in their order."""
    batcher = Batcher(FORMATS[version], max_size=10_000, max_events=100, max_age=1.0)
    whole = batcher.batch(tuple(events), opened_at)
    halves = batcher.split(whole)
    assert tuple(events) == halves[0].events + halves[1].events
    assert 0 <= len(halves[1].events) - len(halves[0].events) <= 1
    for half in halves:
        assert half.events
        assert half.opened_at == opened_at
        assert half.size == len(FORMATS[version].join(half.events)) < whole.size


@given(
    version=strategies.versions,
    sizes=st.lists(st.integers(0, 30), max_size=40),
    before=st.integers(0, 3),
    max_size=st.integers(40, 300),
    taught_size=st.integers(30, 300),
    max_events=st.integers(1, 40),
)
def test_many_are_taken_as_one_by_one(
    version: str, sizes: list[int], before: int, max_size: int, taught_size: int, max_events: int
) -> None:
    """`add_many` takes exactly the events that `add` would while they fit."""
    one, many = (
        Batcher(FORMATS[version], max_size=max_size, max_events=max_events, max_age=1.0) for _ in range(2)
    )
    events = [b"x" * min(size, one.largest_event) for size in sizes]
    for batcher in (one, many):
        for event in events[:before]:
            if batcher.fits(event):
                batcher.add(event, 1.0)
        batcher.learn(taught_size)
    taken = 0
    while taken < len(events) and one.fits(events[taken]):
        one.add(events[taken], 2.0)
        taken += 1
    assert taken == many.add_many(events, 2.0)
    assert (one.size, one.spare, one.due_at) == (many.size, many.spare, many.due_at)
    assert one.take() == many.take()


@given(
    version=strategies.versions,
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=3)
    | st.lists(st.integers(0, 9), min_size=8, max_size=12),
    more=st.sampled_from([1, 1_000]),
)
def test_a_batch_is_filled_to_the_byte(version: str, sizes: list[int], more: int) -> None:
    """Events fit if their body has `max_size` bytes, one by one and together, and not if it has one more.

    It doesn't matter how many more events a batch could hold, though `spare` counts the digits of that.
    """
    events = [b"x" * size for size in sizes]
    size = len(FORMATS[version].join(tuple(events)))
    for max_size, expected in ((size, len(events)), (size - 1, len(events) - 1)):
        one, many = (
            Batcher(FORMATS[version], max_size=max_size, max_events=len(events) + more, max_age=1.0)
            for _ in range(2)
        )
        taken = 0
        while taken < len(events) and one.fits(events[taken]):
            one.add(events[taken], 1.0)
            taken += 1
        assert expected == taken == many.add_many(events, 1.0)


@pytest.mark.parametrize("version", ["2", "2j"])
@pytest.mark.parametrize("max_events", [1, 1_000])
def test_the_largest_event_fills_a_batch_alone(version: str, max_events: int) -> None:
    """However many events a batch may hold; one byte more doesn't fit."""
    event = b"x" * 30
    max_size = len(FORMATS[version].join((event,)))
    batcher = Batcher(FORMATS[version], max_size=max_size, max_events=max_events, max_age=1.0)
    assert batcher.largest_event == len(event)
    assert batcher.fits(event)
    assert not batcher.fits(event + b"x")
    assert batcher.add_many([event], 1.0) == 1


@pytest.mark.parametrize("version", ["2", "2j"])
def test_pieces_have_32_kib(version: str) -> None:
    """A piece ends with the event that makes it 32 KiB; commas aren't counted, the wrapper is apart."""
    pieces = [*FORMATS[version].pieces((b"{}",) * 40_000)]
    lead, suffix = {"2": (b'{"1":{"lst":["rec",40000,', b"]}}"), "2j": (b"[", b"]")}[version]
    whole = (
        b",{}" * 16_384
    )  # beginning with the second, a piece begins with the comma behind the one before it
    assert pieces == [lead, whole[1:], whole, b",{}" * (40_000 - 2 * 16_384), suffix]


def test_places_in_the_spool_go_along() -> None:
    """Those of the events of a batch are joined in it, and the next one has none of them."""
    batcher = Batcher(FORMATS["2j"], max_size=100, max_events=10, max_age=1.0)
    segment = b"A" * 16
    found = [batcher.has_spans]
    for start in (0, 17):
        batcher.add(b"{}", 1.0)
        batcher.add_spans([Span(segment, start, start + 17)])
        found.append(batcher.has_spans)
    batch = batcher.take()
    assert batch is not None
    assert batch.spans == (Span(segment, 0, 34),)
    assert [*found, batcher.has_spans] == [False, True, True, False]
    batcher.add(b"{}", 1.0)
    following = batcher.take()
    assert following is not None
    assert following.spans == ()


def test_a_batch_that_is_split_keeps_the_places_of_its_events() -> None:
    """The places of each half are those of its events."""
    batcher = Batcher(FORMATS["2j"], max_size=100, max_events=10, max_age=1.0)
    events = (b"{}", b'{"a":1}', b"{}")
    ends = list(itertools.accumulate(records_size([event]) for event in events))
    whole = batcher.batch(events, 1.0, (Span(b"A" * 16, 0, ends[-1]),))
    assert [half.spans for half in batcher.split(whole)] == [
        (Span(b"A" * 16, 0, ends[0]),),
        (Span(b"A" * 16, ends[0], ends[-1]),),
    ]
