from __future__ import annotations

import copy
import functools
import importlib
import json
import math
import re
import threading
import uuid
from decimal import Decimal
from enum import Enum
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
from tests.support.schema_samples import NEWER, PLAIN, SHAPES, Struct, everything, rich_event, small_event
from tests.support.thrift_errors import field_of, problem_of
from tests.support.thrift_strategies import I32, I64, LIST, MAP, STRING, UUID, thrift_schemas, thrift_structs

if TYPE_CHECKING:
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
    "by_kind": st.dictionaries(_KIND_NAMES, thrift_structs(SHAPES["enum"].Geo), max_size=3),
}
_KINDS = st.sampled_from(list(NEWER.Kind))
_NODES: dict[str, st.SearchStrategy[Any]] = {
    "name": strategies.texts,
    "kind": st.none() | _KINDS,
    "kinds": st.lists(_KINDS, max_size=3),
}
_NODES["children"] = st.lists(thrift_structs(NEWER.Node, special=dict(_NODES), depth=0), max_size=3)


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
    """Compare ways to write a struct: the one for all, the fallback and Apache's.

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
    """Return the output of the compiled writer of a struct, without the fallback."""
    return thrift_json._writers[type(struct)](struct)  # pyright: ignore[reportPrivateUsage]


# --- same as Apache's ---


@pytest.mark.parametrize("shape", SHAPES)
@given(data=st.data(), name=st.sampled_from(STRUCTS), odd=st.booleans())
def test_shapes_are_written_as_apache_has_them(shape: str, data: st.DataObject, name: str, odd: bool) -> None:
    """Any values in a generated class of any shape come out as Apache's, corrected, or are refused."""
    special = _NAMED_KINDS if shape == "enum" else None
    check(data.draw(thrift_structs(getattr(SHAPES[shape], name), odd=odd, special=special)), odd=odd)


@given(data=st.data(), cls=thrift_schemas, odd=st.booleans())
def test_random_schemas_are_written_as_apache_has_them(data: st.DataObject, cls: type, odd: bool) -> None:
    """Any values in a class of any spec come out as Apache's, corrected, or are refused."""
    check(data.draw(thrift_structs(cls, odd=odd)), odd=odd)
    assert is_compiled(cls)


@given(
    before=st.none() | strategies.texts,
    last=st.none() | st.integers(-(2**31), 2**31 - 1),
    after=st.none() | strategies.texts,
)
def test_negative_ids_are_written(before: str | None, last: int | None, after: str | None) -> None:
    """A class with negative field ids, whose spec is empty, is written with all of its fields."""
    check(PLAIN.Negative(before=before, last=last, after=after))


@given(node=thrift_structs(NEWER.Node, special=_NODES), name=strategies.texts)
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
    struct = data.draw(thrift_structs(cls, special=_NAMED_KINDS if shape == "enum" else None))
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
    check(PLAIN.Event(source=["a\x01", "b"]))
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


class Number(int):
    """An int of another type."""


@pytest.mark.parametrize(("name", "bits"), [("tiny", 8), ("small", 16), ("medium", 32), ("large", 64)])
@pytest.mark.parametrize("kind", [int, Number])
def test_an_int_fits_in_its_field_or_is_refused(name: str, bits: int, kind: type[int]) -> None:
    """At both bounds, where it needs no fallback, and one beyond them, whatever its type."""
    limit = 1 << (bits - 1)
    for value in (-limit, -1, 0, limit - 1):
        assert f'"i{bits}":{value}}}' in compiled(PLAIN.Everything(**{name: kind(value)}))
    for value in (-limit - 1, limit):
        struct = PLAIN.Everything(**{name: kind(value)})
        assert (name, f"i{bits}" in problem_of(struct)) == (field_of(struct), True)


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
    assert "JSON allows no struct" in problem_of(PLAIN.StructKeys(by_list={(1, 2): "x"}))
    assert "by_point{0}" == field_of(PLAIN.StructKeys(by_point={PLAIN.FrozenPoint(x=1): 1}))


def test_uuids_are_written() -> None:
    """A UUID is written as its text, as value and as key."""
    one = uuid.UUID(int=1)
    cls: Any = type("WithUuid", (importlib.import_module("thrift.protocol.TBase").TBase,), {})
    spec = (UUID, None, UUID, None, False)
    cls.thrift_spec = ((1, UUID, "id", None, None), (2, MAP, "ids", spec, None))
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
    assert "its own write produces no JSON" in problem_of(struct)
    assert not is_compiled(_RAW)
    rich = rich_event()
    rich.event = struct
    assert ("", problem_of(struct)) == (field_of(rich), problem_of(rich))


