"""Lines and datagrams of statsd, as bytes. Pure.

The wire format is baseplate.py's. Each line is a measurement; newlines separate the lines of a datagram.

    NAME:NUMBER|TYPE

    ms   a sample of a timer, in milliseconds
    g    the value of a gauge
    c    a change of a counter

Rules:

1. A number is a plain decimal, never with an exponent, and reads back as the same number.
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

#: Decimal places by which a number is shifted: timers are measured in seconds.
_SHIFTS: Final[Mapping[Kind, int]] = {"ms": 3, "g": 0, "c": 0}


def format_lines(prefix: str, kind: Kind, numbers: Mapping[str, float]) -> list[bytes]:
    """Format one line per number, in order. NaN and the infinities are left out.

    Args:
        prefix: Prefix of all names: empty, or a namespace with its dot.
        kind: The type of all measurements.
        numbers: The numbers by name, in seconds for timers.
    """
    shift = _SHIFTS[kind]
    return [
        f"{prefix}{name}:{format_number(number, shift)}|{kind}".encode()
        for name, number in numbers.items()
        if math.isfinite(number)
    ]


def format_number(number: float, shift: int = 0) -> str:
    """Format a finite number times `10**shift`: exactly, with no more digits than `repr`."""
    mantissa, _, exponent = repr(+number).partition("e")  # the plus makes a bool an int
    whole, _, fraction = mantissa.partition(".")
    digits = int(whole + fraction)
    places = len(fraction) - int(exponent or 0) - shift
    if places <= 0:
        return str(digits * 10**-places)
    text = f"{digits:+0{places + 2}}"  # a sign, one digit before the point, and all digits after it
    return f"{text[:-places]}.{text[-places:]}".rstrip("0").rstrip(".").removeprefix("+")


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
