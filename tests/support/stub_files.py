"""Stub files, run as Python: their classes, and values of their types."""

from __future__ import annotations
import __future__

import enum
import functools
import importlib
import types
import typing
import uuid
from typing import TYPE_CHECKING, Any, NoReturn, cast

from hypothesis import strategies as st

from baseplate_events.cli.thrift_stubs.schema import read_schema
from baseplate_events.cli.thrift_stubs.text import write_stub
from tests.support.strategies import texts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@functools.cache
def stub_of(module: str) -> Mapping[str, Any]:
    """Return what the stub of a module defines."""
    text, _ = write_stub(read_schema(importlib.import_module(module)))
    variables: dict[str, Any] = {"__name__": module, "__package__": module.rpartition(".")[0]}
    exec(compile(text, f"{module}.pyi", "exec", __future__.annotations.compiler_flag), variables)
    return variables


def arguments(module: str, name: str) -> dict[str, Any]:
    """Return the types of the arguments that the constructor of a class takes."""
    found = typing.get_type_hints(stub_of(module)[name].__init__)
    return {argument: hint for argument, hint in found.items() if argument != "return"}


def needed(module: str, name: str) -> set[str]:
    """Return the arguments without which a checker rejects a call of the constructor."""
    constructor = stub_of(module)[name].__init__
    return set(arguments(module, name)) - set(getattr(constructor, "__kwdefaults__", None) or {})


def structs(module: str, name: str, depth: int = 3) -> st.SearchStrategy[Any]:
    """Draw instances of a generated class, made as its stub allows.

    Args:
        module: The module that the class is in.
        name: The name of the class.
        depth: Nesting of structs; the innermost has only required fields.
    """
    hints = arguments(module, name)
    always = needed(module, name)

    def values(hint: object) -> st.SearchStrategy[Any]:
        return _values(hint, lambda cls: structs(cls.__module__, cls.__name__, depth - 1))

    required = {key: values(hints[key]) for key in always}
    optional = {key: values(hint) for key, hint in hints.items() if key not in always and depth > 0}
    keywords = st.fixed_dictionaries(required, optional=optional)
    cls = getattr(importlib.import_module(module), name)
    return keywords.map(lambda found: cls(**found))


def _values(hint: Any, struct: Callable[[type], st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:  # noqa: ANN401
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        return st.one_of(*[_values(part, struct) for part in inner])
    if origin is typing.Literal:
        return st.sampled_from(inner)
    if NoReturn in inner:
        return st.just(origin())
    items = [_values(part, struct) for part in inner if part is not ...]
    if origin is dict:
        return st.dictionaries(*items, max_size=2)
    if origin in {list, tuple}:
        return st.lists(items[0], max_size=2).map(cast("type[Any]", origin))
    if origin in {set, frozenset}:
        return st.sets(items[0], max_size=2).map(cast("type[Any]", origin))
    if hint is type(None):
        return st.none()
    scalars: dict[object, st.SearchStrategy[Any]] = {
        # Each integer type takes these. A bool is an int to checkers, and an int is a float.
        int: st.integers(-128, 127) | st.booleans(),
        float: st.floats(allow_nan=False, allow_infinity=False) | st.integers(-100, 100) | st.booleans(),
        bool: st.booleans(),
        str: texts,
        bytes: st.binary(max_size=5),
        uuid.UUID: st.uuids(),
        Any: st.none(),
    }
    if hint in scalars:
        return scalars[hint]
    cls = cast("type[object]", hint)
    if issubclass(cls, enum.Enum):
        return st.sampled_from(list(getattr(importlib.import_module(cls.__module__), cls.__name__)))
    return st.deferred(lambda: struct(cls))
