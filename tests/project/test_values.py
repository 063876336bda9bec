"""Rules for all value types of the package."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from typing import TYPE_CHECKING, Final, Protocol, cast

import baseplate_events

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Dataclasses that change: they hold the state of something.
MUTABLE: Final = {
    "cli.queue.spool_info.SpoolContents",
    "event_publisher.http_response._Head",
    "event_publisher.policy.accounting.Accounting",
    "event_publisher.telemetry.logs._Held",
}

#: Fields that hold what came from a service, or a secret: they are in no `repr`, which may end up in logs.
HIDDEN: Final = {
    "cli.collect._Settings.keys",
    "dev_collector.check.AcceptedBatch.events",
    "event_publisher.config.values.Secret._value",
    "event_publisher.policy.outcome.Refused.excerpt",
    "event_publisher.policy.outcome.TooLarge.excerpt",
}


class _Parameters(Protocol):
    """What `dataclasses` keeps of the arguments of the decorator."""

    frozen: bool


def find_dataclasses() -> Iterator[tuple[str, type]]:
    """Yield each dataclass of the package, with its name in it."""
    start = f"{baseplate_events.__name__}."
    for found in pkgutil.walk_packages(baseplate_events.__path__, start):
        if found.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(found.name)).values():
            if isinstance(value, type) and value.__module__ == found.name and dataclasses.is_dataclass(value):
                yield f"{found.name.removeprefix(start)}.{value.__name__}", value


def test_dataclasses_are_frozen_and_have_slots() -> None:
    """A value doesn't change, except the listed ones, and to set a mistyped attribute is an error."""
    found = dict(find_dataclasses())
    assert {name for name, value in found.items() if "__slots__" not in vars(value)} == set()
    frozen = {
        name
        for name, value in found.items()
        if cast("_Parameters", vars(value)["__dataclass_params__"]).frozen
    }
    assert frozen ^ found.keys() == MUTABLE


def test_events_and_secrets_are_in_no_repr() -> None:
    """The listed fields are hidden, and no others."""
    found = {
        f"{name}.{field.name}"
        for name, value in find_dataclasses()
        for field in dataclasses.fields(value)
        if not field.repr
    }
    assert found == HIDDEN
