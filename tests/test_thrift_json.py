from __future__ import annotations

import copy
import functools
import importlib
import json
import math
import operator
import re
import sys
import threading
import uuid
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import thrift_json
from baseplate_events.errors import EventNotSerializableError
from baseplate_events.thrift_fallback import write_fallback
from baseplate_events.thrift_json import is_compiled, write_struct
from tests.support import strategies
from tests.support.schema_samples import NEWER, PLAIN, SHAPES, Struct, rich_event, small_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

_serialization = importlib.import_module("thrift.TSerialization")
_protocol_factory = importlib.import_module("thrift.protocol.TJSONProtocol").TJSONProtocolFactory()
_memory_buffer = importlib.import_module("thrift.transport.TTransport").TMemoryBuffer

#: Structs of the schema whose classes have a spec.
STRUCTS = (
    "Event",
    "RichEvent",
    "Everything",
    "Defaults",
    "StructKeys",
    "Choice",
    "Refused",
    "Tree",
    "Ping",
    "Empty",
    "FrozenPath",
    "FrozenRefused",
)

#: What the fields of an enum hold where a generated class takes the names of its members.
_KIND_NAMES = st.sampled_from(["VIEW", "VOTE", "REPORT"])
_NAMED_KINDS: dict[str, st.SearchStrategy[Any]] = {
    "kind": _KIND_NAMES,
    "kinds": st.lists(_KIND_NAMES, max_size=3),
    "by_kind": st.dictionaries(_KIND_NAMES, strategies.thrift_structs(SHAPES["enum"].Geo), max_size=3),
}
_KINDS = st.sampled_from(list(NEWER.Kind))
_NODES: dict[str, st.SearchStrategy[Any]] = {
    "name": strategies.texts,
    "kind": st.none() | _KINDS,
    "kinds": st.lists(_KINDS, max_size=3),
}
_NODES["children"] = st.lists(
    strategies.thrift_structs(NEWER.Node, special=dict(_NODES), depth=0), max_size=3
)


def apache(struct: Struct) -> bytes:
    """Return what Apache's Python writer makes of a struct."""
    written: bytes = _serialization.serialize(struct, _protocol_factory)
    return written


def strict(data: bytes) -> Any:  # noqa: ANN401 - parsed JSON can be anything
    """Parse JSON as its standard has it, without Python's NaN and infinities."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(name)

    return json.loads(data.decode("utf-8"), parse_constant=refuse)


def expected(struct: Struct) -> bytes | None:
    """Return Apache's text, what isn't JSON replaced by what C++ and Java write; None where that can't be."""
    try:
        text = apache(struct)
    except Exception:  # noqa: BLE001 - Apache's writer raises whatever a value makes it raise
        return None
    # Only strings can hold a control character; those with an escape of their own have it already.
    text = re.sub(rb"[\x00-\x1f]", lambda match: b"\\u%04x" % match[0][0], text)
    tokens = {
        b"nan": b'"NaN"',
        b"inf": b'"Infinity"',
        b"-inf": b'"-Infinity"',
        b"NaN": b'"NaN"',
        b"-NaN": b'"NaN"',
    }
    tokens |= {b"Infinity": b'"Infinity"', b"-Infinity": b'"-Infinity"', b"True": b"1", b"False": b"0"}
    # Strings are matched first, and stay as they are.
    text = re.sub(
        rb'"(?:[^"\\]|\\.)*"|-?(?:nan|inf|NaN|Infinity)|True|False',
        lambda match: tokens.get(match[0], match[0]),
        text,
    )
    try:
        strict(text)
    except ValueError:
        return None
    return text


def check(struct: Struct, *, odd: bool = True) -> None:
    """Compare ways to write a struct: the one for all, the one by reference and Apache's.

    Unless there may be odd values in it, the compiled writer must have done it alone.
    """
    before = repr(struct)
    wanted = expected(struct)
    if not odd:
        assert wanted is not None
        assert wanted.decode() == compiled(struct)
    for write in (write_struct, write_fallback):
        if wanted is None:
            with pytest.raises(EventNotSerializableError):
                write(struct)
        else:
            assert wanted == write(struct)
    assert before == repr(struct)


def compiled(struct: Struct) -> str:
    """Return what the compiled writer of a struct makes of it, with nothing to help it out."""
    return thrift_json._writers[type(struct)](struct)  # pyright: ignore[reportPrivateUsage]


def field_of(struct: object) -> str:
    """Return the field that the error for a struct names."""
    with pytest.raises(EventNotSerializableError) as caught:
        write_struct(struct)
    return caught.value.field


