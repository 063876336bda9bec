"""Types of Thrift fields, from a `thrift_spec`, which has everything except enums.

In the spec an enum is an i32. The methods (`source.py`) show which enum it is, and whether a field holds its
members or their names.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, cast

if TYPE_CHECKING:
    import enum
    from collections.abc import Iterable, Sequence

#: Wire types of Thrift's protocols, by their number.
BOOL, I32, STRING, STRUCT, MAP, SET, LIST = 2, 8, 11, 12, 13, 14, 15

#: Names of the Python types of wire types whose values are neither structs nor containers.
_SCALARS: Final = {2: "bool", 3: "int", 4: "float", 6: "int", 8: "int", 10: "int", 11: "str", 16: "UUID"}


class ScalarType(NamedTuple):
    """A type of Python, by its name; `Any` if unknown, `NoReturn` if it has no value."""

    name: str


class Reference(NamedTuple):
    """A struct, or an enum whose members a field holds."""

    cls: type


class MemberNames(NamedTuple):
    """The names of an enum's members, which compilers 0.14 to 0.18 keep in the fields of `py:enum` code."""

    names: tuple[str, ...]


class Container(NamedTuple):
    """A list, set or map, by its name in Python, and the types of its items."""

    name: str
    items: tuple[Type, ...]


Type: TypeAlias = "ScalarType | Reference | MemberNames | Container"


class Leaf(NamedTuple):
    """What the methods of a class show about one i32 of a field.

    Attributes:
        enum: The enum that it stands for; None for a number.
        by_name: Whether the field holds the names of the enum's members.
    """

    enum: type[enum.Enum] | None
    by_name: bool = False


#: The type of a key or item that JSON can't represent, such as a struct as a map's key.
_NO_VALUE: Final = ScalarType("NoReturn")


def read_type(wire_type: object, inner: object, leaves: Iterable[Leaf]) -> Type:
    """Return the type of a field, or of the items of a container.

    Args:
        wire_type: Its number.
        inner: The rest of the spec entry.
        leaves: What is known about each i32 in it, in the order of writing; if there are fewer, the others
            are plain numbers.

    Raises:
        TypeError, ValueError, LookupError: The Thrift compiler generates no such spec.
    """
    return _read_type(wire_type, inner, deque(leaves))


def _read_type(wire_type: object, inner: object, leaves: deque[Leaf]) -> Type:
    items = cast("Sequence[object]", inner)
    if wire_type == STRUCT:
        cls = items[0]
        if not isinstance(cls, type):
            raise TypeError
        return Reference(cls)
    if wire_type in (LIST, SET):
        item_type, item_inner, *rest = items
        item = _read_type(item_type, item_inner, leaves)
        immutable = rest[:1] == [True]  # `python.immutable`; old specs don't record it
        if wire_type == LIST:
            return Container(
                "tuple" if immutable else "list", (item, ScalarType("...")) if immutable else (item,)
            )
        return Container("frozenset" if immutable else "set", (item,))
    if wire_type == MAP:
        key_type, key_inner, value_type, value_inner, *_ = items
        key = _read_type(key_type, key_inner, leaves)
        # TJSON allows no such keys: only an empty map can be put.
        key = _NO_VALUE if key_type in (STRUCT, LIST, SET, MAP) else key
        return Container("dict", (key, _read_type(value_type, value_inner, leaves)))
    if wire_type == STRING and inner == "BINARY":
        return ScalarType("bytes")
    name = _SCALARS[cast("int", wire_type)]
    leaf = leaves.popleft() if wire_type == I32 and leaves else Leaf(None)
    if leaf.enum is None:
        return ScalarType(name)
    return MemberNames(tuple(leaf.enum.__members__)) if leaf.by_name else Reference(leaf.enum)
