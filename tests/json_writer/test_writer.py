from __future__ import annotations

import collections
import collections.abc
import datetime as dt
import decimal
import enum
import inspect
import json
import math
import pickle
import sys
import threading
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baseplate_events import EventError, EventNotSerializableError, json_serializer, serialize_v2j_event
from baseplate_events.json_writer.reference import write_reference
from baseplate_events.json_writer.writer import JsonWriters
from baseplate_events.serializers import event_format_of
from tests.support import strategies, typed_events
from tests.support.commands import IMPORTING, run
from tests.support.typed_events import Same, late_mapping

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.typed_events import Pair

T = TypeVar("T")

MAKERS = (typed_events.make_dataclass, typed_events.make_named_tuple)


def plain_json(value: object) -> bytes:
    """Write what consists of JSON's own types."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def written(event: object) -> bytes:
    """Serialize an event, whatever its type."""
    return serialize_v2j_event(cast("Any", event))


def error_of(
    event: object, serialize: Callable[[Any], bytes] = serialize_v2j_event
) -> EventNotSerializableError:
    """Return the error for an event."""
    with pytest.raises(EventNotSerializableError) as caught:
        serialize(event)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


# --- the same as json ---


@given(pair=typed_events.events(MAKERS))
def test_typed_events_are_their_dicts(pair: Pair) -> None:
    """An event comes out as `json` writes the dict with the same content, whatever its annotations say."""
    event, plain = pair
    assert plain_json(plain) == written(event)
    assert written(event) == JsonWriters()[type(event)](event).encode()


@given(pair=typed_events.events(MAKERS))
def test_the_reference_writes_the_same(pair: Pair) -> None:
    """The slow and the fast way write the same."""
    event, plain = pair
    assert plain_json(plain) == write_reference(event, None)


@given(
    keys=st.lists(strategies.texts, unique=True, max_size=5),
    nested=st.lists(strategies.texts, unique=True, max_size=3),
    values=st.lists(strategies.plain_values, min_size=1, max_size=20),
    last=strategies.plain_values,
)
def test_dicts_that_come_again_are_the_same(
    keys: list[str], nested: list[str], values: list[object], last: object
) -> None:
    """A dict whose keys come again and again comes out as before, also with values of other types."""
    write = JsonWriters()[dict]
    for number in range(20):
        value = values[number % len(values)]
        within = dict.fromkeys(nested, value)
        event = {
            **dict.fromkeys(keys, value),
            "n": within,
            "i": {1: value},
            "l": [within, value],
            "t": ["x", value],
        }
        assert plain_json(event) == write(event).encode()
    for event in (
        {**dict.fromkeys(keys, 1), "n": last, "i": last, "l": last, "t": last},
        {
            **dict.fromkeys(keys, last),
            "n": {**dict.fromkeys(nested, 1), "other": 1},
            "i": {True: 1},
            "l": [last],
            "t": [last] * 9,
        },
    ):
        assert plain_json(event) == write(event).encode()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_known_fields_that_json_has_not(bad: float) -> None:
    """NaN and infinities are errors, also in fields that a writer knows to be floats."""

    @dataclass
    class Place:
        latitude: float

    for _ in range(20):
        assert b'{"latitude":1.5}' == serialize_v2j_event({"latitude": 1.5}) == written(Place(1.5))
    assert "latitude" == error_of({"latitude": bad}).field == error_of(Place(bad)).field


@given(st.lists(st.none() | st.integers() | st.floats() | strategies.texts | st.booleans(), max_size=30))
def test_arrays_are_those_of_json(items: list[object]) -> None:
    """Lists of any length come out as `json` writes them, and not at all if it can't."""
    if all(not isinstance(item, float) or math.isfinite(item) for item in items):
        assert plain_json({"a": items}) == serialize_v2j_event({"a": items})
    else:
        assert error_of({"a": items}).field.startswith("a[")


class Text(str):
    """A text that isn't of type str."""

    __slots__ = ()


class Ordered(dict[str, object]):
    """A dict that isn't of type dict."""


