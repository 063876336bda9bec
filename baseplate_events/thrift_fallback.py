r"""The slow and exact way of a Thrift struct to TJSON: Apache's own protocol, mended where it writes no JSON.

Rules:

1. A struct writes itself, by its own `write`, to a subclass of Apache's `TJSONProtocol`. So whatever a
   generated or hand-written class does comes out as Apache's Python library has it, to the byte.
2. Where that isn't JSON, what Apache's C++ and Java libraries write is written: `\u00xx` for control
   characters, `"NaN"`, `"Infinity"` and `"-Infinity"`, and the value of a bool or other int whose text
   isn't a number. Where they have no JSON either, the event is refused.
3. The protocol keeps the path of what is being written, so an error names the field.
4. What comes out is parsed before it is returned: it is JSON whatever a `write` does.

This is the only module that touches the `thrift` library, which it imports at the first use: a service
whose classes were all compiled (see `thrift_json`) never pays for it.
"""

# ruff: noqa: N802 - the methods of the protocol have the names and the contracts of Apache's
from __future__ import annotations

import functools
import importlib
import json
import re
from binascii import b2a_base64
from enum import Enum, EnumMeta
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from .errors import EventNotSerializableError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Names of the wire types for messages, by number in Thrift's protocols.
_TYPE_NAMES: Final = {
    2: "a bool",
    3: "an i8",
    4: "a double",
    6: "an i16",
    8: "an i32",
    10: "an i64",
    11: "a str or bytes",
    12: "a struct",
    13: "a map",
    14: "a set",
    15: "a list",
    16: "a UUID",
}

#: JSON's grammar of a number (RFC 8259, section 6).
_is_number: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?").fullmatch

#: What a JSON string can hold without an escape, within ASCII: Apache writes the keys of a map so.
_is_plain: Final = re.compile(r"[ !#-\[\]-\x7f]*").fullmatch

#: An int as a double is exact up to here, and its `%.17g` is then its decimal digits.
_EXACT: Final = 2**53

#: Texts of Python's floats (and of Decimals) that aren't numbers, and what C++ and Java write for them.
_NOT_FINITE: Final = {
    "nan": '"NaN"',
    "inf": '"Infinity"',
    "-inf": '"-Infinity"',
    "NaN": '"NaN"',
    "-NaN": '"NaN"',
    "Infinity": '"Infinity"',
    "-Infinity": '"-Infinity"',
}

#: What Apache's Python writer escapes, and the other control characters as its C++ and Java writers do.
_ESCAPES: Final = {chr(code): encode_basestring(chr(code))[1:-1] for code in (*range(0x20), 0x22, 0x5C)}

#: How a generated `validate` names a field that is required and unset.
_required: Final = re.compile(r"Required field (\w+) is unset!").fullmatch

#: How CPython names the type of what isn't a container.
_wrong_type: Final = re.compile(
    r"object of type '([\w.]+)' has no len\(\)|'([\w.]+)' object is not iterable"
).fullmatch

#: Characters of a field's path that a message holds; a struct within itself has no end.
_MAX_PATH: Final = 300

#: Names of an enum's members that a message holds.
_MAX_NAMES: Final = 10

#: Methods that a value lacks when it isn't the map that a generated `write` takes it for.
_MAP_METHODS: Final = frozenset({"items", "keys", "values"})


class UnwritableValueError(Exception):
    """Raised where a value can't be written; its text says why, without the value."""


def integer_text(value: Any, low: int, high: int, *, key: bool = False) -> str:  # noqa: ANN401 - fields are untyped
    """Return the text of `value` in an integer field, as Apache formats it where that is JSON.

    Args:
        value: Anything that Apache's writer takes: an int, or what compares and formats like a number.
        low: Least value of the field's type.
        high: Greatest value of the field's type.
        key: Whether it is the key of a map, and so stands between quotes (which aren't returned).

    Raises:
        UnwritableValueError: if it is out of range, or its text isn't JSON and it isn't an int.
    """
    try:
        outside = bool(value < low or value > high)
        text = f"{value}"
    except Exception:  # noqa: BLE001 - what a foreign type raises can be anything
        raise UnwritableValueError(_expected("an integer", value)) from None
    if outside:
        raise UnwritableValueError(f"out of range, expected an integer from {low} to {high}")
    if (_is_plain if key else _is_number)(text):
        return text
    if isinstance(value, int):
        return int.__repr__(value)
    raise UnwritableValueError(_expected("an integer", value))


