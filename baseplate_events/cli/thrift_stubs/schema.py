"""The schema of a generated module, for its stub: structs, exceptions, enums and constants."""

from __future__ import annotations

import ast
import enum
import inspect
import keyword
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

from ...errors import ConfigurationError
from .source import ClassSource
from .types import MemberNames, ScalarType, Type, read_type

if TYPE_CHECKING:
    from types import ModuleType

#: Attributes of an enum besides its members, unless it was generated with `py:enum`.
ENUM_TABLES: Final = ("_VALUES_TO_NAMES", "_NAMES_TO_VALUES")


#: An entry of a spec: the id of a field, its wire type, its name, the rest of its type, and its default.
_Entry: TypeAlias = "tuple[Any, ...]"


class Field(NamedTuple):
    """A field of a struct.

    Attributes:
        name: Its attribute, and the argument of the constructor.
        type: The type of its value if it is set.
        required: Whether a struct without it can't be put.
        default: What the constructor sets if no value is given: nothing (`None`), a value (`...`), or a value
            that can't be put (empty).
    """

    name: str
    type: Type
    required: bool
    default: str


class Struct(NamedTuple):
    """A struct, an exception, or a union (which looks like a struct in generated code)."""

    name: str
    fields: tuple[Field, ...]
    frozen: bool
    exception: bool
    hashable: bool
    writes: frozenset[str]


class Enum(NamedTuple):
    """An enum: an `IntEnum`, or a class whose attributes are numbers."""

    name: str
    members: dict[str, int]
    real: bool


class Constant(NamedTuple):
    """A constant."""

    name: str
    value: object


Definition: TypeAlias = Struct | Enum | Constant


class Schema(NamedTuple):
    """The definitions of a module.

    Attributes:
        module: Its name.
        is_package: Whether it is a package.
        definitions: What it defines, in the order of the source.
        reexports: The modules, relative to this one's package, whose names it re-exports.
        imported: Names of types imported from other modules.
    """

    module: str
    is_package: bool
    definitions: tuple[Definition, ...]
    reexports: tuple[str, ...]
    imported: frozenset[str]


def read_schema(module: ModuleType) -> Schema:
    """Return the schema of a module.

    Raises:
        ConfigurationError: Its source isn't available, it has no Thrift types, or it has other names that
            a stub would hide.
    """
    tree = _parse(module)
    others: list[str] = []
    definitions: list[Definition] = []
    reexports: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            definition = _read_class(module, node)
            if definition is not None:
                definitions.append(definition)
                continue
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            others.append(node.name)
        elif isinstance(node, ast.ImportFrom) and [alias.name for alias in node.names] == ["*"]:
            reexports.append("." * node.level + (node.module or ""))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            definitions += _read_constants(module, node)
    if others:
        raise ConfigurationError(
            f"{module.__name__} has {', '.join(others)}, which a stub would hide; expected only "
            "structs, exceptions, enums and constants of Thrift, as in ttypes, not the module of a service"
        )
    if not definitions and not reexports:
        raise ConfigurationError(f"{module.__name__} has no Thrift types; expected a module such as ttypes")
    imported = frozenset(name for name, value in vars(module).items() if _is_generated(value))
    is_package = hasattr(module, "__path__")
    return Schema(module.__name__, is_package, tuple(definitions), tuple(reexports), imported)


def _is_generated(value: object) -> bool:
    return isinstance(value, type) and (
        hasattr(value, "thrift_spec")
        or hasattr(value, ENUM_TABLES[0])
        or (issubclass(value, enum.Enum) and value.__module__ != enum.__name__)
    )


def _parse(module: ModuleType) -> ast.Module:
    try:
        # `inspect.getsource` may return an older text.
        return ast.parse(Path(str(module.__file__)).read_bytes())
    except (OSError, SyntaxError, ValueError) as exc:
        raise ConfigurationError(
            f"{module.__name__}: its source can't be read ({type(exc).__name__}); expected a .py file of the "
            "Thrift compiler"
        ) from exc


def _read_class(module: ModuleType, node: ast.ClassDef) -> Struct | Enum | None:
    """Return the schema of a class; None if the Thrift compiler generates no such class."""
    found: object = getattr(module, node.name, None)
    if not isinstance(found, type):
        return None
    cls = cast("type[object]", found)
    if issubclass(cls, enum.Enum):
        values = {name: member.value for name, member in cls.__members__.items()}
        return Enum(cls.__name__, values, True) if all(isinstance(v, int) for v in values.values()) else None
    if all(isinstance(vars(cls).get(table), dict) for table in ENUM_TABLES):
        names = cast("dict[str, int]", vars(cls)["_NAMES_TO_VALUES"])
        return Enum(cls.__name__, dict(names), False)
    spec: object = getattr(cls, "thrift_spec", None)
    if not isinstance(spec, tuple) or not callable(getattr(cls, "write", None)):
        return None
    try:
        fields = _read_fields(cls, cast("tuple[_Entry | None, ...]", spec), ClassSource(module, node))
    except (TypeError, ValueError, LookupError):
        return None
    return Struct(
        cls.__name__,
        fields,
        frozen=isinstance(inspect.getattr_static(cls, "read", None), classmethod),
        exception=issubclass(cls, Exception),
        hashable=cls.__hash__ is not None,  # pyright: ignore[reportUnnecessaryComparison]
        writes=frozenset(name for name in ("read", "write", "validate") if hasattr(cls, name)),
    )


def _read_fields(cls: type, spec: tuple[_Entry | None, ...], source: ClassSource) -> tuple[Field, ...]:
    """Return the fields of a struct in the order of its constructor.

    Raises:
        TypeError, ValueError, LookupError: The Thrift compiler generates no such spec.
    """
    types: dict[str, tuple[str, Type, object]] = {}
    for field_id, wire_type, name, inner, default, *_ in filter(None, spec):
        argument = f"{name}_" if keyword.iskeyword(name) else name
        found = read_type(wire_type, inner, source.leaves(field_id, argument))
        types[argument] = name, found, default
    # A class with negative field ids has an empty spec.
    scalars = source.fields_read() if not types else {}
    parameters = list(inspect.signature(cls).parameters) if "__init__" in vars(cls) else []
    if types and set(types) != set(parameters):
        raise ValueError
    fields: list[Field] = []
    for parameter in parameters:
        name, found, default = types.get(parameter, ("", ScalarType(scalars.get(parameter, "Any")), None))
        required = source.is_required(parameter) or source.is_required(name)
        fields.append(Field(parameter, found, required, _default(found, default, required=required)))
    return tuple(fields)


def _default(found: Type, default: object, *, required: bool) -> str:
    # Such a field takes the name of a member, but its default is the member.
    if (default is None and required) or (isinstance(found, MemberNames) and isinstance(default, enum.Enum)):
        return ""
    return "None" if default is None else "..."


def _read_constants(module: ModuleType, node: ast.Assign | ast.AnnAssign) -> list[Constant]:
    """Return the constants that a statement defines, except those of the compiler itself."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    # `all_structs` is deleted at the end of the module.
    return [
        Constant(name, getattr(module, name)) for name in names if hasattr(module, name) and name[:2] != "__"
    ]