#: What is and isn't what `json` writes by itself, with brackets in texts, and names that may be equal.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "{", "[", "{[", Text("]"), '":', dt.date(2026, 1, 2)])
)
NAMES = (
    st.sampled_from(["a", "b", "1", "{", "["]) | st.integers(0, 2) | st.builds(Text, st.sampled_from("ab"))
)
TWICE: dict[object, object] = {1: 1, "1": 1}
MIXED = st.recursive(
    SCALARS,
    lambda values: (
        st.lists(values, max_size=10)
        | st.dictionaries(NAMES, values, max_size=4)
        | st.dictionaries(st.sampled_from("ab"), values).map(Ordered)
        | st.builds(typed_events.Point, values)
        | st.tuples(values)
    ),
    max_leaves=12,
)


@given(members=st.dictionaries(NAMES, MIXED, max_size=5), more=st.sampled_from([0, 0, 70]))
@example(members=TWICE, more=0)
@example(members=TWICE, more=70)
@example(members={"a": TWICE}, more=0)
@example(members={"a": {"b": TWICE}}, more=0)
@example(members={"a": [{"b": TWICE}]}, more=0)
def test_dicts_whose_keys_do_not_come_again(members: dict[object, object], more: int) -> None:
    """Whatever is within: what the writers write is what the reference writes."""
    event: dict[object, object] = {**members, **{f"k{number}": number for number in range(more)}}
    writers = JsonWriters()
    for value in (event, [event] * 9):
        try:
            text = writers[type(value)](value)
        except Exception:  # noqa: BLE001 - the reference decides on what the writers refuse
            continue
        assert f'{{"v":{text}}}'.encode() == write_reference({"v": value}, None)


@given(st.integers(0, 200), st.booleans())
def test_large_dicts(size: int, flat: bool) -> None:
    """Dicts of any size come out as `json` writes them, with NamedTuples as objects."""
    members: dict[str, object] = {f"k{number}": number for number in range(size)}
    wanted = plain_json({**members, "last": 1 if flat else {"x": 1, "label": "é"}})
    for _ in range(10):
        assert wanted == serialize_v2j_event({**members, "last": 1 if flat else typed_events.Point(1)})


@given(st.sets(strategies.texts, max_size=20))
def test_sets_are_arrays(items: set[str]) -> None:
    """A set is an array of its items, in any order."""

    class Tags(set[str]):
        pass

    found = json.loads(serialize_v2j_event({"a": items, "b": frozenset(items), "c": Tags(items)}))
    assert len(found["a"]) == len(items)
    assert items == set(found["a"]) == set(found["b"]) == set(found["c"])


# --- names ---


@given(
    keys=st.lists(
        st.none()
        | st.booleans()
        | st.integers(-2, 2)
        | st.floats(-2, 2)
        | st.sampled_from(["1", "true", "null"]),
        max_size=5,
    )
)
def test_names_are_unique(keys: list[object]) -> None:
    """Keys are named as `json` names them; two that get the same name are an error."""
    event = cast("dict[str, object]", dict.fromkeys(keys, 0))
    wanted = plain_json(event)
    names: list[str] = []
    json.loads(wanted, object_pairs_hook=lambda pairs: names.extend(name for name, _ in pairs))
    if len(set(names)) == len(names):
        assert wanted == serialize_v2j_event(event) == serialize_v2j_event(collections.UserDict(event))
    else:
        assert "same name" in error_of(event).problem
        assert "a[0]" == error_of({"a": [event]}).field


def test_names_are_compared_as_text() -> None:
    """Unequal keys with the same text are an error, also in a dict of known keys."""
    for _ in range(20):
        assert b'{"a":1,"b":2}' == serialize_v2j_event({"a": 1, "b": 2})
        assert b'{"a":1,"b":2}' == serialize_v2j_event({Same("a"): 1, "b": 2})
        assert "same name" in error_of({"a": 1, Same("a"): 2}).problem
        assert "same name" in error_of({Same("b"): 1, Same("b"): 2}).problem


