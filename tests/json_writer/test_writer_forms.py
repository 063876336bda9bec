"""What the writers write themselves: no reference stands behind them, which would write the same."""

from __future__ import annotations

import collections
import collections.abc
import enum
from typing import Any, NamedTuple, cast

import pytest

from baseplate_events.json_writer import plain
from baseplate_events.json_writer.writer import JsonWriters
from tests.support.typed_events import late_mapping


class Point(NamedTuple):
    """An object."""

    x: int


class Form(dict[str, object]):
    """A subclass of dict."""


class Text(str):
    """A text that isn't of type str."""

    __slots__ = ()


class Tuple(tuple[int, ...]):
    """A tuple that isn't of type tuple."""

    __slots__ = ()


class Color(enum.Enum):
    """What is replaced by its value."""

    RED = "red"
    BOTH = ("red", 1)


class Money:
    """What JSON has no form for."""


def written(value: object, *, within: bool = False) -> str:
    """Write a value, with a default for Money."""
    writers = JsonWriters(lambda _: {"cents": (5,)}, within=within)
    return writers[type(value)](value)


#: Values and their texts.
FORMS: list[tuple[Any, str]] = [
    (Money(), '{"cents":[5]}'),
    ({"a": [Money()], "b": Money()}, '{"a":[{"cents":[5]}],"b":{"cents":[5]}}'),
    (Form(a=1, b=Text("x")), '{"a":1,"b":"x"}'),
    (Form(), "{}"),
    (Form({cast("Any", 1): Point(1), "a": "x"}), '{"1":{"x":1},"a":"x"}'),
    (collections.UserDict({"a": Form(b=1)}), '{"a":{"b":1}}'),
    ({0: Point(1), None: "x", "a": [2]}, '{"0":{"x":1},"null":"x","a":[2]}'),
    ({Text("a"): 1, "b": Text("x")}, '{"a":1,"b":"x"}'),
    ([Point(1), "x", Text("y"), {}], '[{"x":1},"x","y",{}]'),
    ((Point(1), Color.RED), '[{"x":1},"red"]'),
    (Tuple([1, 2]), "[1,2]"),
    ({1}, "[1]"),
    (frozenset({"x"}), '["x"]'),
    (Color.BOTH, '["red",1]'),
    ({"a": Color.RED}, '{"a":"red"}'),
]


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize(("value", "text"), FORMS)
def test_each_form_has_a_writer(value: object, text: str, within: bool) -> None:
    """On its own, and within what isn't plain."""
    assert written(value, within=within) == text
    assert written([Point(0), value], within=within) == f'[{{"x":0}},{text}]'
    assert written({"p": Point(0), "v": value}, within=within) == f'{{"p":{{"x":0}},"v":{text}}}'


class Twice(dict[str, int]):
    """A mapping that has a key twice."""

    def items(self) -> Any:  # noqa: ANN401 - of another type than that of dict
        return [("a", 1), ("a", 2)]


@pytest.mark.parametrize(
    "value", [Twice(a=1), {1: Point(1), "1": 2}, {(1,): Point(1)}, [Point(1), float("nan")]]
)
def test_the_rest_is_left_to_the_reference(value: object) -> None:
    """Which names the field."""
    with pytest.raises(Exception):  # noqa: B017, PT011 - any will do
        written(value)


def test_without_a_default_a_class_is_left_to_the_reference() -> None:
    """It isn't kept, as it may become a mapping."""
    writers = JsonWriters()
    with pytest.raises(Exception):  # noqa: B017, PT011 - any will do
        writers[Money](Money())
    assert Money not in writers


def test_a_default_is_asked_until_a_class_is_registered() -> None:
    """Then its instances are written as what they are."""
    cls = late_mapping()
    asked: list[object] = []

    def note(value: object) -> str:
        asked.append(value)
        return "unknown"

    writers = JsonWriters(note)
    late = cls()
    for _ in range(3):
        assert writers[cls](late) == '"unknown"'
    assert asked == [late] * 3
    write = writers[cls]
    cast("Any", collections.abc.Mapping).register(cls)
    assert write(late) == writers[cls](late) == '{"a":"a"}'
    assert asked == [late] * 3
    assert writers[cls] is not write


@pytest.mark.parametrize(
    ("value", "texts"),
    [([1], 1), ((1,), 1), ({1}, 0), (frozenset({1}), 0), (Tuple([1]), 0), ({"a": 1}, 1), (Form(a=1), 0)],
)
def test_only_exact_lists_tuples_and_dicts_may_be_plain(
    value: object, texts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others aren't handed to the encoder of `json`."""
    handed: list[object] = []
    encode = vars(plain)["_encode"]

    def note(value: object, level: int) -> object:
        handed.append(value)
        return encode(value, level)

    monkeypatch.setattr(plain, "_encode", note)
    JsonWriters()[type(value)](value)
    assert handed == [value] * texts
