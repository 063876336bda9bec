"""Events to JSON, slowly: takes all that can be written, and names the field of what can't.

Rules:

1. What is written is the same as by `json_writer`.
2. It goes through an event without recursion: it takes one that is nested deep, and finds what holds itself.
3. An error shows types and positions, and keys that look like names of fields; no other content.
"""

from __future__ import annotations

import re
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from ..errors import EventError, EventNotSerializableError
from .forms import Array, Members, Scalar, UnwritableError, form_of, key_text
from .shapes import JsonShape, StandIn, UnreadableFieldError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

#: Characters of a field's path that a message holds.
_MAX_PATH: Final = 300

#: Containers within each other that an event may have. Readers of JSON have such limits too.
_MAX_DEPTH: Final = 10_000

#: How often a value may be replaced before it is written.
_MAX_REPLACEMENTS: Final = 100

#: Keys that are shown in a path. Any other may be someone's data, and is shown by its position.
_is_field_name: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}").fullmatch

#: What an event may be, for errors.
_EVENTS: Final = (
    "expected a mapping, or an instance of a dataclass, attrs class, msgspec struct, pydantic model or "
    "NamedTuple"
)


class _Child(NamedTuple):
    """What a container holds.

    Attributes:
        step: Its step of the path, such as `.name` or `[3]`.
        text: The JSON text before it.
        value: The value.
    """

    step: str
    text: str
    value: object


class _Level(NamedTuple):
    """A container that is open.

    Attributes:
        value: The container, which is kept so that no other has its id meanwhile.
        children: What comes next of it.
        end: The JSON text behind it.
    """

    value: object
    children: Iterator[_Child]
    end: str


def write_reference(event: object, default: Callable[[Any], object] | None) -> bytes:
    """Return an event as one JSON object in UTF-8.

    Args:
        event: Anything.
        default: Takes a value that JSON has no form for and returns what to write instead.

    Raises:
        EventNotSerializableError: if it can't be written, or isn't an object.
        EventError: if `default` raises one.
    """
    steps: list[str] = []
    try:
        return _write(event, default, steps).encode()
    except EventError:
        raise
    except UnwritableError as error:
        problem = str(error)
    except UnreadableFieldError as error:
        steps.append(f".{error.name}")
        problem = f"reading it raised {error.raised}"
    except Exception as error:  # noqa: BLE001 - an attribute or a mapping may raise anything
        problem = f"reading it raised {type(error).__name__}"
    # Outside of the handler: not to be chained to an error that may hold what is in the event.
    path = "".join(steps).removeprefix(".")
    raise EventNotSerializableError(path if len(path) <= _MAX_PATH else f"{path[:_MAX_PATH]}...", problem)


def _write(event: object, default: Callable[[Any], object] | None, steps: list[str]) -> str:
    """Write an event; if that raises, `steps` are the path of what couldn't be written."""
    texts: list[str] = []
    levels = [_Level(None, iter((_Child("", "", event),)), "")]
    open_ids: set[int] = set()
    while True:
        level = levels[-1]
        child = next(level.children, None)
        if child is None:
            texts.append(level.end)
            levels.pop()
            if not levels:
                return "".join(texts)
            # Of the first level nothing is in `steps` any more.
            del steps[len(levels) - 1 :]
            open_ids.discard(id(level.value))
            continue
        steps.append(child.step)
        texts.append(child.text)
        value, form = _replaced(child.value, default, is_event=len(levels) == 1)
        if isinstance(form, Scalar):
            texts.append(_scalar_text(value, form))
            steps.pop()
            continue
        if id(value) in open_ids:
            raise UnwritableError("a container that contains itself; leave out that reference")
        if len(levels) > _MAX_DEPTH:
            raise UnwritableError("nested too deep")
        is_array = isinstance(form, Array)
        children = _items(value) if isinstance(form, Array) else _members(value, form)
        texts.append("[" if is_array else "{")
        open_ids.add(id(value))
        levels.append(_Level(value, iter(children), "]" if is_array else "}"))


def _replaced(
    value: object, default: Callable[[Any], object] | None, *, is_event: bool
) -> tuple[object, Scalar | Array | Members | JsonShape]:
    """Return what is written for a value, and its form.

    Args:
        value: The value.
        default: As above.
        is_event: Whether it is the event itself.

    Raises:
        UnwritableError: if there is no form for it, or it isn't an object and should be one.
    """
    name: str | None = None
    for _ in range(_MAX_REPLACEMENTS):
        cls = type(value)
        form = form_of(cls)
        if isinstance(form, StandIn):
            value, name = form.replace(value), name or form.member
        elif is_event and name is not None and not isinstance(form, (Members, JsonShape)):
            wrapped: dict[str, object] = {name: value}
            value = wrapped
        elif form is None:
            value = _defaulted(value, default, is_event=is_event)
        elif is_event and not isinstance(form, (Members, JsonShape)):
            raise UnwritableError(f"{_EVENTS}, got {cls.__name__}")
        else:
            return value, form
    raise UnwritableError("each value that replaces it is replaced again and again; make it a plain value")


def _defaulted(value: object, default: Callable[[Any], object] | None, *, is_event: bool) -> object:
    name = type(value).__name__
    if default is not None:
        try:
            return default(value)
        except EventError:
            raise
        except Exception as error:  # noqa: BLE001 - a hook may have any bug
            problem = (
                f"JSON has no form for a {name}, and the serializer's default raised {type(error).__name__}"
            )
        raise UnwritableError(problem)
    if is_event:
        found = "a class" if isinstance(value, type) else name
        raise UnwritableError(f"{_EVENTS}, got {found}")
    raise UnwritableError(
        f"JSON has no form for a {name}; make it a str, a number, a list or a mapping, or give "
        "json_serializer a default that does"
    )


def _items(value: object) -> list[_Child]:
    items = [*cast("Collection[object]", value)]
    return [_Child(f"[{index}]", "," if index else "", item) for index, item in enumerate(items)]


def _members(value: object, form: Members | JsonShape) -> list[_Child]:
    if isinstance(form, Members):
        members = [(key, _key_text(key), member) for key, member in form.items(value)]
    else:
        members = [(name, name, member) for name, member in form.members_of(value)]
    if len({name for _, name, _ in members}) < len(members):
        raise UnwritableError("two of its keys become the same name in JSON; rename one")
    children: list[_Child] = []
    for index, (key, name, member) in enumerate(members):
        step = f".{name}" if isinstance(key, str) and _is_field_name(name) else f"{{{index}}}"
        children.append(_Child(step, f"{',' if index else ''}{encode_basestring(name)}:", member))
    return children


def _key_text(key: object) -> str:
    if not (key is None or isinstance(key, (str, int, float))):
        raise UnwritableError(f"the key of a mapping must be a str, got {type(key).__name__}")
    try:
        name = key_text(key)
    except ValueError:
        raise UnwritableError(_problem_of(key)) from None
    _check_text(name)
    return name


def _scalar_text(value: object, form: Scalar) -> str:
    if isinstance(value, str):
        _check_text(value)
    if isinstance(value, (int, float)):
        try:
            return form.text(value)
        except ValueError:
            raise UnwritableError(_problem_of(value)) from None
    return form.text(value)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnwritableError(
            "a lone surrogate, which UTF-8 can't express; decode the text correctly"
        ) from None


def _problem_of(number: object) -> str:
    if isinstance(number, float):
        return "NaN or an infinity, which JSON can't express; leave it out or make it None"
    return "an int of too many digits; make it a str"
