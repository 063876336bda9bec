"""Which classes are written as JSON objects, and under which names. Pure.

Rules:

1. A class is recognised by what its library leaves on it, so no library is imported.
2. A field has the name that the library's own encoder gives it: msgspec's `rename` and tags count, aliases of
   pydantic do if the model has `serialize_by_alias`, and aliases of attrs, which are for `__init__`, don't.
3. A field that the library's own encoder leaves out is left out: pydantic's `exclude`, `omit_defaults` and
   `UNSET` of msgspec. Class variables, `InitVar`s and private attributes of pydantic are no fields.
4. Values are written by their own class, whatever the annotation says. Annotations are hints for speed only.
5. A pydantic model with serializers of its own is what its `model_dump(mode="json")` returns.
6. A `RootModel` of pydantic is its root. Type checkers take one of any root for an event, which must be an
   object: so if its root isn't one, an event has it as its member `root`.
"""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Types that a writer tries first, by the texts of the annotations that hint at them. The second item says
#: whether None is likely too.
_HINTS: Final[dict[str, tuple[str, bool]]] = {
    text: (name, text != name)
    for name in ("str", "int", "float", "bool")
    for text in (
        *(name, f"{name} | None", f"None | {name}"),
        *(f"Optional[{name}]", f"typing.Optional[{name}]", f"t.Optional[{name}]"),
    )
}


class JsonField(NamedTuple):
    """A field of a class that is written as an object.

    Attributes:
        attribute: The attribute that holds its value.
        name: Its name in JSON.
        hint: The name of the type that it most likely has: `str`, `int`, `float`, `bool`, or empty.
        nullable: Whether it is likely to be None.
        is_omitted: Says of a value whether the field is left out; None if it never is.
    """

    attribute: str
    name: str
    hint: str = ""
    nullable: bool = False
    is_omitted: Callable[[object], bool] | None = None


class JsonShape(NamedTuple):
    """How the instances of a class become objects.

    Attributes:
        fields: The fields, in order.
        tag: The name and the value of a member that comes before them, if there is one.
        is_tuple: Whether the instances are tuples of the fields.
        omits_unset: Whether each field that is `UNSET` is left out, whatever `is_omitted` says.
    """

    fields: tuple[JsonField, ...]
    tag: tuple[str, str | int] | None = None
    is_tuple: bool = False
    omits_unset: bool = False

    @property
    def names(self) -> list[str]:
        """The names of all members, in order."""
        return [*([] if self.tag is None else [self.tag[0]]), *(field.name for field in self.fields)]

    def members_of(self, value: object) -> list[tuple[str, object]]:
        """Return the names and values of an instance, in order.

        Raises:
            UnreadableFieldError: if reading a field raises any exception.
        """
        members: list[tuple[str, object]] = [] if self.tag is None else [self.tag]
        for field in self.fields:
            try:
                member = getattr(value, field.attribute)
            except Exception as error:  # noqa: BLE001 - a property may raise anything
                raise UnreadableFieldError(field.name, type(error).__name__) from None
            is_omitted = field.is_omitted or (is_unset if self.omits_unset else None)
            if is_omitted is None or not is_omitted(member):
                members.append((field.name, member))
        return members


class UnreadableFieldError(Exception):
    """Raised for a field that can't be read.

    Attributes:
        name: Its name in JSON.
        raised: Name of the exception that reading it raised.
    """

    def __init__(self, name: str, raised: str) -> None:
        super().__init__(name, raised)
        self.name = name
        self.raised = raised


class StandIn(NamedTuple):
    """How the instances of a class are replaced before they are written.

    Attributes:
        replace: Takes an instance and returns what is written instead, such as the value of an enum's member.
        member: The name under which that becomes an object if the instance is an event, and must be one; None
            if it has no name.
    """

    replace: Callable[[Any], object]
    member: str | None = None


def shape_of(cls: type) -> JsonShape | StandIn | None:
    """Return how the instances of a class become objects, or what replaces them; None of any other class.

    Args:
        cls: Any class. Of the subclasses of tuple, only NamedTuples have a shape.
    """
    for look in (_pydantic_model, _struct, _attrs_class, _dataclass, _named_tuple):
        found = look(cls)
        if found is not None:
            return found
    return None


# --- each library ---


