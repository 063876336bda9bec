"""The lines of statsd, read by a strict grammar, and values that no line can hold."""

from __future__ import annotations

import re
from dataclasses import dataclass

# The whole grammar of a line. Names have no empty part; a number is a plain decimal.
_LINE = re.compile(
    rb"(?P<name>[^.:|@#,=\s]+(?:\.[^.:|@#,=\s]+)*)"
    rb"(?P<tags>(?:,[^:|@#,=\s]+=[^:|@#,=\s]+)*)"
    rb":(?P<number>[+-]?[0-9]+(?:\.[0-9]+)?)"
    rb"\|(?P<kind>c|ms|g|h)"
    rb"(?:\|@(?P<rate>0\.[0-9]*[1-9]))?"
)


@dataclass(frozen=True)
class Line:
    """A line as a server reads it."""

    name: str
    tags: tuple[tuple[str, str], ...]
    number: str
    kind: str
    rate: float


def parse_line(line: bytes) -> Line:
    """Read a line by the strict grammar."""
    match = _LINE.fullmatch(line)
    assert match is not None, line
    assert line.isascii()
    pairs = [pair.partition("=") for pair in match["tags"].decode().split(",")[1:]]
    return Line(
        match["name"].decode(),
        tuple((key, value) for key, _, value in pairs),
        match["number"].decode(),
        match["kind"].decode(),
        float(match["rate"] or 1),
    )


class Rude:
    """Raises whatever is done with it."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    def __float__(self) -> float:
        raise RuntimeError("no")

    def __neg__(self) -> Rude:
        raise RuntimeError("no")
