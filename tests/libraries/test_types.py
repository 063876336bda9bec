"""What type checkers must accept and refuse of events of other libraries' classes.

Each line with an ignore comment is an error, or the comment itself is one. A test runs what is accepted.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import Any, NamedTuple

import attrs
import msgspec
import pydantic

from baseplate_events import json_serializer, serialize_v2j_event
from baseplate_events.testing import InMemoryEventQueue


@attrs.define
class Attrs:
    """An event as an attrs class."""

    action: str


class Struct(msgspec.Struct):
    """An event as a struct."""

    action: str


class Model(pydantic.BaseModel):
    """An event as a model."""

    action: str


class Named(NamedTuple):
    """An event as a NamedTuple."""

    action: str


def write_any(value: object) -> object:
    """Write a value that has no form."""
    return repr(value)


def write_complex(value: complex) -> list[float]:
    """Write a value of one class."""
    return [value.real, value.imag]


def accepted() -> list[bytes]:
    """Instances of these classes are events, in a queue of any of them or of one class."""
    anything = InMemoryEventQueue("main", serialize_v2j_event)
    anything.put(Attrs("a"))
    anything.put(Struct("a"))
    anything.put(Model(action="a"))
    anything.put(Named("a"))
    attrs_queue: InMemoryEventQueue[Attrs] = InMemoryEventQueue("main", serialize_v2j_event)
    attrs_queue.put(Attrs("a"))
    structs: InMemoryEventQueue[Struct] = InMemoryEventQueue("main", json_serializer(default=write_any))
    structs.put(Struct("a"))
    models = InMemoryEventQueue[Model]("main", json_serializer(default=write_complex))
    models.put(Model(action="a"))
    named = InMemoryEventQueue[Named]("main", json_serializer())
    named.put_many([Named("a")])
    queues: list[InMemoryEventQueue[Any]] = [anything, attrs_queue, structs, models, named]
    return [message for queue in queues for message in queue.messages]


def refused(attrs_queue: InMemoryEventQueue[Attrs], structs: InMemoryEventQueue[Struct]) -> None:
    """The classes themselves, and what is of another class, aren't events of these queues."""
    serialize_v2j_event(Attrs)  # type: ignore[arg-type]
    serialize_v2j_event(Struct)  # type: ignore[arg-type]
    serialize_v2j_event(Model)  # type: ignore[arg-type]
    serialize_v2j_event(Named)  # type: ignore[arg-type]
    serialize_v2j_event((1, 2))  # type: ignore[arg-type]
    attrs_queue.put(Struct("a"))  # type: ignore[arg-type]
    structs.put(Named("a"))  # type: ignore[arg-type]
    json_serializer(write_any)  # type: ignore[call-arg]
    json_serializer(default="text")  # type: ignore[arg-type]
    json_serializer(default=write_any)(5)  # type: ignore[arg-type]
    _text: str = json_serializer()({})  # type: ignore[assignment]


def test_what_is_accepted_is_serialized() -> None:
    """What type checkers accept is accepted at run time as well."""
    assert [b'{"action":"a"}'] * 8 == accepted()
