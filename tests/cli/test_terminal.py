"""What commands write to a terminal, and what they don't write elsewhere."""

from __future__ import annotations

import io
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.cli.terminal import (
    Colour,
    Progress,
    format_progress,
    format_table,
    paint,
    printable,
    visible_length,
    wants_colour,
)
from tests.support.strategies import table_rows, texts

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Seconds between two lines of progress, as the module promises it.
INTERVAL = 0.1


class Stream(io.StringIO):
    """A stream that is a terminal or isn't, and keeps each write."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal
        self.writes: list[str] = []

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str, /) -> int:
        self.writes.append(text)
        return super().write(text)


@given(
    st.booleans(),
    st.dictionaries(
        st.sampled_from(["NO_COLOR", "TERM", "COLORTERM"]), st.sampled_from(["", "1", "dumb", "xterm"])
    ),
)
def test_colour_only_goes_to_a_terminal_that_wants_it(terminal: bool, environ: Mapping[str, str]) -> None:
    """There is colour on a terminal that isn't dumb, unless NO_COLOR holds anything, and nowhere else."""
    unwanted = environ.get("NO_COLOR", "") != "" or environ.get("TERM") == "dumb"
    assert (terminal and not unwanted) == wants_colour(Stream(terminal=terminal), environ)


@given(texts.map(printable), st.sampled_from(Colour))
def test_paint_takes_no_room(text: str, colour: Colour) -> None:
    """A painted text shows as many characters as before, and can be found in what is written."""
    assert len(text) == visible_length(paint(text, colour))
    assert text in paint(text, colour)


@given(st.text())
def test_nothing_printable_moves_the_cursor(text: str) -> None:
    """What `printable` gives is printable, and it leaves alone what was."""
    shown = printable(text)
    assert shown == "" or shown.isprintable()
    if text.isascii() and text.isprintable():
        assert text == shown


@given(table_rows)
def test_the_cells_of_a_column_begin_below_each_other(rows: list[list[str]]) -> None:
    """Each cell is in its line where the widest cells before it put it; no line ends in blanks."""
    lines = format_table(rows)
    assert len(rows) == len(lines)
    count = max(map(len, rows), default=0)
    widths = [
        max((len(row[column]) for row in rows if column < len(row)), default=0) for column in range(count)
    ]
    for row, line in zip(rows, lines, strict=True):
        assert line == line.rstrip(" ")
        for column, cell in enumerate(row):
            start = sum(widths[:column]) + 2 * column
            assert cell.rstrip(" ") == line[start : start + len(cell)].rstrip(" ")


def test_painted_cells_are_aligned_by_what_shows() -> None:
    """Colour doesn't shift what follows."""
    plain, painted = (
        format_table([["ok", "x"], ["problem", "y"]]),
        format_table([[paint("ok", Colour.GREEN), "x"], [paint("problem", Colour.RED), "y"]]),
    )
    assert [visible_length(line) for line in plain] == [visible_length(line) for line in painted]


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.floats(0, 10**6))
def test_progress_says_how_far_and_of_how_much(done: int, total: int, seconds: float) -> None:
    """Count and total are there, and a rate once there is a second to take it from."""
    line = format_progress("events", done, total, seconds)
    assert line.startswith(f"{done:,} of {total:,} ")
    assert (seconds >= 1) == ("a second" in line)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(0, 100))
def test_progress_is_shown_ten_times_a_second_at_most(steps: list[float], total: int) -> None:
    """Lines are never less than the interval apart, the first count shows, nothing is left at the end."""
    now = 100.0
    stream = Stream(terminal=True)
    shown_at: list[float] = []
    with closing(Progress(stream, "events", total, clock=lambda: now)) as progress:
        for done, step in enumerate(steps):
            before = len(stream.writes)
            progress.show(done)
            if len(stream.writes) > before:
                shown_at.append(now)
            now += step
    assert shown_at[0] == 100.0
    assert all(later - earlier >= INTERVAL - 1e-9 for earlier, later in pairwise(shown_at))
    assert all(text.startswith("\r") and "\n" not in text for text in stream.writes)
    assert stream.writes[-1] == "\r\x1b[K"


@given(st.lists(st.integers(0, 10**6)))
def test_progress_is_silent_where_there_is_no_terminal(counts: list[int]) -> None:
    """A file or a pipe gets nothing."""
    stream = Stream(terminal=False)
    with closing(Progress(stream, "events", 10)) as progress:
        for count in counts:
            progress.show(count)
    assert stream.writes == []
