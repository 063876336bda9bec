"""How commands write to a terminal: colour, tables, and the progress of long operations.

Rules:

1. Colour goes only to a terminal, and never if the environment has NO_COLOR (https://no-color.org) or the
   terminal is `dumb`.
2. Progress goes only to a terminal, rewrites one line, and is updated at most ten times a second.
3. Foreign text (from a file, a collector or an event) passes through `printable`, so that it can neither
   move the cursor nor break a table.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import math
import re
import shutil
import sys
import time
from typing import TYPE_CHECKING, Final, TextIO, final

from ..event_publisher.exit_status import print_stderr
from ..event_publisher.foreign_text import printable, printable_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "Colour",
    "Progress",
    "event_for_terminal",
    "format_age",
    "format_progress",
    "format_table",
    "paint",
    "printable",
    "visible_length",
    "wants_colour",
    "write_table",
]

#: Seconds between two updates of the progress: smooth to the eye, and cheap.
_INTERVAL: Final = 0.1

#: Blanks between two columns of a table.
_GAP: Final = 2

#: Erases from the cursor to the end of the line (ECMA-48, EL).
_ERASE: Final = "\x1b[K"

#: What JSON allows between tokens, mapped to blanks.
_BLANKS: Final = bytes.maketrans(b"\t\r\n", b"   ")

#: What `paint` adds to a text (ECMA-48, SGR).
_STYLE: Final = re.compile(r"\x1b\[[0-9;]*m")


class Colour(enum.Enum):
    """A colour, or `DIM`; the value is its SGR parameter."""

    RED = "31"
    GREEN = "32"
    YELLOW = "33"
    DIM = "2"


def wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether text written to a stream may be coloured."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def paint(text: str, colour: Colour) -> str:
    """Return the text in a colour."""
    return f"\x1b[{colour.value}m{text}\x1b[0m"


def visible_length(text: str) -> int:
    """Return the number of visible characters of a text, ignoring what `paint` added."""
    return len(_STYLE.sub("", text))


def event_for_terminal(event: bytes) -> bytes:
    """Format an event for a terminal: on one line, escaped.

    It isn't truncated: the user asked for it, and it may exist nowhere else. JSON has line breaks and tabs
    only between tokens, where a blank works as well.
    """
    encoding = (sys.stdout.encoding if sys.stdout is not None else None) or "ascii"
    return printable_bytes(event.translate(_BLANKS)).encode(encoding, "backslashreplace")


def format_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align the columns of a table to the left; rows may differ in length.

    Returns:
        A line for each row, without trailing blanks.
    """
    lengths = [[visible_length(cell) for cell in row] for row in rows]
    widths = [max(column) for column in itertools.zip_longest(*lengths, fillvalue=0)]
    return [
        "".join(
            cell + " " * (width - length + _GAP)
            for cell, length, width in zip(row, row_lengths, widths, strict=False)
        ).rstrip(" ")
        for row, row_lengths in zip(rows, lengths, strict=True)
    ]


def write_table(rows: Sequence[Sequence[str]], warnings: Sequence[str]) -> None:
    """Write a table to stdout, and warnings to stderr."""
    sys.stdout.write("".join(f"{line}\n" for line in format_table(rows)))
    for warning in warnings:
        print_stderr(f"warning: {warning}")


def format_progress(label: str, done: int, total: int, seconds: float) -> str:
    """Format the progress of an operation.

    Args:
        label: What is counted, such as `events replayed`.
        done: How many are done.
        total: How many there are.
        seconds: How long it has taken so far.
    """
    rate = f" ({done / seconds:,.0f} a second)" if seconds >= 1 else ""
    share = f", {done * 100 // total} %" if total > 0 else ""
    left = ""
    if seconds >= 1 and 0 < done < total:
        left = f", {format_age((total - done) * seconds / done)} left"
    return f"{done:,} of {total:,} {label}{share}{rate}{left}"


def format_age(seconds: float) -> str:
    """Format a duration, in at most two units: `5.0 s`, `3 min 20 s`, `2 d 4 h`."""
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days:,} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


@final
class Progress:
    """The progress of a long operation, shown on a terminal, if there is one.

    Args:
        stream: Where it is shown, usually stderr, so that it doesn't mix with the command's output.
        label: What is counted, such as `events replayed`.
        total: How many there are.
        clock: The monotonic clock, in seconds.
    """

    def __init__(
        self,
        stream: TextIO,
        label: str,
        total: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._label = label
        self._total = total
        self._clock = clock
        self._started_at = clock()
        self._due_at = self._started_at if stream.isatty() else math.inf
        self._written = False

    def show(self, done: int) -> None:
        """Report how many are done; cheap enough to be called for each."""
        now = self._clock()
        if now < self._due_at:
            return
        self._due_at = now + _INTERVAL
        self._written = True
        line = format_progress(self._label, done, self._total, now - self._started_at)
        # A line that wraps can't be rewritten.
        self._write(f"\r{line[: shutil.get_terminal_size().columns - 1]}{_ERASE}")

    def close(self) -> None:
        """Erase the line, before other output is written."""
        if self._written:
            self._written = False
            self._write(f"\r{_ERASE}")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a terminal that hangs up must not end the operation
            self._stream.write(text)
            self._stream.flush()
