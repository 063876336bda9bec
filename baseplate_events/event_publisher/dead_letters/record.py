"""How a dead letter is written down: a JSON object in ASCII, in one line. Pure.

    time       when it was buried, ISO 8601 in UTC, to the millisecond
    status     the HTTP status that refused it, or null
    reason     what was wrong
    excerpt    how the collector's answer began, bytes that aren't UTF-8 replaced
    event      the event; in its place `event_base64` where it isn't UTF-8

Line 17 of file 3 has the number `3:17`, for as long as it is there. A line that begins with a blank is a
letter that has been taken out.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Final, TypeAlias, cast

#: Bytes of a collector's answer that a letter keeps.
MAX_EXCERPT: Final = 1_024

_NUMBER: Final = re.compile(r"([0-9]{1,10}):([0-9]{1,10})")


@dataclass(frozen=True, slots=True, order=True)
class Number:
    """The number of a letter; smaller ones were buried earlier.

    Attributes:
        file: Number of its file, at least 1.
        line: Number of its line in the file, at least 1.
    """

    file: int
    line: int

    @classmethod
    def parse(cls, text: str) -> Number:
        """Read what `str` makes of a number.

        Raises:
            ValueError: It is something else; the message goes on after the text.
        """
        match = _NUMBER.fullmatch(text)
        if match is None:
            raise ValueError("isn't the number of a letter, such as 3:17")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter.

    Attributes:
        number: Where it is.
        time: When it was buried, by the wall clock, in UTC.
        status: The HTTP status that refused it, or None.
        reason: What was wrong.
        excerpt: How the collector's answer began.
        event: The bytes of the event, as they were received.
    """

    number: Number
    time: datetime
    status: int | None
    reason: str
    excerpt: str = field(repr=False)
    event: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that isn't a letter.

    Attributes:
        number: Where it is.
        torn: Whether it lacks its end, so that it was never a letter; else it was damaged later.
    """

    number: Number
    torn: bool


#: What a line holds, unless its letter has been taken out.
Entry: TypeAlias = Letter | Unreadable


def format_time(moment: datetime) -> str:
    """Write a moment of UTC as letters have it: `2026-11-03T08:15:30.250Z`."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_letter(
    event: bytes, *, wall_time: float, status: int | None, reason: str, excerpt: bytes
) -> bytes:
    """Write a letter, its line break included.

    Args:
        event: The event, any bytes.
        wall_time: When it is buried, in seconds since 1970.
        status: The HTTP status that refused it, or None.
        reason: What was wrong.
        excerpt: The collector's answer, of which the first `MAX_EXCERPT` bytes are kept.
    """
    letter: dict[str, str | int | None] = {
        "time": format_time(datetime.fromtimestamp(wall_time, timezone.utc)),
        "status": status,
        "reason": reason,
        "excerpt": excerpt[:MAX_EXCERPT].decode(errors="replace"),
    }
    try:
        letter["event"] = event.decode()
    except UnicodeDecodeError:
        letter["event_base64"] = base64.b64encode(event).decode()
    return json.dumps(letter).encode() + b"\n"


def parse_line(line: bytes, number: Number) -> Entry | None:
    """Read a line of a file of letters, its line break included; None if its letter was taken out."""
    if is_taken_out(line):
        return None
    if not line.endswith(b"\n"):
        return Unreadable(number, torn=True)
    try:
        return _parse(json.loads(line), number)
    except (ValueError, KeyError, TypeError, RecursionError):
        return Unreadable(number, torn=False)


def is_taken_out(line: bytes) -> bool:
    """Tell whether a line is what is left of a letter that was taken out."""
    return line.startswith((b" ", b"\n"))


def _parse(value: object, number: Number) -> Letter:
    """Raise `ValueError`, `KeyError` or `TypeError` for anything but a letter."""
    if not isinstance(value, dict):
        raise TypeError
    letter = cast("dict[str, object]", value)
    moment = datetime.fromisoformat(_text(letter["time"]).replace("Z", "+00:00"))
    status = letter["status"]
    if moment.tzinfo is None or not (status is None or isinstance(status, int)):
        raise TypeError
    if "event" in letter:
        event = _text(letter["event"]).encode()
    else:
        event = base64.b64decode(_text(letter["event_base64"]), validate=True)
    return Letter(number, moment, status, _text(letter["reason"]), _text(letter["excerpt"]), event)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
