"""What libraries leave on a class, mark by mark: releases differ in which of them come together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from baseplate_events.json_writer.shapes import JsonField, JsonShape, StandIn, shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping


class PlainSerializer:
    """Named as pydantic's."""


class WrapSerializer:
    """Named as pydantic's."""


def info(**marks: object) -> SimpleNamespace:
    """Make what pydantic knows of a field."""
    return SimpleNamespace(
        **{"exclude": None, "serialization_alias": None, "annotation": int, "metadata": [], **marks}
    )


def computed(**marks: object) -> SimpleNamespace:
    """Make what pydantic knows of a computed field."""
    return SimpleNamespace(info=SimpleNamespace(**{"alias": None, **marks}))


def decorators(**marks: Mapping[str, object]) -> dict[str, object]:
    """Make the mark that has the serializers of a class."""
    none: dict[str, Mapping[str, object]] = {
        "field_serializers": {},
        "model_serializers": {},
        "computed_fields": {},
    }
    return {"__pydantic_decorators__": SimpleNamespace(**{**none, **marks})}


#: What each model of pydantic has.
MODEL: dict[str, Any] = {
    **decorators(),
    "__pydantic_serializer__": None,
    "__pydantic_fields__": {"a": info(), "b": info(serialization_alias="B")},
}

#: What a dataclass of pydantic has beside.
DATACLASS: dict[str, Any] = {**MODEL, "__dataclass_fields__": {}}

SHAPE = JsonShape((JsonField("a", "a", "int"), JsonField("b", "b", "int")))


def shape_with(marks: Mapping[str, object]) -> JsonShape | StandIn | None:
    """Return the shape of a class with these attributes."""
    return shape_of(type("Made", (), dict(marks)))


@pytest.mark.parametrize(
    "marks",
    [
        decorators(field_serializers={"a": 1}),
        decorators(model_serializers={"a": 1}),
        decorators(computed_fields={"c": computed(metadata=[PlainSerializer()])}),
        {"model_config": {"json_encoders": {int: str}}, "__pydantic_config__": {"json_encoders": {int: str}}},
        {"__pydantic_fields__": {"a": info(metadata=[1, PlainSerializer()])}},
        {"__pydantic_fields__": {"a": info(metadata=[WrapSerializer()])}},
        {"__pydantic_fields__": {"a": info(exclude_if=bool)}},
        {"__pydantic_core_schema__": {"schema": [{"a": ({"serialization": {"function": 1}},)}]}},
    ],
)
def test_each_serializer_makes_a_model_write_itself(marks: dict[str, object]) -> None:
    """Whatever else its class has."""
    found = shape_with({**MODEL, **marks})
    assert isinstance(found, StandIn)
    assert found.member is None

    def dump(mode: str) -> dict[str, str]:
        return {"mode": mode}

    event = SimpleNamespace(model_dump=dump)
    assert found.replace(event) == {"mode": "json"}
    root = shape_with({**MODEL, **marks, "__pydantic_root_model__": True})
    assert isinstance(root, StandIn)
    assert root.member == "root"
    assert isinstance(shape_with({**DATACLASS, **marks}), StandIn)


@pytest.mark.parametrize(
    "marks",
    [
        {},
        {"model_config": {"json_encoders": {}, "serialize_by_alias": False}},
        {"__pydantic_root_model__": False},
        {
            "__pydantic_core_schema__": {
                "serialization": 5,
                "a": [{"serialization": {"type": "x"}}, "function"],
            }
        },
        {"__pydantic_fields__": {"a": info(exclude_if=None), "b": info(metadata=[1])}},
        {"__pydantic_config__": {"serialize_by_alias": True}},
        {"model_fields": {"c": info()}},
    ],
)
def test_other_models_are_their_fields(marks: dict[str, object]) -> None:
    """So are those of releases that only have `model_fields`."""
    assert shape_with({**MODEL, **marks}) == SHAPE
    older = {**MODEL, **marks, "model_fields": MODEL["__pydantic_fields__"]}
    del older["__pydantic_fields__"]
    assert shape_with(older) == SHAPE


@pytest.mark.parametrize(
    "marks",
    [
        decorators(computed_fields={"c": computed()}),
        {"__pydantic_config__": {"serialize_by_alias": True}},
        {"__pydantic_fields__": {"a": info(exclude=True), "b": info()}},
    ],
)
def test_dataclasses_that_pydantic_writes_in_another_way(marks: dict[str, object]) -> None:
    """They write themselves; others are dataclasses like any."""
    found = shape_with({**DATACLASS, **marks})
    assert isinstance(found, StandIn)
    assert found.member is None

    def to_python(value: object, mode: str) -> tuple[object, str]:
        return value, mode

    value = SimpleNamespace(__pydantic_serializer__=SimpleNamespace(to_python=to_python))
    assert found.replace(value) == (value, "json")
    assert shape_with(DATACLASS) == JsonShape(())
    assert shape_with({**DATACLASS, "model_config": {"serialize_by_alias": True}}) == JsonShape(())


