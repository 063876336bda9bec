"""How long typed JSON events take to become bytes, compared with `json.dumps` of a ready-made dict.

An event has eight fields, one of them an object of three. Classes of libraries that aren't installed are
left out, and so is orjson, which is shown only for comparison.
"""

from __future__ import annotations

import gc
import importlib.util
import itertools
import json
import statistics
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from baseplate_events import serialize_v2j_event
from baseplate_events.json_writer import plain
from benchmarks.report import Table, Target, number
from benchmarks.rounds import interleave, on_one_core, seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from benchmarks.scale import Scale

#: Times that `json.dumps` of the ready dict should take what ours does.
_BOUND: Final = 2.5

#: Events of a round.
_EVENTS: Final = 200

_USER: Final = (123_450_001, "Zoë Łuk", True)
_EVENT: Final = ("baseplate", "test", "posts", 1_700_000_000_000, "3a1f4f6e-0f6b-4a55-9a58-0f8c0a3d0001")


@dataclass(slots=True)
class User:
    """The object within."""

    id: int
    name: str
    logged_in: bool


@dataclass(slots=True)
class Visit:
    """An event as a dataclass."""

    source: str
    action: str
    noun: str
    client_timestamp: int
    uuid: str
    user: User
    score: float
    title: str | None


class NamedUser(NamedTuple):
    """The object within a NamedTuple."""

    id: int
    name: str
    logged_in: bool


class NamedVisit(NamedTuple):
    """An event as a NamedTuple."""

    source: str
    action: str
    noun: str
    client_timestamp: int
    uuid: str
    user: NamedUser
    score: float
    title: str | None


def run(scale: Scale) -> list[Table]:
    """Measure events of each kind, and dicts of several shapes."""
    return [_measure_kinds(scale), _measure_shapes(scale)]


def _measure_kinds(scale: Scale) -> Table:
    rounds = scale.pick(full=100, quick=20, tiny=2)
    visit = Visit(*_EVENT, User(*_USER), 0.875, None)
    plain = asdict(visit)
    events: dict[str, object] = {
        "dataclass": visit,
        "NamedTuple": NamedVisit(*_EVENT, NamedUser(*_USER), 0.875, None),
        **_events_of_libraries(plain),
        "dict": plain,
    }
    candidates: dict[str, Callable[[], float]] = {
        f"{name}, serialize_v2j_event": _measuring(serialize_v2j_event, event)
        for name, event in events.items()
    }
    candidates["dict, json.dumps"] = _measuring(_dumps, plain)
    candidates["dict, bare JSONEncoder"] = _measuring(_encode, plain)
    if importlib.util.find_spec("orjson") is not None:
        orjson: Any = importlib.import_module("orjson")
        candidates |= {
            f"{name}, orjson": _measuring(orjson.dumps, events[name]) for name in ("dataclass", "dict")
        }
    for name, event in events.items():
        if serialize_v2j_event(event) != _dumps(plain):  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
            raise ValueError(f"the bytes of the {name} differ")
    with on_one_core():
        results = interleave(candidates, rounds)
    dumps = results["dict, json.dumps"]
    times = {name: statistics.median(values) for name, values in results.items()}
    ratios = {
        name: statistics.median(theirs / ours for theirs, ours in zip(dumps, values, strict=True))
        for name, values in results.items()
    }
    bare = statistics.median(
        theirs / ours
        for theirs, ours in zip(
            results["dict, bare JSONEncoder"], results["dict, serialize_v2j_event"], strict=True
        )
    )
    return Table(
        f"Serialize a typed JSON event, {len(_dumps(plain))} bytes",
        ("", "µs", "times json.dumps"),
        tuple((name, number(times[name]), f"{number(ratio)}x") for name, ratio in ratios.items()),
        (
            *(
                Target(
                    f"{name}, times json.dumps of its dict", ratios[f"{name}, serialize_v2j_event"], _BOUND
                )
                for name in ("dataclass", "msgspec struct")
                if name in events
            ),
            Target("dict, times a bare JSONEncoder", bare, 1.0),
        ),
        (
            "`json.dumps` gets the ready dict, `ensure_ascii=False` and the shortest separators.",
            "A bare `JSONEncoder`, made before, is what wrote dicts until there were compiled writers.",
            "Ratios are medians of those of each round. CPU time.",
        ),
    )


