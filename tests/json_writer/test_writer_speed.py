"""Which writer writes what. The text is the same either way, so only this shows that the fast one is used."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest
from hypothesis import given

from baseplate_events import (
    EventNotSerializableError,
    json_serializer,
    serialize_v2_event,
    serialize_v2j_event,
)
from baseplate_events.json_writer import reference
from baseplate_events.json_writer.writer import JsonWriters
from baseplate_events.serializers import event_format_of
from tests.support import typed_events

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.typed_events import Pair


class Point(NamedTuple):
    """What isn't a scalar."""

    x: int


class CountingWriters(JsonWriters):
    """Writers that count how often the one of each class is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[type] = []

    def __getitem__(self, cls: type) -> Callable[[Any], str]:
        self.asked.append(cls)
        return super().__getitem__(cls)

    def asked_for(self, value: object) -> list[str]:
        """Return the names of the classes whose writers are asked for within a value."""
        write = self[type(value)]
        self.asked.clear()
        write(value)
        return [cls.__name__ for cls in self.asked]


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


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        ([Point(1)] * 7, ["Point"] * 7),
        ([Point(1)] * 8, ["Point"]),
        ([1] * 7, ["int"] * 7),
        ([1] * 8, []),
        (["x"] * 7, []),
        (["x"] * 8, []),
        ([Point(1), *[1] * 7], ["Point", *["int"] * 7]),
        ([1, Point(1), *["x"] * 7], ["int", "Point"]),
        ((1.5,) * 8, []),
        ({"a": 1, "b": None}, []),
        ({"a": Point(1), "b": 1}, ["Point", "int"]),
        ({"a": Point(1), "b": "x"}, ["Point"]),
        ({f"k{number}": 1 for number in range(65)}, []),
        ({f"k{number}": Point(1) for number in range(65)}, ["Point"] * 65),
    ],
    ids=lambda value: str(value)[:30],
)
def test_many_values_are_written_together(value: object, asked: list[str]) -> None:
    """Scalars by the encoder of `json`, and values of one class by one writer, from eight items on."""
    writers = CountingWriters()
    writers[Point](Point(1))
    assert writers.asked_for(value) == asked


def test_values_of_enums_are_written_by_their_class() -> None:
    """Also if they are of a class that has a writer."""

    class Color(enum.Enum):
        RED = "red"
        POINT = Point(1)

    writers = CountingWriters()
    writers[Color](Color.RED)
    assert writers.asked_for([Color.RED, Color.POINT]) == ["Color", "str", "Color", "Point"]


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