def test_aliases_and_what_is_left_out() -> None:
    """Computed fields come last."""
    marks = {
        **MODEL,
        **decorators(computed_fields={"c": computed(alias="C"), "d": computed()}),
        "__pydantic_fields__": {
            "a": info(serialization_alias="A"),
            "b": info(exclude=True),
            "e": info(exclude=False, annotation="str | None"),
        },
    }
    last = JsonField("e", "e", "str", nullable=True)
    fields = (JsonField("a", "a", "int"), last, JsonField("c", "c"), JsonField("d", "d"))
    assert shape_with(marks) == JsonShape(fields)
    fields = (JsonField("a", "A", "int"), last, JsonField("c", "C"), JsonField("d", "d"))
    assert shape_with({**marks, "model_config": {"serialize_by_alias": True}}) == JsonShape(fields)
    extra = shape_with({**marks, "model_config": {"extra": "allow"}})
    assert isinstance(extra, StandIn)
    value = SimpleNamespace(a=1, b=2, c=3, d=4, e=5, __pydantic_extra__={"f": 6})
    assert extra.replace(value) == {"a": 1, "e": 5, "f": 6, "c": 3, "d": 4}
    value.__pydantic_extra__ = None
    assert extra.replace(value) == {"a": 1, "e": 5, "c": 3, "d": 4}
    assert isinstance(shape_with({**marks, "model_config": {"extra": "ignore"}}), JsonShape)


#: What each model of the pydantic before 2 has.
OLD: dict[str, Any] = {
    "__fields__": {
        "a": SimpleNamespace(outer_type_=int, field_info=SimpleNamespace(exclude=None)),
        "b": SimpleNamespace(outer_type_=str, field_info=SimpleNamespace(exclude=True)),
    },
    "__config__": SimpleNamespace(),
    "__fields_set__": set[str](),
}


def test_models_of_the_first_pydantic() -> None:
    """Fields without those that are excluded, with extras, or a root."""
    assert shape_with(OLD) == JsonShape((JsonField("a", "a", "int"),))
    assert isinstance(shape_with({**OLD, "__config__": SimpleNamespace(extra="ignore")}), JsonShape)
    extra = shape_with({**OLD, "__config__": SimpleNamespace(extra="allow")})
    assert isinstance(extra, StandIn)
    assert extra.replace(SimpleNamespace(a=1, b=2, c=3)) == {"a": 1, "c": 3}
    root = shape_with({**OLD, "__fields__": {"__root__": 5}})
    assert isinstance(root, StandIn)
    assert root.member == "__root__"


#: What each struct of msgspec has.
STRUCT: dict[str, Any] = {
    "__struct_fields__": ("a", "b", "c"),
    "__struct_encode_fields__": ("A", "B", "C"),
    "__struct_defaults__": (3, SimpleNamespace(factory=list)),
    "__struct_config__": SimpleNamespace(omit_defaults=True, tag=None),
}


def is_omitted(value: object, field: int, marks: Mapping[str, object] = STRUCT) -> bool:
    """Return whether a field of a struct is left out."""
    shape = shape_with(marks)
    assert isinstance(shape, JsonShape)
    omits = shape.fields[field].is_omitted
    return omits is not None and omits(value)


class UnsetType:
    """Named as that of msgspec."""


def test_structs_leave_out_their_defaults() -> None:
    """If it is the same object, or an empty container that is made for each instance."""
    unset = UnsetType()
    values: tuple[object, ...] = (3, 0, None, [], [1], {}, unset)
    assert [is_omitted(value, 0) for value in values] == [False] * 7
    assert [is_omitted(value, 1) for value in values] == [True, *[False] * 5, True]
    assert [is_omitted(value, 2) for value in values] == [False, False, False, True, False, False, True]
    never = {**STRUCT, "__struct_config__": SimpleNamespace(omit_defaults=False, tag=None)}
    assert [is_omitted(value, field, never) for value in values for field in range(3)] == [False] * 21
    for marks in (
        {**never, "__struct_defaults__": (unset, 5)},
        {**never, "__annotations__": {"b": "int | UnsetType"}},
    ):
        assert [is_omitted(value, 1, marks) for value in values] == [*[False] * 6, True]
        assert [is_omitted(value, 2, marks) for value in values] == [False] * 7


@pytest.mark.parametrize(
    ("tag", "found"), [("x", ("kind", "x")), (0, ("kind", 0)), (None, None), (bytes, None)]
)
def test_structs_have_tags(tag: object, found: tuple[str, object] | None) -> None:
    """Texts or numbers."""
    config = SimpleNamespace(omit_defaults=False, tag=tag, tag_field="kind")
    shape = shape_with({**STRUCT, "__struct_config__": config})
    assert isinstance(shape, JsonShape)
    assert shape.tag == found
    assert shape.names == [*(["kind"] if found else []), "A", "B", "C"]


def test_a_struct_has_a_name_for_each_field() -> None:
    """Another number of them would be a mistake."""
    with pytest.raises(ValueError, match="zip"):
        shape_with({**STRUCT, "__struct_encode_fields__": ("A", "B", "C", "D")})


@pytest.mark.parametrize("marks", [MODEL, OLD, STRUCT], ids=["model", "old model", "struct"])
def test_a_class_with_some_of_the_marks_has_no_shape(marks: dict[str, Any]) -> None:
    """Each is needed, except those that have a default."""
    optional = {"__struct_defaults__", "__pydantic_fields__"}
    for name in marks.keys() - optional:
        assert shape_with({key: value for key, value in marks.items() if key != name}) is None
        assert shape_with({**marks, name: None}) is None or name in {
            "__pydantic_serializer__",
            "__fields_set__",
        }
    assert shape_with(marks) is not None


@pytest.mark.parametrize("name", ["__attrs_attrs__", "__dataclass_fields__", "__fields__"])
def test_marks_of_another_type_are_none(name: str) -> None:
    """As on a class that returns something for any attribute."""
    assert shape_with({**OLD, "__fields__": 5, name: 5}) is None
