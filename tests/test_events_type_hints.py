"""`typing.get_type_hints` works on all that is public: containers for dependency injection call it."""

from __future__ import annotations

import inspect
import typing
from typing import TYPE_CHECKING

import pytest

import baseplate_events
from baseplate_events import testing

if TYPE_CHECKING:
    from collections.abc import Iterator


def public_objects() -> Iterator[tuple[str, object]]:
    """Yield each public class and function, each method, and what is behind a property."""
    for module in (baseplate_events, testing):
        for name in module.__all__:
            found: object = getattr(module, name)
            if inspect.isfunction(found):
                yield name, found
            elif isinstance(found, type):
                yield name, found
                yield from methods_of(name, found.__mro__)


def methods_of(name: str, bases: tuple[type[object], ...]) -> Iterator[tuple[str, object]]:
    """Yield the methods of a class, also those that it has from another class of the package."""
    for base in bases:
        if not base.__module__.startswith(baseplate_events.__name__):
            continue
        members: dict[str, object] = dict(vars(base))
        for attribute, member in members.items():
            if attribute.startswith("_") and not attribute.startswith("__"):
                continue
            # Of a property, a class method or a static method, what has the hints.
            function: object = getattr(member, "fget", getattr(member, "__func__", member))
            if inspect.isfunction(function) and function.__module__.startswith(baseplate_events.__name__):
                yield f"{name}.{attribute}", function


OBJECTS = dict(public_objects())


@pytest.mark.parametrize("name", OBJECTS)
def test_hints_can_be_resolved(name: str) -> None:
    """All names in the hints are known at run time, and what a container needs is there."""
    found = OBJECTS[name]
    hints = typing.get_type_hints(found)
    if inspect.isfunction(found):
        named = set(inspect.signature(found).parameters) - {"self", "cls", "_cls"}
        assert named | {"return"} == hints.keys() | {"return"}


def test_the_walk_finds_what_there_is() -> None:
    """Classes, functions, methods, properties and inherited methods are among the objects."""
    assert {
        *("EventQueue", "EventQueue.__init__", "EventQueue.put", "EventQueue.depth", "EventQueue.counters"),
        *("serialize_v2_event", "InMemoryEventQueue.put", "EventCollector.wait_for", "QueueCounters.since"),
        *("ContextFactory.report_runtime_metrics", "EventTooLargeError.__init__"),
    } <= OBJECTS.keys()


def test_the_hints_of_a_queue_say_what_a_container_injects() -> None:
    """An example: the arguments of `EventQueue` by name."""
    hints = typing.get_type_hints(OBJECTS["EventQueue.__init__"])
    assert hints["name"] is str
    assert hints["enabled"] == bool | None
    assert typing.get_args(hints["event_serializer"])[1] is bytes
