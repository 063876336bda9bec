from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.support.commands import Result
from tests.support.processes import PIPE, finish, hear, on_terminal, say, started
from tests.support.waiting import wait_until

ECHO = """
import sys
for line in sys.stdin:
    print(line, end="", flush=True)
print("end", file=sys.stderr)
"""


def has_ended(process: str) -> bool:
    """Return whether the process with this id has ended; it may be a zombie until another one reaps it."""
    try:
        return ") Z " in Path("/proc", process, "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_process_is_talked_to_and_finished() -> None:
    """Lines go to and fro, and the result has what wasn't heard; then it says nothing more."""
    with started(sys.executable, "-c", ECHO, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        for line in ("ü", "", "unheard", "nor this"):
            say(process, line)
        assert (hear(process), hear(process)) == ("ü", "")
        assert finish(process) == Result(0, "unheard\nnor this\n", "end\n")
    with started("true", stdout=PIPE) as process, pytest.raises(ChildProcessError, match="true"):
        hear(process)


def test_a_process_ends_with_its_block() -> None:
    """It is killed, also if the block fails; with a session of its own so are its children."""
    with pytest.raises(ZeroDivisionError), started("sleep", "60") as process:
        raise ZeroDivisionError
    assert process.returncode == -signal.SIGKILL
    with started("sh", "-c", "sleep 60 & echo $!; wait", stdout=PIPE, session=True) as process:
        child = hear(process)
        assert not has_ended(child)
    wait_until(lambda: has_ended(child), "the child goes on")


def test_a_terminal_shows_what_a_command_writes() -> None:
    """Both of its streams are the terminal."""
    code = "import sys; print(sys.stdin.isatty()); sys.stderr.write(str(sys.stdout.isatty())); sys.exit(3)"
    assert on_terminal(sys.executable, "-c", code) == (3, "True\r\nTrue")
