"""The sessions of cosmic-ray: SQLite files with the mutants of a module, and what became of each."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.mutants.ask import NO_ANSWER
from tests.mutants.equivalent import EQUIVALENT
from tests.mutants.not_counted import find_not_counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


#: What cosmic-ray notes of a mutant that ran into the timeout, and what it becomes if that happens twice.
_TIMEOUT: Final = "timeout"
_TIMEOUT_TWICE: Final = "timeout twice"


class Tally(NamedTuple):
    """What became of the mutants of a module.

    Attributes:
        tried: How many were tried.
        found: How many the tests found, those among them that ran into the timeout.
        timed_out: How many did, twice.
        equivalent: How many survived, and are declared as equivalent.
        survivors: The others, each as text for a terminal.
    """

    tried: int
    found: int
    timed_out: int
    equivalent: int
    survivors: Sequence[str]


def choose(session: Path, source: str, seed: str, sample: int | None) -> None:
    """Leave out what isn't counted, and all but a sample of the rest."""
    ranges = find_not_counted(source)
    with contextlib.closing(sqlite3.connect(session)) as database, database:
        rows = database.execute(
            "SELECT job_id, start_pos_row, start_pos_col FROM mutation_specs"
            " WHERE job_id NOT IN (SELECT job_id FROM work_results) ORDER BY operator_name, occurrence"
        ).fetchall()
        counted = [job for job, row, column in rows if not any(a <= (row, column) < b for a, b in ranges)]
        keep = counted
        if sample is not None and sample < len(counted):
            keep = random.Random(seed).sample(counted, sample)
        database.executemany(
            "INSERT INTO work_results (worker_outcome, job_id) VALUES ('SKIPPED', ?)",
            [(job,) for job, *_ in rows if job not in set(keep)],
        )


def is_complete(session: Path) -> bool:
    """Return whether all chosen mutants were tried.

    One without an answer, as a run was ended, wasn't; nor was one that ran into the timeout only once.
    """
    forget_timeouts(session)
    with contextlib.closing(sqlite3.connect(session)) as database, database:
        database.execute("DELETE FROM work_results WHERE instr(output, ?)", (NO_ANSWER,))
        (left,) = database.execute(
            "SELECT count(*) FROM mutation_specs WHERE job_id NOT IN (SELECT job_id FROM work_results)"
        ).fetchone()
        return bool(left == 0)


def forget_timeouts(session: Path) -> bool:
    """Forget the mutants that ran into the timeout only once, and return whether there were any.

    The machine may have been busy, so they are tried again.
    """
    with contextlib.closing(sqlite3.connect(session)) as database, database:
        return database.execute("DELETE FROM work_results WHERE output = ?", (_TIMEOUT,)).rowcount > 0


def confirm_timeouts(session: Path) -> None:
    """Note that the mutants that ran into the timeout did so for the second time."""
    with contextlib.closing(sqlite3.connect(session)) as database, database:
        database.execute("UPDATE work_results SET output = ? WHERE output = ?", (_TIMEOUT_TWICE, _TIMEOUT))


def read(session: Path, module: str) -> Tally:
    """Return what became of the mutants of a module.

    Raises:
        RuntimeError: One couldn't be tried.
    """
    with contextlib.closing(sqlite3.connect(session)) as database:
        results = database.execute(
            "SELECT test_outcome, output, diff, worker_outcome FROM work_results"
            " WHERE worker_outcome != 'SKIPPED'"
        ).fetchall()
    # cosmic-ray can't replace an exception that isn't a plain name.
    results = [row for row in results if row[3] != "EXCEPTION" or "exception_replacer.py" not in str(row[1])]
    for _, output, _, outcome in results:
        if outcome != "NORMAL" or NO_ANSWER in str(output):
            raise RuntimeError(output)
    tried = len(results)
    timed_out = sum(output == _TIMEOUT_TWICE for _, output, *_ in results)
    diffs = [diff for outcome, _, diff, _ in results if outcome == "SURVIVED"]
    survivors = [diff for diff in diffs if not _is_equivalent(module, diff)]
    return Tally(tried, tried - len(diffs), timed_out, len(diffs) - len(survivors), survivors)


def _is_equivalent(module: str, diff: str) -> bool:
    removed, added = (
        " ".join(
            line[1:].strip() for line in diff.splitlines() if line.startswith(sign) and line[:3] != 3 * sign
        ).strip()
        for sign in "-+"
    )
    return any((each.module, each.line, each.mutant) == (module, removed, added) for each in EQUIVALENT)
