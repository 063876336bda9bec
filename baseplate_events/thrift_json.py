"""Thrift structs to TJSON, by a writer compiled once for each class from its `thrift_spec`.

Rules:

1. The output is that of `thrift_fallback.write_fallback`: Apache's, byte for byte, if that is JSON.
2. A compiled writer only takes what it knows. It checks the type of each number, lets the C encoder of
   `json` refuse what isn't a str, and raises on anything else. The struct is then written again by the
   fallback, which is slow, takes all that Apache's writer takes, and names the field of an error.
3. A class is compiled only where its `write` is one that the Thrift compiler made (or `TBase` has) and
   agrees with its spec. Any other class, such as one that overrides `write`, has negative field ids or a
   spec that isn't filled in yet, is written by the fallback, also within structs that are compiled.
4. A nested struct is written by the writer of its own class, whatever class the spec has in its place.

How it works: the writer of a class is a Python function with one f-string for each field, a list, set or
map of a field is a function beside it, and a struct within looks up the writer of its class by its type.
A spec that is filled in late (`fix_spec`) needs no care then: each class is looked at when it is first
written.
"""

from __future__ import annotations

import keyword
from binascii import b2a_base64
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import IntEnum
from json.encoder import encode_basestring
from types import FunctionType
from typing import Any, Final, NamedTuple, cast

from .errors import EventNotSerializableError
from .thrift_fallback import double_text, integer_text, number_text, write_fallback

#: Takes a struct, list, set or map and returns its JSON text.
_Writer = Callable[[Any], str]

#: Classes whose writers are kept. A schema has hundreds; only a program that keeps making classes
#: reaches it, and then compiles them again rather than holding on to all of them.
_MAX_WRITERS: Final = 4096

#: Wire types of Thrift's protocols that this module tells apart, by their number.
_BOOL, _DOUBLE, _I32, _STRING, _STRUCT, _MAP, _SET, _LIST, _UUID = 2, 4, 8, 11, 12, 13, 14, 15, 16

#: Names of the wire types in TJSON, by their number.
_TAGS: Final = {
    2: "tf",
    3: "i8",
    4: "dbl",
    6: "i16",
    8: "i32",
    10: "i64",
    11: "str",
    12: "rec",
    13: "map",
    14: "set",
    15: "lst",
    16: "uid",
}

#: Bits of the integer types, by their number.
_BITS: Final = {3: 8, 6: 16, 8: 32, 10: 64}

#: Names in the code of `TBase.write`, which follows the spec.
_DYNAMIC_NAMES: Final = frozenset(
    {"_fast_encode", "thrift_spec", "trans", "write", "__class__", "writeStruct"}
)

#: Names in the code of each `write` that the compiler generates.
_GENERATED_NAMES: Final = frozenset({"writeStructBegin", "writeFieldStop", "writeStructEnd"})

#: Names that may be there too, with those of the fields. A foreign one means that the code was changed.
_KNOWN_NAMES: Final = (
    _GENERATED_NAMES
    | _DYNAMIC_NAMES
    | {"validate", "increment_recursion_depth", "decrement_recursion_depth", "len", "items", "value"}
    | {"sys", "version_info", "encode", "TType"}
    | {"BOOL", "BYTE", "I08", "I16", "I32", "I64", "DOUBLE", "STRING", "STRUCT", "MAP", "SET", "LIST", "UUID"}
    | {f"write{kind}{end}" for kind in ("Field", "Map", "List", "Set") for end in ("Begin", "End")}
    | {"writeBool", "writeByte", "writeI16", "writeI32", "writeI64", "writeDouble"}
    | {"writeString", "writeUtf8", "writeBinary", "writeUuid"}
)


def write_struct(struct: object) -> bytes:
    """Return the TJSON form of a Thrift struct: one JSON object, in UTF-8.

    Safe to call from any thread. The struct isn't changed.

    Args:
        struct: An instance of a class that the Thrift compiler generated, of any shape, or of one that
            writes itself to a Thrift protocol.

    Raises:
        EventNotSerializableError: if a value isn't of the type of its field, is out of its range, is
            missing or can't be carried by UTF-8, or if structs are nested too deep. It names the field
            and shows no value.
    """
    try:
        return _writers[type(struct)](struct).encode()
    except Exception:  # noqa: BLE001, S110 - the fallback names it, or takes it
        pass
    try:
        return write_fallback(struct)
    except EventNotSerializableError:
        raise
    except Exception as error:  # noqa: BLE001 - such as a stack that is full before anything was written
        problem = f"writing it raised {type(error).__name__}"
    raise EventNotSerializableError("", problem)


def is_compiled(cls: type) -> bool:
    """Return whether a class has a compiled writer; the instances of others are slow to write."""
    return _writers[cls] is not _write_by_fallback


def _write_by_fallback(struct: object) -> str:
    return write_fallback(struct).decode()