def test_a_mapping_that_has_a_key_twice() -> None:
    """A mapping that yields a key twice, like some for headers or forms, is an error."""

    class Form(dict[str, int]):
        def items(self) -> Any:  # noqa: ANN401 - of another type than that of dict
            return [("a", 1), ("a", 2)]

    assert "same name" in error_of(Form(a=1)).problem
    assert "form" == error_of({"form": Form(a=1)}).field


@given(name=strategies.hostile_texts | st.text(st.sampled_from("\"'{}\\N\n\0\u2028é")))
def test_any_name_is_a_name(name: str) -> None:
    """A name of any characters is written as `json` writes it, also by a compiled writer."""
    name = name.encode(errors="replace").decode()
    write = JsonWriters()[dict]
    for _ in range(20):
        assert plain_json({name: 1, "n": {name: "x"}}) == write({name: 1, "n": {name: "x"}}).encode()


# --- values ---


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc), "2026-01-02T03:04:05+00:00"),
        (dt.datetime(2026, 1, 2, 3, 4, 5, 678), "2026-01-02T03:04:05.000678"),  # noqa: DTZ001 - naive
        (
            dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.timezone(dt.timedelta(hours=1, seconds=30))),
            "2026-01-02T02:03:35.000006+00:00",
        ),
        (dt.time(1, 2), "01:02:00"),
        (typed_events.Color.DAY, "2026-02-03"),
    ],
)
def test_forms_of_values(value: object, text: str) -> None:
    """Times have the form of RFC 3339; an offset that it lacks is converted to UTC."""
    assert plain_json({"a": text}) == serialize_v2j_event({"a": value})


def test_fields_of_dataclasses() -> None:
    """Class variables and `InitVar`s are no fields; inherited ones and those not in `__init__` are."""

    @dataclass
    class Base(Generic[T]):
        kind: ClassVar[str] = "base"
        item: T
        given: InitVar[int]
        derived: int = field(init=False)

        def __post_init__(self, given: int) -> None:
            self.derived = given

    @dataclass
    class Child(Base[str]):
        next: Base[int] | None = None

    class Grandchild(Child):
        extra = 1

    event = Grandchild("a", 5, Child("b", 6))  # type: ignore[arg-type]
    wanted = {"item": "a", "derived": 5, "next": {"item": "b", "derived": 6, "next": None}}
    assert plain_json(wanted) == written(event)


def test_named_tuples_are_objects_everywhere() -> None:
    """A NamedTuple is an object, as an event and within dicts, lists and classes; other tuples are arrays."""
    point, wanted = typed_events.Point(1), {"x": 1, "label": "é"}

    class Empty(NamedTuple):
        pass

    assert plain_json(wanted) == serialize_v2j_event(point)
    event = {
        "a": [point, (point, 1)],
        "b": {"c": point},
        "d": [point] * 20,
        "e": Empty(),
        "f": sys.version_info,
    }
    plain = {
        "a": [wanted, [wanted, 1]],
        "b": {"c": wanted},
        "d": [wanted] * 20,
        "e": {},
        "f": [*sys.version_info],
    }
    for _ in range(20):
        assert plain_json(plain) == serialize_v2j_event(event)


# --- default ---


class Money:
    """A class that JSON has no form for."""

    def __init__(self, cents: int) -> None:
        self.cents = cents


def money_or_error(value: object) -> object:
    """Write Money."""
    if isinstance(value, Money):
        return {"cents": value.cents, "day": dt.date(2026, 1, 2)}
    raise TypeError("secret")


@given(cents=st.integers(), path=strategies.paths)
def test_default_is_asked_for_what_has_no_form(cents: int, path: list[str | int]) -> None:
    """The result of the hook replaces a value, wherever that is, and the hook can be typed."""
    value: object = Money(cents)
    wanted: object = {"cents": cents, "day": "2026-01-02"}
    for step in reversed(path):
        value, wanted = ([value], [wanted]) if isinstance(step, int) else ({step: value}, {step: wanted})
    serialize = json_serializer(default=money_or_error)
    assert plain_json({"a": wanted, "b": 1}) == serialize({"a": value, "b": 1})
    assert plain_json({"cents": cents, "day": "2026-01-02"}) == serialize(cast("Any", Money(cents)))


