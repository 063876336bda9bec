"""What the source of a generated class adds to its `thrift_spec`: enums, and which fields are required.

It reads the methods as the Thrift compiler writes them. If it finds nothing, it assumes the general case:
a number rather than an enum, an optional field rather than a required one.
"""

from __future__ import annotations

import ast
import enum
from typing import TYPE_CHECKING, Final

from .types import Leaf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

#: Python types of scalars, by the method that reads them.
_READERS: Final = {
    "readBool": "bool",
    "readByte": "int",
    "readI16": "int",
    "readI32": "int",
    "readI64": "int",
    "readDouble": "float",
    "readString": "str",
    "readBinary": "bytes",
    "readUuid": "UUID",
}


class ClassSource:
    """The methods of one class.

    Args:
        module: The module of the class, in which its names are resolved.
        node: The class in the source of that module.
    """

    def __init__(self, module: ModuleType, node: ast.ClassDef) -> None:
        self._module = module
        self._methods = {child.name: child for child in node.body if isinstance(child, ast.FunctionDef)}

    def leaves(self, field_id: int, name: str) -> list[Leaf]:
        """Return what is known about the i32s in a field, in the order of writing; empty for numbers."""
        if "read" in self._methods:
            return [leaf for statement in self._reading(field_id) for leaf in self._leaves(statement)]
        # With `dynamic` the class has no `read`. Later compilers convert values assigned to an enum field.
        for method in ("__setattr__", "__init__"):
            for statement in self._methods[method].body if method in self._methods else ():
                if isinstance(statement, (ast.If, ast.Expr)) and _mentions(statement, name):
                    found = [self._enum(node) for node in ast.walk(statement) if isinstance(node, ast.expr)]
                    if known := [cls for cls in found if cls is not None]:
                        return [Leaf(known[0])]
        return []

    def is_required(self, name: str) -> bool:
        """Return whether `validate` rejects a struct that lacks a field."""
        validate = self._methods.get("validate")
        wanted = f"self.{name} is None"
        return validate is not None and any(
            isinstance(node, ast.If) and ast.unparse(node.test) == wanted for node in validate.body
        )

    def fields_read(self) -> dict[str, str]:
        """Return the Python types of scalars that `read` reads, by field."""
        found: dict[str, str] = {}
        for statement in ast.walk(self._methods.get("read", ast.Pass())):
            if isinstance(statement, ast.Assign):
                target = statement.targets[0]
                calls = [node.attr for node in ast.walk(statement.value) if isinstance(node, ast.Attribute)]
                types = [_READERS[call] for call in calls if call in _READERS]
                if isinstance(target, ast.Attribute) and types:
                    found[target.attr] = types[0]
        return found

    def _reading(self, field_id: int) -> list[ast.stmt]:
        """Return the statements that read a field."""
        for node in ast.walk(self._methods["read"]):
            if isinstance(node, ast.If) and ast.unparse(node.test) == f"fid == {field_id}":
                return node.body
        return []

    def _leaves(self, node: ast.AST) -> Iterator[Leaf]:
        """Find the reads of i32, in source order: a number, an enum member, or its name."""
        if isinstance(node, ast.Attribute) and node.attr == "name" and (cls := self._enum_read(node.value)):
            yield Leaf(cls, by_name=True)
        elif cls := self._enum_read(node):
            yield Leaf(cls)
        elif _is_read_of_i32(node):
            yield Leaf(None)
        else:
            for child in ast.iter_child_nodes(node):
                yield from self._leaves(child)

    def _enum_read(self, node: ast.AST) -> type[enum.Enum] | None:
        if isinstance(node, ast.Call) and node.args and _is_read_of_i32(node.args[0]):
            return self._enum(node.func)
        return None

    def _enum(self, node: ast.expr) -> type[enum.Enum] | None:
        """Return the enum that an expression names, or None."""
        value: object = self._module
        for name in ast.unparse(node).split("."):
            value = getattr(value, name, None)
        return value if isinstance(value, type) and issubclass(value, enum.Enum) else None


def _is_read_of_i32(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "readI32"


def _mentions(statement: ast.stmt, text: str) -> bool:
    return any(isinstance(node, ast.Constant) and node.value == text for node in ast.walk(statement))
