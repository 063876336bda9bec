"""What the slow way refuses, and how an error names the place of it."""

from __future__ import annotations

import functools
import operator
import re
import sys
from enum import IntEnum
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

import pytest

from baseplate_events.errors import EventNotSerializableError
from baseplate_events.thrift_fallback import write_fallback
from baseplate_events.thrift_json import write_struct
from tests.support.schema_samples import NEWER, PLAIN, SHAPES, Struct, everything, rich_event
from tests.support.thrift_errors import field_of, problem_of
from tests.support.thrift_strategies import BOOL, LIST, MAP, STRUCT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from tests.support.thrift_strategies import Inner

#: Path of a place in a struct, and what puts another value there.
_Place = tuple[str, "Callable[[object], None]"]


def _places(value: Struct, wire_type: int, inner: Inner, path: str) -> Iterator[_Place]:
    """Give each place below a value: its path, and what puts another value there."""
    if wire_type == STRUCT:
        for _, its_type, name, its_inner, *_ in filter(None, value.thrift_spec):
            if its_type == BOOL:
                # Takes anything.
                continue
            its_path = f"{path}.{name}".removeprefix(".")
            yield its_path, functools.partial(setattr, value, name)
            yield from _places(getattr(value, name), its_type, its_inner, its_path)
    elif wire_type == LIST and inner[0] != BOOL:
        for index, item in enumerate(value):
            yield f"{path}[{index}]", functools.partial(operator.setitem, value, index)
            yield from _places(item, inner[0], inner[1], f"{path}[{index}]")
    elif wire_type == MAP:
        for index, key in enumerate(value):
            yield f"{path}{{{index}}}", functools.partial(operator.setitem, value, key)
            yield from _places(value[key], inner[2], inner[3], f"{path}{{{index}}}")


