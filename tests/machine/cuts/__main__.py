"""Cuts the power of machines with a publisher, and counts what that takes: `python -m tests.machine.cuts`.

It goes on where an earlier run with the same file of results stopped. Each cut prints a line; the end is a
table. Exit status: 0 if all promises of docs/operations.md were kept, 1 if not, 2 for a mistake in the
command line. A cut takes 20 to 120 seconds, most of them less than 40.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.machine.cuts.plan import CUTS, plan
from tests.machine.cuts.results import append, load, row_of, table
from tests.machine.cuts.scene import make_cut
from tests.machine.image import built
from tests.machine.prepared import prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.machine.cuts.results import Row

#: The seed of the published table.
SEED: Final = 15


def main(words: Sequence[str] | None = None) -> int:
    """Make the cuts that are still to be made; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.machine.cuts", description="Count what power cuts take."
    )
    parser.add_argument(
        "numbers", nargs="*", type=int, metavar="CUT", help="which cuts of the plan; default: all"
    )
    parser.add_argument("--seed", type=int, default=SEED, help="of the plan (default %(default)s)")
    parser.add_argument("--most", type=int, default=CUTS, help="the most cuts that this run makes")
    parser.add_argument(
        "--results", type=Path, default=Path("power-cuts.jsonl"), help="the file (default %(default)s)"
    )
    parser.add_argument("--table", action="store_true", help="print the table of the file, and cut nothing")
    arguments = parser.parse_args(words)
    failed = False
    rows = [row for row in load(arguments.results) if row["seed"] == arguments.seed]
    if not arguments.table:
        done = {row["number"] for row in rows}
        wanted = set(arguments.numbers) or set(range(CUTS))
        open_ones = [cut for cut in plan(arguments.seed) if cut.number in wanted - done][: arguments.most]
        with built() as image:
            for cut in open_ones:
                prepared = prepare(image, cut.file_system)
                try:
                    result = make_cut(cut, prepared)
                except (
                    AssertionError,
                    OSError,
                ) as exc:  # also TimeoutError: the next run makes this cut again
                    print(f"ERROR {cut.number}: {type(exc).__name__}: {str(exc)[:500]}", flush=True)
                    failed = True
                    continue
                row = row_of(cut, result, image.package, prepared.accelerator)
                append(arguments.results, row)
                print(_line(row), flush=True)
                rows.append(row)
    print(f"\n{len(rows)} of {CUTS} cuts, seed {arguments.seed}\n\n{table(rows)}")
    return int(failed or any(row["failures"] for row in rows))


def _line(row: Row) -> str:
    verdict = "FAIL" if row["failures"] else "PASS"
    load_ = f"load={row['load']} rate={row['rate']:g} up={row['collector_up']} keep={row['keep']}"
    where = f"{row['fsync']} {row['way']} {row['file_system']} [{row['kind']} {row['count']}] {load_}"
    figures = " ".join(f"{name}={value}" for name, value in row["outcome"].items())
    met = f"came={row['moment_came']} unflushed={row['loss']['unflushed']} seconds={row['seconds']}"
    return f"{verdict} {row['number']}: {where}: {figures} {met} {row['failures'] or ''} {row['log'] or ''}"


if __name__ == "__main__":
    # So that a run that is ended ends its machine.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
    sys.exit(main())
