"""Writes the stub file of a schema.

In a class or module, a name of the schema hides the builtin or class of the same name. So each name used in
a type is checked, and written in another way if the schema has it too.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Final, cast

from .schema import ENUM_TABLES, Constant, Enum, Schema, Struct
from .types import Container, MemberNames, Reference, ScalarType, Type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: First line of each stub; a later run recognises by it that it may replace the file.
MARK: Final = "# Written by the command thrift-stubs, which replaces this file when it runs again."

#: Modules of names that aren't builtins.
_MODULES: Final = {
    **dict.fromkeys(("Any", "ClassVar", "Final", "Literal", "NoReturn"), "typing"),
    "IntEnum": "enum",
    "UUID": "uuid",
}


def write_stub(schema: Schema) -> tuple[str, set[str]]:
    """Return the stub of a module, and the modules whose types it uses; possibly including its own."""
    writer = _StubWriter(schema)
    return writer.text(), set(writer.modules)


class _StubWriter:
    """Writes one stub, and collects what it imports."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        fields = {
            field.name
            for struct in schema.definitions
            if isinstance(struct, Struct)
            for field in struct.fields
        }
        members = {name for kind in schema.definitions if isinstance(kind, Enum) for name in kind.members}
        #: Names with another meaning inside a class.
        self._inside = fields | members | {"read", "write", "validate", "thrift_spec", *ENUM_TABLES}
        #: Names with another meaning in the module.
        self._outside = {definition.name for definition in schema.definitions} | schema.imported
        self._imports: dict[str, None] = {}
        self._aliases: dict[str, None] = {}
        self.modules: dict[str, None] = {}

    def text(self) -> str:
        """Return the stub."""
        body = [line for definition in self._schema.definitions for line in ("", *self._define(definition))]
        stars = [f"from {module} import *" for module in self._schema.reexports]
        # A stub may refer to later names, but tests run it as Python, and then aliases need their classes
        # first.
        lines = [MARK, *sorted(self._imports), *stars, *body, *self._aliases]
        return "\n".join(lines) + "\n"

    def _define(self, definition: Struct | Enum | Constant) -> Iterable[str]:
        if isinstance(definition, Struct):
            return self._struct(definition)
        if isinstance(definition, Enum):
            return self._enum(definition)
        return [f"{definition.name}: {self._type_of(definition.value)}"]

    def _enum(self, kind: Enum) -> Iterator[str]:
        if kind.real:
            yield f"class {kind.name}({self._name('IntEnum')}):"
            yield from (f"    {name} = {value}" for name, value in kind.members.items())
            if not kind.members:
                yield "    ..."
            return
        yield f"class {kind.name}:"
        yield from (f"    {name}: {self._name('Final')} = {value}" for name, value in kind.members.items())
        keys = ("int", "str"), ("str", "int")
        for table, (key, value) in zip(ENUM_TABLES, keys, strict=True):
            mapping = f"{self._name('dict')}[{self._name(key)}, {self._name(value)}]"
            yield f"    {table}: {self._name('ClassVar')}[{mapping}]"

    def _struct(self, struct: Struct) -> Iterator[str]:
        base = f"({self._name('Exception')})" if struct.exception else ""
        yield f"class {struct.name}{base}:"
        yield f"    thrift_spec: {self._name('ClassVar')}[{self._name('Any')}]"
        arguments = ["self"]
        if struct.fields:
            arguments.append("*")
        for field in struct.fields:
            written = self._type(field.type) + ("" if field.required else " | None")
            arguments.append(f"{field.name}: {written}" + (f" = {field.default}" if field.default else ""))
            if struct.frozen:
                yield f"    @{self._name('property')}"
                yield f"    def {field.name}(self) -> {written}: ..."
            else:
                yield f"    {field.name}: {written}"
        yield f"    def __init__({', '.join(arguments)}) -> None: ..."
        names = {field.name for field in struct.fields}
        any_ = self._name("Any")
        methods = {
            "read": f"(self, iprot: {any_}) -> None: ...",
            "write": f"(self, oprot: {any_}) -> None: ...",
            "validate": "(self) -> None: ...",
        }
        for name, signature in methods.items():
            if name not in struct.writes or name in names:
                continue  # a field of that name hides the method, and such a struct can't be put
            if name == "read" and struct.frozen:
                yield f"    @{self._name('classmethod')}"
                yield f"    def read(cls, iprot: {any_}) -> {self._own(struct.name)}: ..."
            else:
                yield f"    def {name}{signature}"
        yield f"    def __eq__(self, other: {self._name('object')}) -> {self._name('bool')}: ..."
        if struct.hashable:
            yield f"    def __hash__(self) -> {self._name('int')}: ..."
        else:
            yield f"    __hash__: {self._name('ClassVar')}[None]  # type: ignore[assignment]"

    def _type(self, found: Type) -> str:
        if isinstance(found, ScalarType):
            return found.name if found.name == "..." else self._name(found.name)
        if isinstance(found, MemberNames):
            return f"{self._name('Literal')}[{', '.join(map(repr, found.names))}]"
        if isinstance(found, Container):
            return f"{self._name(found.name)}[{', '.join(map(self._type, found.items))}]"
        return self._reference(found)

    def _reference(self, found: Reference) -> str:
        module = found.cls.__module__
        self.modules[module] = None
        if module == self._schema.module:
            return self._own(found.cls.__name__)
        alias = self._unused(module.replace(".", "_"))
        self._imports[f"import {module} as {alias}"] = None
        return f"{alias}.{found.cls.__name__}"

    def _own(self, name: str) -> str:
        """Return how a type refers to a class of this module."""
        if name not in self._inside:
            return name
        alias = self._unused(name)
        self._aliases[f"{alias} = {name}"] = None
        return alias

    def _name(self, name: str) -> str:
        """Return how to refer to a Python name, and import it if needed."""
        module = _MODULES.get(name, "builtins")
        if name in self._inside or name in self._outside:
            alias = self._unused(module)
            self._imports[f"import {module} as {alias}"] = None
            return f"{alias}.{name}"
        if module != "builtins":
            self._imports[f"from {module} import {name}"] = None
        return name

    def _unused(self, name: str) -> str:
        alias = f"_{name}"
        while alias in self._inside or alias in self._outside:
            alias += "_"  # leading underscores would make it a private name of the class
        return alias

    def _type_of(self, value: object) -> str:
        """Return the type of a constant."""
        if isinstance(value, enum.Enum) or hasattr(type(value), "thrift_spec"):
            return self._reference(Reference(type(value)))
        if isinstance(value, Mapping):
            mapping = cast("Mapping[object, object]", value)
            return self._container("dict", mapping.keys(), mapping.values())
        if isinstance(value, AbstractSet):
            name = "set" if isinstance(value, set) else "frozenset"
            return self._container(name, cast("AbstractSet[object]", value))
        if isinstance(value, (list, tuple)):
            items = cast("Sequence[object]", value)
            if isinstance(value, list):
                return self._container("list", items)
            return f"{self._name('tuple')}[{self._union(items)}, ...]"
        return self._name(type(value).__name__)

    def _container(self, name: str, *parts: Iterable[object]) -> str:
        return f"{self._name(name)}[{', '.join(map(self._union, parts))}]"

    def _union(self, values: Iterable[object]) -> str:
        """Return the type of any of these values."""
        types = sorted({self._type_of(value) for value in values})
        return " | ".join(types) or self._name("Any")
