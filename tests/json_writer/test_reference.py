"""The bounds of the slow way, by example."""

from __future__ import annotations

from typing import Any

import pytest

from baseplate_events import EventNotSerializableError
from baseplate_events.json_writer.reference import write_reference


def error_of(event: object) -> EventNotSerializableError:
    """Return the error for an event."""
    with pytest.raises(EventNotSerializableError) as caught:
        write_reference(event, None)
    return caught.value


@pytest.mark.parametrize(("last", "shown"), [(59, 300), (60, 301)])
def test_300_characters_of_a_path_are_shown(last: int, shown: int) -> None:
    """Of a longer one, the first 300."""
    names = ["a" * 59, "b" * 59, "c" * 59, "d" * 60, "e" * last]
    event: object = b"no JSON"
    for name in reversed(names):
        event = {name: event}
    path = ".".join(names)
    assert len(path) == shown
    assert error_of(event).field == (path if shown == 300 else f"{path[:300]}...")


@pytest.mark.parametrize(("depth", "fits"), [(10_000, True), (10_001, False)])
def test_10000_containers_may_be_in_each_other(depth: int, fits: bool) -> None:
    """The event is one of them."""
    event: list[object] = []
    for _ in range(depth - 2):
        event = [event]
    if fits:
        assert (
            write_reference({"a": event}, None) == b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
        )
    else:
        assert "nested too deep" in str(error_of({"a": event}))


class Replaced:
    """What is replaced by another one of it, some times, and then by 1."""

    def __init__(self, times: int) -> None:
        self.times = times


@pytest.mark.parametrize(("times", "fits"), [(1, True), (99, True), (100, False)])
def test_a_value_may_be_replaced_99_times(times: int, fits: bool) -> None:
    """Then it must have a form."""

    def replace(value: Any) -> object:  # noqa: ANN401 - a hook takes anything
        return Replaced(value.times - 1) if value.times > 1 else 1

    event = {"a": Replaced(times)}
    if fits:
        assert write_reference(event, replace) == b'{"a":1}'
    else:
        with pytest.raises(EventNotSerializableError, match="again and again"):
            write_reference(event, replace)


@pytest.mark.parametrize(
    ("key", "step"),
    [("a", ".a"), ("a-b_1", ".a-b_1"), ("a" * 64, "." + "a" * 64), ("a" * 65, "{1}"), ("1a", "{1}")],
)
def test_keys_that_look_like_fields_are_shown(key: str, step: str) -> None:
    """Of others only the position, as they may be someone's data; of items of an array too."""
    found = error_of({"x": 1, key: [1, 2, b"no JSON"]})
    assert found.field == f"{step.removeprefix('.')}[2]"
