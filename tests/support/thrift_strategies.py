"""Hypothesis strategies of Thrift: values of a type, structs of a class, and classes of random schemas."""

from __future__ import annotations

import decimal
import enum
import importlib
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from hypothesis import strategies as st

from tests.support.strategies import texts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.schema_samples import Struct

#: Thrift's wire types by their number in its protocols.
BOOL, I8, DOUBLE, I16, I32, I64, STRING = 2, 3, 4, 6, 8, 10, 11
STRUCT, MAP, SET, LIST, UUID = 12, 13, 14, 15, 16

#: Bits of the integer types.
INTEGER_BITS = {I8: 8, I16: 16, I32: 32, I64: 64}

#: What a `thrift_spec` has beside a type: of containers the types within, of structs the class.
Inner: TypeAlias = Any


class SomeText(str):
    """A subclass of str."""

    __slots__ = ()


class SomeInt(enum.IntEnum):
    """Members of an int enum."""

    ONE = 1
    MANY = 100


_clean_doubles = st.floats(allow_nan=False) | st.integers(-(10**18), 10**18).map(float)
_strangers = st.sampled_from([None, 5, -1, 1.5, "", "1", b"", b"x", (), object()])

#: Values that Apache's writer takes beside the usual ones for a type, or refuses; all of them hashable.
_odd_values: dict[int, st.SearchStrategy[object]] = {
    BOOL: _strangers,
    DOUBLE: st.one_of(
        st.floats(),
        st.booleans(),
        st.integers(),
        # A signaling NaN can't be a key, and so not in a set.
        st.decimals(allow_nan=False),
        st.sampled_from([2**53 + 1, 10**400, decimal.Decimal("NaN")]),
        _strangers,
    ),
    STRING: st.one_of(
        texts.map(SomeText),
        texts.map(tuple),
        st.text("a\ud800\x01", max_size=3),
        _strangers,
    ),
    UUID: _strangers | texts,
    **dict.fromkeys(
        INTEGER_BITS,
        st.one_of(
            st.sampled_from(SomeInt),
            st.booleans(),
            st.integers(),
            st.floats(allow_nan=False),
            st.decimals(allow_nan=False),
            st.fractions(),
            _strangers,
        ),
    ),
}


def _clean_values(wire_type: int, inner: object) -> st.SearchStrategy[object]:
    if wire_type in INTEGER_BITS:
        limit = 1 << (INTEGER_BITS[wire_type] - 1)
        return st.integers(-limit, limit - 1)
    if wire_type == STRING:
        return st.binary(max_size=8) if inner == "BINARY" else texts
    return {BOOL: st.booleans(), DOUBLE: _clean_doubles, UUID: st.uuids()}[wire_type]


def thrift_values(
    wire_type: int, inner: Inner, *, odd: bool = False, depth: int = 3, key: bool = False
) -> st.SearchStrategy[Any]:
    """Return what a field of a Thrift type can hold.

    Args:
        wire_type: Number of the type.
        inner: What a `thrift_spec` has for it: of containers the types within, of structs the class.
        odd: Whether there are also values that Apache's writer refuses or takes for another type's.
        depth: How many structs may be within each other.
        key: Whether it must be hashable.
    """

    def within(inside: int, its_inner: Inner, *, hashable: bool = False) -> st.SearchStrategy[Any]:
        return thrift_values(inside, its_inner, odd=odd, depth=depth, key=hashable)

    if wire_type == STRUCT:
        values = thrift_structs(inner[0], odd=odd, depth=depth - 1)
        return values | _strangers if odd and not key else values
    if wire_type == MAP:
        if inner[0] in {STRUCT, LIST, SET, MAP}:
            maps = st.builds(dict[Any, Any])  # of what can't be a key in Python there are only empty ones
        else:
            keys = within(inner[0], inner[1], hashable=True)
            maps = st.dictionaries(keys, within(inner[2], inner[3]), max_size=3)
        return maps | _strangers if odd else maps
    if wire_type == SET:
        sets = st.lists(within(inner[0], inner[1], hashable=True), max_size=3).map(frozenset).map(set)
        return sets | _strangers if odd else sets
    if wire_type == LIST:
        lists = st.lists(within(inner[0], inner[1]), max_size=3)
        return st.one_of(lists, lists.map(tuple), texts, _strangers) if odd else lists
    clean = _clean_values(wire_type, inner)
    if not odd:
        return clean
    if wire_type == STRING and inner == "BINARY":
        return clean | _strangers if key else st.one_of(clean, st.binary().map(bytearray), _strangers)
    return clean | _odd_values[wire_type]


