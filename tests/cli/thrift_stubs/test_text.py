from __future__ import annotations

import inspect
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import serialize_v2_event
from baseplate_events.cli.thrift_stubs.schema import Enum, Struct, read_schema
from tests.support.schema_samples import NEWER, SHAPES
from tests.support.stub_files import arguments, needed, structs, stub_of

#: Generated modules by the names of their folders; two have names that a stub must take care of.
MODULES = {
    **{module.__name__.split(".")[2]: module for module in [*SHAPES.values(), NEWER]},
    **{name: import_module(f"tests.schemas.{name}.odd.ttypes") for name in ("names_plain", "names_enum")},
}

CLASSES = [
    (shape, definition.name)
    for shape, module in MODULES.items()
    for definition in read_schema(module).definitions
    if isinstance(definition, Struct)
]


@pytest.mark.unmeasured
@pytest.mark.parametrize("shape", MODULES)
@given(data=st.data())
def test_what_a_stub_accepts_is_serialized(shape: str, data: st.DataObject) -> None:
    """An event made with values of the types that its stub gives is put, whatever the shape of its class."""
    name = data.draw(st.sampled_from([name for folder, name in CLASSES if folder == shape]))
    serialize_v2_event(data.draw(structs(MODULES[shape].__name__, name)))


@pytest.mark.parametrize(("shape", "name"), CLASSES)
def test_a_stub_has_each_argument(shape: str, name: str) -> None:
    """The constructor of a stub takes what the real one takes, by keyword."""
    cls = getattr(MODULES[shape], name)
    expected = list(inspect.signature(cls).parameters) if "__init__" in vars(cls) else []
    assert expected == list(arguments(MODULES[shape].__name__, name))


@pytest.mark.parametrize("shape", MODULES)
def test_a_stub_has_each_class(shape: str) -> None:
    """A stub hides nothing of its module."""
    module, stub = MODULES[shape], stub_of(MODULES[shape].__name__)
    names = [
        name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
    ]
    assert names
    assert set(names) <= set(stub)


def written(shape: str, name: str) -> dict[str, str]:
    """Return the types of the arguments of a constructor as its stub has them."""
    return dict(stub_of(MODULES[shape].__name__)[name].__init__.__annotations__)


def test_types_of_fields() -> None:
    """Fields have the types of their values, at any depth; keys that JSON hasn't can't be given."""
    assert {
        "flag": "bool | None",
        "tiny": "int | None",
        "small": "int | None",
        "medium": "int | None",
        "large": "int | None",
        "ratio": "float | None",
        "text": "str | None",
        "blob": "bytes | None",
        "kind": "int | None",
        "geo": "Geo | None",
        "flags": "list[bool] | None",
        "ratios": "set[float] | None",
        "by_flag": "dict[bool, int] | None",
        "by_tiny": "dict[int, int] | None",
        "by_ratio": "dict[float, str] | None",
        "by_kind": "dict[int, Geo] | None",
        "by_blob": "dict[bytes, bytes] | None",
        "deep": "list[list[dict[str, set[int]]]] | None",
        "kinds": "list[int] | None",
        "places": "list[Geo] | None",
        "blobs": "set[bytes] | None",
        "return": "None",
    } == written("plain", "Everything")
    assert "dict[NoReturn, int] | None" == written("plain", "StructKeys")["by_point"]


def test_types_of_enums() -> None:
    """A field of an enum has what the shape of the class takes: a number, a name or a member."""
    names = "Literal['VIEW', 'VOTE', 'REPORT']"
    days = "Literal['MONDAY', 'str']"
    assert f"{names} | None" == written("enum", "RichEvent")["kind"]
    assert f"list[{names}] | None" == written("enum", "Everything")["kinds"]
    assert f"dict[{names}, Geo] | None" == written("enum", "Everything")["by_kind"]
    assert f"_builtins_.dict[{names}, list[{days}]] | None" == written("names_enum", "Included")["days"]
    if "enum_dynamic" in MODULES:
        assert "int | None" == written("enum_dynamic", "RichEvent")["kind"]
    assert "Kind | None" == written("newer", "Node")["kind"]
    assert "list[Kind] | None" == written("newer", "Node")["kinds"]


def test_types_without_a_spec() -> None:
    """A class with negative field ids has no spec; its scalars are known by the method that reads them."""
    assert {"before": "str | None", "last": "int | None", "after": "str | None", "return": "None"} == written(
        "plain", "Negative"
    )


def test_what_must_be_given() -> None:
    """A required field must be given if generated code checks it, and where the default can't be put."""
    assert {"name", "id"} == needed(MODULES["plain"].__name__, "Defaults")
    assert {"name", "id", "kind"} == needed(MODULES["enum"].__name__, "Defaults")
    assert {"name"} == needed(MODULES["newer"].__name__, "Node")


@pytest.mark.parametrize("shape", [*SHAPES, "newer"])
def test_members_of_enums(shape: str) -> None:
    """Members have their numbers."""
    kinds = [kind for kind in read_schema(MODULES[shape]).definitions if isinstance(kind, Enum)]
    assert [{"VIEW": 1, "VOTE": 2, "REPORT": 3}] == [kind.members for kind in kinds]
    assert 2 == int(stub_of(MODULES[shape].__name__)["Kind"].VOTE)