@pytest.mark.parametrize("schema", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("make", [everything, rich_event])
def test_each_place_is_named_exactly(schema: ModuleType, make: Callable[[ModuleType], Struct]) -> None:
    """A value that can't be written is named by its path, wherever it is; its content isn't shown."""

    class Secret:
        def __repr__(self) -> str:
            return "secret"

    places = list(_places(make(schema), STRUCT, None, ""))
    assert len(places) > 20
    for index, (path, _) in enumerate(places):
        struct = make(schema)
        list(_places(struct, STRUCT, None, ""))[index][1](Secret())
        with pytest.raises(EventNotSerializableError) as caught:
            write_struct(struct)
        assert path == caught.value.field
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None


@pytest.mark.parametrize("schema", SHAPES.values(), ids=SHAPES)
def test_a_missing_attribute_is_named(schema: ModuleType) -> None:
    """A struct that lacks an attribute is refused by the name of the attribute."""
    rich = rich_event(schema)
    del rich.user.geo.latitude
    assert "user.geo.latitude" == field_of(rich)


def test_an_unset_required_field_is_named() -> None:
    """A class that validates in `write` is refused by the name of the field that is unset."""
    assert "children[1].name" == field_of(NEWER.Node(name="a", children=[NEWER.Node(name="b"), NEWER.Node()]))


@pytest.mark.parametrize(
    ("struct", "field", "word"),
    [
        (PLAIN.Event(source=5), "source", "str, got int"),
        (PLAIN.Event(source="\ud800"), "source", "surrogate"),
        (PLAIN.Event(client_timestamp="1"), "client_timestamp", "double, got str"),
        (PLAIN.Everything(blob="b"), "blob", "bytes, got str"),
        (PLAIN.Everything(tiny=128), "tiny", "-128 to 127"),
        (PLAIN.Everything(flags=5), "flags", "list, got int"),
        (PLAIN.Everything(geo="x"), "geo", "struct, got str"),
        (PLAIN.Everything(by_tiny=[1]), "by_tiny", "map, got list"),
        (PLAIN.Everything(by_tiny={300: 1}), "by_tiny{0}", "key"),
        (PLAIN.Everything(by_tiny={1: 1, 2: None}), "by_tiny{1}", "integer, got NoneType"),
        (PLAIN.User(roles=["a", None]), "roles[1]", "str, got NoneType"),
        (PLAIN.Everything(deep=[[5]]), "deep[0][0]", "map, got int"),
    ],
)
def test_the_problem_is_told(struct: Struct, field: str, word: str) -> None:
    """An error says what the field expected and of which type its value is."""
    assert field == field_of(struct)
    assert word in problem_of(struct)


ENUM: Any = SHAPES["enum"]
_KIND = "expected the name of a member of the enum Kind as a str (VIEW, VOTE, REPORT), got "


@pytest.mark.parametrize(
    ("values", "field", "problem"),
    [
        ({}, "kind", f"{_KIND}the member VOTE"),  # the default that the compiler gives the field
        ({"kind": ENUM.Kind.REPORT}, "kind", f"{_KIND}the member REPORT"),
        ({"kind": 2}, "kind", f"{_KIND}2, the number of VOTE"),
        ({"kind": 4_111_111}, "kind", f"{_KIND}int"),
        ({"kind": "secret"}, "kind", f"{_KIND}str that is none of them"),
        ({"kind": ["secret"]}, "kind", f"{_KIND}list"),
        ({"kind": True}, "kind", f"{_KIND}bool"),
        ({"kinds": ["VOTE", "secret"]}, "kinds[1]", f"{_KIND}str that is none of them"),
        (
            {"by_kind": {1: ENUM.Geo()}},
            "by_kind{0}",
            f"the key of this entry: {_KIND}1, the number of VIEW",
        ),
    ],
)
def test_a_member_that_an_enum_lacks_is_told(values: dict[str, object], field: str, problem: str) -> None:
    """Where a class takes names of members, the error says of which enum, and nothing of the event."""
    struct = ENUM.Everything(**values) if values else ENUM.Defaults(name="a", id=1)
    assert (field, problem) == (field_of(struct), problem_of(struct))
    with pytest.raises(EventNotSerializableError) as caught:
        write_fallback(struct)
    assert (field, problem) == (caught.value.field, caught.value.problem)


def test_of_a_large_enum_some_members_are_named() -> None:
    """The message about an enum has a bound."""
    large: Any = cast("Any", IntEnum)("Large", [f"MEMBER_{number}" for number in range(500)])
    write = ENUM.StructKeys.write
    changed = FunctionType(write.__code__, {**write.__globals__, "Kind": large}, "write")
    cls: Any = type("StructKeys", (ENUM.StructKeys,), {"write": changed})
    assert problem_of(cls(kind="secret")).endswith("MEMBER_9, ...), got str that is none of them")
    assert problem_of(cls(kind=500)).endswith("MEMBER_9, ...), got 500, the number of MEMBER_499")


def test_a_class_that_takes_members_says_so() -> None:
    """Where a class takes the members themselves, a name is refused with what was expected."""
    node = NEWER.Node(name="a", kind="VOTE")
    assert (field_of(node), problem_of(node)) == ("kind", "expected a member of its enum, got str")


@pytest.mark.parametrize("value", ["text", 5, None, b"", PLAIN.Event, object(), sys.stdout, [PLAIN.Event()]])
def test_what_is_no_struct_is_refused(value: object) -> None:
    """Anything but an instance of a struct is an error of ours."""
    assert "" == field_of(value)
    assert re.search("expected an instance|TypeError", problem_of(value))
    assert value is not PLAIN.Event or "got a class" in problem_of(value)


def test_structs_without_end_are_refused() -> None:
    """Structs nested too deep or within themselves are an error, not a crash; its path has a bound."""
    tree = PLAIN.Tree(children=[])
    tree.children.append(tree)
    assert field_of(tree).startswith("children[0].children[0]")
    assert len(field_of(tree)) < 400
    assert "too deep" in problem_of(tree)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("depth", [1, 63, 64, 65, 90])
def test_deep_structs_are_written(shape: str, depth: int) -> None:
    """Structs may be within each other as deep as the stack allows, in each shape the same."""
    tree = SHAPES[shape].Tree()
    for _ in range(depth):
        tree = SHAPES[shape].Tree(children=[tree])
    wanted = b'{"2":{"lst":["rec",1,' * depth + b"{}" + b"]}}" * depth
    assert wanted == write_struct(tree)
    assert wanted == write_fallback(tree)


def test_a_full_stack_is_an_error_of_ours() -> None:
    """However little of the stack is left, what is raised is an error of ours."""

    def descend(left: int) -> None:
        if left:
            descend(left - 1)
        else:
            write_struct(rich_event())

    raised = 0
    for depth in range(sys.getrecursionlimit() - 250, sys.getrecursionlimit()):
        try:
            descend(depth)
        except EventNotSerializableError:
            raised += 1
        except RecursionError:
            # The stack was full before we were called.
            break
    assert raised
