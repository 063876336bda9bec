"""What the check of plain values looks at. The answer is the same either way; this shows what it costs."""

from __future__ import annotations

import contextlib
import enum
import gc
import json.encoder
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given

from baseplate_events.json_writer import plain
from baseplate_events.json_writer.plain import plain_text, visit
from tests.support import strategies

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class Point(NamedTuple):
    """An object that the encoder of `json` takes for an array."""

    x: int


class Color(str, enum.Enum):
    """A text by its class, but not by its type."""

    RED = "red"


class Looks:
    """Counts what a check does.

    Attributes:
        texts: How many values were handed to the encoder of `json`.
        counts: How often the values and the members of a text were counted.
        referents: How many values were handed to `gc.get_referents` or its stand-in, for each call.
        classes: How many values were looked at one by one.
    """

    def __init__(self) -> None:
        self.texts = 0
        self.counts = 0
        self.referents: list[int] = []
        self.classes = 0

    @contextlib.contextmanager
    def counted(self) -> Generator[None]:
        """Count what happens meanwhile."""
        encode, counts_agree, referents, is_plain = (
            vars(plain)[name] for name in ("_encode", "_counts_agree", "referents", "_is_plain_by_itself")
        )

        def note_text(value: object, level: int) -> object:
            assert level == 0
            self.texts += 1
            return encode(value, level)

        def note_count(*arguments: object) -> object:
            self.counts += 1
            return counts_agree(*arguments)

        def note_referents(*values: object) -> object:
            self.referents.append(len(values))
            return referents(*values)

        def note_class(value: object) -> object:
            self.classes += 1
            return is_plain(value)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(plain, "_encode", note_text)
            patched.setattr(plain, "_counts_agree", note_count)
            patched.setattr(plain, "referents", note_referents)
            patched.setattr(plain, "_is_plain_by_itself", note_class)
            yield


#: Values, whether they are plain, and the attributes of `Looks`.
LOOKS: list[tuple[Any, bool, tuple[int, int, list[int], int]]] = [
    # Without a container within, the text shows that.
    ([], True, (1, 0, [], 0)),
    ([1, "x"], True, (1, 0, [], 0)),
    ((1, "x"), True, (1, 0, [], 0)),
    ({}, True, (1, 1, [1], 0)),
    ({"a": 1, "b": "x"}, True, (1, 1, [1], 0)),
    ({1: 2}, True, (1, 0, [1], 1)),
    # Texts with brackets may be containers; then the values are looked at.
    (["{"], True, (1, 0, [1], 0)),
    # A container within, and no array.
    ({"a": {"b": 1}}, True, (1, 1, [1, 1, 1], 0)),
    ({"a": {"b": 1}, "c": {"d": 2}}, True, (1, 1, [1, 2, 2], 0)),
    ({"a": {}}, True, (1, 1, [1, 1], 0)),
    ({"a": {"b": {}}}, True, (1, 1, [1, 1, 1], 0)),
    ({"a": {'"': {"b": '"\\":'}}}, True, (1, 1, [1, 1, 1, 1], 0)),
    ({"a": {'x":': 1}}, True, (1, 1, [1, 1, 1], 0)),
    # Other keys within: the counts differ, so the values are looked at.
    ({"a": {1: 2}}, True, (1, 1, [1, 1, 2, 1, 1], 1)),
    ({"a": {1: {"b": 1}}}, True, (1, 1, [1, 1, 2, 1, 1, 1], 1)),
    # And so do they if a text begins with a colon.
    ({"a": {"b": ":"}}, True, (1, 1, [1, 1, 1, 1, 1], 0)),
    # An array.
    ({"a": [1, 2]}, True, (1, 0, [1, 1, 2], 0)),
    ({"a": [[1]], "b": 2}, True, (1, 0, [1, 2, 1, 1], 0)),
    ([[1]], True, (1, 0, [1, 1], 0)),
    ([{"a": 1}], True, (1, 0, [1, 1], 0)),
    (({"a": 1},), True, (1, 0, [1, 1], 0)),
    ([{1: 1}, {2: 2}], True, (1, 0, [2, 2], 2)),
    # The first item of a list says whether the encoder is asked at all.
    ([Point(1), 1], False, (0, 0, [], 1)),
    ([Point(1), Color.RED], False, (0, 0, [], 1)),
    ([1, Point(1)], False, (1, 0, [2], 2)),
    ([Color.RED], True, (1, 0, [], 1)),
    ([Color.RED, Point(1)], False, (1, 0, [2], 3)),
    ((Point(1),), False, (1, 0, [1], 1)),
    (({"a": Point(1)},), False, (1, 0, [1, 1], 1)),
    ([Point], False, (0, 0, [], 1)),
]