class _Writers(dict[type, _Writer]):
    """The writer of each class, made when it is first asked for.

    Two threads may compile the same class at once; either result will do.
    """

    def __missing__(self, cls: type) -> _Writer:
        spec = getattr(cls, "thrift_spec", None)
        if spec is None:
            # Not a struct, or one whose module is still being imported.
            return _write_by_fallback
        try:
            writer = _compile(cls, spec)
        except _UnknownShapeError:
            writer = _write_by_fallback
        if len(self) >= _MAX_WRITERS:
            self.clear()
        self[cls] = writer
        return writer


_writers: Final = _Writers()


class _UnknownShapeError(Exception):
    """Raised if a class isn't as the Thrift compiler makes it, so its own `write` has to be asked."""


def _compile(cls: type, spec: object) -> _Writer:
    """Return the writer of a class.

    Raises:
        _UnknownShapeError: if its spec or its `write` isn't one that the Thrift compiler makes.
    """
    if not isinstance(spec, tuple):
        raise _UnknownShapeError
    entries = [_unpack(entry, 4) for entry in cast("tuple[object, ...]", spec) if entry is not None]
    names = [name for _, _, name, _ in entries if isinstance(name, str)]
    if len(set(names)) != len(entries) or not all(map(_is_attribute, names)):
        raise _UnknownShapeError
    shape = _shape_of_write(cls, frozenset(names))
    source = _Source(shape.enums)
    fields: dict[str, str] = {}
    for name, (fid, wire_type, _, inner) in zip(names, entries, strict=True):
        if type(fid) is not int:
            raise _UnknownShapeError
        value = source.value(wire_type, inner, f"v{len(fields)}")
        fields[name] = f'"{fid}":{{{{"{_tag(wire_type)}":{{{value}}}}}}}'
    return source.build(fields, validates=shape.validates, title=cls.__name__)


def _is_attribute(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name)


class _Shape(NamedTuple):
    """What the `write` of a class does beside following the spec.

    Attributes:
        validates: Whether it calls `validate()` first.
        enums: For each i32, in the order of writing, the numbers by name where an enum's name stands for
            it (compilers of 0.14 to 0.18 with `py:enum`), else None; empty where that can't be.
    """

    validates: bool
    enums: Sequence[Mapping[str, int] | None]


def _shape_of_write(cls: type, fields: AbstractSet[str]) -> _Shape:
    """Look at the `write` of a class.

    Raises:
        _UnknownShapeError: if the Thrift compiler makes none like it, or it writes other fields.
    """
    write = getattr(cls, "write", None)
    if not isinstance(write, FunctionType):
        raise _UnknownShapeError
    names = frozenset(write.__code__.co_names)
    if "writeStruct" in names and names <= _DYNAMIC_NAMES:
        return _Shape(validates=False, enums=())
    enums = {name: _numbers(write.__globals__.get(name)) for name in names - _KNOWN_NAMES - fields}
    if not _GENERATED_NAMES | fields <= names:
        raise _UnknownShapeError
    return _Shape(validates="validate" in names, enums=_enums_written(write, enums) if enums else ())


def _enums_written(
    write: FunctionType, enums: Mapping[str, Mapping[str, int]]
) -> list[Mapping[str, int] | None]:
    import dis  # noqa: PLC0415 - a slow import, for the output of some compilers only

    found: list[Mapping[str, int] | None] = []
    for instruction in dis.get_instructions(write):
        # As in `oprot.writeI32(Kind[self.kind].value)`.
        if instruction.argval == "writeI32":
            found.append(None)
        elif instruction.opname == "LOAD_GLOBAL" and instruction.argval in enums and found:
            found[-1] = enums[instruction.argval]
    return found


def _numbers(enum: object) -> Mapping[str, int]:
    """Return the numbers of an enum by name."""
    if not (isinstance(enum, type) and issubclass(enum, IntEnum)):
        raise _UnknownShapeError
    return {name: member.value for name, member in enum.__members__.items()}


def _unpack(spec: object, size: int) -> tuple[object, ...]:
    """Return the first `size` items of a part of a spec, which may have more and be a list."""
    if not isinstance(spec, (tuple, list)):
        raise _UnknownShapeError
    items = tuple(cast("tuple[object, ...]", spec))
    if len(items) < size:
        raise _UnknownShapeError
    return items[:size]


def _tag(wire_type: object) -> str:
    tag = _TAGS.get(wire_type) if isinstance(wire_type, int) else None
    if tag is None:
        raise _UnknownShapeError
    return tag


