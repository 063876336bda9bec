"""The shapes of classes, with their hints: these cost or save time only, so no text shows them."""

from __future__ import annotations

import typing
from dataclasses import make_dataclass
from typing import Any, ForwardRef, NamedTuple, Optional

import pytest

from baseplate_events.json_writer.shapes import JsonField, JsonShape, StandIn, shape_of


@pytest.mark.parametrize(
    ("annotation", "hint", "nullable"),
    [
        (str, "str", False),
        ("int", "int", False),
        ("float", "float", False),
        (bool, "bool", False),
        ("str | None", "str", True),
        ("None | int", "int", True),
        ("Optional[float]", "float", True),
        ("typing.Optional[bool]", "bool", True),
        ("t.Optional[str]", "str", True),
        (Optional[int], "int", True),  # noqa: UP045 - as older code has it
        (str | None, "str", True),
        (ForwardRef("int"), "int", False),
        ("dict", "", False),
        (dict, "", False),
        ("str | int", "", False),
        (list[int], "", False),
        (Any, "", False),
        (5, "", False),
    ],
    ids=str,
)
def test_annotations_are_hints(annotation: object, hint: str, nullable: bool) -> None:
    """Those of scalars, and of scalars or None, however they are written."""
    cls = make_dataclass("Event", [("field", typing.cast("Any", annotation))])
    assert shape_of(cls) == JsonShape((JsonField("field", "field", hint, nullable),), None, is_tuple=False)


class Base(NamedTuple):
    """A NamedTuple whose annotations a subclass inherits."""

    x: int
    y: str | None = None


class Derived(Base):
    """A subclass."""

    __slots__ = ()


@pytest.mark.parametrize("cls", [Base, Derived])
def test_named_tuples_are_tuples(cls: type) -> None:
    """They are taken apart at once."""
    fields = (JsonField("x", "x", "int"), JsonField("y", "y", "str", nullable=True))
    assert shape_of(cls) == JsonShape(fields, is_tuple=True)
    assert JsonField("x", "x", "int") == JsonField("x", "x", "int", nullable=False, is_omitted=None)


class Named:
    """What has `_fields` and is no tuple."""

    _fields = ("x",)

    def _asdict(self) -> dict[str, object]:
        return {}


class Fields(tuple[int]):
    """A tuple that has `_fields` and no `_asdict`."""

    _fields = ("x",)
    __slots__ = ()


class Numbers(tuple[int]):
    """A tuple whose `_fields` aren't names."""

    _fields = (1,)
    __slots__ = ()

    def _asdict(self) -> dict[str, object]:
        return {}


@pytest.mark.parametrize("cls", [int, str, tuple, object, Named, Fields, Numbers])
def test_other_classes_have_no_shape(cls: type) -> None:
    """Also if they have something that others have."""
    assert shape_of(cls) is None


def is_none(value: object) -> bool:
    """Say whether a field is left out."""
    return value is None


def test_the_members_of_an_instance() -> None:
    """The tag comes first, and a field that is left out isn't there."""
    shape = JsonShape((JsonField("x", "X"), JsonField("y", "Y", is_omitted=is_none)), ("kind", "point"))
    assert shape.names == ["kind", "X", "Y"]
    assert shape.members_of(Base(1, "a")) == [("kind", "point"), ("X", 1), ("Y", "a")]
    assert shape.members_of(Base(1)) == [("kind", "point"), ("X", 1)]
    assert JsonShape(shape.fields).names == ["X", "Y"]
    assert JsonShape(shape.fields).members_of(Base(1)) == [("X", 1)]
    assert StandIn(len).replace("ab") == 2
