"""Lines and datagrams of statsd, as bytes.

The wire contract, the original's form, one measurement a line:

    NAME[,KEY=VALUE…]:NUMBER|TYPE[|@RATE]      TYPE is c, ms, g or h

The lines of one datagram are parted by newlines. A gauge's number with a sign is a change, without one
it is the new value; so a gauge is set to -5 by two lines, `0` and `-5`, which always travel together.

Rules:

1. A line is well-formed: no name, tag or number can add a field, a line or a metric. Every character
   that the format gives a meaning, every blank and control character, and all that isn't ASCII becomes `_`.
2. Numbers are written in plain decimals that read back as the same number, never with an exponent.
   NaN and the infinities can't be written so: there is no such line.
3. Nothing here raises, whatever it is called with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Context, Decimal
from typing import Final, Literal, TypeAlias

#: Bytes of the largest datagram: the 1,500 of an Ethernet frame less 40 for IPv6, 8 for UDP and 20 to spare
#: for a tunnel, the size that statsd's own documentation gives for Fast Ethernet.
MAX_DATAGRAM_SIZE: Final = 1432

Tags: TypeAlias = Mapping[str, object]
Kind: TypeAlias = Literal["c", "ms", "g", "h"]

# What is neither printable ASCII nor free of meaning in the format.
_UNSAFE = re.compile(r"[^!-~]|[:|@#,=]")
# Digits that a shift keeps: more than the 309 of the largest int that is finite as a float, so none rounds.
_EXACT = Context(prec=400)


def format_number(value: float, *, shift: int = 0) -> str | None:
    """Write a number in plain decimals, with the fewest digits that read back as the same number.

    Args:
        value: Any number.
        shift: Power of ten to multiply it by, exactly.

    Returns:
        Text such as `-12.5`, or None where the value is no finite number. Where the original's six digits
        are exact and plain the text is the same, but for minus zero, which is `0` (a gauge takes `-0` for
        a change).
    """
    try:
        if not math.isfinite(value):
            return None
        digits = str(int(value)) if isinstance(value, int) else repr(float(value))
        text = format(Decimal(digits).scaleb(shift, _EXACT), "f")
    except Exception:  # noqa: BLE001 - whatever a foreign number type raises, it can't be written
        return None
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def format_rate(sample_rate: float) -> str:
    """Write the annotation of a sample rate: `|@0.1`, or nothing for a rate of 1.

    A rate that isn't above 0 and at most 1 counts as 1: the measurement was made once, and to scale it
    would invent others.
    """
    text = format_number(sample_rate)
    if text is None or not 0 < float(text) < 1:
        return ""
    return f"|@{text}"


def format_metric(namespace: str, name: str, tags: Tags | None = None) -> bytes | None:
    """Write the part of a line that says what is measured: `namespace.name,key=value`.

    Empty parts of the dotted name are left out. Tags keep their order; an empty key or value, and one
    that can't be made text, is `_`.

    Returns:
        ASCII bytes, or None where nothing of the name is left.
    """
    nodes = f"{_clean(namespace)}.{_clean(name)}".split(".")
    path = ".".join(node for node in nodes if node)
    if not path:
        return None
    try:
        pairs = [f",{_clean(key) or '_'}={_clean(value) or '_'}" for key, value in (tags or {}).items()]
    except Exception:  # noqa: BLE001 - whatever a foreign mapping raises, the measurement itself is sound
        pairs = []
    return (path + "".join(pairs)).encode("ascii")


def _clean(part: object) -> str:
    try:
        return _UNSAFE.sub("_", str(part))
    except Exception:  # noqa: BLE001 - whatever a foreign `__str__` raises
        return "_"


def format_line(metric: bytes | None, number: str | None, kind: Kind, rate: str = "") -> bytes | None:
    """Write a line from its parts; None where one of them couldn't be written."""
    if metric is None or number is None:
        return None
    return metric + f":{number}|{kind}{rate}".encode("ascii")


def pack_lines(lines: Iterable[bytes], size: int = MAX_DATAGRAM_SIZE) -> Iterator[bytes]:
    """Join lines into as few datagrams as their order allows.

    Args:
        lines: Lines without a final newline, none empty. Lines that were joined already stay together.
        size: Bytes of the largest datagram. A line that is longer goes alone.
    """
    packed: list[bytes] = []
    length = 0
    for line in lines:
        if packed and length + 1 + len(line) > size:
            yield b"\n".join(packed)
            packed, length = [], 0
        length += len(line) + (1 if packed else 0)
        packed.append(line)
    if packed:
        yield b"\n".join(packed)