def double_text(value: Any, *, key: bool = False) -> str:  # noqa: ANN401 - fields are untyped
    """Return the text of `value` in a double field: `%.17g`, or a quoted string where that isn't a number.

    Args:
        value: A float, or what formats like one.
        key: Whether it is the key of a map, and so stands between quotes (which aren't returned).

    Raises:
        UnwritableValueError: if it isn't a number.
    """
    if type(value) is int and -_EXACT <= value <= _EXACT:
        return f"{value}"
    try:
        text = f"{value:.17g}"
    except Exception:  # noqa: BLE001 - what a foreign type raises can be anything
        raise UnwritableValueError(_expected("a double", value)) from None
    if (_is_plain if key else _is_number)(text):
        return text
    if text in _NOT_FINITE:
        return _NOT_FINITE[text]
    raise UnwritableValueError(_expected("a double", value))


def base64_text(value: Any) -> str:  # noqa: ANN401 - fields are untyped
    """Return the base64 form of a bytes-like `value`, with padding and between quotes."""
    return f'"{b2a_base64(value, newline=False).decode("ascii")}"'


def write_fallback(struct: object) -> bytes:
    """Return the TJSON form of `struct` as its own `write` gives it, mended to be JSON.

    Args:
        struct: An object with a `write(oprot)` method, such as an instance of a generated class.

    Raises:
        EventNotSerializableError: if it can't be written; names the field, and never shows a value.
    """
    mended = _protocol_class()(importlib.import_module("thrift.transport.TTransport").TMemoryBuffer())
    try:
        return _written(struct, mended)
    except Exception as error:  # noqa: BLE001 - a `write` may raise anything
        field, problem = mended.explain(error)
    raise EventNotSerializableError(field, problem)


def _written(struct: Any, mended: _CorrectedProtocol) -> bytes:  # noqa: ANN401 - duck-typed on purpose
    if isinstance(struct, type) or not callable(getattr(struct, "write", None)):
        found = "a class" if isinstance(struct, type) else type(struct).__name__
        raise UnwritableValueError(f"expected an instance of a generated Thrift class, got {found}")
    struct.write(mended)
    data = mended.trans.getvalue()
    try:
        json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except ValueError:
        raise UnwritableValueError("its own write gives no JSON; compare it with a generated one") from None
    return data


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError


def _expected(what: str, value: object) -> str:
    return f"expected {what}, got {type(value).__name__}"


def _enum_problem(error: Exception) -> str:
    """Say what is wrong where generated code can't make a number of an enum; empty if `error` is another.

    Of the value only what the schema has is shown: the compiler itself makes a member the default of a field
    that takes its name.
    """
    if isinstance(error, AttributeError) and error.name == "value":  # as in `self.kind.value`
        return _expected("a member of its enum", error.obj)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_code is not EnumMeta.__getitem__.__code__:
        return ""
    variables = trace.tb_frame.f_locals  # as in `Kind[self.kind].value`
    enum: type[Enum] = variables["cls"]
    value: object = variables["name"]
    names = list(enum.__members__)
    shown = ", ".join(names[:_MAX_NAMES]) + (", ..." if len(names) > _MAX_NAMES else "")
    expected = f"the name of a member of the enum {enum.__name__} as a str ({shown})"
    if isinstance(value, enum):
        return f"expected {expected}, got the member {value.name}"
    if type(value) is int and (known := [name for name in names if enum[name].value == value]):
        return f"expected {expected}, got {value}, the number of {known[0]}"
    return _expected(expected, value) + (" that is none of them" if isinstance(value, str) else "")


