"""What the slow way says of what can't be written, and where it is; and how it writes what is replaced."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from baseplate_events import EventError, EventNotSerializableError
from baseplate_events.json_writer.reference import write_reference

NO_JSON = 1j


def error_of(event: object, default: Any = None) -> EventNotSerializableError:  # noqa: ANN401 - a hook takes anything
    """Return the error for an event."""
    with pytest.raises(EventNotSerializableError) as caught:
        write_reference(event, default)
    return caught.value


#: Events, and the field that can't be written.
FIELDS: list[tuple[Any, str]] = [
    ({"a": NO_JSON}, "a"),
    ({"x": [1], "y": NO_JSON}, "y"),
    ({"x": {"y": 1}, "z": [{}, [], NO_JSON]}, "z[2]"),
    ({"a": {"x": [1], "y": NO_JSON}}, "a.y"),
    ({"a": [[{"b": {}}], {"c": [1, {"d": NO_JSON}]}]}, "a[1].c[1].d"),
    ({None: NO_JSON}, "{0}"),
    ({"x": 1, True: NO_JSON}, "{1}"),
    ({"a b": [NO_JSON]}, "{0}[0]"),
]


@pytest.mark.parametrize(("event", "field"), FIELDS, ids=str)
def test_errors_name_the_field(event: object, field: str) -> None:
    """What was written before it leaves no trace; keys that are no names are shown by position."""
    assert error_of(event).field == field


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        ({"a": float("nan")}, "NaN or an infinity"),
        ({"a": float("-inf")}, "NaN or an infinity"),
        ({float("inf"): 1}, "NaN or an infinity"),
        ({"a": 10**5_000}, "too many digits"),
        ({10**5_000: 1}, "too many digits"),
        ({"a": "\ud800"}, "a lone surrogate"),
        ({"\ud800": 1}, "a lone surrogate"),
        ({"a": {(1, 2): 3}}, "the key of a mapping must be a str, got tuple"),
        ({"a": {1: 3, "1": 4}}, "two of its keys"),
        ({"a": NO_JSON}, "JSON has no form for a complex"),
        ([1], "got list"),
        ("x", "got str"),
        (5, "got int"),
        (NO_JSON, "expected a mapping, or an instance"),
        (NO_JSON, "got complex"),
        (dict, "got a class"),
    ],
)
def test_errors_say_what_is_wrong(event: object, problem: str) -> None:
    """And nothing of the content."""
    assert problem in error_of(event).problem


def test_what_holds_itself_is_an_error() -> None:
    """What comes twice, one after the other, is not."""
    twice = {"a": 1}
    assert write_reference({"x": twice, "y": [twice, twice]}, None) == b'{"x":{"a":1},"y":[{"a":1},{"a":1}]}'
    circle: dict[str, object] = {}
    circle["a"] = [circle]
    assert error_of(circle).field == "a[0]"
    assert "contains itself" in error_of(circle).problem


def test_errors_of_reading_and_of_the_hook() -> None:
    """The class of the exception is shown; an `EventError` of the hook passes."""

    class Broken(dict[str, int]):
        def items(self) -> Any:  # noqa: ANN401 - it raises
            raise LookupError("secret")

    error = error_of({"a": Broken()})
    assert (error.field, error.problem) == ("a", "reading it raised LookupError")

    def fail(_: object) -> object:
        raise LookupError("secret")

    error = error_of({"a": NO_JSON}, fail)
    assert error.field == "a"
    assert error.problem.endswith("default raised LookupError")
    own = EventError("mine")

    def refuse(_: object) -> object:
        raise own

    with pytest.raises(EventError) as caught:
        write_reference({"a": NO_JSON}, refuse)
    assert caught.value is own


class Rooted:
    """What looks like a model with a root, of the pydantic before 2."""

    __fields__: ClassVar[dict[str, object]] = {"__root__": None}
    __config__ = SimpleNamespace
    __fields_set__: tuple[str, ...] = ()

    def __init__(self, root: object) -> None:
        self.__root__ = root


class Root:
    """What looks like a model with a root, of pydantic 2."""

    __pydantic_decorators__ = SimpleNamespace(field_serializers={}, model_serializers={}, computed_fields={})
    __pydantic_serializer__ = None
    __pydantic_root_model__ = True
    __pydantic_fields__: ClassVar[dict[str, object]] = {}

    def __init__(self, root: object) -> None:
        self.root = root


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Rooted({"a": 1}), b'{"a":1}'),
        (Rooted([1]), b'{"__root__":[1]}'),
        (Root(5), b'{"root":5}'),
        (Root(Rooted([1])), b'{"root":[1]}'),
        (Rooted(Root("x")), b'{"__root__":"x"}'),
        (Root(Rooted({"a": Root([1])})), b'{"a":[1]}'),
        ({"a": Root([1]), "b": Rooted({}), "c": Root(Rooted(None))}, b'{"a":[1],"b":{},"c":null}'),
    ],
)
def test_a_root_that_is_no_object_becomes_one_if_it_is_the_event(event: object, text: bytes) -> None:
    """Under the name that the outermost model gives it. Within an event, it is what it is."""
    assert write_reference(event, None) == text