def _dataclass(cls: type) -> JsonShape | None:
    if not isinstance(getattr(cls, "__dataclass_fields__", None), dict):
        return None
    # A slow import, which whoever has a dataclass has paid for already.
    from dataclasses import fields  # noqa: PLC0415

    return JsonShape(tuple(_field(field.name, field.name, field.type) for field in fields(cls)))


def _attrs_class(cls: type) -> JsonShape | None:
    attributes: tuple[Any, ...] | None = getattr(cls, "__attrs_attrs__", None)
    if not isinstance(attributes, tuple):
        return None
    return JsonShape(tuple(_field(field.name, field.name, field.type) for field in attributes))


def _named_tuple(cls: type) -> JsonShape | None:
    names = _names(cls, "_fields")
    if names is None or tuple not in cls.__mro__ or not hasattr(cls, "_asdict"):
        return None
    annotations = _annotations(cls)
    fields = tuple(_field(name, name, annotations.get(name)) for name in names)
    return JsonShape(fields, is_tuple=True)


def _struct(cls: type) -> JsonShape | None:
    """Recognise a struct of msgspec; one that is `array_like` is an object too, as a NamedTuple is."""
    attributes = _names(cls, "__struct_fields__")
    names = _names(cls, "__struct_encode_fields__")
    config: Any = getattr(cls, "__struct_config__", None)
    if attributes is None or names is None or config is None:
        return None
    annotations = _annotations(cls)
    defaults: tuple[object, ...] = getattr(cls, "__struct_defaults__", ())
    required = len(names) - len(defaults)
    fields: list[JsonField] = []
    for index, (attribute, name) in enumerate(zip(attributes, names, strict=True)):
        annotation = annotations.get(attribute)
        field = _field(attribute, name, annotation)
        default = defaults[index - required] if index >= required else None
        if config.omit_defaults and index >= required:
            field = field._replace(is_omitted=partial(_is_default, default))
        # Where an alias hides it, the compiled writer raises, and the reference leaves the field out.
        elif is_unset(default) or "Unset" in _text(annotation):
            field = field._replace(is_omitted=is_unset)
        fields.append(field)
    tag = config.tag
    is_tagged = isinstance(tag, (str, int))
    return JsonShape(tuple(fields), (str(config.tag_field), tag) if is_tagged else None, omits_unset=True)


def is_unset(value: object) -> bool:
    """Say whether a value is msgspec's `UNSET`."""
    return is_unset_type(type(value))


def is_unset_type(cls: type) -> bool:
    """Say whether a class is that of msgspec's `UNSET`."""
    return cls.__name__ == "UnsetType"


def _is_default(default: object, value: object) -> bool:
    """Say whether msgspec leaves a field out for its value: it compares identities, and empty containers."""
    if value is default or is_unset(value):
        return True
    factory = getattr(default, "factory", None)
    return factory is type(value) and factory in (list, dict, set) and not value


def _pydantic_model(cls: type) -> JsonShape | StandIn | None:
    decorators: Any = getattr(cls, "__pydantic_decorators__", None)
    if decorators is None or not hasattr(cls, "__pydantic_serializer__"):
        return _pydantic_v1_model(cls)
    # Releases before 2.10 have no other name for them.
    fields: Mapping[str, Any] | None = getattr(cls, "__pydantic_fields__", None)
    if fields is None:
        fields = cast("Mapping[str, Any]", getattr(cls, "model_fields", {}))
    is_dataclass = isinstance(getattr(cls, "__dataclass_fields__", None), dict)
    config: Mapping[str, object] = getattr(cls, "__pydantic_config__" if is_dataclass else "model_config", {})
    computed: Mapping[str, Any] = decorators.computed_fields
    by_alias = bool(config.get("serialize_by_alias"))
    has_serializers = (
        bool(decorators.field_serializers or decorators.model_serializers or config.get("json_encoders"))
        or any(map(_is_special, fields.values()))
        or any(name.startswith("ser_json_") for name in config)
        or any(_is_special(found.info) for found in computed.values())
        or _has_functions(getattr(cls, "__pydantic_core_schema__", None))
    )
    if is_dataclass:
        is_plain = not (
            has_serializers or computed or by_alias or any(info.exclude for info in fields.values())
        )
        return None if is_plain else StandIn(_dump_dataclass)
    is_root = getattr(cls, "__pydantic_root_model__", False)
    if has_serializers:
        return StandIn(_dump, "root" if is_root else None)
    if is_root:
        return StandIn(attrgetter("root"), "root")
    members = [
        _field(name, (info.serialization_alias if by_alias else None) or name, info.annotation)
        for name, info in fields.items()
        if not info.exclude
    ]
    properties = [
        _field(name, (found.info.alias if by_alias else None) or name, None)
        for name, found in computed.items()
    ]
    if config.get("extra") == "allow":
        return StandIn(partial(_with_extras, JsonShape(tuple(members)), JsonShape(tuple(properties))))
    return JsonShape((*members, *properties))


