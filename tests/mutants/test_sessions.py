"""Which mutants are tried, and what counts as found."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest

from tests.mutants import sessions
from tests.mutants.ask import NO_ANSWER
from tests.mutants.equivalent import EQUIVALENT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SOURCE = "a = 1\n" * 20 + "b: int | str = 2\n"


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """A session with a mutant for each line, as cosmic-ray has them; that of the last line is no code."""
    path = tmp_path / "session.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.executescript(
            "CREATE TABLE mutation_specs (job_id, operator_name, occurrence, start_pos_row, start_pos_col);"
            "CREATE TABLE work_results (job_id, worker_outcome, test_outcome, output, diff);"
        )
        mutants = [(f"job{row}", row, row, 0 if row < 21 else 4) for row in range(1, 22)]
        database.executemany("INSERT INTO mutation_specs VALUES (?, 'core/X', ?, ?, ?)", mutants)
    return path


def skipped(session: Path) -> set[str]:
    """Return the mutants that aren't tried."""
    with contextlib.closing(sqlite3.connect(session)) as database:
        rows = database.execute("SELECT job_id FROM work_results WHERE worker_outcome = 'SKIPPED'")
        return {job for (job,) in rows}


def record(session: Path, *results: tuple[str, str, str], rows: Iterable[int] = (0,)) -> None:
    """Add results to mutants: whether they survived, the output, and the difference."""
    with contextlib.closing(sqlite3.connect(session)) as database, database:
        database.executemany(
            "INSERT INTO work_results VALUES (?, 'NORMAL', ?, ?, ?)",
            [(f"job{row}", *result) for row in rows for result in results],
        )


def test_all_that_is_code_is_tried(session: Path) -> None:
    """Without a sample, everything except annotations."""
    sessions.choose(session, SOURCE, "7", None)
    assert skipped(session) == {"job21"}
    assert not sessions.is_complete(session)
    record(session, ("KILLED", "1 failed", ""), rows=range(1, 20))
    assert not sessions.is_complete(session)
    record(session, ("KILLED", "1 failed", ""), rows=[20])
    assert sessions.is_complete(session)


def test_a_seed_chooses_the_same_sample(session: Path, tmp_path: Path) -> None:
    """Of the size that was asked for; another seed chooses others."""
    samples: list[set[str]] = []
    for seed in ("7", "7", "8"):
        copy = tmp_path / "copy.sqlite"
        copy.write_bytes(session.read_bytes())
        sessions.choose(copy, SOURCE, seed, 5)
        samples.append(skipped(copy))
    assert samples[0] == samples[1] != samples[2]
    assert {len(sample) for sample in samples} == {16}
    assert all("job21" in sample for sample in samples)


def test_what_becomes_of_mutants_is_counted(session: Path) -> None:
    """A timeout is found, and only what is declared is equivalent."""
    known = EQUIVALENT[0]
    equivalent = f"--- a\n+++ b\n-    {known.line}\n+    {known.mutant}\n"
    record(session, ("KILLED", "1 failed", ""), ("KILLED", "timeout", ""))
    sessions.confirm_timeouts(session)
    record(session, ("SURVIVED", "1 passed", equivalent), ("SURVIVED", "1 passed", "-a\n+b\n"))
    assert sessions.read(session, known.module) == (4, 2, 1, 1, ["-a\n+b\n"])
    assert sessions.read(session, "another").equivalent == 0


def test_a_mutant_without_an_answer_is_not_found(session: Path) -> None:
    """It is an error, and tried again by the next run."""
    record(session, ("KILLED", "1 failed", ""), ("KILLED", f"{NO_ANSWER}\n", ""))
    with pytest.raises(RuntimeError, match=NO_ANSWER):
        sessions.read(session, "module")
    assert not sessions.is_complete(session)
    assert sessions.read(session, "module").tried == 1


def test_a_mutant_that_ran_into_the_timeout_is_tried_again(session: Path) -> None:
    """Once: the machine may have been busy."""
    sessions.choose(session, SOURCE, "7", None)
    record(session, ("KILLED", "1 failed", ""), rows=range(1, 20))
    record(session, ("KILLED", "timeout", ""), rows=[20])
    assert sessions.forget_timeouts(session)
    assert not sessions.forget_timeouts(session)
    assert not sessions.is_complete(session)
    record(session, ("KILLED", "timeout", ""), rows=[20])
    sessions.confirm_timeouts(session)
    assert not sessions.forget_timeouts(session)
    assert sessions.is_complete(session)
    assert sessions.read(session, "module").timed_out == 1


def test_a_run_that_ended_before_that_is_not_complete(session: Path) -> None:
    """The next run tries the mutant again."""
    sessions.choose(session, SOURCE, "7", None)
    record(session, ("KILLED", "1 failed", ""), rows=range(1, 20))
    record(session, ("KILLED", "timeout", ""), rows=[20])
    assert not sessions.is_complete(session)
    assert sessions.read(session, "module").tried == 19
