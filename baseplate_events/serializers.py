"""Events to bytes: Thrift structs for version 2 of the protocol, JSON objects for version 2j.

Rules:

1. What is returned is one JSON object in valid UTF-8, so it can't spoil the batch that carries it.
2. Anything else is an `EventNotSerializableError` that names the field, what it holds and the remedy,
   and shows none of its content.
3. The field is looked for after a failure only; an event that is fine is gone through once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from json import JSONEncoder
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, cast

from .errors import EventNotSerializableError
from .spool import UNKNOWN_FORMAT
from .thrift_json import write_struct

if TYPE_CHECKING:
    from dataclasses import Field

#: Characters of a field's path that a message holds; a container within itself has no end.
_MAX_PATH: Final = 300

#: Containers within each other that an error is looked for in; no encoder gets as far.
_MAX_DEPTH: Final = 100_000

#: Keys that are shown in a path. Any other may be somebody's data, and is shown by its position.
_is_field_name: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}").fullmatch


class ThriftStruct(Protocol):
    """What the Thrift compiler makes of a struct, union or exception, in any of its shapes."""

    def read(self, iprot: Any, /) -> Any:  # noqa: ANN401 - generated classes are untyped
        """Fill the struct from a Thrift protocol (a frozen one is returned)."""
        ...

    def write(self, oprot: Any, /) -> None:  # noqa: ANN401 - generated classes are untyped
        """Write the struct to a Thrift protocol."""
        ...


class DataclassInstance(Protocol):
    """An instance of any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def serialize_v2_event(event: ThriftStruct) -> bytes:
    """Serialize a Thrift struct to bytes for the V2 event protocol.

    The bytes are those of Apache Thrift's `TJSONProtocol` wherever those are valid JSON. Where they aren't
    (control characters, NaN, infinities), they are what Apache's C++ and Java libraries write.

    Args:
        event: A Thrift struct from the event schemas.

    Raises:
        EventNotSerializableError: if a value isn't of the type of its field, is out of its range, is
            missing or can't be carried by UTF-8, or if structs are nested too deep.
    """
    return write_struct(event)


def serialize_v2j_event(event: Mapping[str, object] | DataclassInstance) -> bytes:
    """Serialize a JSON event to bytes for the V2J event protocol.

    Mappings and dataclass instances become objects, lists and tuples arrays, at any depth. Keys of a
    mapping within that are numbers, bools or None are written as `json` writes them: as strings.

    Args:
        event: A mapping (a TypedDict is one) or an instance of a dataclass.

    Raises:
        EventNotSerializableError: if it holds what JSON can't carry: NaN or an infinity, a lone surrogate,
            a type without a JSON form (a set, bytes, a datetime, ...), itself, or nesting without end.
    """
    try:
        members = _members(event)
        if members is not None:
            return _encode(members).encode()
        found = "a class" if isinstance(event, type) else type(event).__name__
        field, problem = "", f"expected a mapping or an instance of a dataclass, got {found}"
    except Exception as error:  # noqa: BLE001 - keys and attributes of an event may raise anything
        field, problem = _explain(event, error)
    raise EventNotSerializableError(field, problem)


def event_format_of(serializer: object) -> str:
    """Return the `collector.version` that a serializer's events are for, or `unknown`."""
    if serializer is serialize_v2_event:
        return "2"
    return "2j" if serializer is serialize_v2j_event else UNKNOWN_FORMAT


def _members(value: object) -> dict[object, object] | None:
    """Return what becomes a JSON object as a dict; None for anything else."""
    if isinstance(value, dict):
        return cast("dict[object, object]", value)
    if hasattr(type(value), "__dataclass_fields__"):
        # A slow import, which whoever has a dataclass has paid for already.
        from dataclasses import fields  # noqa: PLC0415

        return {field.name: getattr(value, field.name) for field in fields(cast("DataclassInstance", value))}
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    return None


def _default(value: object) -> dict[object, object]:
    members = _members(value)
    if members is None:
        raise TypeError
    return members


_encode: Final = JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default
).encode


class _UnwritableError(Exception):
    """Raised for a value that JSON can't carry; its text says why, without the value."""


def _explain(event: object, error: Exception) -> tuple[str, str]:
    """Return the path of the first value found that JSON can't carry, and why it can't.

    It goes through the event without recursion, so it takes one that is too deep to be written.

    Args:
        event: An event that couldn't be written.
        error: What was raised.
    """
    # Step by step from the event to the container that is open: its path, and its id for one in itself.
    steps: list[str] = []
    identities: dict[int, None] = {}
    levels = [iter([("", event)])]
    while levels:
        step, value = next(levels[-1], (None, None))
        if step is None:
            levels.pop()
            if levels:
                steps.pop()
                identities.popitem()
            continue
        try:
            children = _children(value)
        except _UnwritableError as unwritable:
            return _path([*steps, step]), str(unwritable)
        except Exception as foreign:  # noqa: BLE001 - an attribute or a mapping may raise anything
            return _path([*steps, step]), f"reading it raised {type(foreign).__name__}"
        if children is None:
            continue
        steps.append(step)
        if id(value) in identities:
            return _path(steps), "a container within itself; leave out the reference back"
        if len(steps) > _MAX_DEPTH:
            break
        identities[id(value)] = None
        levels.append(iter(children))
    if isinstance(error, RecursionError):
        return _path(steps), "nested too deep"
    return "", f"writing it raised {type(error).__name__}"


def _children(value: object) -> list[tuple[str, object]] | None:
    """Return what a container holds, each with its step of the path; None of what isn't a container.

    Raises:
        _UnwritableError: if JSON can't carry the value, whatever it holds.
    """
    if value is None or isinstance(value, (str, int, float)):
        _check_scalar(value)
        return None
    if isinstance(value, (list, tuple)):
        items = cast("list[object] | tuple[object, ...]", value)
        return [(f"[{index}]", item) for index, item in enumerate(items)]
    members = _members(value)
    if members is None:
        raise _UnwritableError(
            f"JSON has no form for a {type(value).__name__}; make it a str, a number, a list or a mapping"
        )
    children: list[tuple[str, object]] = []
    for index, (key, member) in enumerate(members.items()):
        if not (key is None or isinstance(key, (str, int, float))):
            raise _UnwritableError(f"the key of a mapping must be a str, got {type(key).__name__}")
        _check_scalar(key)
        shown = isinstance(key, str) and _is_field_name(key)
        children.append((f".{key}" if shown else f"{{{index}}}", member))
    return children


def _check_scalar(value: object) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _UnwritableError(
                "a lone surrogate, which UTF-8 can't carry; decode the text anew"
            ) from None
    elif isinstance(value, int):
        try:
            int.__repr__(value)
        except ValueError:
            raise _UnwritableError("an int of too many digits; make it a str") from None
    elif isinstance(value, float) and not isfinite(value):
        raise _UnwritableError("NaN or an infinity, which JSON hasn't; leave it out or make it None")


def _path(steps: list[str]) -> str:
    path = "".join(steps).removeprefix(".")
    return path if len(path) <= _MAX_PATH else f"{path[:_MAX_PATH]}..."
