"""The commands, run in this process as a user would type them, with a real file for a standard output."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass

from baseplate_events.__main__ import main


@dataclass(frozen=True)
class Result:
    """What a command did.

    Attributes:
        status: Its exit status.
        out: What it wrote to stdout.
        err: What it wrote to stderr.
    """

    status: int
    out: str
    err: str


def call(*words: str) -> Result:
    """Run a command, which must be done in the main thread if it handles signals."""
    # Bytes as they are: an event needn't be UTF-8.
    with (
        tempfile.TemporaryFile("w+", errors="surrogateescape", newline="") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main(words)
            except SystemExit as exc:
                status = int(exc.code or 0)
        out.seek(0)
        err.seek(0)
        return Result(status, out.read(), err.read())
