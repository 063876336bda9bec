"""What the encoder of `json` may write: all that is plain, and nothing else."""

from __future__ import annotations

import enum
import gc
import json
import sys
from collections import OrderedDict, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baseplate_events.json_writer import plain
from baseplate_events.json_writer.plain import flat_text, plain_text, visit
from tests.support import strategies, typed_events
from tests.support.typed_events import Same

if TYPE_CHECKING:
    from collections.abc import Callable


class Text(str):  # noqa: SLOT000 - one that has a `__dict__`
    """A text that isn't of type str."""


class Word(str, enum.Enum):
    """An enum that is a str."""

    A = "a"


class Empty(NamedTuple):
    """An object without members."""


class Items(list[object]):
    """A list that isn't of type list."""


KEYS = st.sampled_from(["a", "b", "1", "true", "1.5", "{", "["]) | st.sampled_from([1, 2, True, 1.5, None])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | strategies.texts
    | st.sampled_from(["{", "[", '":', Text("x"), Word.A])
)


def containers(keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for dicts, lists and tuples of any width within each other."""
    values = st.recursive(
        SCALARS,
        lambda values: (
            st.lists(values, max_size=20)
            | st.dictionaries(keys, values, max_size=6)
            | st.lists(values, max_size=3).map(tuple)
        ),
        max_leaves=30,
    )
    return st.dictionaries(keys, values, max_size=6) | st.lists(values, max_size=20)


def have_unique_names(value: object) -> bool:
    """Say whether no dict has two keys of the same name."""
    if isinstance(value, dict):
        members = cast("dict[object, object]", value)
        names: set[str] = {name for key in members for name in json.loads(json.dumps({key: 0}))}
        return len(names) == len(members) and all(map(have_unique_names, members.values()))
    if not isinstance(value, (list, tuple)):
        return True
    return all(map(have_unique_names, cast("list[object]", value)))


@pytest.fixture(params=["gc", "visit"])
def _referents(request: pytest.FixtureRequest) -> Any:  # noqa: ANN401 - a generator
    """Use what CPython has, and what takes its place."""
    with pytest.MonkeyPatch.context() as patched:
        if request.param == "visit":
            patched.setattr(plain, "referents", visit)
        yield


def holds_scalars_only(value: Any) -> bool:  # noqa: ANN401 - any container
    """Say whether nothing within is more than a scalar of JSON."""
    items: list[object] = [*value.values()] if isinstance(value, dict) else [*value]  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return all(type(item) in {str, int, float, bool, type(None)} for item in items)


@pytest.mark.usefixtures("_referents")
@given(value=containers(strategies.texts | st.sampled_from(['":', '\\":', "\\", '"'])))
@example(value={'a":': {'\\":': '\\":', "b\\": {"": 1}}})
def test_plain_values_are_written_as_json_writes_them(value: Any) -> None:  # noqa: ANN401 - any value
    """Nothing that is plain is refused, whatever brackets, quotes and colons its texts have."""
    wanted = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert plain_text(value) == wanted
    assert flat_text(value) == (wanted if holds_scalars_only(value) else None)


@pytest.mark.usefixtures("_referents")
@given(value=containers(KEYS))
@example(value={1: 0, "1": 0})
@example(value={"a": {True: 0, "true": 0}})
@example(value={"a": {1: 0, "1": 0}, "b": '":":'})
@example(value=[{"x": 0}, {None: 0, "null": 0, "b": 0}])
def test_two_keys_of_the_same_name_are_refused(value: Any) -> None:  # noqa: ANN401 - any value
    """And no other keys of scalar types are."""
    wanted = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    found = wanted if have_unique_names(value) else None
    assert plain_text(value) == found
    assert flat_text(value) == (found if holds_scalars_only(value) else None)


@pytest.mark.usefixtures("_referents")
@given(
    path=strategies.paths,
    width=st.integers(0, 20),
    first=st.booleans(),
    bad=st.sampled_from(
        [
            typed_events.Point(1),
            Empty(),
            Items(),
            Items([1]),
            defaultdict(int),
            OrderedDict(a=1),
            {Text("a"): 1},
            {Same("a"): 1, "a": 2},
            {Word.A: 1},
            {1: 1, "1": 2},
            float("nan"),
            b"x",
        ]
    ),
)
def test_what_is_not_plain_is_refused(path: list[str | int], width: int, first: bool, bad: object) -> None:
    """Wherever it is, and whatever is beside it."""
    value: Any = bad
    for step in [*reversed(path), "top"]:
        beside: list[Any] = (
            [{"x": [1], "y": (), "z": "{["}] * width if isinstance(step, int) else ["x"] * width
        )
        around = [value, *beside] if first else [*beside, value]
        value = (
            around if isinstance(step, int) else {f"{step}{index}": item for index, item in enumerate(around)}
        )
    assert plain_text(value) is None
    assert flat_text(value) is None


@pytest.mark.unmeasured
@given(st.lists(containers(KEYS), max_size=5))
def test_the_stand_in_returns_as_much(values: list[Any]) -> None:
    """It returns more than values wherever `gc.get_referents` does, and never less."""
    values += [typed_events.Point(1), Empty(), Items([1])]
    for value in values:
        found = visit(value)
        assert (len(found) > len(value)) == (len(gc.get_referents(value)) > len(value))
        assert len(found) >= len(value)


def test_on_this_python_the_garbage_collector_is_asked() -> None:
    """Which the fast way depends on."""
    assert plain.referents is gc.get_referents


def _without_classes(*values: object) -> list[object]:
    return [
        item for value in values if isinstance(value, dict) for item in cast("dict[object, object]", value)
    ]


def _itself(*values: object) -> list[object]:
    return [*values]


def _nothing(*_: object) -> list[object]:
    return []


@pytest.mark.parametrize("referents", [_without_classes, _itself, _nothing])
def test_another_garbage_collector_is_not_asked(
    referents: Callable[..., list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that returns other things, or stops all threads, has a stand-in."""
    with monkeypatch.context() as patched:
        patched.setattr(gc, "get_referents", referents)
        assert plain.choose_referents() is visit
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert plain.choose_referents() is visit