def problem_of(struct: object) -> str:
    """Return the problem that the error for a struct tells."""
    with pytest.raises(EventNotSerializableError) as caught:
        write_struct(struct)
    return caught.value.problem


def everything(schema: ModuleType) -> Struct:
    """Return a struct with a value in each place that a value can be in."""
    kind = "VOTE" if schema is SHAPES["enum"] else 2
    geo = schema.Geo(country="NL", latitude=52.5, longitude=4.25)
    return schema.Everything(
        flag=True,
        tiny=1,
        small=2,
        medium=3,
        large=4,
        ratio=0.5,
        text="a",
        blob=b"b",
        kind=kind,
        geo=geo,
        flags=[True],
        ratios={0.5},
        by_flag={True: 1},
        by_tiny={1: 2},
        by_ratio={0.5: "x", 1.5: "y"},
        by_kind={kind: copy.copy(geo)},
        by_blob={b"k": b"v"},
        deep=[[], [{}, {"a": {1}, "b": set()}]],
        kinds=[kind, kind],
        places=[copy.copy(geo), copy.copy(geo)],
        blobs={b"x"},
    )


# --- same as Apache's ---


@pytest.mark.parametrize("shape", SHAPES)
@given(data=st.data(), name=st.sampled_from(STRUCTS), odd=st.booleans())
def test_shapes_are_written_as_apache_has_them(shape: str, data: st.DataObject, name: str, odd: bool) -> None:
    """Any values in a generated class of any shape come out as Apache's, mended, or are refused."""
    special = _NAMED_KINDS if shape == "enum" else None
    check(
        data.draw(strategies.thrift_structs(getattr(SHAPES[shape], name), odd=odd, special=special)), odd=odd
    )


@given(data=st.data(), cls=strategies.thrift_schemas, odd=st.booleans())
def test_random_schemas_are_written_as_apache_has_them(data: st.DataObject, cls: type, odd: bool) -> None:
    """Any values in a class of any spec come out as Apache's, mended, or are refused."""
    check(data.draw(strategies.thrift_structs(cls, odd=odd)), odd=odd)
    assert is_compiled(cls)


@given(
    before=st.none() | strategies.texts,
    last=st.none() | st.integers(-(2**31), 2**31 - 1),
    after=st.none() | strategies.texts,
)
def test_negative_ids_are_written(before: str | None, last: int | None, after: str | None) -> None:
    """A class with negative field ids, whose spec is empty, is written with all of its fields."""
    check(PLAIN.Negative(before=before, last=last, after=after))


@given(node=strategies.thrift_structs(NEWER.Node, special=_NODES), name=strategies.texts)
def test_newer_compilers_are_followed(node: Struct, name: str) -> None:
    """Classes that validate in `write` and write enums by value come out as Apache's, unset fields named."""
    node.name = name
    check(node)
    node.children = None
    check(node, odd=False)


def test_an_int_may_stand_for_an_enum() -> None:
    """The number of an enum's member is written as well, where Apache's classes insist on the member."""
    node = NEWER.Node(name="a", kind=2)
    with pytest.raises(AttributeError):
        apache(node)
    assert b'{"1":{"str":"a"},"2":{"i32":2}}' == write_struct(node)


@pytest.mark.parametrize("schema", [*SHAPES.values(), NEWER], ids=[*SHAPES, "newer"])
def test_generated_classes_are_compiled(schema: ModuleType) -> None:
    """Each generated class with a spec gets a compiled writer, so none is slow without need."""
    classes: list[type] = [cls for cls in vars(schema).values() if getattr(cls, "thrift_spec", None)]
    assert classes
    assert [] == [cls for cls in classes if not is_compiled(cls)]


@pytest.mark.parametrize("schema", SHAPES.values(), ids=SHAPES)
def test_samples_are_written_as_apache_has_them(schema: ModuleType) -> None:
    """The events that benchmarks use are written as Apache has them, and are of the size they say."""
    check(everything(schema), odd=False)
    for serial in (0, 9999):
        small, rich = small_event(schema, serial=serial), rich_event(schema, serial=serial)
        assert (apache(small), 145) == (write_struct(small), len(write_struct(small)))
        assert (apache(rich), 724) == (write_struct(rich), len(write_struct(rich)))


