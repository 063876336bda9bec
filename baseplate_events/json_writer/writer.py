"""Events to JSON, by a writer for each class.

Rules:

1. The output is that of `json.dumps(..., ensure_ascii=False, separators=(",", ":"))` on the event with its
   objects as dicts, and is one JSON value, whatever other threads change meanwhile.
2. These writers only take what they know, and raise on anything else, whatever suits. The event is then
   written once more by `reference`, which is slow and names the field of an error.

How it works: `JsonWriters` maps classes to functions. A class with known fields has a function of its own,
which `source` compiles. So have the keys of dicts that come again and again, as those of events do.
"""

from __future__ import annotations

from abc import get_cache_token
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .forms import Array, Members, Scalar, form_of, items_of_mapping, key_text
from .plain import flat_text, plain_text
from .shapes import StandIn, is_unset_type
from .source import JsonWriter, compile_keys, compile_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .forms import JsonForm

#: Classes whose writers are kept. Only a program that keeps making classes would reach it; it then
#: starts over rather than holding on to all of them.
_MAX_WRITERS: Final = 4096

#: Members of a dict that gets a writer of its own.
_MAX_MEMBERS: Final = 64

#: How often the same keys must come for that, and how many such writers there are at most. What clients send
#: may choose the keys of an event, so compiling must have a bound.
_REPEATS: Final = 8
_MAX_COMPILED: Final = 256

#: One in so many of the dicts without a writer is counted for that: most keys that don't come again aren't.
_SAMPLE: Final = 4

#: Sets of keys that are counted at the same time.
_MAX_COUNTED: Final = 256

#: Dicts in a row without a writer after which so many aren't looked up: keys may never come again.
_MANY_MISSES: Final = 64
_WAIT: Final = 7

_ONLY_STR: Final = frozenset({str})


class JsonWriters(dict[type, "JsonWriter"]):
    """The writer of each class, made when it is first asked for.

    Safe to use from any thread: two may make the writer of a class at once, and either will do. A writer
    raises anything at all for what it can't write.

    Args:
        default: Takes a value that JSON has no form for and returns what to write instead.
        within: Whether these write what is within a container that isn't plain. They don't try whether a
            container within is plain, since each that isn't would be gone through once more.
    """

    def __init__(self, default: Callable[[Any], object] | None = None, *, within: bool = False) -> None:
        super().__init__()
        self._default = default
        self._containers = _container_writers(self, None if within else JsonWriters(default, within=True))

    def __missing__(self, cls: type) -> JsonWriter:
        registered = get_cache_token()
        form = form_of(cls)
        if form is not None:
            writer = self._writer_of(form, cls)
        elif self._default is not None and not is_unset_type(cls):
            writer = self._defaulting(cls, self._default, registered)
        else:
            return _refuse
        if len(self) >= _MAX_WRITERS:
            self.clear()
        self[cls] = writer
        return writer

    def _defaulting(self, cls: type, default: Callable[[Any], object], registered: object) -> JsonWriter:
        """Return the writer of a class without a form, until some class is registered as a mapping."""

        def write(value: object) -> str:
            if get_cache_token() != registered:
                self.pop(cls, None)
                return self[cls](value)
            value = default(value)
            return self[type(value)](value)

        return write

    def _writer_of(self, form: JsonForm, cls: type) -> JsonWriter:
        containers = self._containers
        if isinstance(form, Scalar):
            return form.text
        if isinstance(form, Array):
            return containers.write_plain if cls in (list, tuple) else containers.write_array
        if isinstance(form, Members):
            if cls is dict:
                return containers.write_dict
            if form.items is items_of_mapping:
                return _replacing(dict, self)
            return _of_items(form.items, containers.write_items)
        if isinstance(form, StandIn):
            return _replacing(form.replace, self)
        if len({*form.names}) < len(form.names):
            raise _UnknownValueError
        return compile_shape(form, self, cls.__name__)


class _UnknownValueError(Exception):
    """Raised for what these writers leave to the reference."""


def _refuse(_: object) -> str:
    raise _UnknownValueError


