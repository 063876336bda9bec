"""The part of baseplate.py that is compared with this package, where it is installed."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from tests.interop.original import original

if TYPE_CHECKING:
    from collections.abc import Callable

T_contra = TypeVar("T_contra", contravariant=True)


class Queue(Protocol[T_contra]):
    """An event queue, theirs or ours."""

    def put(self, event: T_contra, /) -> None:
        """Put an event."""


class OriginalEvents(Protocol):
    """The module `baseplate.lib.events`."""

    def EventQueue(  # noqa: N802 - the name is theirs
        self, name: str, event_serializer: Callable[[T_contra], bytes], /
    ) -> Queue[T_contra]:
        """Open the queue `/events-NAME`, or make it."""
        ...

    def serialize_v2_event(self, event: object, /) -> bytes:
        """Serialize a Thrift struct with Apache's writer."""
        ...


def is_installed() -> bool:
    """Return whether baseplate.py can be measured here."""
    return importlib.util.find_spec("baseplate") is not None


def original_events() -> OriginalEvents | None:
    """Return baseplate.py's library for services; None where it isn't installed."""
    return cast("OriginalEvents", original("lib.events")) if is_installed() else None