def test_errors_of_default() -> None:
    """A hook that raises is an error that names the field and shows nothing; an `EventError` of it passes."""
    serialize = json_serializer(default=money_or_error)
    error = error_of({"a": [Money(1), b"x"]}, serialize)
    assert "a[1]" == error.field
    assert "bytes" in error.problem
    assert "TypeError" in error.problem
    assert "secret" not in str(error)

    own = EventError("mine")

    def refuse(_: object) -> object:
        raise own

    with pytest.raises(EventError) as caught:
        json_serializer(default=refuse)({"a": b"x"})
    assert own is caught.value
    assert "a" == error_of({"a": 1j}, json_serializer(default=lambda value: value)).field
    assert "a" == error_of({"a": 1j}, json_serializer(default=lambda value: [value])).field[:1]
    assert "mapping" in error_of(Money(1), json_serializer(default=lambda _: 5)).problem


@pytest.mark.parametrize("bad", [None, b"x", math.nan])
def test_default_is_called_once_for_a_value(bad: object) -> None:
    """Also if the event can't be written for another reason, or for what the hook returns or raises."""
    asked: list[object] = []

    def note(value: object) -> object:
        asked.append(value)
        return money_or_error(value)

    money = Money(5)
    serialize = json_serializer(default=note)
    for _ in range(2):
        asked.clear()
        event = {"a": money, "b": {"c": [bad, money]}}
        if bad is None:
            assert b'{"cents":5' in serialize(event)
        else:
            assert "b.c[0]" == error_of(event, serialize).field
        assert asked == ([money, bad] if isinstance(bad, bytes) else [money])


def test_a_class_that_becomes_a_mapping_is_written_as_one() -> None:
    """Though its instances were given to the hook before."""
    late = late_mapping()
    serialize = json_serializer(default=lambda _: "unknown")
    assert b'{"late":"unknown"}' == serialize({"late": late()})
    cast("Any", collections.abc.Mapping).register(late)
    assert b'{"late":{"a":"a"}}' == serialize({"late": late()})


@pytest.mark.parametrize("offset", [dt.timedelta(seconds=1_172), dt.timedelta(microseconds=1)])
def test_times_whose_offsets_are_not_whole_minutes(offset: dt.timedelta) -> None:
    """A datetime is converted to UTC, which is the same moment. A time has no day to do that: an error."""
    zone = dt.timezone(offset)
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=zone)
    found = json.loads(serialize_v2j_event({"at": moment}))["at"]
    assert found.endswith("+00:00")
    assert moment == dt.datetime.fromisoformat(found)
    error = error_of({"a": {"at": dt.time(1, 2, tzinfo=zone)}})
    assert "a.at" == error.field
    assert "RFC 3339" in error.problem
    assert b'{"at":"01:02:00+05:30"}' == serialize_v2j_event(
        {"at": dt.time(1, 2, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30)))}
    )


def test_a_serializer_can_be_pickled() -> None:
    """A serializer that was pickled writes the same; its events are for version 2j."""
    serialize = json_serializer(default=money_or_error)
    again = pickle.loads(pickle.dumps(serialize))
    assert serialize({"a": Money(1)}) == again({"a": Money(1)})
    assert "2j" == event_format_of(again) == event_format_of(serialize)


# --- what can't be written ---


@given(st.integers(1, 2_000), st.integers(0, 4))
def test_deep_events(depth: int, kind: int) -> None:
    """Depth is no error below the limit, on each Python, whatever is nested."""
    value: object = 1
    start: str = ""
    end = ""
    for _ in range(depth):
        forms: list[tuple[object, str, str]] = [
            ([value], "[", "]"),
            ({"a": value}, '{"a":', "}"),
            (typed_events.Point(cast("Any", value)), '{"x":', ',"label":"é"}'),
            ({"b": value, "c": 1}, '{"b":', ',"c":1}'),
            ((value, None), "[", ",null]"),
        ]
        value, before, behind = forms[kind]
        start, end = before + start, end + behind
    assert f'{{"e":{start}1{end}}}'.encode() == serialize_v2j_event({"e": value})


