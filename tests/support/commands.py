"""Runs commands to their end: in this process, which is fast, or in their own, which is real."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from unittest import mock

from baseplate_events.__main__ import main
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Lets a Python in another folder, or without its site packages, import what this one does.
IMPORTING: Final = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


@dataclass(frozen=True)
class Result:
    """The result of a command.

    Attributes:
        status: Its exit status.
        out: What it wrote to stdout. Bytes that aren't UTF-8 are surrogates: an event needn't be text.
        err: What it wrote to stderr, likewise.
    """

    status: int
    out: str
    err: str

    @property
    def out_bytes(self) -> bytes:
        """What it wrote to stdout, byte for byte."""
        return self.out.encode(errors="surrogateescape")

    def check(self) -> str:
        """Return what it wrote to stdout, after checking that it succeeded."""
        assert self.status == 0, self
        return self.out


def call(*words: str, stdin: str = "") -> Result:
    """Run `baseplate-events` with these words in this process, with real files for its output.

    A command that handles signals must run in the main thread.
    """
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape", newline="") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape", newline="") as err,
    ):
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()))),
        ):
            try:
                status = main(words)
            except SystemExit as exc:
                status = int(exc.code or 0)
        out.seek(0)
        err.seek(0)
        return Result(status, out.read(), err.read())


def environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """Return the environment of this process with these variables; None removes one."""
    return {name: value for name, value in {**os.environ, **changes}.items() if value is not None}


def run(
    *command: str | bytes | os.PathLike[str],
    stdin: str = "",
    environ: Mapping[str, str | None] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    merged: bool = False,
    timeout: float = PATIENCE,
) -> Result:
    """Run any command in a process of its own.

    Args:
        command: The command and its arguments.
        stdin: What it reads.
        environ: Variables of its environment, besides those of this process; None removes one.
        cwd: The folder that it runs in.
        merged: Whether what it writes to stderr goes to stdout, in the order of writing.
        timeout: Seconds after which it is killed.

    Raises:
        OSError: It cannot be run.
        subprocess.TimeoutExpired: It did not end in time.
    """
    done = subprocess.run(
        command,
        input=stdin.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
        timeout=timeout,
        check=False,
        env=environment(environ or {}),
        cwd=cwd,
    )
    out, err = (written.decode(errors="surrogateescape") for written in (done.stdout, done.stderr or b""))
    return Result(done.returncode, out, err)
