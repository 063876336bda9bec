from __future__ import annotations

import collections
import datetime as dt
import enum
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.errors import EventNotSerializableError
from baseplate_events.serializers import serialize_v2_event, serialize_v2j_event
from baseplate_events.thrift_json import write_struct
from tests.support import strategies
from tests.support.commands import IMPORTING, run
from tests.support.schema_samples import PLAIN, rich_event, small_event

if TYPE_CHECKING:
    from baseplate_events.serializers import ThriftStruct


def strict(data: bytes) -> object:
    """Parse JSON as its standard has it, without Python's NaN and infinities."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(name)

    return json.loads(data.decode("utf-8"), parse_constant=refuse)


def error_of(event: Any) -> EventNotSerializableError:  # noqa: ANN401 - also what the types forbid
    """Return the error for an event."""
    with pytest.raises(EventNotSerializableError) as caught:
        serialize_v2j_event(event)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


class View(Mapping[str, object]):
    """A mapping that isn't a dict."""

    def __init__(self, members: dict[str, object]) -> None:
        self._members = members

    def __getitem__(self, key: str) -> object:
        return self._members[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


@dataclass
class Node:
    """A dataclass that can hold anything."""

    value: object
    child: object = None


@dataclass(frozen=True)
class Slotted:
    """A dataclass without a `__dict__`."""

    __slots__ = ("name", "tags")
    name: str
    tags: list[str]


class Viewed(TypedDict, total=False):
    """An event as a TypedDict."""

    action: str
    tags: list[str]


# --- v2 ---


def test_v2_is_thrift_json() -> None:
    """A Thrift struct is serialized by the Thrift writer."""
    for event in (small_event(), rich_event()):
        struct: ThriftStruct = event
        assert write_struct(struct) == serialize_v2_event(struct)


def test_v2_names_the_field() -> None:
    """What can't be serialized is an error of ours that names the field."""
    with pytest.raises(EventNotSerializableError) as caught:
        serialize_v2_event(PLAIN.RichEvent(user=PLAIN.User(roles=["a", 5])))
    assert "user.roles[1]" == caught.value.field


# --- v2j: what JSON carries ---


@given(event=st.dictionaries(strategies.texts, strategies.plain_values, max_size=5))
def test_v2j_is_read_back_as_it_was(event: dict[str, object]) -> None:
    """An object of JSON values comes out as compact JSON in UTF-8 that reads back as the same."""
    data = serialize_v2j_event(event)
    assert event == strict(data)
    assert json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode() == data


def _disguise(value: object, kind: int) -> object:
    """Return a value with its dicts and lists as other types with the same JSON form."""
    if isinstance(value, list):
        items = [_disguise(item, kind) for item in cast("list[object]", value)]
        return tuple(items) if kind % 2 else items
    if not isinstance(value, dict):
        return value
    members = {key: _disguise(item, kind) for key, item in cast("dict[str, object]", value).items()}
    forms: list[object] = [members, View(members), MappingProxyType(members), collections.UserDict(members)]
    return forms[kind % len(forms)]


@given(event=st.dictionaries(strategies.texts, strategies.plain_values, max_size=5), kind=st.integers(1, 3))
def test_v2j_takes_any_mapping(event: dict[str, object], kind: int) -> None:
    """Mappings that aren't dicts and tuples come out as the dicts and lists of the same content."""
    disguised: Any = _disguise(event, kind)
    assert serialize_v2j_event(event) == serialize_v2j_event(disguised)


class Row(collections.UserList[object]):
    """What is like a NamedTuple, but no tuple, as rows of databases are."""

    def __init__(self, names: tuple[str, ...], values: list[object]) -> None:
        super().__init__(values)
        self._names = names

    @property
    def _fields(self) -> tuple[str, ...]:
        return self._names

    def _asdict(self) -> dict[str, object]:
        return dict(zip(self._names, self.data, strict=True))


@given(value=strategies.plain_values)
def test_v2j_takes_what_is_like_a_named_tuple(value: object) -> None:
    """It comes out as an object, wherever it is, unless two columns have the same name."""
    row = Row(("a", "b"), [value, 1])
    assert serialize_v2j_event({"rows": [row, {"a": value}]}) == serialize_v2j_event(
        {"rows": [{"a": value, "b": 1}, {"a": value}]}
    )
    assert serialize_v2j_event(row) == serialize_v2j_event({"a": value, "b": 1})
    error = error_of({"rows": [Row(("a", "a"), [value, 1])]})
    assert "rows[0]" == error.field
    assert "same name" in error.problem


@given(value=strategies.plain_values, child=strategies.plain_values)
def test_v2j_takes_dataclasses(value: object, child: object) -> None:
    """Instances of dataclasses, at the top and within, come out as objects of their fields."""
    event = Node(value, [Node(child)])
    wanted = {"value": value, "child": [{"value": child, "child": None}]}
    assert wanted == strict(serialize_v2j_event(event))


def test_v2j_takes_typed_dicts_and_slots() -> None:
    """A TypedDict and a dataclass without a `__dict__` are events."""
    typed: Viewed = {"action": "view", "tags": ["é"]}
    assert '{"action":"view","tags":["é"]}'.encode() == serialize_v2j_event(typed)
    assert b'{"name":"a","tags":["b"]}' == serialize_v2j_event(Slotted("a", ["b"]))


def test_v2j_writes_keys_as_json_does() -> None:
    """Keys that aren't strings come out as `json` writes them."""
    event: Any = {5: "a", 1.5: "b", True: "c", None: "d"}
    assert json.dumps(event, separators=(",", ":")).encode() == serialize_v2j_event(event)


# --- v2j: what JSON can't carry ---


def _nest(value: object, path: list[str | int], kind: int) -> object:
    """Return a value at a path: a mapping or a dataclass at each name, a list at each position."""
    for step in reversed(path):
        if isinstance(step, int):
            value = [*([0] * step), value, 1]
        else:
            members = {"a": 0, step: value}
            forms: list[object] = [members, View(members), MappingProxyType(members)]
            value = forms[kind]
    return value


def _text(path: list[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


@given(
    name=st.from_regex(r"[a-z]{1,8}", fullmatch=True),
    path=strategies.paths,
    bad=strategies.bad_values,
    kind=st.integers(0, 2),
)
def test_v2j_names_the_bad_field(
    name: str, path: list[str | int], bad: tuple[object, str], kind: int
) -> None:
    """A value that JSON can't carry is reported by exactly its path, with what it is, wherever it is."""
    value, word = bad
    event: dict[str, object] = {"first": [1, {"a": None}], name: _nest(value, path, kind), "last": {}}
    error = error_of(event)
    assert f"{name}{_text(path)}" == error.field
    assert word in error.problem


@pytest.mark.parametrize(
    "event", [[], (), "text", 5, None, Node, dict, {1}, [("a", 1)], iter(()), MappingProxyType, object()]
)
def test_v2j_takes_objects_only(event: object) -> None:
    """Anything but a mapping or an instance of a dataclass is an error about the event itself."""
    error = error_of(event)
    assert "" == error.field
    assert "expected a mapping" in error.problem


def test_v2j_refuses_what_holds_itself() -> None:
    """A container within itself is named where it comes again."""
    items: list[object] = [1]
    items.append({"again": items})
    assert "items[1].again" == error_of({"items": items}).field
    node = Node(1)
    node.child = {"parent": node}
    assert "child.parent" == error_of(node).field


def test_v2j_takes_one_value_twice() -> None:
    """A container that comes twice, but not within itself, is written twice."""
    shared = {"a": [1]}
    assert {"x": shared, "y": [shared, shared]} == strict(
        serialize_v2j_event({"x": shared, "y": [shared, shared]})
    )
    assert "bad" == error_of({"x": shared, "y": [shared, shared], "bad": b""}).field


def test_v2j_refuses_what_is_too_deep() -> None:
    """Endless nesting is an error with a bounded path, even if no object contains itself."""
    deep: object = 1
    for _ in range(200_000):
        deep = [deep]
    error = error_of({"deep": deep})
    assert error.field.startswith("deep[0][0]")
    assert len(error.field) < 400
    assert "too deep" in error.problem

    class Endless(View):
        def __getitem__(self, key: str) -> object:
            return Endless({"next": None})

    assert error_of(Endless({"next": None})).field.startswith("next.next.next")


def test_v2j_shows_no_content() -> None:
    """Neither values nor keys that don't look like names of fields get into an error."""
    error = error_of({"counts": {"a@example.com": 1, "b@example.com": b"secret"}})
    assert "counts{1}" == error.field
    assert "example" not in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize("key", ["\ud800", math.nan, (1,), b"x"])
def test_v2j_refuses_bad_keys(key: object) -> None:
    """A key that JSON can't carry is reported by the path of its mapping."""
    assert "a[0]" == error_of({"a": [{key: 1}]}).field


def test_v2j_refuses_ints_that_python_refuses() -> None:
    """An int of more digits than Python writes is reported like any other bad value."""
    error = error_of({"a": [10**5000]})
    assert "a[0]" == error.field
    assert "digits" in error.problem


def test_v2j_refuses_what_cannot_be_read() -> None:
    """What raises when it is read is reported by its path and the type of what it raised only."""

    class Broken(View):
        def __getitem__(self, key: str) -> object:
            raise LookupError(key, "secret")

    error = error_of({"a": {"b": Broken({"c": 1})}})
    assert "a.b" == error.field
    assert "LookupError" in error.problem
    assert "secret" not in error.problem
    unset = Node.__new__(Node)
    assert "a.value" == error_of({"a": unset}).field
    assert "value" == error_of(unset).field


def test_v2j_takes_enums() -> None:
    """Members of enums come out by value, whatever that is."""

    class Level(enum.IntEnum):
        HIGH = 3

    class Word(str, enum.Enum):
        A = "a"

    class Other(enum.Enum):
        A = "a"
        DAY = dt.date(2026, 1, 2)
        WRONG = b"a"

    assert b'{"level":3,"word":"a"}' == serialize_v2j_event({"level": Level.HIGH, "word": Word.A})
    assert b'{"a":"a","day":"2026-01-02"}' == serialize_v2j_event({"a": Other.A, "day": Other.DAY})
    assert "other" == error_of({"other": Other.WRONG}).field


@dataclass
class Partial:
    """A dataclass with a field that `__init__` leaves out."""

    seen: int
    hidden: list[int] = field(default_factory=list[int], init=False, repr=False)


def test_v2j_writes_all_fields() -> None:
    """All fields of a dataclass are written, also those that `__init__` leaves out."""
    assert b'{"seen":1,"hidden":[]}' == serialize_v2j_event(Partial(1))


# --- import ---


def test_thrift_is_imported_late() -> None:
    """Importing the serializers doesn't import the Thrift library: JSON events don't need it."""
    program = (
        "import sys, baseplate_events.serializers; print([m for m in sys.modules if m.startswith('thrift')])"
    )
    assert "[]\n" == run(sys.executable, "-c", program, environ=IMPORTING).check()