@given(
    data=st.data(),
    shape=st.sampled_from(list(SHAPES)),
    name=st.sampled_from(STRUCTS).filter(lambda name: name != "Defaults"),
)
def test_apache_reads_what_is_written(data: st.DataObject, shape: str, name: str) -> None:
    """Apache's reader gives back the struct that was written, where no default fills an unset field."""
    cls = getattr(SHAPES[shape], name)
    struct = data.draw(strategies.thrift_structs(cls, special=_NAMED_KINDS if shape == "enum" else None))
    protocol = _protocol_factory.getProtocol(_memory_buffer(write_struct(struct)))
    if hasattr(cls.read, "__self__"):
        # Of frozen structs it is a class method.
        read = cls.read(protocol)
    else:
        read = cls()
        read.read(protocol)
    assert plain(struct) == plain(read)


def plain(value: Any) -> object:  # noqa: ANN401 - a field of an untyped class
    """Return a value with its structs as dicts, since they don't compare by value in every shape."""
    if spec := getattr(value, "thrift_spec", None):
        return str(value.__class__), {entry[2]: plain(getattr(value, entry[2])) for entry in spec if entry}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in cast("dict[object, object]", value).items()}
    return [plain(item) for item in cast("list[object]", value)] if isinstance(value, list) else value


# --- where Apache's isn't JSON ---


def test_control_characters_are_escaped() -> None:
    """Control characters come out as C++ and Java write them, DEL and a slash as they are."""
    struct = PLAIN.Event(source="\x00\x1f\n\x7f/é", action='\x08\x0c\r\t"\\')
    assert (
        r'{"1":{"str":"\u0000\u001f\n' + "\x7f/é" + r'"},"2":{"str":"\b\f\r\t\"\\"}}'
        == write_struct(struct).decode()
    )


def test_numbers_that_json_has_not_are_quoted() -> None:
    """NaN and the infinities come out as quoted strings, and as Apache has them where they are keys."""
    struct = PLAIN.Everything(ratio=math.nan, by_ratio={math.inf: "x"})
    assert b'{"6":{"dbl":"NaN"},"16":{"map":["dbl","str",1,{"inf":"x"}]}}' == write_struct(struct)
    assert b'{"4":{"dbl":"-Infinity"}}' == write_struct(PLAIN.Event(client_timestamp=-math.inf))


def test_the_value_of_an_int_counts() -> None:
    """A bool or an enum that formats by its name in an integer field is written by its value."""

    class Named(int, Enum):
        ONE = 1

        def __format__(self, _spec: str) -> str:
            return "Named.ONE"

    struct = PLAIN.Everything(medium=True, large=Named.ONE)
    assert b'{"4":{"i32":1},"5":{"i64":1}}' == write_struct(struct)


@pytest.mark.parametrize(
    "value",
    [
        2**53 + 1,
        -(2**60),
        True,
        1.5,
        -0.0,
        Decimal("NaN"),
        Decimal("-Infinity"),
        Decimal("1e400"),
        Fraction(1, 2),
    ],
)
def test_odd_numbers_are_written_as_apache_has_them(value: Any) -> None:  # noqa: ANN401 - a field can hold anything
    """Numbers that aren't of the type of their field come out as Apache's, as a value and as a key."""
    check(PLAIN.Everything(ratio=value))
    check(PLAIN.Everything(by_ratio={value: "x"}))
    if value == value and abs(value) < 2**31:  # noqa: PLR0124 - NaN isn't itself, and no integer
        check(PLAIN.Everything(medium=value))
        check(PLAIN.Everything(by_tiny={value: 1}))


@pytest.mark.parametrize("value", [math.nan, "1", b"1", 1j, [1], object(), 2**31, -(2**31) - 1, 2.0**31])
def test_what_is_no_integer_is_refused(value: object) -> None:
    """Neither NaN nor text nor a number out of range gets into an integer field."""
    assert "medium" == field_of(PLAIN.Everything(medium=value))


def test_keys_without_a_place_in_json_are_refused() -> None:
    """A map with structs or containers as keys is refused, unless it is empty."""
    struct = PLAIN.StructKeys(by_list={}, by_point={})
    assert apache(struct) == write_struct(struct)
    assert "by_list{0}" == field_of(PLAIN.StructKeys(by_list={(1, 2): "x"}))
    assert "by_point{0}" == field_of(PLAIN.StructKeys(by_point={PLAIN.FrozenPoint(x=1): 1}))


def test_uuids_are_written() -> None:
    """A UUID is written as its text, as value and as key."""
    one = uuid.UUID(int=1)
    cls: Any = type("WithUuid", (importlib.import_module("thrift.protocol.TBase").TBase,), {})
    spec = (strategies.UUID, None, strategies.UUID, None, False)
    cls.thrift_spec = ((1, strategies.UUID, "id", None, None), (2, strategies.MAP, "ids", spec, None))
    struct = cls()
    struct.id = one
    struct.ids = {one: one}
    text = f'"{one}"'
    wanted = f'{{"1":{{"uid":{text}}},"2":{{"map":["uid","uid",1,{{{text}:{text}}}]}}}}'
    assert wanted == write_struct(struct).decode()
    if expected(struct) is not None:
        # The thrift library knows of UUIDs since 0.20.
        check(struct, odd=False)