@pytest.mark.parametrize("raw", [b"{}", b'{\r\n\t"a": 1}\n', '{"é":"\x7f"}'.encode()])
def test_a_write_that_gives_json_is_kept(raw: bytes) -> None:
    """What is JSON gets out as its `write` gives it, with its blanks."""
    assert raw == write_struct(_RAW(source=raw))


def test_a_changed_container_is_refused() -> None:
    """A list that has fewer items than it says, as when another thread takes some, is refused by name."""

    class Shrinking(list[str]):
        def __len__(self) -> int:
            return 5

    struct = PLAIN.RichEvent(user=PLAIN.User(roles=Shrinking("ab")))
    assert "user.roles" == field_of(struct)


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
        ("count", I64, None),
        ("id", I32, None),
        ("id", 1, None),
        ("tags", LIST, (I32, None, False)),
    ],
)
def test_a_spec_that_differs_from_enums_is_not_compiled(field: str, wire_type: int, inner: object) -> None:
    """If a `write` looks up enums and the spec has other i32s than it writes, `write` is asked."""
    base: Any = SHAPES["enum"].Defaults
    spec = tuple(
        (entry[0], wire_type, field, inner, None) if entry and entry[2] == field else entry
        for entry in base.thrift_spec
    )
    assert is_compiled(base)
    assert not is_compiled(type("Strange", (base,), {"thrift_spec": spec}))


def test_a_global_that_is_no_enum_is_not_compiled() -> None:
    """A `write` that names anything but enums, as when its code was changed, is asked."""
    enum = SHAPES["enum"]
    write = enum.Defaults.write
    changed = FunctionType(write.__code__, {**write.__globals__, "Kind": {"VOTE": uuid}})
    cls: Any = type("Changed", (enum.Defaults,), {"write": changed})
    assert not is_compiled(cls)


def test_a_write_that_is_no_function_is_asked() -> None:
    """A `write` that is any other callable is called, since its code can't be inspected."""

    class Partly:
        thrift_spec = PLAIN.Event.thrift_spec
        write = staticmethod(functools.partial(PLAIN.Event.write, PLAIN.Event(source="a")))

    assert b'{"1":{"str":"a"}}' == write_struct(Partly())
    assert not is_compiled(Partly)


def test_a_number_by_its_format_is_refused() -> None:
    """What formats like a double but gives no number is refused."""

    class Formatted:
        def __init__(self, text: str) -> None:
            self.text = text

        def __format__(self, _spec: str) -> str:
            return self.text

    assert "ratio" == field_of(PLAIN.Everything(ratio=Formatted("1,000")))
    assert "by_ratio{0}" == field_of(PLAIN.Everything(by_ratio={Formatted("é"): "x"}))
    assert "" == field_of(PLAIN.Everything(by_ratio={Formatted('"'): "x"}))
    check(PLAIN.Everything(by_ratio={Formatted("1,000"): "x"}))


@pytest.mark.parametrize(
    ("fid", "name"), [("{s}", "a"), (1.5, "a"), (1, "no name"), (1, "class"), (1, "x = {}")]
)
def test_strange_names_and_ids_are_not_compiled(fid: object, name: str) -> None:
    """A name that isn't an identifier is left to Apache's `write`, which generates no code."""
    base = importlib.import_module("thrift.protocol.TBase").TBase
    cls: Any = type("Strange", (base,), {"thrift_spec": ((fid, STRING, name, "UTF8", None),)})
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


def test_a_short_write_is_followed() -> None:
    """A class without fields needs no more than the beginning and the end of a struct to be compiled."""

    class Short:
        thrift_spec = ()

        def write(self, protocol: Any) -> None:  # noqa: ANN401 - Apache's
            protocol.writeStructBegin("Short")
            protocol.writeFieldStop()
            protocol.writeStructEnd()

    assert is_compiled(Short)
    check(Short(), odd=False)


def test_writers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that keeps making classes doesn't fill the memory with their writers: 4,096 are kept."""
    writers = type(thrift_json._writers)()  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(thrift_json, "_writers", writers)
    writers.update({type(f"Class{number}", (), {}): repr for number in range(4_095)})
    lengths: list[int] = []
    for _ in range(3):
        cls = type("Fleeting", (PLAIN.Event,), {})
        assert b'{"1":{"str":"a"}}' == write_struct(cls(source="a"))
        lengths.append(len(writers))
    assert [4_096, 1, 2] == lengths
