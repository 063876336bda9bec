"""Which form each class has in JSON: a scalar, an array or an object. Pure.

Rules:

1. Subclasses of str, int and float are written as `json` writes them: by the value of their base.
2. Dates and times have the form of RFC 3339, with the offset that they have; without one, that of ISO 8601.
   RFC 3339 has only offsets of whole minutes. A datetime with another one is converted to UTC. A time can't
   be, since its day is unknown, so it is an error.
3. UUIDs and Decimals are strings. Members of enums are their values. Sets are arrays, in no certain order.
4. What only looks like a NamedTuple, having `_fields` and `_asdict`, is an object too.
5. No form is invented: bytes and everything else have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from json.encoder import encode_basestring
from operator import attrgetter
from typing import Any, Final, NamedTuple, cast

from .shapes import JsonShape, StandIn, shape_of


class UnwritableError(Exception):
    """Raised for a value that JSON can't carry; its text says why, without the value."""


class Scalar(NamedTuple):
    """How a class is written that holds nothing else.

    Attributes:
        text: Takes an instance and returns its JSON text; raises any exception if there is none.
    """

    text: Callable[[Any], str]


class Array(NamedTuple):
    """The form of a class whose instances are iterated over."""


class Members(NamedTuple):
    """The form of a mapping.

    Attributes:
        items: Takes an instance and returns its keys and values.
    """

    items: Callable[[Any], Iterable[tuple[object, object]]]


JsonForm = Scalar | Array | Members | JsonShape | StandIn


def form_of(cls: type) -> JsonForm | None:
    """Return how the instances of a class are written; None if JSON has no form for them."""
    form = _FORMS.get(cls)
    if form is not None:
        return form
    for base in (str, int, float, dict):
        if base in cls.__mro__:
            return _FORMS[base]
    kind = _kind_of(cls)
    if kind == "Enum":
        return StandIn(attrgetter("value"))
    shape = shape_of(cls)
    if shape is not None:
        return shape
    is_row = {"_fields", "_asdict"}.issubset(dir(cls))
    if issubclass(cls, (list, tuple, set, frozenset)):
        return Array()
    if issubclass(cls, Mapping):
        return Members(items_of_mapping)
    if kind is not None:
        return Scalar(_TEXTS[kind])
    return Members(_items_of_row) if is_row else None


def key_text(key: object) -> str:
    """Return the name that a key of a mapping gets in JSON, which is the one that `json` gives it.

    Raises:
        TypeError: if it isn't a str, a number, a bool or None.
        ValueError: if it is a number that JSON hasn't.
    """
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or isinstance(key, (int, float)):
        form = cast("Scalar", form_of(type(key)))
        return form.text(key)
    raise TypeError


# --- the texts of scalars ---


def float_text(value: float) -> str:
    """Return a float as JSON has it.

    Raises:
        ValueError: if JSON hasn't: NaN and the infinities.
    """
    if value - value == 0.0:
        return float.__repr__(value)
    raise ValueError


def _bool_text(value: object) -> str:
    return "true" if value else "false"


def _null_text(_: object) -> str:
    return "null"


def _datetime_text(value: Any) -> str:  # noqa: ANN401 - its module isn't imported here
    text: str = value.isoformat()
    if value.tzinfo is not None and text[-6] not in "+-":
        offset = value.utcoffset()
        if offset is not None:
            text = f"{(value - offset).replace(tzinfo=None).isoformat()}+00:00"
    return encode_basestring(text)


def _date_text(value: Any) -> str:  # noqa: ANN401 - as above
    return encode_basestring(value.isoformat())


def _time_text(value: Any) -> str:  # noqa: ANN401 - as above
    text: str = value.isoformat()
    if value.tzinfo is not None and value.utcoffset() is not None and text[-6] not in "+-":
        raise UnwritableError(
            "a time whose UTC offset isn't whole minutes, which RFC 3339 can't express; make it a "
            "datetime, or a time in UTC"
        )
    return encode_basestring(text)


def _str_text(value: object) -> str:
    return encode_basestring(str(value))


# --- tables ---


def _items_of_dict(value: Mapping[object, object]) -> Iterable[tuple[object, object]]:
    return value.items()


def items_of_mapping(value: Mapping[object, object]) -> Iterable[tuple[object, object]]:
    """Return the items of a mapping that isn't a dict."""
    return dict(value).items()


def _items_of_row(value: Any) -> Iterable[tuple[object, object]]:  # noqa: ANN401 - such as a `Row` of SQLAlchemy
    """Return the items of what is like a NamedTuple but no tuple; a name that comes twice is there twice."""
    members: dict[str, object] = value._asdict()
    return [(name, members[name]) for name in value._fields]


_FORMS: Final[dict[type, JsonForm]] = {
    str: Scalar(encode_basestring),
    int: Scalar(int.__repr__),
    float: Scalar(float_text),
    bool: Scalar(_bool_text),
    type(None): Scalar(_null_text),
    list: Array(),
    tuple: Array(),
    set: Array(),
    frozenset: Array(),
    dict: Members(_items_of_dict),
}

#: Classes that are recognised without importing their modules, by name.
_MODULES: Final = {
    "Enum": "enum",
    "datetime": "datetime",
    "date": "datetime",
    "time": "datetime",
    "UUID": "uuid",
    "Decimal": "decimal",
}

_TEXTS: Final[dict[str, Callable[[Any], str]]] = {
    "datetime": _datetime_text,
    "date": _date_text,
    "time": _time_text,
    "UUID": _str_text,
    "Decimal": _str_text,
}


def _kind_of(cls: type) -> str | None:
    """Return the first of the classes in `_MODULES` that a class is or inherits from; Enum before others."""
    kinds = [base.__name__ for base in cls.__mro__ if _MODULES.get(base.__name__) == base.__module__]
    return "Enum" if "Enum" in kinds else next(iter(kinds), None)