# --- classes that aren't as the compiler makes them ---


def _write_in_capitals(self: Struct, oprot: object) -> None:
    event = copy.copy(self)
    event.source = str(event.source).upper()
    PLAIN.Event.write(event, oprot)


def _write_raw_bytes(self: Struct, oprot: Any) -> None:  # noqa: ANN401 - protocols are untyped
    oprot.trans.write(self.source)


#: A struct with a `write` of its own.
_LOUD: Any = type("Loud", (PLAIN.Event,), {"write": _write_in_capitals})

#: A struct that writes whatever it holds.
_RAW: Any = type("Raw", (PLAIN.Event,), {"write": _write_raw_bytes})

#: A struct with nothing of its own.
_SAME: Any = type("Same", (PLAIN.Event,), {})


@given(source=strategies.texts)
def test_a_write_of_its_own_is_honoured(source: str) -> None:
    """A class that overrides `write` is asked to write itself, at the top and within a compiled struct."""
    loud = _LOUD(source=source)
    assert expected(loud) == write_struct(loud)
    rich = rich_event()
    rich.event = loud
    assert expected(rich) == write_struct(rich)
    assert is_compiled(PLAIN.RichEvent)
    assert not is_compiled(_LOUD)


def test_a_subclass_is_written_like_its_base() -> None:
    """A subclass without a `write` of its own is compiled, also where the spec has its base."""
    plain = _SAME(source="a")
    assert b'{"1":{"str":"a"}}' == write_struct(plain)
    rich = rich_event()
    rich.event = plain
    assert apache(rich) == write_struct(rich)
    assert is_compiled(_SAME)


@pytest.mark.parametrize("raw", [b"", b"{", b"NaN", b'"\xff"', b"{}{}", b'{"a":\x01}'])
def test_a_write_that_gives_no_json_is_refused(raw: bytes) -> None:
    """Whatever a `write` does, what isn't JSON doesn't get out, alone or within another struct."""
    struct = _RAW(source=raw)
    assert "" == field_of(struct)
    assert not is_compiled(_RAW)
    rich = rich_event()
    rich.event = struct
    with pytest.raises(EventNotSerializableError):
        write_struct(rich)


def test_a_changed_container_is_refused() -> None:
    """A list that has fewer items than it says, as when another thread takes some, is refused by name."""

    class Shrinking(list[str]):
        def __len__(self) -> int:
            return 5

    assert "user.roles" == field_of(PLAIN.RichEvent(user=PLAIN.User(roles=Shrinking("ab"))))


def test_a_late_spec_is_taken_when_it_comes() -> None:
    """A class that is written before its spec is filled in is written right before and after."""
    cls = type("Late", (PLAIN.Event,), {"thrift_spec": None})
    late: Any = cls()
    late.source = "a"
    assert b'{"1":{"str":"a"}}' == write_struct(late)
    assert not is_compiled(cls)
    late.__class__.thrift_spec = PLAIN.Event.thrift_spec
    assert b'{"1":{"str":"a"}}' == write_struct(late)
    assert is_compiled(cls)


@pytest.mark.parametrize(
    "spec",
    [
        [],
        ((1,),),
        (5,),
        ((1, 11, "no name", "UTF8", None),),
        ((1, 11, "class", "UTF8", None),),
        (("1", 11, "source", "UTF8", None),),
        ((1, 99, "source", None, None),),
        ((1, 15, "source", None, None),),
        ((1, 11, "source", "UTF8", None), (2, 11, "source", "UTF8", None)),
        ((1, 11, "other", "UTF8", None),),
    ],
)
def test_a_strange_spec_is_not_compiled(spec: object) -> None:
    """A spec that the compiler doesn't make, or that differs from `write`, leaves it to `write`."""
    cls = type("Strange", (PLAIN.Event,), {"thrift_spec": spec})
    assert b'{"1":{"str":"a"}}' == write_struct(cls(source="a"))
    assert not is_compiled(cls)


