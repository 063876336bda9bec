"""Processes that run beside a test: started, talked to, and killed at the end of a block.

A command that only has to end is for `tests.support.commands.run`.
"""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
from typing import IO, TYPE_CHECKING, Final, TypeAlias

from tests.support.commands import Result, environment
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

#: A process whose streams are of bytes.
Process: TypeAlias = "subprocess.Popen[bytes]"

PIPE: Final = subprocess.PIPE
DEVNULL: Final = subprocess.DEVNULL


@contextlib.contextmanager
def started(
    *command: str | os.PathLike[str],
    stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    environ: Mapping[str, str | None] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    session: bool = False,
    pass_fds: Sequence[int] = (),
) -> Generator[Process]:
    """Run a command until the end of the block, where it is killed if it still runs.

    Args:
        command: The command and its arguments.
        stdin: A descriptor, a file, `PIPE` or `DEVNULL`; None: that of this process.
        stdout: Likewise.
        stderr: Likewise.
        environ: Variables of its environment, besides those of this process; None removes one.
        cwd: The folder that it runs in.
        session: Whether it has a session of its own; all processes of its group are then killed with it.
        pass_fds: Descriptors that it inherits, besides its streams.

    Raises:
        OSError: It cannot be run.
    """
    with subprocess.Popen(
        command,
        bufsize=0,  # so that `finish` gets all that `hear` has left
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment(environ or {}),
        cwd=cwd,
        start_new_session=session,
        pass_fds=pass_fds,
    ) as process:
        try:
            yield process
        finally:
            if session:
                kill_group(process)
            else:
                process.kill()


def kill_group(process: Process) -> None:
    """Kill a process that has a session of its own, and all processes of its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def say(process: Process, text: str = "") -> None:
    """Write a line to the stdin of a process."""
    assert process.stdin is not None
    process.stdin.write(f"{text}\n".encode())


def hear(process: Process) -> str:
    """Return the next line of the stdout of a process, without its end.

    Raises:
        ChildProcessError: It has closed its stdout.
    """
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise ChildProcessError(f"{process.args!r} says nothing more")
    return line.decode(errors="surrogateescape").removesuffix("\n")


def finish(process: Process, timeout: float = PATIENCE) -> Result:
    """Close the stdin of a process, wait for its end, and return its status and what it still had to say.

    Raises:
        subprocess.TimeoutExpired: It did not end in time.
    """
    out, err = process.communicate(timeout=timeout)
    texts = ((written or b"").decode(errors="surrogateescape") for written in (out, err))
    return Result(process.returncode, *texts)


def on_terminal(*command: str, environ: Mapping[str, str | None] | None = None) -> tuple[int, str]:
    """Run a command whose streams are all one terminal; return its exit status and what it wrote there."""
    screen, terminal = pty.openpty()
    with started(*command, stdin=terminal, stdout=terminal, stderr=terminal, environ=environ) as process:
        os.close(terminal)
        shown = read_screen(screen)
        os.close(screen)
        return process.wait(PATIENCE), shown


def read_screen(screen: int) -> str:
    """Return what is written to a terminal until no process has it open."""
    written = b""
    with contextlib.suppress(OSError):  # which is how Linux says that the terminal has no user any more
        while data := os.read(screen, 65_536):
            written += data
    return written.decode()
