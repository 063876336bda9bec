"""Events are typed from their constructor to the queue, if there are stubs for their classes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.commands import IMPORTING, run
from tests.support.schema_samples import SHAPES
from tests.types.checks import CHECKERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.commands import Result

SCHEMAS: Final = Path(__file__).parents[1] / "schemas"

#: What each shape takes for a member of an enum, the type of such a field, and what is wrong there.
KINDS: Final = {
    "enum": ('"VOTE"', "typing.Literal['VIEW', 'VOTE', 'REPORT']", '"OTHER"'),
    **dict.fromkeys(
        ("plain", "slots", "dynamic", "dynamic_slots", "enum_dynamic"), ("Kind.VOTE", "int", '"VOTE"')
    ),
}

#: Shapes whose classes check that required fields are set.
VALIDATING: Final = ("plain", "slots", "enum")

RIGHT: Final = """
{imports}from collections.abc import Hashable
from typing_extensions import assert_type

from baseplate_events import EventQueue, ThriftStruct, serialize_v2_event
from {module} import (
    Choice, Defaults, Empty, Event, Everything, FrozenPath, FrozenPoint, FrozenRefused, Geo, Kind, Negative,
    Ping, Pong, Refused, RichEvent, StructKeys, Tree,
)

structs = EventQueue("v2", serialize_v2_event)
events: EventQueue[Event] = EventQueue("v2", serialize_v2_event)


def put_everything(anything: EventQueue[ThriftStruct]) -> None:
    kinds: EventQueue[Everything] = anything
    events.put(Event(source="a", client_timestamp=1, uuid=None))
    structs.put(Event())
    structs.put(Empty())
    structs.put(Defaults(name="a", id=1, kind={kind}))
    kinds.put(
        Everything(
            flag=True, tiny=1, small=1, medium=1, large=1, ratio=0.5, text="a", blob=b"a", kind={kind},
            geo=Geo(), flags=[True], ratios={{0.5, 1}}, by_flag={{True: 1}}, by_tiny={{1: 2}},
            by_ratio={{0.5: "a"}}, by_kind={{{kind}: Geo()}}, by_blob={{b"a": b"b"}},
            deep=[[], [{{}}, {{"a": {{1}}}}]], kinds=[{kind}], places=[Geo(country="NL")], blobs={{b"a"}},
        )
    )
    structs.put(RichEvent(event=Event(), kind={kind}, counts={{"a": 1}}))
    structs.put(StructKeys(by_list={{}}, by_point={{}}))
    structs.put(Choice(number=1))
    structs.put(Refused(message="a"))
    structs.put(FrozenRefused(message="a"))
    structs.put(Tree(children=[Tree(), Tree(children=[])]))
    structs.put(Ping(pong=Pong(pings={{"a": Ping()}})))
    structs.put(FrozenPath(name="a", points=[FrozenPoint(x=1)], marks={{"a": FrozenPoint()}}))
    structs.put(Negative(after="a"))


def read(event: Event, all_: Everything, path: FrozenPath, defaults: Defaults) -> None:
    assert_type(event.source, "str | None")
    assert_type(event.client_timestamp, "float | None")
    assert_type(all_.blob, "bytes | None")
    assert_type(all_.kind, "{kind_type} | None")
    assert_type(all_.kinds, "list[{kind_type}] | None")
    assert_type(all_.deep, "list[list[dict[str, set[int]]]] | None")
    assert_type(all_.by_kind, "dict[{kind_type}, Geo] | None")
    assert_type(path.points, "list[FrozenPoint] | None")
    assert_type(defaults.count, "int | None")
    assert_type(FrozenPoint.read(None), FrozenPoint)
    event.source = "b"
    _key: Hashable = path
    if Kind.VIEW:
        raise Refused(message="a")
"""

WRONG: Final = """
from collections.abc import Hashable

from baseplate_events import EventQueue, serialize_v2_event
from {module} import (
    Choice, Event, Everything, FrozenPath, FrozenPoint, Geo, Refused, RichEvent, StructKeys, Tree,
)

events: EventQueue[Event] = EventQueue("v2", serialize_v2_event)


def construct() -> None:
    Event(source=1)  # type: ignore[arg-type]
    Event(source=b"a")  # type: ignore[arg-type]
    Event(client_timestamp="1")  # type: ignore[arg-type]
    Event(sauce="a")  # type: ignore[call-arg]
    Event("a")  # type: ignore[call-arg]
    Everything(blob="a")  # type: ignore[arg-type]
    Everything(flag="a")  # type: ignore[arg-type]
    Everything(medium=0.5)  # type: ignore[arg-type]
    Everything(geo=Event())  # type: ignore[arg-type]
    Everything(kind={wrong_kind})  # type: ignore[arg-type]
    Everything(kinds=[{wrong_kind}])  # type: ignore[list-item]
    Everything(flags=(True,))  # type: ignore[arg-type]
    Everything(deep=[[{{"a": [1]}}]])  # type: ignore[dict-item]
    Everything(by_tiny={{"a": 1}})  # type: ignore[dict-item]
    Everything(blobs={{"a"}})  # type: ignore[arg-type]
    RichEvent(labels={{"a": 1}})  # type: ignore[dict-item]
    StructKeys(by_point={{FrozenPoint(): 1}})  # type: ignore[dict-item]
    Choice(number="a")  # type: ignore[arg-type]
    Refused(code="a")  # type: ignore[arg-type]
    Tree(children=[Geo()])  # type: ignore[list-item]
    FrozenPath(name="a", points=[Geo()])  # type: ignore[list-item]