class _Context(Protocol):
    """What Apache's protocol knows of the place that it writes to."""

    def write(self) -> None:
        """Write the comma or colon that is due."""
        ...

    def escapeNum(self) -> bool:
        """Tell whether the place is a key, where a number stands between quotes."""
        ...


class _Transport(Protocol):
    """The memory that Apache's protocol writes to."""

    def write(self, buf: bytes) -> None:
        """Append `buf`."""
        ...

    def getvalue(self) -> bytes:
        """Return all that was written."""
        ...


class _Step:
    """One step of the path to the value that is being written.

    Attributes:
        name: Name of the field, or empty for the items of a list, set or map.
        types: Wire types of the values that follow each other here: of a field and a list one, of a map two.
        size: Values announced, or -1 for a field.
        done: Values written.
    """

    __slots__ = ("done", "name", "size", "types")

    def __init__(self, name: str, types: tuple[int, ...], size: int) -> None:
        self.name = name
        self.types = types
        self.size = size
        self.done = 0

    @property
    def at_key(self) -> bool:
        """Whether the next value is the key of a map."""
        return len(self.types) > 1 and self.done % len(self.types) == 0

    def __str__(self) -> str:
        if self.size < 0:
            return f".{self.name}"
        index = self.done // len(self.types)
        return f"[{index}]" if len(self.types) == 1 else f"{{{index}}}"