@pytest.mark.parametrize(
    ("field", "wire_type", "inner"),
    [
        ("count", strategies.I64, None),
        ("id", strategies.I32, None),
        ("id", 1, None),
        ("tags", strategies.LIST, (strategies.I32, None, False)),
    ],
)
def test_a_spec_that_differs_from_enums_is_not_compiled(field: str, wire_type: int, inner: object) -> None:
    """Where a `write` looks up enums and the spec has other i32s than it writes, `write` is asked."""
    base: Any = SHAPES["enum"].Defaults
    spec = tuple(
        (entry[0], wire_type, field, inner, None) if entry and entry[2] == field else entry
        for entry in base.thrift_spec
    )
    assert is_compiled(base)
    assert not is_compiled(type("Strange", (base,), {"thrift_spec": spec}))


def test_a_global_that_is_no_enum_is_not_compiled() -> None:
    """A `write` that names anything but enums, as when somebody changed it, is asked."""
    enum = SHAPES["enum"]
    write = enum.Defaults.write
    changed = FunctionType(write.__code__, {**write.__globals__, "Kind": {"VOTE": uuid}})
    cls: Any = type("Changed", (enum.Defaults,), {"write": changed})
    assert not is_compiled(cls)


def test_a_write_that_is_no_function_is_asked() -> None:
    """A `write` that is any other callable is called, since nobody can look into it."""

    class Partly:
        thrift_spec = PLAIN.Event.thrift_spec
        write = staticmethod(functools.partial(PLAIN.Event.write, PLAIN.Event(source="a")))

    assert b'{"1":{"str":"a"}}' == write_struct(Partly())
    assert not is_compiled(Partly)


def test_a_number_by_its_looks_is_refused() -> None:
    """What formats like a double but gives no number is refused."""

    class Formatted:
        def __format__(self, _spec: str) -> str:
            return "1,000"

    assert "ratio" == field_of(PLAIN.Everything(ratio=Formatted()))


@pytest.mark.parametrize(
    ("fid", "name"), [("{s}", "a"), (1.5, "a"), (1, "no name"), (1, "class"), (1, "x = {}")]
)
def test_strange_names_and_ids_are_not_compiled(fid: object, name: str) -> None:
    """What couldn't stand in a program is left to Apache's `write`, which doesn't make one of it."""
    base = importlib.import_module("thrift.protocol.TBase").TBase
    cls: Any = type("Strange", (base,), {"thrift_spec": ((fid, strategies.STRING, name, "UTF8", None),)})
    struct = cls()
    setattr(struct, name, "text")
    assert apache(struct) == write_struct(struct)
    assert not is_compiled(cls)


def test_threads_may_compile_at_once() -> None:
    """Threads that write the first structs of a class at once all get the right bytes."""
    wanted = apache(rich_event())
    threads = 8

    def write(event: Struct, barrier: threading.Barrier, results: list[bytes]) -> None:
        barrier.wait()
        results.append(write_struct(event))

    for _ in range(20):
        fresh: Any = type("Fresh", (PLAIN.RichEvent,), {})
        barrier = threading.Barrier(threads)
        results: list[bytes] = []
        workers = [
            threading.Thread(target=write, args=(fresh(**vars(rich_event())), barrier, results))
            for _ in range(threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [wanted] * threads == results


def test_writers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that makes classes without end doesn't fill the memory with their writers."""
    monkeypatch.setattr(thrift_json, "_MAX_WRITERS", 3)
    for _ in range(10):
        cls = type("Fleeting", (PLAIN.Event,), {})
        assert b'{"1":{"str":"a"}}' == write_struct(cls(source="a"))
        assert len(thrift_json._writers) <= 3  # pyright: ignore[reportPrivateUsage]


# --- errors ---


#: Path of a place in a struct, and what puts another value there.
_Place = tuple[str, "Callable[[object], None]"]


def _places(value: Struct, wire_type: int, inner: strategies.Inner, path: str) -> Iterator[_Place]:
    """Give each place below a value: its path, and what puts another value there."""
    if wire_type == strategies.STRUCT:
        for _, its_type, name, its_inner, *_ in filter(None, value.thrift_spec):
            if its_type == strategies.BOOL:
                # Takes anything.
                continue
            its_path = f"{path}.{name}".removeprefix(".")
            yield its_path, functools.partial(setattr, value, name)
            yield from _places(getattr(value, name), its_type, its_inner, its_path)
    elif wire_type == strategies.LIST and inner[0] != strategies.BOOL:
        for index, item in enumerate(value):
            yield f"{path}[{index}]", functools.partial(operator.setitem, value, index)
            yield from _places(item, inner[0], inner[1], f"{path}[{index}]")
    elif wire_type == strategies.MAP:
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

    places = list(_places(make(schema), strategies.STRUCT, None, ""))
    assert len(places) > 20
    for index, (path, _) in enumerate(places):
        struct = make(schema)
        list(_places(struct, strategies.STRUCT, None, ""))[index][1](Secret())
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