def change(event: Event, point: FrozenPoint) -> None:
    event.source = 1  # type: ignore[assignment]
    event.sauce = "a"  # type: ignore[attr-defined]
    point.x = 1  # type: ignore[misc]
    _key: Hashable = event  # type: ignore[assignment]


def put() -> None:
    events.put(Geo())  # type: ignore[arg-type]
    events.put({{"source": "a"}})  # type: ignore[arg-type]
    events.put(Event)  # type: ignore[arg-type]
"""

INCOMPLETE: Final = """
from {module} import Defaults, FrozenPath

Defaults(name="a"{kind})  # type: ignore[call-arg]
Defaults(name=None, id=1{kind})  # type: ignore[arg-type]
FrozenPath()  # type: ignore[call-arg]
"""

NEWER: Final = """
from baseplate_events import EventQueue, serialize_v2_event
from tests.schemas.newer import Kind, Node

nodes: EventQueue[Node] = EventQueue("v2", serialize_v2_event)
nodes.put(Node(name="a", kind=Kind.VOTE, kinds=[Kind.VIEW], children=[Node(name="b")]))
Node(name="a", kind=2)  # type: ignore[arg-type]
Node()  # type: ignore[call-arg]
"""

NAMES: Final = """
from typing_extensions import assert_type

import tests.schemas.{shape}.events.ttypes as events
from tests.schemas.names_{shape}.odd import constants, ttypes

included = ttypes.Included(event=events.Event(source="a"))
assert_type(included.event, events.Event)
assert_type(ttypes.Any(str="a").str, "str | None")
assert_type(ttypes.Any(tuple=[ttypes.Any()]).tuple, "list[ttypes.Any] | None")
assert_type(ttypes.Any(Geo=events.Geo()).Geo, "events.Geo | None")
assert_type(ttypes.Point().property, "int | None")
assert_type(constants.NUMBERS, "list[int]")
assert_type(constants.TABLE, "dict[str, list[float]]")
assert_type(constants.HERE, events.Geo)
assert_type(constants.Any(int=1).int, "int | None")
ttypes.Any(int="a")  # type: ignore[arg-type]
ttypes.Included()  # type: ignore[call-arg]
ttypes.Included(event=events.Geo())  # type: ignore[arg-type]
try:
    raise ttypes.Exception(object="a")
except ttypes.Exception as error:
    assert_type(error.object, str)
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stubs of all schemas, and files that use each of them."""
    folder = tmp_path_factory.mktemp("service")
    shapes = [name for name in KINDS if name in SHAPES]
    modules = [f"tests.schemas.{shape}.events" for shape in shapes]
    modules += ["tests.schemas.newer", "tests.schemas.names_plain", "tests.schemas.names_enum"]
    run(
        *(sys.executable, "-m", "baseplate_events", "thrift-stubs", *modules, "--output", str(folder)),
        environ=IMPORTING,
    ).check()
    for shape in shapes:
        kind, kind_type, wrong_kind = KINDS[shape]
        names = {"module": f"tests.schemas.{shape}.events.ttypes", "kind": kind, "kind_type": kind_type}
        names["imports"] = "import typing\n\n" if shape == "enum" else ""
        (folder / f"right_{shape}.py").write_text(RIGHT.format(**names))
        (folder / f"wrong_{shape}.py").write_text(WRONG.format(**names, wrong_kind=wrong_kind))
        if shape in VALIDATING:
            names["kind"] = f", kind={kind}" if shape == "enum" else ""
            (folder / f"incomplete_{shape}.py").write_text(INCOMPLETE.format(**names))
    (folder / "newer.py").write_text(NEWER)
    for shape in ("plain", "enum"):
        (folder / f"names_{shape}.py").write_text(NAMES.format(shape=shape))
    return folder


@pytest.mark.parametrize("check", CHECKERS.values(), ids=CHECKERS)
def test_events_are_typed(service: Path, check: Callable[..., Result]) -> None:
    """In each shape of generated classes, right events pass, and each wrong field is an error."""
    result = check(service, [path.name for path in service.glob("*.py")])
    assert 0 == result.status, result.out


@pytest.mark.parametrize("check", CHECKERS.values(), ids=CHECKERS)
def test_stubs_are_strict(service: Path, check: Callable[..., Result]) -> None:
    """The stubs themselves pass strict checks, with names that mean something else in Python, too."""
    result = check(service, [str(path.relative_to(service)) for path in service.rglob("*.pyi")])
    assert 0 == result.status, result.out
