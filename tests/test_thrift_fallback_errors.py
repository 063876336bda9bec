"""What the slow way says of a struct that can't be written: the bound of its path, and the names of types."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from baseplate_events import EventNotSerializableError
from baseplate_events.thrift_fallback import write_fallback

if TYPE_CHECKING:
    from collections.abc import Callable


class Struct:
    """What writes itself as it likes."""

    def __init__(self, write: Callable[[Any], object]) -> None:
        self.write = write


def error_of(write: Callable[[Any], object]) -> EventNotSerializableError:
    """Return the error of a struct that writes itself so."""
    with pytest.raises(EventNotSerializableError) as caught:
        write_fallback(Struct(write))
    return caught.value


@pytest.mark.parametrize("size", [299, 300, 301])
def test_300_characters_of_a_path_are_shown(size: int) -> None:
    """Of a longer one, the first 300."""
    names = ["a" * 100, "b" * 100, "c" * (size - 202)]

    def write(protocol: Any) -> None:  # noqa: ANN401 - Apache's
        for name in names:
            protocol.writeStructBegin("Struct")
            protocol.writeFieldBegin(name, 12, 1)
        raise RuntimeError

    path = ".".join(names)
    assert error_of(write).field == (path if size <= 300 else f"{path[:300]}...")


@pytest.mark.parametrize(
    ("wire_type", "word"),
    [
        *((2, "bool"), (3, "i8"), (4, "double"), (6, "i16"), (8, "i32"), (10, "i64")),
        *((11, "str"), (12, "struct"), (13, "map"), (14, "set"), (15, "list"), (16, "UUID")),
    ],
)
def test_types_are_named(wire_type: int, word: str) -> None:
    """As Thrift names them; of an enum there is a remedy."""

    def write(protocol: Any, error: type[Exception] = RuntimeError) -> None:  # noqa: ANN401 - Apache's
        protocol.writeStructBegin("Struct")
        protocol.writeFieldBegin("field", wire_type if wire_type != 16 else 11, 1)
        protocol.steps[-1].types = (wire_type,)
        raise error

    found = error_of(write)
    assert found.field == "field"
    assert re.search(rf"\b{word}\b.* raised RuntimeError$", found.problem)
    for error in (KeyError, AttributeError):
        problem = error_of(partial(write, error=error)).problem
        assert (not problem.endswith(f"raised {error.__name__}")) == (wire_type == 8)


@pytest.mark.parametrize(("done", "field"), [(0, "map{0}"), (1, "map{0}"), (2, "map{1}"), (3, "map{1}")])
def test_pairs_of_a_map_are_counted(done: int, field: str) -> None:
    """By their position, whichever of the two it is, which names the type."""

    def write(protocol: Any) -> None:  # noqa: ANN401 - Apache's
        protocol.writeStructBegin("Struct")
        protocol.writeFieldBegin("map", 13, 1)
        protocol.writeMapBegin(8, 11, 2)
        for number in range(done):
            if number % 2:
                protocol.writeString("x")
            else:
                protocol.writeI32(number)
        raise RuntimeError

    found = error_of(write)
    assert found.field == field
    assert (" i32 " in found.problem) == (done % 2 == 0)


@pytest.mark.parametrize(("written", "fits"), [(1, False), (2, True), (3, False)])
def test_a_list_has_as_many_items_as_it_says(written: int, fits: bool) -> None:
    """If not, another thread has changed it."""

    def write(protocol: Any) -> None:  # noqa: ANN401 - Apache's
        protocol.writeStructBegin("Struct")
        protocol.writeFieldBegin("list", 15, 1)
        protocol.writeListBegin(8, 2)
        for number in range(written):
            protocol.writeI32(number)
        protocol.writeListEnd()
        protocol.writeFieldEnd()
        protocol.writeStructEnd()

    if fits:
        assert write_fallback(Struct(write)) == b'{"1":{"lst":["i32",2,0,1]}}'
    else:
        assert "its size changed" in str(error_of(write))
