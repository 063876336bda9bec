"""Plain values to JSON, by the encoder of `json`: faster than any writer in Python, but it checks nothing.

Rules:

1. A value is plain if it consists of dicts, lists, tuples and scalars, and no two keys of a dict get the same
   name. What the encoder writes is then what these writers write. Subclasses of scalars are plain as values,
   not as keys; subclasses of containers aren't.
2. The check goes through containers only, not through their items: it must take less time than the checks for
   circles that `JSONEncoder` makes.
3. If another thread changes the value meanwhile, the text is that of one state and the check is of another.

How it works: `gc.get_referents` returns the items of many containers at once, and no keys of a dict whose
keys are all of type str. Garbage collection needs neither them nor any scalar, but must get to see whatever
may refer to something. So values refer to as much as is in the containers among them if those are plain. They
refer to more if there are other keys, or instances of subclasses, which refer to their class. Where garbage
collection works in another way, a function takes its place.
"""

from __future__ import annotations

import gc
import json.encoder
import sys
from json.encoder import JSONEncoder, encode_basestring
from typing import TYPE_CHECKING, Any, Final, cast

from .forms import key_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    #: Takes containers and returns the items of each, with the keys of a dict unless all of them are str.
    Referents = Callable[..., list[Any]]

_SCALARS: Final[frozenset[type[Any]]] = frozenset({str, int, float, bool, type(None)})
_ONLY_INT: Final = frozenset({int})
_CONTAINERS: Final = frozenset({dict, list, tuple})
_PLAIN: Final = _SCALARS | _CONTAINERS


def plain_text(value: Any) -> str | None:  # noqa: ANN401 - a dict, list or tuple
    """Write a dict, list or tuple of exactly that type; None if it may not be plain."""
    kind: type[object] = type(value)  # pyright: ignore[reportUnknownVariableType]
    try:
        if kind is list and value and type(value[0]) not in _PLAIN and not _is_plain_by_itself(value[0]):
            return None  # a list of objects, for which the encoder would take long
        text = "".join(_encode(value, 0))
        items: Sequence[Any] = value
        if kind is dict:
            items = referents(value)
            if len(items) > len(value):
                if not _is_plain_by_itself(value):
                    return None
            elif "[" not in text and _counts_agree(items, text):
                return text
        # Without a second bracket there is no second container.
        is_plain = (text.find("{", 1) == -1 and text.find("[", 1) == -1) or _are_plain(items)
    except Exception:  # noqa: BLE001 - what it is, whoever looks at each item finds out
        return None
    return text if is_plain else None


def _counts_agree(items: list[Any], text: str) -> bool:
    """Say whether the values of a dict, and all that they refer to, are as many as the members in its text.

    There are no arrays in the text.
    """
    if text.find("{", 1) == -1:
        return True
    # A name ends with `":`. So may a text, but with a backslash before.
    left = text.count('":') - (text.count('\\":') if "\\" in text else 0)
    while items and left > 0:
        left -= len(items)
        items = referents(*items)
    return left == 0 and not items


def flat_text(value: Any) -> str | None:  # noqa: ANN401 - a dict, list or tuple
    """Write a dict, list or tuple of exactly that type; None if it may not be plain or holds a container."""
    kind: type[object] = type(value)  # pyright: ignore[reportUnknownVariableType]
    values: Iterable[object] = value.values() if kind is dict else value
    return plain_text(value) if _SCALARS.issuperset(map(type, values)) else None


def _are_plain(items: Sequence[Any]) -> bool:
    """Say whether values that the encoder takes are plain."""
    while children := referents(*items):
        excess = len(children)
        for item in items:
            if type(item) in _CONTAINERS:
                excess -= len(item)
        if excess:
            if not all(map(_is_plain_by_itself, items)):
                return False
            values: list[Any] = []  # without keys, and without what instances of subclasses refer to
            for item in items:
                if type(item) in _CONTAINERS:
                    values += item.values() if type(item) is dict else item
            children = values
        items = children
    return True


def _is_plain_by_itself(value: Any) -> bool:  # noqa: ANN401 - any class
    """Say whether a value is plain, apart from what it holds.

    Keys of scalar types that aren't equal get different names, but a str may be what another is named.
    """
    kind: type[object] = type(value)  # pyright: ignore[reportUnknownVariableType]
    if kind is not dict:
        return kind in _CONTAINERS or issubclass(kind, (str, int, float, type(None)))
    if _ONLY_INT.issuperset(map(type, value)):
        return True
    return _SCALARS.issuperset(map(type, value)) and not any(
        key_text(key) in value for key in value if type(key) is not str
    )


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
        if cls not in _PLAIN:
            found.append(cls)
    return found


def choose_referents() -> Referents:
    """Return `gc.get_referents` if it works as described above, and doesn't stop other threads."""
    is_gil_enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    found = gc.get_referents
    scalars: list[Any] = [kind() for kind in _SCALARS]
    keys = [_Text(), *(scalar for scalar in scalars if type(scalar) is not str)]
    named: dict[Any, None] = dict.fromkeys("ab")
    exact: list[Any] = [named, {}, scalars, (None,)]
    more: list[Any] = [{key: None, **rest} for key in keys for rest in ({}, named)]
    more += [type("", (base,), {})() for base in _CONTAINERS]
    works = (
        is_gil_enabled()
        and not found(*scalars, [], (), {})
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
