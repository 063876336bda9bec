"""The forks that run the tests of mutants: they see each change, and end when they must."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mutants import ask
from tests.support.commands import IMPORTING, Result, run
from tests.support.processes import PIPE, Process, finish, started
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.unmeasured

ASK = Path(ask.__file__)

TESTS = """
import os, signal
from pathlib import Path
from mutant import VALUE

def test_value():
    assert VALUE == 1

def test_endless():
    Path("pid").write_text(str(os.getpid()))
    signal.pause()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with tests, and a module that they import."""
    Path(tmp_path, "test_it.py").write_text(TESTS)
    Path(tmp_path, "mutant.py").write_text("VALUE = 1\n")
    return tmp_path


@pytest.fixture
def forks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Process]:
    """The process that forks, in that folder."""
    monkeypatch.chdir(folder)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind("socket")
        server.listen()
        with started(
            sys.executable,
            *("-m", "tests.mutants.forks", str(server.fileno())),
            stdin=PIPE,
            environ=IMPORTING,
            cwd=folder,
            pass_fds=[server.fileno()],
        ) as process:
            server.close()
            yield process


def asking(test: str) -> tuple[str, ...]:
    """Return the command that has a test run."""
    options = ("-q", "-p", "no:cacheprovider")
    return (sys.executable, "-I", "-S", str(ASK), "socket", *options, f"test_it.py::{test}")


def ask_for(folder: Path, test: str) -> Result:
    """Have a test run."""
    return run(*asking(test), cwd=folder, environ={"PYTHONDONTWRITEBYTECODE": "1"})


@pytest.mark.usefixtures("forks")
def test_each_fork_imports_the_code_as_it_is_now(folder: Path) -> None:
    """A mistake is found, and gone again after it; the output is that of pytest."""
    for value, failed in ((1, 0), (2, 1), (1, 0)):
        Path(folder, "mutant.py").write_text(f"VALUE = {value}\n")
        result = ask_for(folder, "test_value")
        assert result.status == failed, result
        assert "1 failed" in result.out if failed else "1 passed" in result.out


def test_a_fork_ends_with_the_one_who_asked(folder: Path, forks: Process) -> None:
    """It is killed, as after a timeout; the next request is served, and the end of stdin is the end."""
    pid = folder / "pid"
    with started(*asking("test_endless"), cwd=folder, stdout=PIPE) as process:
        wait_until(lambda: pid.exists() and pid.read_text(), "the test didn't begin", process=process)
        process.kill()
        process.communicate()  # which ends when no one has its stdout
    assert ask_for(folder, "test_value").status == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert finish(forks).status == 0


def test_no_answer_is_no_failed_test(folder: Path) -> None:
    """It says so, and the runner stops there."""
    assert ask.NO_ANSWER in ask_for(folder, "test_value").out
