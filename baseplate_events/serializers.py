"""Events to bytes: Thrift structs for version 2 of the protocol, JSON objects for version 2j.

Rules:

1. The result is one JSON object in valid UTF-8, so it can't spoil the batch that carries it.
2. Anything else is an `EventNotSerializableError` that names the field, the type found and the remedy, and
   shows none of its content.
3. The field is searched for only after a failure; a good event is traversed once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from .errors import EventError
from .spool import UNKNOWN_FORMAT
from .thrift_json import write_struct

if TYPE_CHECKING:
    from dataclasses import Field


class ThriftStruct(Protocol):
    """A class that the Thrift compiler generates for a struct, union or exception, in any of its shapes."""

    def read(self, iprot: Any, /) -> Any:  # noqa: ANN401 - generated classes are untyped
        """Fill the struct from a Thrift protocol (a frozen struct is returned)."""
        ...

    def write(self, oprot: Any, /) -> None:  # noqa: ANN401 - generated classes are untyped
        """Write the struct to a Thrift protocol."""
        ...


class DataclassInstance(Protocol):
    """An instance of a dataclass, or of what type checkers treat as one: structs, pydantic models, ..."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


class AttrsInstance(Protocol):
    """An instance of any attrs class."""

    __attrs_attrs__: ClassVar[Any]


class PydanticInstance(Protocol):
    """An instance of any pydantic model. With pydantic's plugin, mypy doesn't take it for a dataclass."""

    __pydantic_serializer__: ClassVar[Any]


class NamedTupleInstance(Protocol):
    """An instance of any NamedTuple, or of what is made like one, such as a `Row` of SQLAlchemy."""

    @property
    def _fields(self) -> tuple[str, ...]: ...

    def _asdict(self) -> dict[str, Any]: ...


#: What can be serialized as a JSON object.
JsonEvent = Mapping[str, object] | DataclassInstance | AttrsInstance | PydanticInstance | NamedTupleInstance


def serialize_v2_event(event: ThriftStruct) -> bytes:
    """Serialize a Thrift struct to bytes for the V2 event protocol.

    The bytes are those of Apache Thrift's `TJSONProtocol` if those are valid JSON. If they aren't
    (control characters, NaN, infinities), they are what Apache's C++ and Java libraries write.

    Args:
        event: A Thrift struct from the event schemas.

    Raises:
        EventNotSerializableError: A value isn't of the type of its field, is out of range, is missing or
            can't be encoded in UTF-8, or structs are nested too deep.
    """
    return write_struct(event)


def serialize_v2j_event(event: JsonEvent) -> bytes:
    """Serialize a JSON event to bytes for the V2J event protocol.

    At any depth, these become objects: mappings, and instances of dataclasses, attrs classes, msgspec
    structs, pydantic models and NamedTuples. A field has the name that the library's own encoder gives it.
    Mapping keys that are numbers, bools or None become strings, as in `json`.

    Lists, tuples and sets become arrays. Dates, times, UUIDs and Decimals become strings (RFC 3339 for dates
    and times). Enum members become their values.

    Args:
        event: A mapping (a TypedDict is one) or an instance of one of those classes.

    Raises:
        EventNotSerializableError: The event contains what JSON can't carry: NaN or an infinity, a lone
            surrogate, a type without a JSON form (bytes, a timedelta, ...), two keys with the same name,
            itself, or endless nesting.
    """
    try:
        text = _writers[type(event)](event)
        if text[0] == "{":
            return text.encode()
    except Exception:  # noqa: BLE001, S110 - the reference finds out what it is, or takes it
        pass
    return _write_slowly(event, None)


class JsonSerializer:
    """A serializer for JSON events; created by `json_serializer`.

    It can be pickled if its `default` can be.

    Args:
        default: Returns what to write instead of a value without a JSON form.
    """

    __slots__ = ("_default", "_hook", "_writers")

    def __init__(self, default: Callable[[Any], object] | None) -> None:
        from .json_writer.hook import Hook  # noqa: PLC0415 - not for services with Thrift events only
        from .json_writer.writer import JsonWriters  # noqa: PLC0415 - likewise

        self._default = default
        self._hook = None if default is None else Hook(default)
        self._writers = JsonWriters(self._hook)

    def __call__(self, event: JsonEvent, /) -> bytes:
        """Serialize an event, as `serialize_v2j_event` does."""
        return self._write(event) if self._hook is None else self._hook.write(event, self._write)

    def _write(self, event: JsonEvent) -> bytes:
        try:
            text = self._writers[type(event)](event)
            if text[0] == "{":
                return text.encode()
        except EventError:
            raise
        except Exception:  # noqa: BLE001, S110 - the reference finds out what it is, or takes it
            pass
        return _write_slowly(event, self._hook)

    def __reduce__(self) -> tuple[type[JsonSerializer], tuple[object]]:
        return type(self), (self._default,)

    def __repr__(self) -> str:
        return f"json_serializer(default={self._default!r})"


def json_serializer(*, default: Callable[[Any], object] | None = None) -> JsonSerializer:
    """Return a serializer like `serialize_v2j_event` that also handles values without a JSON form.

    Args:
        default: Called once with each such value; returns what to write instead, anything that can be
            written. If it raises, the event can't be serialized: an `EventNotSerializableError` names the
            field.
    """
    return JsonSerializer(default)


def _write_slowly(event: object, default: Callable[[Any], object] | None) -> bytes:
    from .json_writer.reference import write_reference  # noqa: PLC0415 - most services never need it

    return write_reference(event, default)


class _WritersToImport(dict[type, Callable[[Any], str]]):
    """Placeholder for the writers of `serialize_v2j_event`, which are imported at the first event."""

    def __missing__(self, cls: type) -> Callable[[Any], str]:
        global _writers  # noqa: PLW0603 - so that no event after the first looks here
        from .json_writer.writer import JsonWriters  # noqa: PLC0415 - not for services with Thrift events only

        _writers = JsonWriters()
        return _writers[cls]


_writers: dict[type, Callable[[Any], str]] = _WritersToImport()


def event_format_of(serializer: object) -> str:
    """Return the `collector.version` that a serializer's events are for, or `unknown`."""
    if serializer is serialize_v2_event:
        return "2"
    is_json = serializer is serialize_v2j_event or isinstance(serializer, JsonSerializer)
    return "2j" if is_json else UNKNOWN_FORMAT
