"""The lines of statsd, read by a strict grammar."""

from __future__ import annotations

import re
from typing import NamedTuple

# The grammar of a line. Names have no empty part; a number is a plain decimal.
_LINE = re.compile(
    rb"(?P<name>[^.:|@#,=\s]+(?:\.[^.:|@#,=\s]+)*)"
    rb":(?P<number>-?[0-9]+(?:\.[0-9]+)?)"
    rb"\|(?P<kind>ms|g|c)"
)


class Line(NamedTuple):
    """A line as a server reads it."""

    name: str
    number: str
    kind: str


def parse_line(line: bytes) -> Line:
    """Read a line by the strict grammar."""
    match = _LINE.fullmatch(line)
    assert match is not None, line
    assert line.isascii()
    assert match["kind"] == b"c" or not match["number"].startswith(b"-"), "only a change can be negative"
    return Line(match["name"].decode(), match["number"].decode(), match["kind"].decode())
