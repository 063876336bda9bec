"""Type checkers accept the generated classes of every shape as Thrift structs.

They are imported as a service imports them, and are untyped: what a checker doesn't know it can't refuse, but
where it looks into the classes it must find the methods that it looks for.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import TYPE_CHECKING

from baseplate_events import serialize_v2_event
from tests.support.schema_samples import SHAPES, small_event

if TYPE_CHECKING:
    from baseplate_events import EventQueue, ThriftStruct
    from tests.schemas.dynamic.events.ttypes import Event as DynamicEvent
    from tests.schemas.dynamic_slots.events.ttypes import Event as DynamicSlotsEvent
    from tests.schemas.enum.events.ttypes import Event as EnumEvent
    from tests.schemas.enum_dynamic.events.ttypes import Event as EnumDynamicEvent
    from tests.schemas.newer import Node
    from tests.schemas.plain.events.ttypes import Event as PlainEvent
    from tests.schemas.slots.events.ttypes import Event as SlotsEvent


def every_shape(
    queue: EventQueue[ThriftStruct],
    *,
    plain: PlainEvent,
    slots: SlotsEvent,
    dynamic: DynamicEvent,
    dynamic_slots: DynamicSlotsEvent,
    enum: EnumEvent,
    enum_dynamic: EnumDynamicEvent,
    newer: Node,
) -> None:
    """Each may be put on a queue of Thrift structs."""
    queue.put(plain)
    queue.put(slots)
    queue.put(dynamic)
    queue.put(dynamic_slots)
    queue.put(enum)
    queue.put(enum_dynamic)
    queue.put(newer)


def certain_shapes(queue: EventQueue[ThriftStruct]) -> None:
    """A queue of Thrift structs serves where one of a certain struct is asked for."""
    _plain: EventQueue[PlainEvent] = queue
    _slots: EventQueue[SlotsEvent] = queue
    _dynamic: EventQueue[DynamicEvent] = queue
    _newer: EventQueue[Node] = queue


def test_every_shape_that_is_accepted_is_serialized() -> None:
    """What the checkers accept is accepted at run time."""
    expected = serialize_v2_event(small_event())
    for shape, schema in SHAPES.items():
        assert expected == serialize_v2_event(small_event(schema)), shape
