"""Properties of the batcher: nothing lost, nothing reordered, every bound kept to the byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from baseplate_events.errors import EventEmptyError, EventTooLargeError
from baseplate_events.event_publisher.batching import FORMATS, Batch, Batcher
from tests import strategies
from tests.machines import check_machine


@given(version=strategies.versions, events=st.lists(strategies.messages, min_size=1, max_size=120))
def test_size_is_the_length_of_the_body(version: str, events: list[bytes]) -> None:
    """`size` foretells the length of what `join` gives."""
    body_format = FORMATS[version]
    assert len(body_format.join(tuple(events))) == body_format.size(len(events), sum(map(len, events)))


@given(events=st.lists(st.dictionaries(strategies.texts, st.integers()), min_size=1, max_size=30))
def test_bodies_are_the_json_of_the_protocol(events: list[dict[str, int]]) -> None:
    """A body of JSON events is JSON: the struct with a counted list (2) or an array (2j)."""
    serialized = tuple(json.dumps(event).encode() for event in events)
    assert json.loads(FORMATS["2j"].join(serialized)) == events
    wrapped = {"1": {"lst": ["rec", len(events), *events]}}
    assert json.loads(FORMATS["2"].join(serialized)) == wrapped


def test_bodies_by_example() -> None:
    """The bytes of both formats, as the original writes them."""
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
        self.max_size = max_size
        self.max_events = max_events
        self.max_age = max_age
        self.batcher = Batcher(self.format, max_size=max_size, max_events=max_events, max_age=max_age)
        self.open: list[tuple[bytes, float]] = []
        self.now = 100.0

    @rule(event=strategies.messages, step=st.sampled_from([0.0, 0.01, 1.0]))
    def add(self, event: bytes, step: float) -> None:
        self.now += step
        if self.format.size(1, len(event)) > self.max_size:
            with pytest.raises(EventTooLargeError) as caught:
                self.batcher.add(event, self.now)
            assert caught.value.limit is not None
            assert caught.value.limit < caught.value.size == len(event)
            return
        closed = self.batcher.add(event, self.now)
        if closed is None:
            self.open.append((event, self.now))
        elif closed.events[-1] == event and len(closed.events) == len(self.open) + 1:
            self.check([*self.open, (event, self.now)], closed)
            assert len(closed.events) == self.max_events
            self.open = []
        else:
            self.check(self.open, closed)
            size = sum(len(each) for each, _ in self.open) + len(event)
            assert self.format.size(len(self.open) + 1, size) > self.max_size, "closed while there was room"
            self.open = [(event, self.now)]

    @rule()
    def add_nothing(self) -> None:
        with pytest.raises(EventEmptyError):
            self.batcher.add(b"", self.now)

    @rule()
    def take(self) -> None:
        batch = self.batcher.take()
        if batch is None:
            assert self.open == []
        else:
            self.check(self.open, batch)
            self.open = []

    def check(self, expected: list[tuple[bytes, float]], batch: Batch) -> None:
        assert [event for event, _ in expected] == list(batch.events)
        assert batch.opened_at == expected[0][1]
        assert batch.size == len(self.format.join(batch.events)) <= self.max_size
        assert 1 <= len(batch.events) <= self.max_events

    @invariant()
    def open_batch_is_the_model(self) -> None:
        if not hasattr(self, "batcher"):
            return
        assert len(self.batcher) == len(self.open)
        if self.open:
            assert self.batcher.due_at == self.open[0][1] + self.max_age
            assert self.batcher.size <= self.max_size
        else:
            assert self.batcher.due_at is None
            assert self.batcher.size == 0


def test_batcher_against_a_list() -> None:
    """Whatever comes when, each batch is a run of the events that came, in all bounds."""
    check_machine(BatcherMachine)


@given(
    events=st.lists(strategies.messages, max_size=60),
    version=strategies.versions,
    max_size=st.integers(100, 400),
)
def test_batches_hold_every_event_once_in_order(events: list[bytes], version: str, max_size: int) -> None:
    """What went in comes out: each event once, in order, whatever the sizes."""
    batcher = Batcher(FORMATS[version], max_size=max_size, max_events=10, max_age=1.0)
    batches = [batcher.add(event, 0.0) for event in events]
    batches.append(batcher.take())
    assert events == [event for batch in batches if batch is not None for event in batch.events]
