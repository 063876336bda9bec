"""Which values compiled writers write themselves. The text is the same either way, so lookups are counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.json_writer.shapes import JsonField, JsonShape
from baseplate_events.json_writer.source import compile_keys, compile_shape
from baseplate_events.json_writer.writer import JsonWriters

if TYPE_CHECKING:
    from baseplate_events.json_writer.source import JsonWriter


class Asked(JsonWriters):
    """Writers that note the names of the classes for which they are asked, without what these ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.classes: list[str] = []
        self.wholes: list[object] = []
        self._others = JsonWriters()

    def __getitem__(self, cls: type) -> JsonWriter:
        self.classes.append(cls.__name__)
        return self._others[cls]

    def write_whole(self, value: object) -> str:
        """Write a dict or a list."""
        self.wholes.append(value)
        return self._others[type(value)](value)


def written_by(writers: Asked, write: JsonWriter, value: object) -> tuple[str, list[str], int]:
    """Return the text of a value, the classes that were asked for, and how many containers were handed on."""
    writers.classes.clear()
    writers.wholes.clear()
    return write(value), [*writers.classes], len(writers.wholes)


@pytest.mark.parametrize(
    ("hint", "nullable", "value", "text", "classes"),
    [
        ("str", False, "x", '"x"', []),
        ("str", True, "x", '"x"', []),
        ("str", True, None, "null", []),
        ("str", False, None, "null", ["NoneType"]),
        ("str", False, 5, "5", ["int"]),
        ("int", False, 5, "5", []),
        ("int", False, True, "true", ["bool"]),
        ("int", True, None, "null", []),
        ("float", False, 1.5, "1.5", []),
        ("float", False, -0.0, "-0.0", []),
        ("float", False, 5, "5", ["int"]),
        ("bool", False, True, "true", []),
        ("bool", False, False, "false", []),
        ("bool", False, 0, "0", ["int"]),
        ("", True, None, "null", []),
        ("", False, "x", '"x"', ["str"]),
    ],
)
def test_fields_of_the_type_that_is_hinted_at_need_no_lookup(
    hint: str, nullable: bool, value: object, text: str, classes: list[str]
) -> None:
    """Nor does None if the hint names it. Other values do."""
    writers = Asked()
    shape = JsonShape((JsonField("a", "A", hint, nullable),))
    write = compile_shape(shape, writers, "Test")
    assert written_by(writers, write, SimpleNamespace(a=value)) == (f'{{"A":{text}}}', classes, 0)


@pytest.mark.parametrize(
    ("sample", "value", "text", "classes", "wholes"),
    [
        ("x", "y", '"y"', [], 0),
        (1, 2, "2", [], 0),
        (1.5, 2.5, "2.5", [], 0),
        (True, False, "false", [], 0),
        (None, None, "null", ["NoneType"], 0),
        ("x", 1, "1", ["int"], 0),
        ([1], [2], "[2]", [], 1),
        ([1], ["x"], '["x"]', [], 1),
        ([1], [], "[]", [], 1),
        (["x"], ["y", "z"], '["y","z"]', [], 0),
        (["x"], ["y", 1], '["y",1]', ["int"], 0),
        (["x"], [1, "y"], '[1,"y"]', [], 1),
        (["x"], ["y"] * 8, f"[{','.join(['x'] * 8)}]".replace("x", '"y"'), [], 0),
        (["x"], ["y"] * 9, f"[{','.join(['x'] * 9)}]".replace("x", '"y"'), [], 1),
        (["x", 1], ["y"], '["y"]', [], 0),
        ([1, "x"], ["y"], '["y"]', [], 1),
        (["x", {"b": 1}], [{"b": 1}], '[{"b":1}]', [], 1),
        ([{"b": 1}, "x"], [{"b": 2}], '[{"b":2}]', [], 0),
        ([{"b": 1}], [{"b": 2}, "y"], '[{"b":2},"y"]', ["str"], 0),
        ([{"b": 1}], [{"c": 2}], '[{"c":2}]', [], 1),
        ({"b": 1}, {"b": 2}, '{"b":2}', [], 0),
        ({"b": 1}, {"c": 2}, '{"c":2}', [], 1),
        ({"b": 1, "c": 2}, {"c": 2, "b": 1}, '{"c":2,"b":1}', [], 1),
        ({"b": {"c": "x"}}, {"b": {"c": "y"}}, '{"b":{"c":"y"}}', [], 0),
        ({}, {}, "{}", [], 1),
        ({1: 2}, {1: 2}, '{"1":2}', [], 1),
    ],
    ids=str,
)
def test_values_like_those_of_the_sample_need_no_lookup(
    sample: object, value: object, text: str, classes: list[str], wholes: int
) -> None:
    """Dicts with the same keys, and short lists that begin with one or with a text, are written here too."""
    writers = Asked()
    write = compile_keys({"a": sample}, writers, writers.write_whole)
    assert written_by(writers, write, {"a": value}) == (f'{{"a":{text}}}', classes, wholes)


@given(name=st.sampled_from(["a", "_b", "class", "a b", "1a", "ﬁ", "é", "a'b", "s", "v0", "W"]))
def test_any_attribute_is_read(name: str) -> None:
    """In the fastest way if it can be written as one: not if it is a keyword, or would be normalized."""
    writers = Asked()
    write: Any = compile_shape(JsonShape((JsonField(name, name, "int"),)), writers, "Test")
    assert written_by(writers, write, SimpleNamespace(**{name: 5})) == (f'{{"{name}":5}}', [], 0)
    assert ("getattr" in write.__code__.co_names) == (name not in {"a", "_b", "s", "v0", "W"})


@pytest.mark.parametrize("value", [(), (1,), (1, 2)])
def test_tuples_are_read_at_once(value: tuple[int, ...]) -> None:
    """Without reading attributes."""
    writers = Asked()
    fields = tuple(JsonField(f"f{number}", f"f{number}", "int") for number in value)
    write: Any = compile_shape(JsonShape(fields, is_tuple=True), writers, "Test")
    text = ",".join(f'"f{number}":{number}' for number in value)
    assert written_by(writers, write, value) == (f"{{{text}}}", [], 0)
    assert "f1" not in write.__code__.co_names


@pytest.mark.parametrize(("tag", "text"), [("x", '"x"'), (5, "5"), (True, "1")])
def test_tags_and_omitted_fields(tag: str | int, text: str) -> None:
    """A tag comes first, and a field that is left out leaves no comma."""
    writers = Asked()
    fields = (JsonField("a", "a", is_omitted={2}.__contains__), JsonField("b", "b"))
    write = compile_shape(JsonShape(fields, ("kind", tag)), writers, "Test")
    one, two = (written_by(writers, write, SimpleNamespace(a=value, b=3)) for value in (1, 2))
    assert one == (f'{{"kind":{text},"a":1,"b":3}}', ["int", "int"], 0)
    assert two == (f'{{"kind":{text},"b":3}}', ["int"], 0)
