from __future__ import annotations

import dataclasses
import datetime as dt
import importlib
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar, cast

import attrs
import msgspec
import pydantic
import pydantic.dataclasses
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import EventNotSerializableError, json_serializer, serialize_v2j_event
from baseplate_events.json_writer.reference import write_reference
from baseplate_events.json_writer.writer import JsonWriters
from tests.support import strategies, typed_events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.typed_events import Pair

T = TypeVar("T")


def make_attrs(fields: Sequence[tuple[str, object]], values: Sequence[object]) -> object:
    """Make an instance of an attrs class."""
    specs = {name: attrs.field(type=cast("Any", annotation)) for name, annotation in fields}
    made = attrs.make_class("Made", specs, slots=len(fields) % 2 == 0)(*values)
    return cast("object", made)


def make_struct(fields: Sequence[tuple[str, object]], values: Sequence[object]) -> object:
    """Make an instance of a struct of msgspec."""
    made = msgspec.defstruct("Made", cast("Any", [(name, Any) for name, _ in fields]))
    made.__annotations__ = dict(fields)
    return made(*values)


def make_model(fields: Sequence[tuple[str, object]], values: Sequence[object]) -> object:
    """Make an instance of a pydantic model without validation; its names have no underscore at the front."""
    named: dict[str, Any] = {name.lstrip("_"): value for (name, _), value in zip(fields, values, strict=True)}
    specs: dict[str, Any] = dict.fromkeys(named, (Any, ...))
    return cast("object", pydantic.create_model("Made", **specs).model_construct(**named))


MAKERS = (typed_events.make_dataclass, typed_events.make_named_tuple, make_attrs, make_struct)


def plain_json(value: object) -> bytes:
    """Write what consists of JSON's own types."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def written(event: object) -> bytes:
    """Serialize an event in both ways, whatever its type."""
    data = serialize_v2j_event(cast("Any", event))
    assert data == write_reference(event, None) == JsonWriters()[type(event)](event).encode()
    return data


@given(pair=typed_events.events(MAKERS))
def test_instances_are_their_dicts(pair: Pair) -> None:
    """Instances of classes of all libraries within each other come out as the dicts with the same content."""
    event, plain = pair
    assert plain_json(plain) == written(event)


@given(members=st.dictionaries(st.sampled_from(["a", "b", "user_id", "é"]), strategies.plain_values))
def test_models_are_their_dicts(members: dict[str, object]) -> None:
    """A pydantic model comes out as the dict of its fields."""
    fields: list[tuple[str, object]] = [(name, object) for name in members]
    assert plain_json(members) == written(make_model(fields, [*members.values()]))


# --- names: those of the library's own encoder ---


class Renamed(msgspec.Struct, rename="camel", tag="renamed", tag_field="kind", omit_defaults=True):
    """A struct that its library writes with other names, and in part."""

    user_id: int
    some_tags: list[str] = msgspec.field(default_factory=list[str])
    seen_at: int | msgspec.UnsetType = msgspec.UNSET
    level: int = 3
    counts: dict[str, int] = msgspec.field(default_factory=dict)  # pyright: ignore[reportUnknownVariableType]


class Optionally(msgspec.Struct, tag=True):
    """A struct whose fields may be unset, including the first."""

    first: int | msgspec.UnsetType
    last: str | msgspec.UnsetType = msgspec.UNSET


class Odd(msgspec.Struct, rename={"value": "it's {a} é"}, tag=7):
    """A struct with a name that must be escaped."""

    value: int


unset_or_int = st.just(msgspec.UNSET) | st.integers()


@given(
    event=st.one_of(
        st.builds(
            Renamed,
            st.integers(),
            st.lists(strategies.texts, max_size=2),
            unset_or_int,
            st.sampled_from([3, 4]),
        ),
        st.builds(Optionally, unset_or_int, st.just(msgspec.UNSET) | strategies.texts),
        st.builds(Odd, st.integers()),
    )
)
def test_structs_are_written_as_msgspec_does(event: msgspec.Struct) -> None:
    """Names, tags, and what is left out for its default or as unset, are those of msgspec's own encoder."""
    assert plain_json(msgspec.to_builtins(event)) == written(event)


Perhaps = int | msgspec.UnsetType


