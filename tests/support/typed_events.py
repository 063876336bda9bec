"""Hypothesis strategies for typed events: each with the plain value that JSON has for it.

A strategy gives pairs of a value and of what `json` must be given to write the same.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import uuid
from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from hypothesis import strategies as st

from tests.support import strategies

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: A value, and the plain one.
Pair: TypeAlias = tuple[object, object]

#: Makes an instance of a new class from names, annotations and values.
ClassMaker: TypeAlias = Callable[["Sequence[tuple[str, object]]", "Sequence[object]"], object]


class Same(str):
    """A key that is equal only to itself, also beside the same text."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


class Color(enum.Enum):
    """An enum of values that need a form of their own."""

    RED = "red"
    DAY = dt.date(2026, 2, 3)
    PAIR = (1, "a")


class Level(enum.IntEnum):
    """An enum that is an int."""

    LOW = 1


class Word(str, enum.Enum):
    """An enum that is a str."""

    A = "a"


class Text(str):
    """A subclass of str."""

    __slots__ = ()


class Number(float):
    """A subclass of float, with a text of its own."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Number"


_offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))

_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | strategies.texts
)

_leaves: st.SearchStrategy[Pair] = st.one_of(
    _scalars.map(lambda value: (value, value)),
    st.datetimes(timezones=st.none() | _offsets).map(lambda value: (value, value.isoformat())),
    st.dates().map(lambda value: (value, value.isoformat())),
    st.times().map(lambda value: (value, value.isoformat())),
    st.uuids().map(lambda value: (value, str(value))),
    st.decimals(allow_nan=False).map(lambda value: (value, str(value))),
    st.sampled_from(
        [
            (Color.RED, "red"),
            (Color.DAY, "2026-02-03"),
            (Color.PAIR, [1, "a"]),
            (Level.LOW, 1),
            (Word.A, "a"),
            (Text("é"), "é"),
            (Number(1.5), 1.5),
            (frozenset([7]), [7]),
            ({uuid.UUID(int=1)}, ["00000000-0000-0000-0000-000000000001"]),
        ]
    ),
)

#: Names of fields; some are hints at how a writer might go wrong.
_names = st.lists(
    st.sampled_from(["a", "b", "s", "v0", "write", "type", "W", "S", "_c", "o", "é", "user_id"]),
    unique=True,
    max_size=6,
)

#: Annotations, right ones and wrong ones; writers must not believe them.
_annotations: st.SearchStrategy[object] = st.sampled_from(
    [
        str,
        int,
        float,
        bool,
        object,
        "str",
        "int | None",
        "Optional[float]",
        "bool",
        "None | str",
        "Other",
        None,
    ]
)


def make_dataclass(fields: Sequence[tuple[str, object]], values: Sequence[object]) -> object:
    """Make an instance of a dataclass, of one without a `__dict__` if it has an even number of fields."""
    specs = cast("list[tuple[str, type]]", fields)
    return dataclasses.make_dataclass("Made", specs, slots=len(fields) % 2 == 0)(*values)


def make_named_tuple(fields: Sequence[tuple[str, object]], values: Sequence[object]) -> object:
    """Make an instance of a NamedTuple; its names have no underscore at the front."""
    names = [name.lstrip("_") for name, _ in fields]
    specs = [(name, annotation) for name, (_, annotation) in zip(names, fields, strict=True)]
    make: Any = NamedTuple  # whose names a checker wants to see
    return cast("object", make("Made", specs)(*values))


def _members(children: st.SearchStrategy[Pair]) -> st.SearchStrategy[list[tuple[str, Pair]]]:
    return st.lists(st.tuples(strategies.texts, children), max_size=4, unique_by=lambda member: member[0])


def _mapping(members: list[tuple[str, Pair]], make: Callable[[dict[str, object]], object]) -> Pair:
    return make({name: value for name, (value, _) in members}), {name: plain for name, (_, plain) in members}


@st.composite
def objects(draw: st.DrawFn, children: st.SearchStrategy[Pair], makers: Sequence[ClassMaker]) -> Pair:
    """Draw an instance of a class that a maker makes.

    Args:
        draw: Draws.
        children: What its fields hold.
        makers: Make it.
    """
    names = draw(_names)
    make = draw(st.sampled_from(makers))
    if make is make_named_tuple:
        names = [name for name in names if name != "_c"]
    annotations = [draw(_annotations) for _ in names]
    pairs = [draw(children) for _ in names]
    value = make([*zip(names, annotations, strict=True)], [value for value, _ in pairs])
    return value, {name: plain for name, (_, plain) in zip(names, pairs, strict=True)}


def values(makers: Sequence[ClassMaker]) -> st.SearchStrategy[Pair]:
    """Return a strategy for values of all kinds within each other.

    Args:
        makers: Make instances of classes that are objects in JSON.
    """

    def extend(children: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
        lists = st.lists(children, max_size=12)
        return st.one_of(
            lists.map(lambda pairs: ([value for value, _ in pairs], [plain for _, plain in pairs])),
            lists.map(lambda pairs: (tuple(value for value, _ in pairs), [plain for _, plain in pairs])),
            st.tuples(
                _members(children), st.sampled_from([dict, MappingProxyType, collections.UserDict])
            ).map(lambda drawn: _mapping(*cast("Any", drawn))),
            objects(children, makers),
        )

    return st.recursive(_leaves, extend, max_leaves=12)


def events(makers: Sequence[ClassMaker]) -> st.SearchStrategy[Pair]:
    """Return a strategy for what is an object itself."""
    children = values(makers)
    return objects(children, makers) | _members(children).map(lambda members: _mapping(members, dict))


class Point(NamedTuple):
    """A NamedTuple as services write it."""

    x: int
    label: str = "é"


def late_mapping() -> type:
    """Make a class of mappings of "a" to "a" that isn't registered as a class of mappings yet."""

    class Late:
        def __iter__(self) -> Iterator[str]:
            return iter("a")

        def __getitem__(self, key: str) -> str:
            return key

        def keys(self) -> list[str]:
            return ["a"]

    return Late
