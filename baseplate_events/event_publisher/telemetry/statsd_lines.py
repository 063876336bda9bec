"""Lines and datagrams of statsd, as bytes. Pure.

The wire contract is baseplate.py's. Each line is a measurement; newlines separate the lines of a datagram.

    NAME:NUMBER|TYPE

    ms   a sample of a timer, in milliseconds
    g    the value of a gauge
    c    a change of a counter

Rules:

1. A number is a plain decimal, never with an exponent, and reads back as the same number.
2. A gauge is never negative, as a server takes a number with a sign for a change. The publisher's gauges are
   counts, sizes and ages.
3. Names are safe before they get here: the configuration checks `metrics.namespace`, the reader of the spool
   checks the reasons that services report, and all other names are constants.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: Bytes of the largest datagram: the 1,500 of an Ethernet frame less 40 for IPv6, 8 for UDP and 20 to spare
#: for a tunnel, the size that statsd's own documentation gives for Fast Ethernet.
MAX_DATAGRAM_SIZE: Final = 1432

Kind: TypeAlias = Literal["ms", "g", "c"]

#: Decimal places by which a number is shifted: timers are measured in seconds.
_SHIFTS: Final[Mapping[Kind, int]] = {"ms": 3, "g": 0, "c": 0}


def format_lines(prefix: str, kind: Kind, numbers: Mapping[str, float]) -> list[bytes]:
    """Write one line for each number, in their order. NaN and the infinities are left out.

    Args:
        prefix: What all names begin with: nothing, or a namespace with its dot.
        kind: What all the numbers are.
        numbers: The numbers by name, in seconds for timers.
    """
    shift = _SHIFTS[kind]
    return [
        f"{prefix}{name}:{format_number(number, shift)}|{kind}".encode()
        for name, number in numbers.items()
        if math.isfinite(number)
    ]


def format_number(number: float, shift: int = 0) -> str:
    """Write a finite number times `10**shift`: exactly, and with no more digits than `repr` needs."""
    mantissa, _, exponent = repr(+number).partition("e")  # the plus makes a bool an int
    whole, _, fraction = mantissa.partition(".")
    digits = int(whole + fraction)
    places = len(fraction) - int(exponent or 0) - shift
    if places <= 0:
        return str(digits * 10**-places)
    text = f"{digits:+0{places + 2}}"  # a sign, a digit before the point, and all that are behind it
    return f"{text[:-places]}.{text[-places:]}".rstrip("0").rstrip(".").removeprefix("+")


def pack_lines(lines: Iterable[bytes], size: int = MAX_DATAGRAM_SIZE) -> Iterator[bytes]:
    """Join lines into as few datagrams as their order allows.

    Args:
        lines: Lines without a final newline, none empty.
        size: Bytes of the largest datagram. A line that is longer goes alone.
    """
    datagram = b""
    for line in lines:
        if datagram and len(datagram) + 1 + len(line) > size:
            yield datagram
            datagram = b""
        datagram = datagram + b"\n" + line if datagram else line
    if datagram:
        yield datagram