class Hidden(msgspec.Struct):
    """A struct whose annotations don't show that its fields may be unset."""

    first: Perhaps
    last: Perhaps = 1


@given(event=st.builds(Hidden, unset_or_int, unset_or_int))
def test_unset_fields_are_left_out_whatever_their_annotations(event: Hidden) -> None:
    """As msgspec does, and without a question to `default`."""
    data = plain_json(msgspec.to_builtins(event))
    assert serialize_v2j_event(event) == json_serializer(default=str)(event) == data


def test_structs_like_arrays_are_objects() -> None:
    """A struct that is `array_like` is an object, as an event must be."""

    class Pair(msgspec.Struct, array_like=True):
        left: int
        right: int

    assert b'{"left":1,"right":2}' == written(Pair(1, 2))


class Model(pydantic.BaseModel):
    """A model whose fields are written under other names."""

    user_id: int = pydantic.Field(alias="userId")
    name: str = pydantic.Field(serialization_alias="NAME")
    secret: str = pydantic.Field("s", exclude=True)
    _private: int = pydantic.PrivateAttr(1)

    @pydantic.computed_field(alias="idTwice")  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        """Twice the id."""
        return 2 * self.user_id


class AliasModel(Model, serialize_by_alias=True):
    """A model that its library writes by its aliases."""


class ExtraModel(AliasModel, extra="allow"):
    """A model that keeps extra fields."""


class SerializerModel(Model):
    """A model that writes a field in its own way."""

    at: dt.datetime = dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc)

    @pydantic.field_serializer("at")
    def write_at(self, value: dt.datetime) -> int:
        """Write a day."""
        return value.day


class AnnotatedModel(Model):
    """A model with a field that is written in the way of its annotation."""

    level: Annotated[int, pydantic.PlainSerializer(str)] = 5


class Whole(pydantic.BaseModel):
    """A model that writes itself."""

    x: int

    @pydantic.model_serializer
    def write(self) -> dict[str, int]:
        """Write it."""
        return {"y": self.x}


class Box(pydantic.BaseModel, Generic[T]):
    """A generic model."""

    item: T


@given(
    model=st.sampled_from([Model, AliasModel, ExtraModel, SerializerModel, AnnotatedModel]),
    user_id=st.integers(-(2**60), 2**60),
    name=strategies.texts,
)
def test_models_are_written_as_pydantic_does(model: type[Model], user_id: int, name: str) -> None:
    """Names, computed fields, extras, serializers and what is left out are those of `model_dump_json`."""
    event = model.model_validate({"userId": user_id, "name": name, "more": [user_id]})
    assert json.loads(event.model_dump_json()) == json.loads(written(event))
    assert plain_json(event.model_dump(mode="json")) == written(event)
    box = Box[Model](item=event)
    assert plain_json({"item": event.model_dump(mode="json")}) == written(box)


def test_names_of_models() -> None:
    """A name that Python would normalize is read as it is; two fields of one name are an error."""
    fields: dict[str, Any] = {"\ufb01": (int, 1)}
    assert plain_json({"\ufb01": 1}) == written(pydantic.create_model("Ligature", **fields)())

    class Twice(pydantic.BaseModel, serialize_by_alias=True):
        a: int = pydantic.Field(1, serialization_alias="c")
        b: int = pydantic.Field(1, serialization_alias="c")

    with pytest.raises(EventNotSerializableError, match="same name"):
        serialize_v2j_event(Twice.model_validate({}))