def _replacing(replace: Callable[[Any], object], writers: JsonWriters) -> JsonWriter:
    """Return the writer of a class whose instances are replaced."""

    def write(value: object) -> str:
        value = replace(value)
        return writers[type(value)](value)

    return write


def _of_items(items: Callable[[Any], Iterable[tuple[object, object]]], write_items: JsonWriter) -> JsonWriter:
    """Return the writer of a class whose items may have a key twice, as those of a subclass of dict may."""

    def write(value: object) -> str:
        pairs = [*items(value)]
        if len({key for key, _ in pairs}) < len(pairs):
            raise _UnknownValueError
        return write_items(pairs)

    return write


class _ContainerWriters(NamedTuple):
    """The writers of arrays and mappings.

    Attributes:
        write_plain: Writes a dict, list or tuple of exactly that type, which is most likely plain.
        write_dict: Writes a dict whose keys may have come before.
        write_array: Writes a list, tuple or set.
        write_items: Writes an object, given the keys and values of a mapping.
    """

    write_plain: JsonWriter
    write_dict: JsonWriter
    write_array: JsonWriter
    write_items: JsonWriter


def _container_writers(writers: JsonWriters, within: JsonWriters | None) -> _ContainerWriters:  # noqa: C901 - closures are fast
    """Return the writers of containers.

    Args:
        writers: The writer of each class.
        within: The same for what is within a container that isn't plain; None if these are for that.
    """
    quote = encode_basestring
    text_of = plain_text if within is not None else flat_text
    compiled: dict[tuple[object, ...], JsonWriter] = {(): _write_empty}
    counts: dict[tuple[object, ...], int] = {}
    misses = 0  # dicts that were looked up and have no writer; threads may lose some
    hit_at = 0  # how many there had been when a dict had one
    wait = 0  # how many of the next ones aren't looked up

    def write_plain(value: Any) -> str:  # noqa: ANN401 - a dict, list or tuple
        return text_of(value) or write_other(value)

    def write_other(value: Any) -> str:  # noqa: ANN401 - a dict, list or tuple
        if within is not None:
            return within[type(value)](value)
        return write_items(value.items()) if type(value) is dict else write_array(value)

    def write_dict(value: Any) -> str:  # noqa: ANN401 - any class
        nonlocal misses, hit_at, wait
        if wait:
            wait -= 1
        elif len(value) <= _MAX_MEMBERS:
            keys = tuple(value)
            write = compiled.get(keys)
            if write is not None:
                hit_at = misses
                return write(value)
            misses += 1
            if misses - hit_at >= _MANY_MISSES:
                wait = _WAIT
            if (wait or not misses % _SAMPLE) and len(compiled) < _MAX_COMPILED:
                count(keys, value)
        return text_of(value) or write_other(value)

    def write_array(value: Any) -> str:  # noqa: ANN401 - any class
        texts = [quote(item) if type(item) is str else writers[type(item)](item) for item in [*value]]
        return f"[{','.join(texts)}]"

    def write_items(pairs: Any) -> str:  # noqa: ANN401 - any iterable
        items: list[tuple[Any, object]] = [*pairs]
        keys: list[object] = [key for key, _ in items]
        if not _ONLY_STR.issuperset(map(type, keys)):
            named = {key_text(key): item for key, item in items}
            if len(named) < len(items):
                raise _UnknownValueError
            items = [*named.items()]
        texts = [
            f"{quote(key)}:{quote(item) if type(item) is str else writers[type(item)](item)}"
            for key, item in items
        ]
        return f"{{{','.join(texts)}}}"

    def count(keys: tuple[Any, ...], value: dict[Any, object]) -> None:
        """Give these keys a writer if they come often."""
        times = counts.get(keys, 0) + 1
        if times < _REPEATS:
            if len(counts) >= _MAX_COUNTED:
                counts.clear()
            counts[keys] = times
            return
        counts.pop(keys, None)
        sample = {**value}
        if (*sample,) == keys:  # no other thread has changed it
            has_names = _ONLY_STR.issuperset(map(type, sample))
            compiled[keys] = compile_keys(sample, writers, write_plain) if has_names else write_plain

    return _ContainerWriters(write_plain, write_dict, write_array, write_items)


def _write_empty(_: object) -> str:
    return "{}"