class _Source:
    """The source of one writer and of the functions beside it.

    Expressions stand in f-strings of three double quotes, so theirs are single ones.
    """

    def __init__(self, enums: Sequence[Mapping[str, int] | None]) -> None:
        self._functions: list[str] = []
        self._enums = deque(enums)
        self._has_enums = bool(enums)
        self._names: dict[str, object] = {
            "S": encode_basestring,
            "B": _base64,
            "I": integer_text,
            "D": double_text,
            "N": number_text,
            "W": _writers,
        }

    def value(self, wire_type: object, inner: object, name: str) -> str:
        """Return the expression that writes the value of variable `name`: a str, or an int for an int."""
        if wire_type == _STRUCT:
            return f"W[type({name})]({name})"
        if wire_type in (_LIST, _SET):
            return f"{self._list(inner)}({name})"
        if wire_type == _MAP:
            return f"{self._map(inner)}({name})"
        if wire_type == _DOUBLE:
            # Of floats only NaN and the infinities aren't 0 less themselves.
            known = f"type({name}) is float and {name} - {name} == 0.0 or type({name}) is int"
            return f"'%.17g' % {name} if {known} else D({name})"
        return self._scalar(wire_type, inner, name)

    def _key(self, wire_type: object, inner: object, name: str) -> str | None:
        """Return the part of an f-string that writes the key of a map; None where JSON has no such key."""
        if wire_type in (_STRUCT, _LIST, _SET, _MAP):
            self.value(wire_type, inner, name)
            return None
        if wire_type == _DOUBLE:
            return f"\"{{'%.17g' % {name} if type({name}) is float else N({name}, '.17g')}}\""
        text = f"{{{self._scalar(wire_type, inner, name)}}}"
        return text if wire_type in (_STRING, _UUID) else f'"{text}"'

    def _scalar(self, wire_type: object, inner: object, name: str) -> str:
        if wire_type == _STRING:
            return f"{'B' if inner == 'BINARY' else 'S'}({name})"
        if wire_type == _BOOL:
            return f"'1' if {name} is True else '0'"
        if wire_type == _UUID:
            return f"S(str({name}))"
        if not isinstance(wire_type, int) or wire_type not in _BITS:
            raise _UnknownShapeError
        if wire_type == _I32 and self._has_enums:
            if not self._enums:
                raise _UnknownShapeError
            numbers = self._enums.popleft()
            if numbers is not None:
                names = f"N{len(self._names)}"
                self._names[names] = numbers
                return f"{names}[{name}]"
        limit = 1 << (_BITS[wire_type] - 1)
        known = f"type({name}) is int and {-limit} <= {name} <= {limit - 1}"
        return f"{name} if {known} else I({name}, {-limit}, {limit - 1})"

    def _list(self, spec: object) -> str:
        wire_type, inner = _unpack(spec, 2)
        item = self.value(wire_type, inner, "x")
        if wire_type in _BITS:
            item = f'f"{{{item}}}"'
        return self._container(f'"{_tag(wire_type)}"', f"{item} for x in v", "0", "{n},{p}")

    def _map(self, spec: object) -> str:
        key_type, key_inner, wire_type, inner = _unpack(spec, 4)
        key = self._key(key_type, key_inner, "k")
        value = self.value(wire_type, inner, "x")
        # Of keys that JSON hasn't there can be none: a pair isn't a str.
        item = f'f"""{key}:{{{value}}}""" for k, x' if key else "pair for pair"
        return self._container(
            f'"{_tag(key_type)}","{_tag(wire_type)}"', f"{item} in v.items()", "0,{}", "{n},{{{p}}}"
        )

    def _container(self, tags: str, items: str, empty: str, full: str) -> str:
        """Add a function that writes a container, and return its name.

        Args:
            tags: The wire types of its items, as JSON.
            items: What gives a str for each item of `v`.
            empty: What follows the tags, as JSON, where there is no item.
            full: The part of an f-string for it where there are `n` items, `p` joined.
        """
        name = f"c{len(self._functions)}"
        self._functions.append(
            f"def {name}(v):\n"
            " n = len(v)\n"
            f" p = [{items}]\n"
            # Another thread changed it meanwhile.
            " if len(p) != n: raise ValueError\n"
            f" if not p: return '[{tags},{empty}]'\n"
            " p = ','.join(p)\n"
            f" return f'[{tags},{full}]'\n"
        )
        return name

    def build(self, fields: Mapping[str, str], *, validates: bool, title: str) -> _Writer:
        """Return the function that writes a struct.

        Args:
            fields: For each attribute the part of an f-string that writes it, in order.
            validates: Whether the struct is asked to `validate()` first.
            title: Name of the class.

        Raises:
            _UnknownShapeError: if the class writes more enums than its spec has integers.
        """
        if self._enums:
            raise _UnknownShapeError
        variables = {f"v{index}": name for index, name in enumerate(fields)}
        lines = ["def write(s):"]
        if validates:
            lines.append(" s.validate()")
        lines += [f" {variable} = s.{name}" for variable, name in variables.items()]
        # All fields at once where all are set, which is a third faster; else one by one.
        lines += [
            f" if {' and '.join(f'{variable} is not None' for variable in variables) or 'True'}:",
            f'  return f"""{{{{{",".join(fields.values())}}}}}"""',
            " o = ''",
        ]
        for variable, text in zip(variables, fields.values(), strict=True):
            lines += [f" if {variable} is not None:", f'  o += f""",{text}"""']
        lines.append(" return f'{{{o[1:]}}}'")
        source = "\n".join([*self._functions, *lines])
        # Made of the numbers and identifiers of a spec, each of them checked: nothing foreign gets in.
        exec(compile(source, f"<TJSON writer of {title}>", "exec"), self._names)  # noqa: S102
        return cast("_Writer", self._names["write"])


def _base64(value: Any) -> str:  # noqa: ANN401 - fields are untyped
    return f'"{b2a_base64(value, newline=False).decode("ascii")}"'
