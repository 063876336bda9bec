"""The Python source of writers for objects whose fields are known, and how it becomes a function.

A writer is a function with one f-string for all fields. It reads a field once, tries the type that the
field's hint names, and hands any other value to the writer of the value's own class. So hints may be wrong.
The f-strings stand in single quotes, expressions within use double ones.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .shapes import JsonShape

#: Takes a value and returns its JSON text.
JsonWriter = Callable[[Any], str]

#: Members that the dicts within a sample may have together; to compile one takes some 40 µs.
_MAX_MEMBERS_WITHIN: Final = 32

#: Items of a list in a sample up to which they are written one by one: more are written faster together.
_MAX_ITEMS: Final = 8

#: How a value of a hinted type is written if it has exactly that type.
_KNOWN: Final = {
    "str": "S({0}) if type({0}) is str",
    "int": "{0} if type({0}) is int",
    # Of floats only NaN and the infinities aren't 0 less themselves.
    "float": "{0} if type({0}) is float and {0} - {0} == 0.0",
    "bool": '"true" if {0} is True else "false" if {0} is False',
    "dict": "P({0}) if type({0}) is dict",
    "list": "P({0}) if type({0}) is list",
}


def compile_shape(shape: JsonShape, writers: Mapping[type, JsonWriter], title: str) -> JsonWriter:
    """Return the function that writes the instances of a class.

    Args:
        shape: What its instances have.
        writers: The writer of each class.
        title: Name of the class.
    """
    names: dict[str, object] = {}
    reads: list[str] = []
    if shape.is_tuple and shape.fields:
        # Faster than an attribute of a NamedTuple.
        reads.append(f"{', '.join(f'v{index}' for index in range(len(shape.fields)))}, = s")
    parts: list[tuple[str, str]] = []
    if shape.tag is not None:
        name, tag = shape.tag
        parts.append(("", _literal(f"{encode_basestring(name)}:{_tag_text(tag)}")))
    for index, field in enumerate(shape.fields):
        variable = f"v{index}"
        if not shape.is_tuple:
            reads.append(f"{variable} = {_attribute(field.attribute)}")
        condition = ""
        if field.is_omitted is not None:
            names[f"O{index}"] = field.is_omitted
            condition = f"not O{index}({variable})"
        text = _value(field.hint, variable)
        if field.nullable:
            text = f'"null" if {variable} is None else {text}'
        parts.append((condition, _member(field.name, text)))
    return _build(reads, parts, names, writers, title)


def compile_keys(
    sample: Mapping[str, Any],
    writers: Mapping[type, JsonWriter],
    write_plain: JsonWriter,
    left: list[int] | None = None,
) -> JsonWriter:
    """Return the function that writes each dict that has the keys of a sample, in the same order.

    Args:
        sample: A dict; the types of its values are hints, and so are the keys of dicts within.
        writers: The writer of each class.
        write_plain: Writes dicts and lists.
        left: How many members dicts within may still have, which goes down with each.
    """
    left = [_MAX_MEMBERS_WITHIN] if left is None else left
    names: dict[str, object] = {"P": write_plain}
    reads: list[str] = []
    parts: list[tuple[str, str]] = []
    for index, (key, value) in enumerate(sample.items()):
        variable = f"v{index}"
        reads.append(f"{variable} = s[{key!r}]")
        kind = cast("type[object]", type(value))
        is_short = kind is list and 0 < len(value) <= _MAX_ITEMS
        example: Any = value[0] if is_short else value
        example_kind = cast("type[object]", type(example))
        members: dict[Any, Any] = {**example} if example_kind is dict else {}
        known = _KNOWN["str"] if is_short and example_kind is str else ""
        if 0 < len(members) <= left[0] and all(type(name) is str for name in members):
            left[0] -= len(members)
            names[f"K{index}"] = tuple(members)
            names[f"N{index}"] = compile_keys(members, writers, write_plain, left)
            known = f"N{index}({{0}}) if type({{0}}) is dict and tuple({{0}}) == K{index}"
        if known and is_short:
            known = _items(known)
        text = _value(kind.__name__, variable)
        parts.append(("", _member(key, f"{known.format(variable)} else {text}" if known else text)))
    return _build(reads, parts, names, writers, "dict")


def _items(known: str) -> str:
    """Return the expression for a list of a few items whose first one is known, as in `_KNOWN`."""
    condition = known.partition(" if ")[2].format("{0}[0]")
    item = f"{known.format('i')} else W[type(i)](i)"
    return (
        f'"["+",".join([{item} for i in {{0}}])+"]" '
        f"if type({{0}}) is list and 0 < len({{0}}) <= {_MAX_ITEMS} and {condition}"
    )


def _attribute(name: str) -> str:
    # Python normalizes identifiers that aren't ASCII, so those could name another attribute.
    if name.isascii() and name.isidentifier() and not keyword.iskeyword(name):
        return f"s.{name}"
    return f"getattr(s, {name!r})"


def _tag_text(tag: str | int) -> str:
    return encode_basestring(tag) if isinstance(tag, str) else int.__repr__(tag)


def _value(hint: str, variable: str) -> str:
    """Return the expression for the JSON text of a variable."""
    value = f"W[type({variable})]({variable})"
    return f"{_KNOWN[hint].format(variable)} else {value}" if hint in _KNOWN else value


def _member(name: str, value: str) -> str:
    """Return the part of an f-string that writes a member of an object."""
    return f"{_literal(encode_basestring(name) + ':')}{{{value}}}"


def _literal(text: str) -> str:
    """Return JSON text with a double quote in it as it stands in an f-string of single quotes."""
    return repr(text)[1:-1].replace("{", "{{").replace("}", "}}")


def _build(
    reads: Sequence[str],
    parts: Sequence[tuple[str, str]],
    names: Mapping[str, object],
    writers: Mapping[type, JsonWriter],
    title: str,
) -> JsonWriter:
    """Return the function that is made of these parts.

    Args:
        reads: Statements that read the fields of `s`.
        parts: For each member its condition or an empty string, and its part of an f-string.
        names: What the conditions call.
        writers: The writer of each class.
        title: What it is for, for tracebacks.
    """
    lines = ["def write(s):", *(f" {read}" for read in reads)]
    if any(condition for condition, _ in parts):
        lines.append(" o = ''")
        for condition, part in parts:
            guard = f"if {condition}: " if condition else ""
            lines.append(f" {guard}o += f',{part}'")
        lines.append(" return f'{{{o[1:]}}}'")
    else:
        lines.append(f" return f'{{{{{','.join(part for _, part in parts)}}}}}'")
    scope: dict[str, object] = {"S": encode_basestring, "W": writers, **names}
    # Made of names as literals and of identifiers, each of them checked: nothing foreign gets in.
    exec(compile("\n".join(lines), f"<JSON writer of {title}>", "exec"), scope)  # noqa: S102
    return cast("JsonWriter", scope["write"])
