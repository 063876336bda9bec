from __future__ import annotations

import copy
import inspect
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import errors
from baseplate_events.errors import (
    ConfigurationError,
    EventError,
    EventNotSerializableError,
    EventQueueFullError,
    EventQueueUnavailableError,
    EventTooLargeError,
)
from tests.support.strategies import errors_of_kind, event_errors


def every_kind() -> set[type[EventError]]:
    """Return all errors of the module."""
    kinds: set[type[EventError]] = set()
    for kind in vars(errors).values():
        if inspect.isclass(kind) and issubclass(kind, BaseException):
            assert issubclass(kind, EventError)
            kinds.add(kind)
    return kinds


@given(event_errors)
def test_errors_survive_pickling_and_copying(error: EventError) -> None:
    """A pickled, copied or deeply copied error is of the same kind, with the same attributes and message."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        _assert_same(error, pickle.loads(pickle.dumps(error, protocol)))
    _assert_same(error, copy.copy(error))
    _assert_same(error, copy.deepcopy(error))


def _assert_same(error: EventError, other: EventError) -> None:
    assert type(error) is type(other)
    assert vars(error) == vars(other)
    assert error.args == other.args
    assert str(error) == str(other)


@given(event_errors)
def test_errors_are_made_of_their_attributes(error: EventError) -> None:
    """What an error was made with are its arguments and its attributes, and nothing else is in it."""
    made_with = (error.args,) if isinstance(error, ConfigurationError) else error.args
    assert list(made_with) == list(vars(error).values())


@given(event_errors)
def test_errors_say_something(error: EventError) -> None:
    """No message is empty, unless what it is made of is, and each of them holds what its attributes say."""
    assert str(error) or error.args == ("",)
    for attribute in ("name", "problem", "field", "size", "limit", "capacity"):
        value = getattr(error, attribute, None)
        if value is not None and getattr(error, "name", "") is not None:
            assert str(value) in str(error) or f"{value:,}" in str(error)


def test_every_kind_is_under_one_root_and_covered() -> None:
    """All errors of the module are `EventError`s, and the properties here see every one of them."""
    assert every_kind() - {EventError} == set(errors_of_kind)


@given(st.integers(0, 10**9))
def test_documented_constructors_work(size: int) -> None:
    """The errors of baseplate.py can be made as they always could, and say the same."""
    assert str(EventTooLargeError(size)) == f"Event is too large to send ({size} bytes)"
    assert str(EventQueueFullError()) == "The event queue is full."
    with pytest.raises(EventError):
        raise EventTooLargeError(size)
    with pytest.raises(EventError):
        raise EventQueueFullError


def test_an_event_that_is_wrong_as_a_whole_is_named_so() -> None:
    """An error about no field in particular speaks of the event."""
    assert str(EventNotSerializableError("", "why")) == "Can't serialize the event: why"
    assert str(EventNotSerializableError("a.b", "why")) == "Can't serialize field a.b of the event: why"


def test_each_mistake_of_a_configuration_is_a_line() -> None:
    """All mistakes of a configuration are in its error, one a line."""
    error = ConfigurationError("first", "second")
    assert error.problems == ("first", "second")
    assert str(error) == "first\nsecond"


def test_whatever_is_wrong_with_a_queue_is_one_kind() -> None:
    """Permission, removal, limits and the rest can be caught together."""
    kinds = {kind for kind in every_kind() if issubclass(kind, EventQueueUnavailableError)}
    assert len(kinds) == 6
