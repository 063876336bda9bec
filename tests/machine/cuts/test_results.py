from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tests.machine.cuts.oracle import Outcome
from tests.machine.cuts.plan import plan
from tests.machine.cuts.results import append, load, row_of, table
from tests.machine.cuts.scene import Result
from tests.machine.volatile_disk import Loss

if TYPE_CHECKING:
    from pathlib import Path

RESULT = Result(
    Outcome(1_000, 990, 980, 10, 12_345, 1.25, 0.75, 2, 5, 0),
    True,
    Loss(20, 7),
    300,
    10,
    ["a warning"],
    [],
    31.5,
)


def test_a_run_goes_on_where_another_stopped(tmp_path: Path) -> None:
    """Lines are read again as they were written; one that was cut off is forgotten."""
    path = tmp_path / "results"
    assert [] == load(path)
    rows = [row_of(cut, RESULT, "a version", "tcg") for cut in plan(3)[:3]]
    for row in rows:
        append(path, row)
    with path.open("a") as file:
        file.write('{"number": 3, "se')
    assert rows == load(path)


def test_the_table_adds_up() -> None:
    """Cells are summed up, and the worst of them is named."""
    cuts = plan(3)
    worse = dataclasses.replace(
        RESULT, outcome=dataclasses.replace(RESULT.outcome, lost=20), failures=["why"]
    )
    rows = [row_of(cuts[0], RESULT, "", ""), row_of(cuts[12], worse, "", ""), row_of(cuts[1], RESULT, "", "")]
    assert table(rows).splitlines()[2:] == [
        "| `never` | service | ext4 | 2 | 2,000 | 1,980 | 30 | 20 (12 kB) | 1.2 s | 0.8 s | 4 | 10 | 0 | 1 |",
        "| `batch` | service | ext4 | 1 | 1,000 | 990 | 10 | 10 (12 kB) | 1.2 s | 0.8 s | 2 | 5 | 0 | 0 |",
        "| total |  |  | 3 | 3,000 | 2,970 | 40 | 20 (12 kB) | 1.2 s | 0.8 s | 6 | 15 | 0 | 1 |",
    ]
