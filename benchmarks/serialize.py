"""How long an event takes to become bytes, against Apache Thrift's writer, as used by baseplate.py."""

from __future__ import annotations

import json
import statistics
from functools import partial
from typing import TYPE_CHECKING, Final

from baseplate_events import serialize_v2_event, serialize_v2j_event
from benchmarks.original import original_events
from benchmarks.report import Line, Report, Target
from benchmarks.rounds import interleave, on_one_core, seconds_of
from tests.support.schema_samples import rich_event, small_event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.scale import Scale
    from tests.support.schema_samples import Struct

#: What makes events that differ, by name.
_STRUCTS: Final[dict[str, Callable[[int], Struct]]] = {
    "small": lambda serial: small_event(serial=serial),
    "rich": lambda serial: rich_event(serial=serial),
}

#: Events of a round, created for each: few enough to stay in a core's cache, as the one event of a request.
_EVENTS: Final = 200

#: Times that Apache's writer should take what ours does.
_BOUND: Final = 10.0


def run(scale: Scale) -> Report:
    """Measure the serializers."""
    rounds = scale.pick(full=100, quick=20, tiny=2)
    lines: list[Line] = []
    targets: list[Target] = []
    with on_one_core():
        for name, make in _STRUCTS.items():
            for distinct in (False, True):
                line = _measure_struct(name, make, rounds, distinct=distinct)
                lines.append(line)
                if line.times_original is not None:
                    targets.append(Target(f"{line.what}, times baseplate.py", line.times_original, _BOUND))
        lines += [_measure_json(rounds, distinct=distinct) for distinct in (False, True)]
    return Report(
        "Serialize an event",
        tuple(lines),
        tuple(targets),
        (
            "Thrift: baseplate.py's serializer is Apache's `TJSONProtocol`. The bytes are the same.",
            "JSON: baseplate.py has no serializer; `json.dumps(event).encode()` of a service stands for it.",
            "The floor is a bare `json.JSONEncoder`, made before.",
            f"Distinct events are made just before, {_EVENTS} at a time, and not counted. CPU time.",
        ),
    )


def _measure_struct(name: str, make: Callable[[int], Struct], rounds: int, *, distinct: bool) -> Line:
    original = original_events()
    candidates: dict[str, Callable[[Struct], bytes]] = {"ours": serialize_v2_event}
    if original is not None:
        candidates["original"] = original.serialize_v2_event
    sizes = {serialize(make(0)) for serialize in candidates.values()}
    if len(sizes) != 1:
        raise ValueError(f"the bytes of the {name} event differ")
    size = len(sizes.pop())
    return _line(f"{name} Thrift event, {size} bytes", candidates, make, rounds, distinct=distinct)


def _measure_json(rounds: int, *, distinct: bool) -> Line:
    encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    candidates: dict[str, Callable[[dict[str, object]], bytes]] = {
        "ours": serialize_v2j_event,
        "original": lambda event: json.dumps(event).encode(),
        "floor": lambda event: encoder.encode(event).encode(),
    }
    if serialize_v2j_event(json_event(0)) != candidates["floor"](json_event(0)):
        raise ValueError("the bytes of the JSON event differ")
    size = len(serialize_v2j_event(json_event(0)))
    return _line(f"rich JSON event, {size} bytes", candidates, json_event, rounds, distinct=distinct)


def json_event(serial: int) -> dict[str, object]:
    """Return an event with what the rich Thrift event has, as a service writes it in JSON."""
    return {
        "source": "baseplate",
        "action": "test",
        "noun": "posts",
        "client_timestamp": 1_700_000_000_000.125 + serial,
        "uuid": f"3a1f4f6e-0f6b-4a55-9a58-0f8c0a3d{serial:04d}",
        "user": {
            "id": 123_450_000 + serial,
            "name": "Zoë Łuk",
            "logged_in": True,
            "geo": {"country": "NL", "latitude": 52.3702157, "longitude": 4.8951679},
            "roles": ["mod", "café"],
        },
        "kind": "VOTE",
        "impressions": [
            {"id": "t3_ab1", "position": 0, "score": 0.875},
            {"id": "t3_ab2", "position": 1, "score": 0.1},
        ],
        "labels": {"page": "home"},
        "counts": {"views": 10, "votes": 3},
        "title": "日本語のタ",
    }


def _line(
    what: str,
    candidates: dict[str, Callable[[Struct], bytes]],
    make: Callable[[int], Struct],
    rounds: int,
    *,
    distinct: bool,
) -> Line:
    def measure(serialize: Callable[[Struct], bytes]) -> float:
        events: Sequence[Struct] = (
            [make(serial) for serial in range(_EVENTS)] if distinct else [make(0)] * _EVENTS
        )
        return seconds_of(serialize, events) * 1e6

    results = interleave(
        {name: partial(measure, serialize) for name, serialize in candidates.items()}, rounds
    )
    times = {name: statistics.median(values) for name, values in results.items()}
    return Line(
        f"{what}, {'distinct' if distinct else 'the same again'}",
        "µs",
        times["ours"],
        times.get("original"),
        times.get("floor"),
    )