def _is_special(info: Any) -> bool:  # noqa: ANN401 - pydantic's
    """Say whether a field of pydantic is written in a way of its own."""
    metadata: list[object] = getattr(info, "metadata", [])
    return getattr(info, "exclude_if", None) is not None or any(
        type(item).__name__ in {"PlainSerializer", "WrapSerializer"} for item in metadata
    )


def _has_functions(schema: object) -> bool:
    """Say whether a serializer is anywhere in the schema of a class of pydantic, such as in an annotation.

    A schema that isn't built yet (`defer_build`, with `model_construct`) may have one.
    """
    if not isinstance(schema, (dict, type(None))):
        return True
    found: list[Any] = [schema]
    while found:
        item: Any = found.pop()
        if isinstance(item, dict):
            members = cast("dict[object, object]", item)
            serialization: Any = members.get("serialization")
            if isinstance(serialization, dict) and "function" in serialization:
                return True
            found += members.values()
        elif isinstance(item, (list, tuple)):
            found += cast("list[object]", item)
    return False


def _dump(model: Any) -> object:  # noqa: ANN401 - pydantic's
    return model.model_dump(mode="json")


def _dump_dataclass(value: Any) -> object:  # noqa: ANN401 - pydantic's
    serializer: Any = value.__pydantic_serializer__
    return serializer.to_python(value, mode="json")


def _with_extras(fields: JsonShape, properties: JsonShape, model: Any) -> object:  # noqa: ANN401 - pydantic's
    extras: dict[str, object] = model.__pydantic_extra__ or {}
    return {**dict(fields.members_of(model)), **extras, **dict(properties.members_of(model))}


def _pydantic_v1_model(cls: type) -> JsonShape | StandIn | None:
    """Recognise a model of pydantic 1, or of `pydantic.v1`."""
    fields: Any = getattr(cls, "__fields__", None)
    config: Any = getattr(cls, "__config__", None)
    if not isinstance(fields, dict) or config is None or not hasattr(cls, "__fields_set__"):
        return None
    if "__root__" in fields:
        return StandIn(attrgetter("__root__"), "__root__")
    if getattr(config, "extra", None) == "allow":
        excluded = {
            name for name, field in cast("dict[str, Any]", fields).items() if field.field_info.exclude
        }
        return StandIn(partial(_without, excluded))
    return JsonShape(
        tuple(
            _field(name, name, field.outer_type_)
            for name, field in cast("dict[str, Any]", fields).items()
            if not field.field_info.exclude
        )
    )


def _without(excluded: set[str], model: object) -> object:
    return {name: member for name, member in vars(model).items() if name not in excluded}


# --- hints ---


def _field(attribute: str, name: str, annotation: object) -> JsonField:
    hint, nullable = _HINTS.get(_text(annotation), ("", False))
    return JsonField(attribute, name, hint, nullable)


def _text(annotation: object) -> str:
    """Return an annotation as it is written."""
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, type):
        return annotation.__name__
    forward: object = getattr(annotation, "__forward_arg__", None)
    if isinstance(forward, str):
        return forward
    # Others may have a `__str__` of their own.
    return str(annotation) if type(annotation).__module__ in {"typing", "types"} else ""


def _annotations(cls: type) -> Mapping[str, object]:
    """Return the annotations of a class and its bases, as far as they are available."""
    found: dict[str, object] = {}
    for base in reversed(cls.__mro__):
        try:
            found.update(base.__annotations__)
        except Exception:  # noqa: BLE001, S112 - from Python 3.14 on, asking for them runs them
            continue
    return found


def _names(cls: type, attribute: str) -> tuple[str, ...] | None:
    """Return the attribute of a class that is a tuple of names; None if there is none."""
    found: Any = getattr(cls, attribute, None)
    if not isinstance(found, tuple):
        return None
    names = cast("tuple[object, ...]", found)
    return cast("tuple[str, ...]", names) if all(type(name) is str for name in names) else None