@pytest.mark.parametrize(("value", "is_plain", "looks"), LOOKS, ids=str)
def test_the_check_looks_at_containers(value: Any, is_plain: bool, looks: tuple[object, ...]) -> None:  # noqa: ANN401 - any container
    """At all of one level at once, and at their classes only if they refer to more than their items."""
    found = Looks()
    with found.counted():
        text = plain_text(value)
    assert text == (json.dumps(value, separators=(",", ":")) if is_plain else None)
    assert (found.texts, found.counts, found.referents, found.classes) == looks


# --- whom it asks ---


def _values_only(*values: object) -> list[object]:
    """Do as `gc.get_referents` does, but never return a key or a class."""
    return [
        item for value in values if value and isinstance(value, (dict, list, tuple)) for item in _items(value)
    ]


def _items(value: Any) -> list[object]:  # noqa: ANN401 - any container
    return [*value.values()] if isinstance(value, dict) else [*value]  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def _classes_of_scalars(*values: object) -> list[object]:
    """Do as `gc.get_referents` does, but return the class of a scalar."""
    return [*visit(*values), *(type(value) for value in values if not isinstance(value, (dict, list, tuple)))]


def _every_key(*values: object) -> list[object]:
    """Do as `gc.get_referents` does, but return keys of type str too."""
    return [*visit(*values), *(key for value in values if isinstance(value, dict) for key in value)]  # pyright: ignore[reportUnknownVariableType]


@pytest.mark.parametrize("referents", [_values_only, _classes_of_scalars, _every_key])
def test_another_garbage_collector_is_not_asked(
    referents: Callable[..., list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that returns too little or too much of something has a stand-in."""
    monkeypatch.setattr(gc, "get_referents", referents)
    assert plain.choose_referents() is visit


def test_one_that_does_the_same_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is called."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    monkeypatch.setattr(gc, "get_referents", partial(visit))
    assert plain.choose_referents() is gc.get_referents


def test_a_python_that_has_no_word_for_the_gil_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those before 3.13."""
    monkeypatch.delattr(sys, "_is_gil_enabled", raising=False)
    assert plain.choose_referents() is gc.get_referents


# --- what writes ---


def _refuse(*_: object) -> None:
    raise TypeError


@pytest.fixture(params=["of C", "none of C", "another one of C"], scope="module")
def encode(request: pytest.FixtureRequest) -> Callable[[Any, int], Any]:
    """The encoder of `json`, and what takes its place where it is missing, or takes other arguments."""
    with pytest.MonkeyPatch.context() as patched:
        if request.param != "of C":
            patched.setattr(json.encoder, "c_make_encoder", None if "none" in request.param else _refuse)
        made: Callable[[Any, int], Any] = vars(plain)["_plain_encoder"]()
    return made


@given(value=strategies.plain_values)
def test_each_encoder_writes_what_json_writes(value: Any, encode: Callable[[Any, int], Any]) -> None:  # noqa: ANN401 - any value
    """In the order that the keys have."""
    value = {"b": "é\n", "a": [value], "c": {2: value, None: value}}
    assert "".join(encode(value, 0)) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize("value", [{(1, 2): 3}, [float("nan")], {"a": float("inf")}, {"a": {1}}], ids=str)
def test_each_encoder_refuses_what_json_has_not(value: object, encode: Callable[[Any, int], Any]) -> None:
    """Keys that are no scalars among it, which `json` could skip."""
    with pytest.raises((TypeError, ValueError)):
        "".join(encode(value, 0))
