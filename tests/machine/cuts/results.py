"""The file of results, a line of JSON for each cut, and the table of them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from tests.machine.cuts.plan import CELLS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tests.machine.cuts.plan import Cut
    from tests.machine.cuts.scene import Result

#: A line of the file.
Row = dict[str, Any]

_HEAD: Final = (
    "| `spool.fsync` | way | file system | cuts | events put | received | lost | most lost by a cut "
    "| oldest lost | busy | in the middle | sent twice | damaged | broken promises |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def row_of(cut: Cut, result: Result, package: str, accelerator: str) -> Row:
    """Return the line of a cut."""
    planned = {**asdict(cut), "way": cut.way.value, "kind": cut.kind.value}
    return {**planned, **asdict(result), "package": package, "accelerator": accelerator}


def load(path: Path) -> list[Row]:
    """Return the lines of a file; none if there is no file. A last line that isn't whole is left out."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def append(path: Path, row: Row) -> None:
    """Add a line, and force it onto the disk."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def table(rows: Iterable[Row]) -> str:
    """Return the results by cell, as Markdown."""
    rows = list(rows)
    lines = [_HEAD]
    for fsync, way, system in CELLS:
        cell = [
            row
            for row in rows
            if (row["fsync"], row["way"], row["file_system"]) == (fsync, way.value, system)
        ]
        if cell:
            lines.append(_line(f"`{fsync}`", way.value, system, cell))
    if rows:
        lines.append(_line("total", "", "", rows))
    return "\n".join(lines)


def _line(fsync: str, way: str, system: str, rows: Sequence[Row]) -> str:
    outcomes = [row["outcome"] for row in rows]

    def total(name: str) -> str:
        return f"{sum(outcome[name] for outcome in outcomes):,}"

    worst = max(outcomes, key=lambda outcome: (outcome["lost"], outcome["lost_bytes"]))
    most = f"{worst['lost']:,} ({worst['lost_bytes'] / 1000:,.0f} kB)" if worst["lost"] else "0"
    oldest = max(outcomes, key=lambda outcome: outcome["oldest"])
    broken = sum(bool(row["failures"]) for row in rows)
    cells = (
        *(fsync, way, system, str(len(rows)), total("put"), total("received"), total("lost"), most),
        *(
            f"{oldest['oldest']:.1f} s",
            f"{oldest['busy']:.1f} s",
            total("holes"),
            total("duplicates"),
            total("damaged"),
            str(broken),
        ),
    )
    return "| " + " | ".join(cells) + " |"
