"""The result of a benchmark, as a table in Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_COLUMNS: Final = ("", "unit", "ours", "baseplate.py", "floor", "times baseplate.py", "of the floor")
_HEAD: Final = f"| {' | '.join(_COLUMNS).strip()} |\n|{'---|' * len(_COLUMNS)}"


@dataclass(frozen=True)
class Line:
    """One quantity, measured for all candidates in the same rounds.

    Attributes:
        what: What was measured.
        unit: Unit of the figures.
        ours: Our figure.
        original: That of baseplate 2.7.1, or of what it uses; None where it has nothing to compare.
        floor: What the machine allows without us; None where there is no floor.
        more_is_better: Whether a larger figure is better, as with events a second; else a smaller one is, as
            with times and bytes.
    """

    what: str
    unit: str
    ours: float
    original: float | None = None
    floor: float | None = None
    more_is_better: bool = False

    @property
    def times_original(self) -> float | None:
        """Ours, as a multiple of baseplate.py's; above 1 ours is better."""
        return self._ratio(self.original)

    @property
    def of_floor(self) -> float | None:
        """Ours, as a share of the floor; 1 is as good."""
        return self._ratio(self.floor)

    def _ratio(self, other: float | None) -> float | None:
        if not other or not self.ours:
            return None
        return self.ours / other if self.more_is_better else other / self.ours


@dataclass(frozen=True)
class Target:
    """A target for a ratio or figure.

    Attributes:
        what: What it is a target for.
        found: The figure that was found.
        bound: The figure that it should reach.
        at_least: Whether `found` should be `bound` or more; else `bound` or less.
    """

    what: str
    found: float
    bound: float
    at_least: bool = True

    @property
    def reached(self) -> bool:
        """Whether the target was reached."""
        return self.found >= self.bound if self.at_least else self.found <= self.bound

    def __str__(self) -> str:
        word = "at least" if self.at_least else "at most"
        verdict = "reached" if self.reached else "MISSED"
        return f"{verdict}: {self.what}: {number(self.found)} ({word} {number(self.bound)})"


@dataclass(frozen=True)
class Report:
    """The result of one benchmark.

    Attributes:
        title: What was measured.
        lines: The figures.
        targets: What they should reach.
        notes: What a reader must know to make sense of them, one sentence each.
    """

    title: str
    lines: tuple[Line, ...]
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return _text(self.title, [_HEAD, *map(_row, self.lines)], self.notes, self.targets)


@dataclass(frozen=True)
class Table:
    """The result of a benchmark whose columns are not ours, baseplate.py and the floor.

    Attributes:
        title: What was measured.
        head: The heads of its columns.
        rows: The cells of each row.
        targets: What the figures should reach.
        notes: What a reader must know to make sense of them, one sentence each.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [_cells(self.head), "|---" * len(self.head) + "|", *map(_cells, self.rows)]
        return _text(self.title, lines, self.notes, self.targets)


def number(value: float | None) -> str:
    """Write a figure with three significant digits, or all before the point; nothing for None."""
    if value is None:
        return ""
    if abs(value) >= 100:  # noqa: PLR2004 - three digits
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _row(line: Line) -> str:
    times, share = line.times_original, line.of_floor
    cells: Iterable[str] = (
        line.what,
        line.unit,
        number(line.ours),
        number(line.original),
        number(line.floor),
        "" if times is None else f"{number(times)}x",
        "" if share is None else f"{share:.0%}",
    )
    return _cells(cells)


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(title: str, lines: Sequence[str], notes: Sequence[str], targets: Sequence[Target]) -> str:
    parts = [f"### {title}\n", *lines]
    if notes:
        parts += ["", *(f"- {note}" for note in notes)]
    if targets:
        parts += ["", *(f"- {target}" for target in targets)]
    return "\n".join(parts) + "\n"