class _CorrectedProtocol:
    """What is put in front of Apache's `TJSONProtocol`; made one class with it by `_protocol_class`."""

    #: Apache limits the nesting since 0.24; older releases don't, and neither does JSON.
    DEFAULT_RECURSION_DEPTH = 1 << 30

    apache: Any
    context: _Context
    contextStack: list[_Context]  # noqa: N815 - Apache's name
    trans: _Transport

    def __init__(self, trans: _Transport) -> None:
        self.steps: list[_Step] = []
        self.apache.__init__(self, trans)

    # --- leaves ---

    def writeBool(self, boolean: object) -> None:
        self.apache.writeBool(self, boolean)
        self._count()

    def writeByte(self, byte: object) -> None:
        self._write_integer(byte, 8)

    def writeI16(self, i16: object) -> None:
        self._write_integer(i16, 16)

    def writeI32(self, i32: object) -> None:
        self._write_integer(i32, 32)

    def writeI64(self, i64: object) -> None:
        self._write_integer(i64, 64)

    def writeDouble(self, dbl: object) -> None:
        self.context.write()
        key = self.context.escapeNum()
        self._write_quoted(double_text(dbl, key=key), quoted=key)
        self._count()

    def writeString(self, string: Iterable[str]) -> None:
        self.writeJSONString(string)
        self._count()

    def writeBinary(self, binary: object) -> None:
        self.context.write()
        try:
            text = base64_text(binary)
        except Exception:  # noqa: BLE001 - what a foreign type raises can be anything
            raise UnwritableValueError(_expected("bytes", binary)) from None
        self._write_quoted(text, quoted=False)
        self._count()

    def writeUuid(self, uuid: object) -> None:
        self.writeJSONString(str(uuid))
        self._count()

    def writeJSONString(self, string: Iterable[str]) -> None:
        self.context.write()
        try:
            # Apache goes through it item by item, so a list of characters does too.
            text = "".join([_ESCAPES.get(item, item) for item in string])
        except TypeError:
            raise UnwritableValueError(_expected("a str", string)) from None
        self._write_quoted(text, quoted=True)

    def _write_integer(self, value: object, bits: int) -> None:
        self.context.write()
        key = self.context.escapeNum()
        limit = 1 << (bits - 1)
        self._write_quoted(integer_text(value, -limit, limit - 1, key=key), quoted=key)
        self._count()

    def _write_quoted(self, text: str, *, quoted: bool) -> None:
        try:
            self.trans.write((f'"{text}"' if quoted else text).encode())
        except UnicodeEncodeError:
            raise UnwritableValueError("holds a lone surrogate, which UTF-8 can't carry") from None

    # --- structs and containers ---

    def writeFieldBegin(self, name: str, ttype: int, id: int) -> None:  # noqa: A002 - Apache's name
        self.steps.append(_Step(name, (ttype,), -1))
        self.apache.writeFieldBegin(self, name, ttype, id)

    def writeFieldEnd(self) -> None:
        self.apache.writeFieldEnd(self)
        self.steps.pop()

    def writeStructEnd(self) -> None:
        self.apache.writeStructEnd(self)
        self._count()

    def writeListBegin(self, etype: int, size: int) -> None:
        self.apache.writeListBegin(self, etype, size)
        self.steps.append(_Step("", (etype,), size))

    def writeListEnd(self) -> None:
        self._close_items()
        self.apache.writeListEnd(self)

    def writeSetBegin(self, etype: int, size: int) -> None:
        self.apache.writeSetBegin(self, etype, size)
        self.steps.append(_Step("", (etype,), size))

    def writeSetEnd(self) -> None:
        self._close_items()
        self.apache.writeSetEnd(self)

    def writeMapBegin(self, ktype: int, vtype: int, size: int) -> None:
        self.apache.writeMapBegin(self, ktype, vtype, size)
        self.steps.append(_Step("", (ktype, vtype), size))

    def writeMapEnd(self) -> None:
        self._close_items()
        self.apache.writeMapEnd(self)

    def writeJSONObjectStart(self) -> None:
        self.apache.writeJSONObjectStart(self)
        self._refuse_as_key()

    def writeJSONArrayStart(self) -> None:
        self.apache.writeJSONArrayStart(self)
        self._refuse_as_key()

    def _refuse_as_key(self) -> None:
        if self.contextStack[-2].escapeNum():
            raise UnwritableValueError("JSON has no place for a struct or container as the key of a map")

    def _count(self) -> None:
        if self.steps:
            self.steps[-1].done += 1

    def _close_items(self) -> None:
        step = self.steps.pop()
        if step.done != step.size * len(step.types):
            raise UnwritableValueError("its size changed while it was written; put a copy of it")
        self._count()

    # --- errors ---

    def explain(self, error: Exception) -> tuple[str, str]:
        """Return the path and the problem of `error`, which a `write` to this protocol raised."""
        if isinstance(error, AttributeError) and error.name in _MAP_METHODS and self.steps:
            # Not a map, but something with a length: it isn't the first key that is wrong.
            self.steps.pop()
        path = "".join(map(str, self.steps))
        step = self.steps[-1] if self.steps else None
        text = next((arg for arg in error.args if isinstance(arg, str)), "")
        problem = f"writing it raised {type(error).__name__}"
        if isinstance(error, UnwritableValueError):
            problem = text
        elif isinstance(error, RecursionError):
            problem = "structs nested too deep, or within themselves"
        elif isinstance(error, AttributeError) and error.name in _MAP_METHODS | {"write"}:
            problem = _expected("a struct" if error.name == "write" else "a map", error.obj)
        elif isinstance(error, AttributeError) and hasattr(error.obj, "thrift_spec"):
            path += f".{error.name}"
            problem = "the struct has no such attribute; make it with the constructor of its class"
        elif required := _required(text):
            path += f".{required[1]}"
            problem = "required, but unset"
        elif step is not None and isinstance(error, TypeError) and (wrong := _wrong_type(text)):
            expected = _TYPE_NAMES.get(step.types[step.done % len(step.types)], "another type")
            problem = f"expected {expected}, got {wrong[1] or wrong[2]}"
        else:
            problem = _enum_problem(error) or problem
        if step is not None and step.at_key:
            problem = f"the key of this entry: {problem}"
        path = path.removeprefix(".")
        return (path if len(path) <= _MAX_PATH else f"{path[:_MAX_PATH]}..."), problem


@functools.cache
def _protocol_class() -> type[Any]:
    """Return Apache's protocol with ours in front; imports the `thrift` library at the first call."""
    apache = importlib.import_module("thrift.protocol.TJSONProtocol").TJSONProtocol
    return type("MendedJSONProtocol", (_CorrectedProtocol, apache), {"apache": apache})
