from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.commands import Result, call, run

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
    assert run(sys.executable, "-c", code, environ={"GIVEN": "x"}).check() == "x\udcff"


def test_a_failure_is_not_overlooked() -> None:
    """`check` fails with what the command wrote, and a command that does not end is killed."""
    with pytest.raises(AssertionError, match="er"):
        run(sys.executable, "-c", ECHO).check()
    with pytest.raises(subprocess.TimeoutExpired):
        run("sleep", "60", timeout=0.01)
