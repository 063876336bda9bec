"""What the fallback refuses, and how an error names the place of it."""

from __future__ import annotations

import functools
import math
import operator
import sys
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
    """Yield each place below a value: its path, and what puts another value there."""
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
    assert ("user.geo.latitude", "required, but not set") == (field_of(rich), problem_of(rich))


def test_an_unset_required_field_is_named() -> None:
    """A class that validates in `write` is refused by the name of the field that is unset."""
    assert "children[1].name" == field_of(NEWER.Node(name="a", children=[NEWER.Node(name="b"), NEWER.Node()]))


@pytest.mark.parametrize(
    ("struct", "field", "problem"),
    [
        (PLAIN.Event(source=5), "source", "writing it as a str or bytes raised TypeError"),
        (PLAIN.Event(source="\ud800"), "source", "writing it as a str or bytes raised UnicodeEncodeError"),
        (PLAIN.Event(client_timestamp="1"), "client_timestamp", "writing it as a double raised ValueError"),
        (PLAIN.Everything(blob="b"), "blob", "writing it as a str or bytes raised TypeError"),
        (PLAIN.Everything(tiny=128), "tiny", "writing it as an i8 raised TProtocolException"),
        (PLAIN.Everything(tiny=math.nan), "tiny", "writing it as an i8 raised TypeError"),
        (PLAIN.Everything(flags=5), "flags", "writing it as a list raised TypeError"),
        (PLAIN.Everything(geo="x"), "geo", "writing it as a struct raised AttributeError"),
        (PLAIN.Everything(by_tiny=5), "by_tiny", "writing it as a map raised TypeError"),
        (PLAIN.Everything(by_tiny={300: 1}), "by_tiny{0}", "writing it as an i8 raised TProtocolException"),
        (PLAIN.Everything(by_tiny={1: 1, 2: None}), "by_tiny{1}", "writing it as an i16 raised TypeError"),
        (PLAIN.User(roles=["a", None]), "roles[1]", "writing it as a str or bytes raised TypeError"),
        (PLAIN.Everything(deep=[[5]]), "deep[0][0]", "writing it as a map raised TypeError"),
        (PLAIN.Everything(ratios=[1.5, "1"]), "ratios[1]", "writing it as a double raised ValueError"),
    ],
)
def test_the_problem_is_the_type_and_the_exception(struct: Struct, field: str, problem: str) -> None:
    """An error names the field, its type, and what writing it raised."""
    assert (field, problem) == (field_of(struct), problem_of(struct))


ENUM: Any = SHAPES["enum"]


@pytest.mark.parametrize(
    ("struct", "field"),
    [
        (ENUM.Defaults(name="a", id=1), "kind"),  # the default that the compiler gives the field
        (ENUM.Everything(kind=ENUM.Kind.REPORT), "kind"),
        (ENUM.Everything(kind="secret"), "kind"),
        (ENUM.Everything(kinds=["VOTE", 2]), "kinds[1]"),
        (ENUM.Everything(by_kind={1: ENUM.Geo()}), "by_kind{0}"),
    ],
)
def test_a_field_that_takes_names_of_an_enum_says_so(struct: Struct, field: str) -> None:
    """If a class takes the names of members, the remedy says so, and nothing of the event."""
    assert field_of(struct) == field
    assert problem_of(struct) == (
        "writing it as an i32 raised KeyError; "
        "this enum field takes the name of a member (a str); replace its default too"
    )


def test_a_field_that_takes_members_of_an_enum_says_so() -> None:
    """If a class takes the members themselves, the remedy says so."""
    node = NEWER.Node(name="a", kind="VOTE")
    assert field_of(node) == "kind"
    assert problem_of(node) == ("writing it as an i32 raised AttributeError; this enum field takes a member")


@pytest.mark.parametrize("schema", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("value", [[1], "a", (1,), b"ab", range(3), [], ""])
def test_what_only_has_a_length_is_no_map(schema: ModuleType, value: object) -> None:
    """A list where a map belongs is named itself, not its first key, in each shape."""
    struct = schema.Everything(by_tiny=value)
    assert ("by_tiny", "writing it as a map raised AttributeError") == (field_of(struct), problem_of(struct))


def test_a_write_of_its_own_is_refused_by_its_field() -> None:
    """A `write` by hand that takes what it holds for a map is refused by the field that it began."""

    class Own:
        labels = "a"

        def write(self, oprot: Any) -> None:  # noqa: ANN401 - protocols are untyped
            oprot.writeStructBegin("Own")
            oprot.writeFieldBegin("labels", MAP, 1)
            cast("Any", self.labels).items()

    assert field_of(Own()) == "labels"
    assert problem_of(Own()) == "writing it as a map raised AttributeError"


@pytest.mark.parametrize("value", ["text", 5, None, b"", PLAIN.Event, object(), sys.stdout, [PLAIN.Event()]])
def test_what_is_no_struct_is_refused(value: object) -> None:
    """Anything but an instance of a struct is an error of ours."""
    assert "" == field_of(value)
    assert problem_of(value).startswith("writing it as a struct raised ")


def test_structs_nested_too_deep_are_refused() -> None:
    """Structs nested too deep or within themselves are an error, not a crash; its path has a bound."""
    tree = PLAIN.Tree(children=[])
    tree.children.append(tree)
    assert field_of(tree).startswith("children[0].children[0]")
    assert len(field_of(tree)) < 400
    assert "RecursionError" in problem_of(tree)


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