def _measure_shapes(scale: Scale) -> Table:
    """Measure dicts whose keys come again, and others."""
    rounds = scale.pick(full=100, quick=20, tiny=2)
    writers: dict[str, Callable[[Any], bytes]] = {
        "ours": serialize_v2j_event,
        "json": _dumps,
        "bare": _encode,
        "least": _encode_and_visit,
    }
    if importlib.util.find_spec("orjson") is not None:
        orjson: Any = importlib.import_module("orjson")
        writers["orjson"] = orjson.dumps
    rows: list[tuple[str, ...]] = []
    targets: list[Target] = []
    with on_one_core():
        for name, make in _SHAPES.items():
            if serialize_v2j_event(make("x")) != _dumps(make("x")):
                raise ValueError(f"the bytes of dicts ({name}) differ")
            serials = itertools.count()
            results = interleave(
                {
                    writer: partial(_measure_new, serialize, make, serials)
                    for writer, serialize in writers.items()
                },
                rounds,
            )
            ratios = {
                writer: statistics.median(
                    theirs / ours for theirs, ours in zip(results[writer], results["ours"], strict=True)
                )
                for writer in writers
            }
            least = statistics.median(
                theirs / ours for theirs, ours in zip(results["bare"], results["least"], strict=True)
            )
            rows.append(
                (
                    name,
                    *(
                        number(statistics.median(results[writer])) if writer in results else ""
                        for writer in ("ours", "json", "bare", "orjson")
                    ),
                    f"{number(ratios['json'])}x",
                    f"{number(ratios['bare'])}x",
                    f"{number(least)}x",
                )
            )
            targets.append(Target(f"{name}, times a bare JSONEncoder", ratios["bare"], 1.0))
    return Table(
        "Serialize a dict",
        (
            "",
            "ours, µs",
            "json.dumps",
            "bare JSONEncoder",
            "orjson",
            "times json.dumps",
            "times bare",
            "least check",
        ),
        tuple(rows),
        tuple(targets),
        (
            "Each event is another dict, made just before. New keys are keys that no dict before had.",
            "A bare `JSONEncoder` neither finds keys that get the same name nor knows NamedTuples.",
            "Its figure includes a test whether the event is a dict, as the serializer with it had.",
            "The least check is what `times bare` would be at best without a compiled writer: it visits all",
            "values and compares nothing. docs/decisions/0019-check-of-plain-values.md says more.",
            "Ratios are medians of those of each round. CPU time.",
        ),
    )


def _nested(depth: int, prefix: str) -> dict[str, object]:
    """Return a dict that has so many levels; its keys begin with a prefix."""
    event: dict[str, object] = {f"{prefix}id": 123_450_001, f"{prefix}name": "Zoë Łuk"}
    for level in range(depth - 1):
        event = {f"{prefix}id": level, f"{prefix}child": event, f"{prefix}name": "x"}
    return event


def _items(count: int, prefix: str) -> dict[str, object]:
    """Return a dict that has so many in a list."""
    return {
        "noun": "posts",
        "items": [
            {f"{prefix}id": "t3_ab1", f"{prefix}position": n, f"{prefix}score": 0.875} for n in range(count)
        ],
    }


