from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import Result, call, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unmeasured

ECHO = "import sys; sys.stdout.write(sys.stdin.read()); sys.stderr.write('er\\r\\n'); sys.exit(3)"


def test_both_ways_to_run_a_command_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Status, stdout and stderr of a command are the same in this process and in one of its own."""
    monkeypatch.setenv("COLUMNS", "80")
    for words in (["collect", "--help"], ["dead-letters", "list", "/nowhere"], ["no such command"]):
        there = run(sys.executable, "-m", "baseplate_events", *words)
        assert call(*words) == there
        assert there.out or there.err


def test_a_process_gets_input_and_environment() -> None:
    """A command reads what it is given, sees its variables beside those of this process, and is merged."""
    assert Result(3, "ü\r\n", "er\r\n") == run(sys.executable, "-c", ECHO, stdin="ü\r\n")
    assert Result(3, "er\r\n", "") == run(sys.executable, "-c", ECHO, merged=True)
    code = (
        "import os, sys; sys.stdout.buffer.write(os.environ['GIVEN'].encode() + b'\\xff'); os.environ['PATH']"
    )
    given = run(sys.executable, "-c", code, environ={"GIVEN": "x"})
    assert (given.check(), given.out_bytes) == ("x\udcff", b"x\xff")


def test_a_process_runs_in_a_folder_without_some_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command runs where it should, and variables that are None are not in its environment."""
    monkeypatch.setenv("UNWANTED", "x")
    code = "import os; print(os.getcwd(), 'UNWANTED' in os.environ)"
    assert run(sys.executable, "-c", code, cwd=tmp_path).check() == f"{tmp_path} True\n"
    without = run(sys.executable, "-c", code, cwd=tmp_path, environ={"UNWANTED": None, "NOT_SET": None})
    assert without.check() == f"{tmp_path} False\n"


def test_a_failure_is_not_overlooked() -> None:
    """`check` fails with what the command wrote, and a command that does not end is killed."""
    with pytest.raises(AssertionError, match="er"):
        run(sys.executable, "-c", ECHO).check()
    with pytest.raises(subprocess.TimeoutExpired):
        run("sleep", "60", timeout=0.01)
