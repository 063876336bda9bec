r"""The slow, exact way to write a Thrift struct as TJSON: Apache's own protocol, corrected to produce JSON.

Rules:

1. A struct writes itself, with its own `write`, to a subclass of Apache's `TJSONProtocol`. So the output of
   any class, generated or handwritten, is that of Apache's Python library, byte for byte.
2. If that isn't JSON, the output is that of Apache's C++ and Java libraries: `\u00xx` for control
   characters, `"NaN"`, `"Infinity"` and `"-Infinity"`, and the value of a bool or other int whose text
   isn't a number. If those have no JSON form either, the event is refused.
3. The protocol tracks the path of the value being written, so an error names the field.
4. The output is parsed before it is returned, so it is JSON whatever a `write` does.

This is the only module that uses the `thrift` library. It imports it at first use: a service whose classes
were all compiled (see `thrift_json`) never pays for it.
"""

# ruff: noqa: N802 - the methods of the protocol have the names and the contracts of Apache's
from __future__ import annotations

import functools
import importlib
import json
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from .errors import EventNotSerializableError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: JSON's grammar of a number (RFC 8259, section 6).
_is_number: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?").fullmatch

#: Texts of Python's floats and Decimals that aren't numbers, and what Apache's C++ and Java libraries write.
_NOT_FINITE: Final = {
    "nan": '"NaN"',
    "inf": '"Infinity"',
    "-inf": '"-Infinity"',
    "NaN": '"NaN"',
    "-NaN": '"NaN"',
    "Infinity": '"Infinity"',
    "-Infinity": '"-Infinity"',
}

#: Characters that Apache's Python library writes raw, but JSON allows only escaped in a string.
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")

_I32: Final = 8
_STRUCT: Final = 12

#: Wire types by their number in Thrift's protocols, as error messages name them.
_TYPE_NAMES: Final = {
    2: "a bool",
    3: "an i8",
    4: "a double",
    6: "an i16",
    _I32: "an i32",
    10: "an i64",
    11: "a str or bytes",
    _STRUCT: "a struct",
    13: "a map",
    14: "a set",
    15: "a list",
    16: "a UUID",
}

#: What an enum field accepts, by type and by how the generated code fails: `Kind[self.kind].value` looks up
#: a name, although the compiler's default is a member; `self.kind.value` needs a member.
_REMEDIES: Final[dict[tuple[int, type[Exception]], str]] = {
    (_I32, KeyError): "; this enum field takes the name of a member (a str); replace its default too",
    (_I32, AttributeError): "; this enum field takes a member",
}

#: How a generated `validate` names a field that is required and unset.
_required: Final = re.compile(r"Required field (\w+) is unset!").fullmatch

#: Characters of a field's path in a message; a struct that contains itself has an endless path.
_MAX_PATH: Final = 300


class _NotJSONError(Exception):
    """Raised if the output isn't JSON and can't be corrected; the text says why, without the value."""


def number_text(value: object, form: str = "") -> str:
    """Return the text of a number as Apache formats it.

    Raises:
        Exception: Of any kind, if it has no such text; `write_fallback` then finds out why.
    """
    text = format(value, form)
    if _is_number(text):
        return text
    raise ValueError


def integer_text(value: Any, low: int, high: int) -> str:  # noqa: ANN401 - fields are untyped
    """Likewise, return the text of `value` in an integer field of the range `low` to `high`."""
    if low <= value <= high:
        return number_text(value)
    raise ValueError


def double_text(value: object) -> str:
    """Likewise, return the text of `value` in a double field; NaN and infinities are quoted."""
    text = format(value, ".17g")
    return text if _is_number(text) else _NOT_FINITE[text]


def write_fallback(struct: Any) -> bytes:  # noqa: ANN401 - duck-typed on purpose
    """Return the TJSON form of `struct` as its own `write` produces it, corrected to be JSON.

    Args:
        struct: An object with a `write(oprot)` method, such as an instance of a generated class.

    Raises:
        EventNotSerializableError: It can't be written. The error names the field, and never shows a value.
    """
    protocol = _protocol_class()(importlib.import_module("thrift.transport.TTransport").TMemoryBuffer())
    try:
        struct.write(protocol)
        return _corrected(protocol.trans.getvalue())
    except Exception as error:  # noqa: BLE001 - a `write` may raise anything
        field, problem = _explain(protocol.steps, error)
    raise EventNotSerializableError(field, problem)


def _corrected(data: bytes) -> bytes:
    data = _CONTROLS.sub(lambda control: b"\\u%04x" % ord(control[0]), data)
    try:
        json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except ValueError:
        raise _NotJSONError("its own write produces no JSON; compare it with a generated one") from None
    return data


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError


class _Step:
    """One step of the path to the value being written: an open JSON array or object.

    Attributes:
        name: Name of a field with a leading dot; otherwise empty.
        types: Wire types of the values inside, in turn: one for a field or list, two for a map, none for a
            step that only encloses these.
        size: Values announced by a list, set or map, including keys; otherwise None.
        done: Values written.
    """

    __slots__ = ("done", "name", "size", "types")

    def __init__(self, name: str = "", types: tuple[int, ...] = (), size: int | None = None) -> None:
        self.name = name
        self.types = types
        self.size = size
        self.done = 0

    def __str__(self) -> str:
        if self.size is None:
            return self.name
        return f"[{self.done}]" if len(self.types) == 1 else f"{{{self.done // 2}}}"


def _explain(steps: list[_Step], error: Exception) -> tuple[str, str]:
    """Return the path and the problem of `error`, raised at these steps."""
    if isinstance(error, AttributeError) and error.name in {"items", "keys"} and str(steps[-1]) == "{0}":
        # A value with a length but no items isn't a map, so its first key isn't to blame.
        steps.pop()
    path = "".join(map(str, steps))
    if name := _unset_field(error):
        path += f".{name}"
        problem = "required, but not set"
    elif isinstance(error, _NotJSONError):
        problem = str(error)
    else:
        *_, wire_type = (step.types[step.done % len(step.types)] for step in steps if step.types)
        remedy = _REMEDIES.get((wire_type, type(error)), "")
        kind = _TYPE_NAMES.get(wire_type, "an unknown type")
        problem = f"writing it as {kind} raised {type(error).__name__}{remedy}"
    path = path.removeprefix(".")
    return (path if len(path) <= _MAX_PATH else f"{path[:_MAX_PATH]}..."), problem


def _unset_field(error: Exception) -> str:
    """Return the field that the struct lacks, or that its `validate` reports; empty if neither."""
    if isinstance(error, AttributeError) and hasattr(error.obj, "thrift_spec"):
        return str(error.name)
    required = _required(str(getattr(error, "message", "")))
    return required[1] if required else ""


class _Context(Protocol):
    """Apache's state for the JSON array or object being written."""

    def write(self) -> None:
        """Write the comma or colon that is due."""
        ...

    def escapeNum(self) -> bool:
        """Return whether the place is a key, where numbers are quoted."""
        ...


class _CorrectedProtocol:
    """Overrides for Apache's `TJSONProtocol`; `_protocol_class` combines the two."""

    #: Apache limits the nesting since 0.24; older releases don't, and neither does JSON.
    DEFAULT_RECURSION_DEPTH = 1 << 30

    apache: Any
    context: _Context
    trans: Any

    def __init__(self, trans: object) -> None:
        self.steps = [_Step(types=(_STRUCT,))]
        self.apache.__init__(self, trans)

    # --- values: each is counted when it is complete ---

    def writeJSONNumber(self, number: Any, formatter: str = "{0}") -> None:  # noqa: ANN401 - fields are untyped
        self.context.write()
        text = formatter.format(number)
        if self.context.escapeNum():
            text = f'"{text}"'
        elif not _is_number(text):
            text = int.__repr__(number) if formatter == "{0}" else double_text(number)
        self.trans.write(text.encode("ascii"))
        self.steps[-1].done += 1

    def writeJSONString(self, string: Iterable[str]) -> None:
        self.apache.writeJSONString(self, string)
        self.steps[-1].done += 1

    def writeJSONBase64(self, binary: object) -> None:
        self.apache.writeJSONBase64(self, binary)
        self.steps[-1].done += 1

    def pushContext(self, ctx: _Context) -> None:
        if self.context.escapeNum():
            raise _NotJSONError("JSON allows no struct or container as the key of a map")
        self.apache.pushContext(self, ctx)
        self.steps.append(_Step())

    def popContext(self) -> None:
        self.apache.popContext(self)
        step = self.steps.pop()
        if step.size not in {None, step.done}:
            raise _NotJSONError("its size changed while it was written; put a copy of it")
        self.steps[-1].done += 1

    # --- steps: each is named when Apache has opened it ---

    def writeFieldBegin(self, name: str, ttype: int, id: int) -> None:  # noqa: A002 - Apache's name
        self.apache.writeFieldBegin(self, name, ttype, id)
        self.steps[-1] = _Step(f".{name}", (ttype,))

    def writeListBegin(self, etype: int, size: int) -> None:
        self.apache.writeListBegin(self, etype, size)
        self.steps[-1] = _Step("", (etype,), size)

    writeSetBegin = writeListBegin  # noqa: N815 - Apache's name

    def writeMapBegin(self, ktype: int, vtype: int, size: int) -> None:
        self.apache.writeMapBegin(self, ktype, vtype, size)
        self.steps[-1] = _Step("", (ktype, vtype), 2 * size)


@functools.cache
def _protocol_class() -> type[Any]:
    """Return Apache's protocol with ours in front; imports the `thrift` library at the first call."""
    apache = importlib.import_module("thrift.protocol.TJSONProtocol").TJSONProtocol
    return type("CorrectedJSONProtocol", (_CorrectedProtocol, apache), {"apache": apache})
