"""pytest fixtures for the tests of a service.

If the package is installed, pytest finds them by the entry point. If it is vendored, the service's
`conftest.py` imports them from here, or names this module in `pytest_plugins`. No other module imports this
one, so nothing else needs pytest.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from .events import MAX_EVENT_SIZE, MAX_QUEUE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .testing import EventCollector, InMemoryEventQueue

T = TypeVar("T")
_Function = TypeVar("_Function", bound="Callable[..., object]")


class _Node(Protocol):
    """The part of `pytest.Item` that is used here."""

    def add_report_section(self, when: str, key: str, content: str, /) -> None:
        """Add a section that is shown if the test fails."""
        ...


class _Request(Protocol):
    """The part of `pytest.FixtureRequest` that is used here."""

    @property
    def node(self) -> _Node:
        """The test that uses the fixture."""
        ...


class _Pytest(Protocol):
    """The part of pytest that is used here."""

    def fixture(self, function: _Function, /) -> _Function:
        """Declare a function as a fixture."""
        ...


# Imported by name: a project that vendors this package may be type-checked without pytest.
_pytest = cast("_Pytest", importlib.import_module("pytest"))


class EventQueueFactory(Protocol):
    """The type of the fixture `make_event_queue`."""

    def __call__(
        self,
        event_serializer: Callable[[T], bytes],
        /,
        *,
        name: str = "test",
        max_queue_size: int = MAX_QUEUE_SIZE,
        max_event_size: int = MAX_EVENT_SIZE,
    ) -> InMemoryEventQueue[T]:
        """Create an event queue in memory; see `InMemoryEventQueue` for the arguments."""
        ...


@_pytest.fixture
def make_event_queue(request: _Request) -> Generator[EventQueueFactory]:
    """Create event queues in memory with `make_event_queue(serializer)`, and close them after the test.

    If the test fails, its report lists the events that they refused, since a service may have swallowed the
    errors.
    """
    from .testing import InMemoryEventQueue  # noqa: PLC0415 - only tests that ask for it pay for the import

    with contextlib.ExitStack() as stack:

        def finish(queue: InMemoryEventQueue[T]) -> None:
            queue.close()
            if queue.errors:
                lines = [f"{type(error).__name__}: {error}" for error in queue.errors]
                content = "\n".join([f"{queue!r}, in order:", *lines, ""])
                request.node.add_report_section("teardown", "refused events", content)

        def make(
            event_serializer: Callable[[T], bytes],
            /,
            *,
            name: str = "test",
            max_queue_size: int = MAX_QUEUE_SIZE,
            max_event_size: int = MAX_EVENT_SIZE,
        ) -> InMemoryEventQueue[T]:
            queue = InMemoryEventQueue(
                name, event_serializer, max_queue_size=max_queue_size, max_event_size=max_event_size
            )
            stack.callback(finish, queue)
            return queue

        yield make


@_pytest.fixture
def event_collector() -> Generator[EventCollector]:
    """Run a real event collector on a free port until the test ends."""
    from .testing import EventCollector  # noqa: PLC0415 - as above

    with EventCollector() as collector:
        yield collector
