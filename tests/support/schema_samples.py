"""The generated classes under `schemas`, by shape, and the events that tests and benchmarks are made with."""

from __future__ import annotations

import copy
import importlib
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from types import ModuleType

#: An instance of a generated class, which is untyped as it is in a service.
Struct: TypeAlias = Any

#: Folders of `schemas`, each with the output of the real compiler for one set of options.
_FOLDERS: Final = ("plain", "slots", "dynamic", "dynamic_slots", "enum", "enum_dynamic")


def _load() -> dict[str, ModuleType]:
    shapes: dict[str, ModuleType] = {}
    for folder in _FOLDERS:
        try:
            shapes[folder] = importlib.import_module(f"tests.schemas.{folder}.events.ttypes")
        except ImportError:
            # Releases of the thrift library before 0.14 lack a base class that the dynamic shapes need.
            continue
    return shapes


#: The generated module of each shape that the installed thrift library can import.
SHAPES: Final = _load()

#: The plain shape, which is what most services have.
PLAIN: Final = SHAPES["plain"]

#: Written by hand after the output of compilers later than the one at hand.
NEWER: Final = importlib.import_module("tests.schemas.newer")


def small_event(schema: ModuleType = PLAIN, *, serial: int = 0) -> Struct:
    """Return an event of five fields, 145 bytes as TJSON.

    Args:
        schema: A module of `SHAPES`.
        serial: Makes events that differ; below 10,000 they are of one size.
    """
    return schema.Event(
        source="baseplate",
        action="test",
        noun="posts",
        client_timestamp=1_700_000_000_000.125 + serial,
        uuid=f"3a1f4f6e-0f6b-4a55-9a58-0f8c0a3d{serial:04d}",
    )


def rich_event(schema: ModuleType = PLAIN, *, serial: int = 0) -> Struct:
    """Return an event of nested structs, maps, lists, a set, doubles and non-ASCII text, 724 bytes as TJSON.

    Args:
        schema: A module of `SHAPES`.
        serial: Makes events that differ; below 10,000 they are of one size.
    """
    return schema.RichEvent(
        event=small_event(schema, serial=serial),
        user=schema.User(
            id=123_450_000 + serial,
            name="Zoë Łuk",
            logged_in=True,
            geo=schema.Geo(country="NL", latitude=52.3702157, longitude=4.8951679),
            roles=["mod", "café"],
        ),
        # The compiler at hand takes the name of an enum's member here, unless the shape is dynamic.
        kind="VOTE" if schema is SHAPES["enum"] else schema.Kind.VOTE,
        impressions=[
            schema.Impression(id="t3_ab1", position=0, score=0.875),
            schema.Impression(id="t3_ab2", position=1, score=0.1),
        ],
        labels={"page": "home"},
        timings={1: 0.25, 37: 12.5},
        experiments={11, 907},
        counts={"views": 10, "votes": 3},
        title="日本語のタ",
    )


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
