"""The command `queue` in processes of their own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator


@contextlib.contextmanager
def process(*words: str, stdout: int = subprocess.PIPE) -> Generator[subprocess.Popen[bytes]]:
    """Run the command in a process of its own, and kill it at the end if it still runs."""
    command = [sys.executable, "-m", "baseplate_events", "queue", *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=stdout, stderr=pipe) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.kill()


def line_of(running: subprocess.Popen[bytes]) -> bytes:
    """Return the next line of its stdout."""
    assert running.stdout is not None
    return running.stdout.readline()
