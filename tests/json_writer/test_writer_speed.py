"""Which writer writes what. The text is the same either way, so only this shows that the fast one is used."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import (
    EventNotSerializableError,
    json_serializer,
    serialize_v2_event,
    serialize_v2j_event,
)
from baseplate_events.json_writer import plain, reference
from baseplate_events.json_writer.writer import JsonWriters
from baseplate_events.serializers import event_format_of
from tests.support import strategies, typed_events

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.support.typed_events import Pair


class Point(NamedTuple):
    """What isn't a scalar."""

    x: int


class Attempts:
    """Counts what is handed to the encoder of `json`.

    Attributes:
        values: The dicts, lists and tuples, in order.
    """

    def __init__(self) -> None:
        self.values: list[object] = []

    @property
    def containers(self) -> int:
        """How many containers the encoder may have gone through."""
        return sum(map(containers_of, self.values))

    @contextlib.contextmanager
    def counted(self) -> Generator[None]:
        """Count what this thread writes meanwhile."""
        encode: Callable[[Any, int], Any] = vars(plain)["_encode"]

        def count(value: Any, indent: int) -> Any:  # noqa: ANN401 - handed on
            self.values.append(value)
            return encode(value, indent)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(plain, "_encode", count)
            yield


def containers_of(value: object) -> int:
    """Count the dicts, lists and tuples that a value consists of."""
    if isinstance(value, dict):
        return 1 + sum(map(containers_of, cast("dict[object, object]", value).values()))
    if isinstance(value, (list, tuple)):
        return 1 + sum(map(containers_of, cast("list[object]", value)))
    return 0


@given(pair=typed_events.events((typed_events.make_dataclass, typed_events.make_named_tuple)))
def test_no_event_that_is_fine_goes_the_slow_way(pair: Pair) -> None:
    """The reference is for errors, and for what is rare."""
    event, plain = pair

    def refuse(*_: object) -> bytes:
        raise AssertionError("the reference was asked")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reference, "write_reference", refuse)
        for _ in range(2):
            assert json_serializer()(cast("Any", event)) == serialize_v2j_event(cast("Any", event))
            assert serialize_v2j_event(cast("Any", event)) == serialize_v2j_event(cast("Any", plain))


def test_the_writers_of_4096_classes_are_kept() -> None:
    """With one more, all are given up but that."""
    writers = JsonWriters()
    for number in range(4_096):
        assert writers[type(f"Class{number}", (int,), {})](5) == "5"
    assert len(writers) == 4_096
    assert writers[type("Another", (int,), {})](5) == "5"
    assert len(writers) == 1


@given(members=st.dictionaries(strategies.texts, strategies.plain_values, min_size=1, max_size=5))
def test_a_plain_event_is_written_at_once(members: dict[str, object]) -> None:
    """By the encoder of `json`, which gets nothing twice."""
    attempts = Attempts()
    with attempts.counted():
        assert JsonWriters()[dict](members) == json.dumps(members, ensure_ascii=False, separators=(",", ":"))
    assert attempts.values == [members]


@given(
    path=st.lists(st.sampled_from(["dict", "list", "tuple", "point"]), min_size=1, max_size=60),
    bad=st.sampled_from([dt.date(2026, 1, 2), {1}, Point(1), {"a": Point(1)}, {"a": [5, {1}]}]),
    beside=strategies.plain_values,
)
def test_an_event_that_is_not_plain_is_written_in_linear_time(
    path: list[str], bad: object, beside: object
) -> None:
    """However deep in it what isn't plain is: the encoder of `json` gets each container twice at most."""
    event: object = {"bad": bad}
    for number, step in enumerate(path):
        forms: dict[str, object] = {
            "dict": {f"k{number}": event, "beside": beside},
            "list": [beside, event],
            "tuple": (event, beside),
            "point": Point(cast("Any", event)),
        }
        event = forms[step]
    attempts = Attempts()
    with attempts.counted():
        JsonWriters()[type(event)](event)
    assert attempts.containers <= 2 * containers_of(event)


@pytest.mark.parametrize(
    ("event", "wholes"),
    [
        ({"a": 1, "b": "x"}, 0),
        ({"a": {"b": 1}}, 0),
        ({"a": ["x"] * 8}, 0),
        ({"a": ["x"] * 9}, 1),
        ({"a": [{"b": 1}] * 8}, 0),
        ({"a": [{"b": 1}] * 9}, 1),
        ({"a": [1]}, 1),
        ({"a": [1], "b": [[2]], "c": {1: 2}}, 3),
        ({"a": {"b": {f"k{number}": 1 for number in range(40)}}}, 1),
    ],
    ids=str,
)
def test_dicts_whose_keys_come_again_have_functions(event: dict[str, object], wholes: int) -> None:
    """So do dicts within, and a few texts or dicts in a list. The encoder of `json` writes the rest."""
    write = JsonWriters()[dict]
    for _ in range(40):
        write(event)
    attempts = Attempts()
    with attempts.counted():
        write(event)
    assert len(attempts.values) == wholes


@pytest.mark.parametrize(
    ("items", "wholes"),
    [([{"b": 1}] * 8, 0), ([{"b": 1}] * 9, 1), ([{"c": 1}] * 2, 1), ([], 1), (["x"], 1)],
    ids=str,
)
def test_other_lists_than_those_before_are_handed_to_the_encoder(items: list[object], wholes: int) -> None:
    """As a whole: longer ones, and those that begin with something else."""
    write = JsonWriters()[dict]
    for _ in range(40):
        write({"a": [{"b": 1}]})
    attempts = Attempts()
    with attempts.counted():
        assert write({"a": items}) == json.dumps({"a": items}, separators=(",", ":"))
    assert len(attempts.values) == wholes


def test_lists_of_objects_are_not_handed_to_the_encoder() -> None:
    """Which would write NamedTuples as arrays."""
    attempts = Attempts()
    with attempts.counted():
        assert JsonWriters()[list]([Point(1)] * 3) == '[{"x":1},{"x":1},{"x":1}]'
    assert attempts.values == []


def test_the_format_of_a_serializer() -> None:
    """It is written into the segments of a spool."""
    assert event_format_of(serialize_v2_event) == "2"
    assert event_format_of(serialize_v2j_event) == "2j"
    assert event_format_of(json_serializer()) == "2j"
    assert event_format_of(bytes) == "unknown"


def test_what_is_no_object_goes_the_slow_way() -> None:
    """Which says so, with a serializer that has a default too."""
    for event in ([1], "x", 5, [dict[str, int]()], ""):
        for serialize in (serialize_v2j_event, json_serializer(default=str)):
            with pytest.raises(EventNotSerializableError) as caught:
                serialize(cast("Any", event))
            assert caught.value.field == ""
            assert type(event).__name__ in caught.value.problem