#: Makes dicts of a shape, by name; each gets a text that no other gets.
_SHAPES: Final[dict[str, Callable[[str], dict[str, object]]]] = {
    "4 members": lambda text: {"source": "web", "action": text, "id": 5, "ok": True},
    "4 members, new keys": lambda text: {f"{text}{n}": "value" for n in range(4)},
    "20 members": lambda text: {**{f"field_{n}": n for n in range(19)}, "text": text},
    "20 members, new keys": lambda text: {f"{text}{n}": n for n in range(20)},
    "200 members, new keys": lambda text: {f"{text}{n}": n for n in range(200)},
    "4 levels": lambda text: {**_nested(4, ""), "text": text},
    "4 levels, new keys": lambda text: _nested(4, text),
    "10 levels, new keys": lambda text: _nested(10, text),
    "list of 3": lambda text: {**_items(3, ""), "text": text},
    "list of 20": lambda text: {**_items(20, ""), "text": text},
    "list of 20, new keys": lambda text: _items(20, text),
    "100 levels, new keys": lambda text: _nested(100, text),
    "50 int keys": lambda text: {"text": text, "votes": {n: n for n in range(50)}},
    "50 int keys, new keys around": lambda text: {text: 1, "votes": {n: n for n in range(50)}},
    "4 int keys within": lambda text: {"text": text, "votes": {1: 2, 3: 4, 5: 6, 7: 8}},
    "text of 1,800 characters": lambda text: {
        "id": 5,
        "title": text,
        "body": "The quick brown fox jumps. " * 67,
    },
    "text that isn't ASCII": lambda text: {
        "id": text,
        "title": "日本語のタイトル",
        "body": "ユーザーの投稿" * 9,
    },
}


def _measure_new(
    serialize: Callable[[Any], bytes], make: Callable[[str], dict[str, object]], serials: Iterator[int]
) -> float:
    events = [make(f"k{serial}_") for serial in itertools.islice(serials, _EVENTS)]
    return seconds_of(serialize, events) * 1e6


def _dumps(event: object) -> bytes:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


_encoder: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _encode(event: object) -> bytes:
    """Write a dict as `serialize_v2j_event` did until there were compiled writers."""
    members = _members(event)
    if members is None:
        raise TypeError
    return _encoder.encode(members).encode()


def _encode_and_visit(event: object) -> bytes:
    """Write a dict by the encoder's C function, and visit what is in it, as the cheapest check must."""
    data = "".join(_encode_in_c(event, 0)).encode()
    items = gc.get_referents(event)
    while items:
        items = gc.get_referents(*items)
    return data


_encode_in_c: Final = cast("Callable[[object, int], Iterable[str]]", vars(plain)["_encode"])


def _members(event: object) -> dict[object, object] | None:
    return cast("dict[object, object]", event) if isinstance(event, dict) else None


def _measuring(serialize: Callable[[Any], bytes], event: object) -> Callable[[], float]:
    return partial(_measure, serialize, event)


def _measure(serialize: Callable[[Any], bytes], event: object) -> float:
    return seconds_of(serialize, [event] * _EVENTS) * 1e6


def _events_of_libraries(plain: dict[str, Any]) -> dict[str, object]:
    """Return the event as an instance of a class of each library that is installed."""
    user: dict[str, Any] = plain["user"]
    types: dict[str, Any] = dict(Visit.__annotations__)
    events: dict[str, object] = {}
    if importlib.util.find_spec("msgspec") is not None:
        msgspec: Any = importlib.import_module("msgspec")
        inner = msgspec.defstruct("StructUser", [*User.__annotations__.items()])
        outer = msgspec.defstruct("StructVisit", [*types.items()])
        events["msgspec struct"] = outer(**{**plain, "user": inner(**user)})
    if importlib.util.find_spec("attrs") is not None:
        attrs: Any = importlib.import_module("attrs")
        inner = attrs.make_class("AttrsUser", {name: attrs.field(type=t) for name, t in _types(User).items()})
        outer = attrs.make_class("AttrsVisit", {name: attrs.field(type=t) for name, t in types.items()})
        events["attrs class"] = outer(**{**plain, "user": inner(**user)})
    if importlib.util.find_spec("pydantic") is not None:
        pydantic: Any = importlib.import_module("pydantic")
        inner = pydantic.create_model("ModelUser", **{name: (t, ...) for name, t in _types(User).items()})
        known = {"str": str, "int": int, "float": float, "str | None": "str | None"}
        outer = pydantic.create_model(
            "ModelVisit", **{name: (known.get(t, Any), ...) for name, t in types.items()}
        )
        events["pydantic model"] = outer(**{**plain, "user": inner(**user)})
    return events


def _types(cls: type) -> dict[str, Any]:
    known = {"str": str, "int": int, "bool": bool}
    return {name: known[text] for name, text in cls.__annotations__.items()}