def test_what_is_too_deep() -> None:
    """Beyond the limit, depth is an error, and so is a class that holds itself."""

    @dataclass
    class Node:
        child: object = None

    node = Node()
    deep: object = 1
    for _ in range(20_000):
        deep = Node(deep)
    assert "too deep" in error_of(deep).problem
    node.child = [node]
    assert "child[0]" == error_of(node).field

    class Circle(enum.Enum):
        A = 1

    Circle.A._value_ = cast("Any", Circle.A)
    assert "again" in error_of({"a": Circle.A}).problem


def test_fields_that_cannot_be_read() -> None:
    """A field of a class is named as in JSON, and what raises when it is read is an error."""

    @dataclass
    class Sight:
        first: int
        second: object

        def __getattribute__(self, name: str) -> object:
            if name == "first":
                raise MemoryError("secret")
            return super().__getattribute__(name)

    error = error_of({"a": Sight(1, 2)})
    assert "a.first" == error.field
    assert "MemoryError" in error.problem
    assert "secret" not in str(error)
    assert "second.x" == error_of(Partial(1, typed_events.Point(cast("Any", b"x")))).field


@dataclass
class Partial:
    """A dataclass with a field for anything."""

    first: int
    second: object


def test_events_that_change_meanwhile() -> None:
    """If another thread changes an event, the output is JSON of some state, or an `EventError`."""
    event: dict[str, Any] = {
        "items": [1] * 30,
        "members": {f"k{number}": 1 for number in range(60)},
        "s": {1},
    }
    ended = threading.Event()

    def change() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            event["items"][number % 30 :] = [typed_events.Point(number), "x", number]
            event["members"][f"k{number % 90}"] = typed_events.Point(1)
            event["members"].pop(f"k{(number + 45) % 90}", None)
            event["s"].add(number % 50)
            event["s"].discard((number + 25) % 50)

    thread = threading.Thread(target=change)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(2_000):
            try:
                found = json.loads(serialize_v2j_event(event))
            except EventNotSerializableError:
                continue
            assert {"items", "members", "s"} == found.keys()
    finally:
        ended.set()
        thread.join()
        sys.setswitchinterval(interval)


# --- bounds ---


def test_what_is_kept_has_a_bound() -> None:
    """Neither keys that clients choose nor classes that come and go are kept without a bound."""
    writers = JsonWriters()
    for number in range(5_000):
        name = f"k{number}"
        assert f'{{"{name}":1}}' == writers[dict]({name: 1})
        made = type("Made", (typed_events.Point,), {})
        assert '{"x":1,"label":"é"}' == writers[made](made(1))
    assert len(writers) <= 4_096
    for number in range(600):
        for _ in range(80):
            assert f'{{"often{number}":1}}' == writers[dict]({f"often{number}": 1})
    write: Any = writers[dict]
    kept = inspect.getclosurevars(write).nonlocals
    assert len(kept["compiled"]) == 256
    assert len(inspect.getclosurevars(kept["count"]).nonlocals["counts"]) <= 256


def test_libraries_are_not_imported() -> None:
    """Writers are imported for the first JSON event, and serializing dicts imports no slow module."""
    program = """
import sys
before = set(sys.modules)  # a tool that measures coverage has some of them
from baseplate_events.serializers import serialize_v2j_event
assert not [name for name in sys.modules if name.startswith("baseplate_events.json_")]
assert serialize_v2j_event({"a": [1, {"b": None}], "c": {1}}) == b'{"a":[1,{"b":null}],"c":[1]}'
names = ["dataclasses", "inspect", "logging", "pathlib", "uuid", "decimal", "datetime"]
print([name for name in names if name in sys.modules.keys() - before])
"""
    assert "[]\n" == run(sys.executable, "-c", program, environ=IMPORTING).check()


def test_members_of_any_enum_are_their_values() -> None:
    """An enum is written by value, even if its members are of another class with a form."""

    class Price(decimal.Decimal, enum.Enum):
        LOW = "1.5"

    assert b'{"price":"1.5"}' == serialize_v2j_event({"price": Price.LOW})