def thrift_structs(
    cls: Struct,
    *,
    odd: bool = False,
    depth: int = 3,
    special: Mapping[str, st.SearchStrategy[Any]] | None = None,
) -> st.SearchStrategy[Any]:
    """Return instances of a generated class, with any of its fields set.

    Args:
        cls: A class with a `thrift_spec`.
        odd: As for `thrift_values`.
        depth: How many structs may be within each other.
        special: What the fields of these names hold, whatever their type.
    """

    def fields() -> st.SearchStrategy[Any]:
        members: dict[str, st.SearchStrategy[Any]] = {}
        for _, wire_type, name, inner, *_ in filter(None, cls.thrift_spec):
            if special and name in special:
                members[name] = st.none() | special[name]
            elif depth > 0 or not _holds_structs((wire_type, inner)):
                members[name] = st.none() | thrift_values(wire_type, inner, odd=odd, depth=depth)
        return st.builds(cls, **members)

    return st.deferred(fields)


def _holds_structs(part: Inner) -> bool:
    return part == STRUCT or (isinstance(part, tuple) and any(map(_holds_structs, cast("Inner", part))))


#: Types without any within, as a spec has them: number of the type, and what stands beside it.
_scalar_types: st.SearchStrategy[tuple[int, Inner]] = st.sampled_from(
    [
        *((wire_type, None) for wire_type in (BOOL, I8, I16, I32, I64, DOUBLE, STRING)),
        (STRING, "UTF8"),
        (STRING, "BINARY"),
    ]
)


def _wider(types: st.SearchStrategy[tuple[int, Inner]]) -> st.SearchStrategy[tuple[int, Inner]]:
    return st.one_of(
        types.map(lambda item: (LIST, (*item, False))),
        _scalar_types.map(lambda item: (SET, (*item, False))),
        st.tuples(_scalar_types, types).map(lambda pair: (MAP, (*pair[0], *pair[1], False))),
        # A key that JSON has no place for.
        st.tuples(types, _scalar_types).map(lambda pair: (MAP, (LIST, (*pair[0], False), *pair[1], False))),
        st.lists(types, max_size=3).flatmap(thrift_classes).map(lambda cls: (STRUCT, [cls, cls.thrift_spec])),
    )


def thrift_classes(types: list[tuple[int, Inner]]) -> st.SearchStrategy[Struct]:
    """Return classes whose fields are of these types, with ids that have gaps and may be negative."""

    def make(ids: list[int], *, slots: bool) -> Struct:
        spec: list[tuple[int, int, str, Any, None] | None] = [None]
        spec += [
            (fid, wire_type, f"field_{index}", inner, None)
            for index, (fid, (wire_type, inner)) in enumerate(zip(ids, types, strict=True))
        ]
        names = tuple(f"field_{index}" for index in range(len(types)))

        def __init__(self: object, **values: object) -> None:  # noqa: N807 - a method of the class below
            for name in names:
                setattr(self, name, values.get(name))

        base = importlib.import_module("thrift.protocol.TBase").TBase
        body = {"__init__": __init__, "thrift_spec": tuple(spec), **({"__slots__": names} if slots else {})}
        return type("Drawn", (base,), body)

    ids = st.lists(st.integers(-5, 1000), min_size=len(types), max_size=len(types), unique=True)
    return st.builds(make, ids, slots=st.booleans())


_types = st.recursive(_scalar_types, _wider, max_leaves=5)

#: Classes of random schemas, made as the Thrift compiler makes dynamic ones.
thrift_schemas = st.lists(_types, max_size=5).flatmap(thrift_classes)