def test_models_that_write_themselves() -> None:
    """A model with a serializer of its own, or of a root, is what its library makes of it."""

    class Numbers(pydantic.RootModel[list[int]]):
        pass

    class Names(pydantic.RootModel[dict[str, int]]):
        pass

    assert b'{"y":1}' == written(Whole(x=1))
    assert b'{"a":1}' == written(Names({"a": 1}))
    assert b'{"a":[1,2]}' == written({"a": Numbers([1, 2])})

    class Hidden(pydantic.RootModel[list[int]]):
        @pydantic.model_serializer
        def write(self) -> list[str]:
            return ["masked"]

    class Inner(pydantic.RootModel[Numbers]):
        pass

    assert b'{"root":[1]}' == serialize_v2j_event(Numbers([1])) == serialize_v2j_event(Inner(Numbers([1])))
    assert b'{"root":["masked"]}' == serialize_v2j_event(Hidden([1]))
    with pytest.raises(EventNotSerializableError, match="root"):
        serialize_v2j_event(pydantic.RootModel[list[bytes]]([b""]))


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="pydantic.v1 ends with Python 3.13")
def test_models_of_the_first_pydantic() -> None:
    """A model of `pydantic.v1` comes out by its names, without what is excluded."""
    v1: Any = importlib.import_module("pydantic.v1")
    fields: dict[str, Any] = {
        "a": (int, v1.Field(1, alias="b")),
        "c": (str, v1.Field("x", exclude=True)),
    }
    model: Any = v1.create_model("First", **fields)
    assert b'{"a":5}' == written(model(b=5))
    root: Any = v1.create_model("Root", __root__=(list[int], ...))
    assert b'{"__root__":[5]}' == serialize_v2j_event(root(__root__=[5]))


def test_attrs_fields() -> None:
    """Fields of attrs have their own names, also private ones and those that `__init__` leaves out."""

    @attrs.frozen
    class Base:
        _hidden: int
        named: str = attrs.field(alias="other", default="n")
        derived: int = attrs.field(init=False, default=3)

    @attrs.frozen
    class Child(Base):
        at: dt.date | None = None

    event = Child(1, at=dt.date(2026, 1, 2))
    assert plain_json({**attrs.asdict(event), "at": "2026-01-02"}) == written(event)


def test_dataclasses_of_pydantic() -> None:
    """A dataclass of pydantic is a dataclass, and may hold and be held by a plain one."""

    @pydantic.dataclasses.dataclass
    class Inner:
        x: int

    @dataclasses.dataclass
    class Outer:
        inner: Inner

    assert b'{"inner":{"x":1}}' == written(Outer(Inner(1)))


@pytest.mark.parametrize("value", [b"x", msgspec.Raw(b"1"), pydantic.SecretStr("secret")])
def test_what_has_no_form_names_the_field(value: object) -> None:
    """A field that can't be written is named as in JSON, whatever the class around it."""
    event = Renamed(cast("Any", value))
    for wrapped, path in ((event, "userId"), ({"a": [event]}, "a[0].userId")):
        with pytest.raises(EventNotSerializableError) as caught:
            serialize_v2j_event(wrapped)
        assert path == caught.value.field
        assert "secret" not in str(caught.value)


def _mask(value: object) -> str:
    del value
    return "masked"


Masked = Annotated[int, pydantic.PlainSerializer(_mask)]


@pydantic.dataclasses.dataclass
class _Hiding:
    """Hides a field, and masks others."""

    plain: int
    password: str = pydantic.Field(default="secret", exclude=True)
    masked: list[Masked] = dataclasses.field(default_factory=lambda: [1])


class _Nested(pydantic.BaseModel):
    """Masks what is in containers."""

    items: list[Masked]
    perhaps: Masked | None


class _Root(pydantic.RootModel[dict[str, int]]):
    """Has a serializer of its own."""

    @pydantic.model_serializer
    def _write(self) -> dict[str, str]:
        return dict.fromkeys(self.root, "masked")


class _Deferred(pydantic.BaseModel, defer_build=True):
    """Isn't built until it is validated or written."""

    items: list[Masked]


class _Dated(pydantic.BaseModel, ser_json_timedelta="float"):
    """Writes times as its configuration says."""

    lasted: dt.timedelta
    masked: str = "masked"


@pytest.mark.parametrize(
    "event",
    [
        _Hiding(1),
        _Nested(items=[1, 2], perhaps=3),
        _Root({"a": 1}),
        _Deferred.model_construct(items=[1]),
        _Dated(lasted=dt.timedelta(seconds=5)),
    ],
    ids=["dataclass", "model", "root", "deferred", "configured"],
)
def test_what_pydantic_hides_stays_hidden(event: Any) -> None:  # noqa: ANN401 - five classes
    """Fields that are left out, and serializers in annotations, count as they do for pydantic itself."""
    data = written(event)
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(cast("Any", type(event)))
    expected = adapter.dump_json(event)
    assert expected == data
    assert b"secret" not in expected
    assert b"masked" in expected
