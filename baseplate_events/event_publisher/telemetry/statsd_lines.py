"""Lines and datagrams of statsd, as bytes. Pure.

The wire format is baseplate.py's. Each line is a measurement; newlines separate the lines of a datagram.

    NAME:NUMBER|TYPE

    ms   a sample of a timer, in milliseconds
    g    the value of a gauge
    c    a change of a counter

Rules:

1. A number is a plain decimal, never with an exponent. A whole number is exact, any other has at most six
   decimal places: a timer is exact to a billionth of a second.
2. A gauge is never negative, since servers take a signed number for a change. The publisher's gauges are
   counts, sizes and ages.
3. Names are safe already: the configuration checks `metrics.namespace`, the spool reader checks the reasons
   that services report, and all other names are constants.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: Largest datagram in bytes: the 1,500 of an Ethernet frame less 40 for IPv6, 8 for UDP and 20 to spare
#: for a tunnel, the size that statsd's own documentation gives for Fast Ethernet.
MAX_DATAGRAM_SIZE: Final = 1432

Kind: TypeAlias = Literal["ms", "g", "c"]

#: What numbers are multiplied by: timers are measured in seconds.
_FACTORS: Final[Mapping[Kind, int]] = {"ms": 1_000, "g": 1, "c": 1}


def format_lines(prefix: str, kind: Kind, numbers: Mapping[str, float]) -> list[bytes]:
    """Format one line per number, in order. NaN and the infinities are left out.

    Args:
        prefix: Prefix of all names: empty, or a namespace with its dot.
        kind: The type of all measurements.
        numbers: The numbers by name, in seconds for timers.
    """
    factor = _FACTORS[kind]
    return [
        f"{prefix}{name}:{format_number(number * factor)}|{kind}".encode()
        for name, number in numbers.items()
        if math.isfinite(number)
    ]


def format_number(number: float) -> str:
    """Format a finite number: a whole one exactly, any other to a millionth."""
    if isinstance(number, int):
        return str(int(number))  # also a bool
    return f"{number:.6f}".rstrip("0").rstrip(".")


def pack_lines(lines: Iterable[bytes], size: int = MAX_DATAGRAM_SIZE) -> Iterator[bytes]:
    """Join lines into as few datagrams as their order allows.

    Args:
        lines: Lines without a final newline, none empty.
        size: Largest datagram in bytes. A longer line gets its own.
    """
    datagram = b""
    for line in lines:
        if datagram and len(datagram) + 1 + len(line) > size:
            yield datagram
            datagram = b""
        datagram = datagram + b"\n" + line if datagram else line
    if datagram:
        yield datagram
