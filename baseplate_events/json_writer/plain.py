"""Plain values to JSON, by the encoder of `json`: faster than any writer in Python, but it checks nothing.

Rules:

1. A value is plain if it consists of dicts, lists, tuples and scalars, none of the containers is of a
   subclass, and no two keys of a dict get the same name. What the encoder writes is then what these writers
   write. Subclasses of scalars are plain as values, not as keys.
2. The check goes through containers only, not through their items: it must take less time than the checks for
   circles that `JSONEncoder` makes.

How it works: `gc.get_referents` returns the items of many containers at once, and no keys of a dict whose
keys are all of type str. Garbage collection needs neither them nor any scalar, but must get to see whatever
may refer to something. Where it works in another way, a function takes its place.
"""

from __future__ import annotations

import gc
import json.encoder
import sys
from json.encoder import JSONEncoder, encode_basestring
from typing import TYPE_CHECKING, Any, Final, cast

from .forms import key_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    #: Takes containers and returns the items of each, with the keys of a dict unless all of them are str.
    Referents = Callable[..., list[Any]]

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
CONTAINERS: Final = frozenset({dict, list, tuple})

#: Types of which values may be plain.
PLAIN: Final = _SCALARS | CONTAINERS

#: Values from which on it is faster to see first whether all are containers.
_MANY: Final = 16


def plain_text(value: Any) -> str | None:  # noqa: ANN401 - a dict, list or tuple
    """Write a dict, list or tuple of exactly that type; None if it may not be plain."""
    try:
        text = "".join(_encode(value, 0))
        # Without a second bracket there is no second container.
        holds_none = text.find("[", 1) < 0 and text.find("{", 1) < 0
        if holds_none and text[0] == "[":
            return text
        items = referents(value)
        if len(items) != len(value) and not _has_unique_names(value):
            return None
        if not holds_none and not _are_plain(items):
            return None
    except Exception:  # noqa: BLE001 - what it is, whoever looks at each item finds out
        return None
    return text


def _are_plain(items: list[Any]) -> bool:
    """Say whether values that the encoder takes are plain.

    They are if what they refer to is as much as is in containers of plain types. A dict with other keys than
    str refers to more, and so does an instance of a subclass: to its class.
    """
    while children := referents(*items):
        excess = len(children)
        last = items[-1]
        if type(last) in CONTAINERS and len(last) == excess:
            excess = 0  # the only container, as is common
        elif len(items) >= _MANY and CONTAINERS.issuperset(map(type, items)):
            excess -= sum(map(len, items))
        else:
            for item in items:
                if type(item) in CONTAINERS:
                    excess -= len(item)
        if excess:
            containers = [item for item in items if type(item) in CONTAINERS]
            if not all(issubclass(kind, (str, int, float)) for kind in {*map(type, items)} - PLAIN):
                return False
            if not all(map(_has_unique_names, containers)):
                return False
            children = referents(*containers)
        items = children
    return True


def _has_unique_names(value: Any) -> bool:  # noqa: ANN401 - any class
    """Say whether this isn't a dict of which two keys may get the same name.

    Keys of these types that aren't equal get different names, except that a str may be what another is named.
    """
    if cast("type[object]", type(value)) is not dict or not value:
        return True
    kinds = [*map(type, value)]
    if kinds.count(kinds[0]) == len(kinds):
        return kinds[0] in _SCALARS
    if not _SCALARS.issuperset(kinds):
        return False
    return not any(key_text(key) in value for key in value if type(key) is not str)


def visit(*values: Any) -> list[Any]:  # noqa: ANN401 - any class
    """Do what is needed of `gc.get_referents` in Python."""
    found: list[Any] = []
    for value in values:
        cls = cast("type[object]", type(value))
        if issubclass(cls, dict):
            found += value.values()
            found += [key for key in value if type(key) is not str]
        elif issubclass(cls, (list, tuple)):
            found += value
        if cls not in PLAIN:
            found.append(cls)
    return found


def choose_referents() -> Referents:
    """Return `gc.get_referents` if it works as described above, and doesn't stop other threads."""
    is_gil_enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    found = gc.get_referents
    named: dict[Any, int] = {"a": 0, "b": 0}
    exact: list[Any] = [named, {}, [1, "a"], (None,)]
    more: list[Any] = [{key: 0, **rest} for key in (_Text("a"), 1, 0.5, True, None) for rest in ({}, named)]
    more += [type("", (base,), {})() for base in CONTAINERS]
    works = (
        is_gil_enabled()
        and not found("a", 1, 0.5, True, None, [], (), {})
        and all(len(found(item)) == len(item) for item in exact)
        and all(len(found(item)) > len(item) for item in more)
    )
    return found if works else visit


class _Text(str):
    __slots__ = ()


def _plain_encoder() -> Callable[[Any, int], Iterable[str]]:
    """Return what writes dicts, lists and scalars as `json` does, in pieces."""
    encoder = JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"))
    make: Callable[..., Callable[[Any, int], Iterable[str]]] | None = getattr(
        json.encoder, "c_make_encoder", None
    )
    try:
        # What `JSONEncoder.encode` makes for each call.
        encode = make and make(None, None, encode_basestring, None, ":", ",", False, False, False)
    except TypeError:
        encode = None
    return encode or (lambda value, _: encoder.encode(value))


_encode: Final = _plain_encoder()
referents: Final = choose_referents()
