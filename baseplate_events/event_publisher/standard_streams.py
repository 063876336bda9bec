"""Handles standard streams that are closed or unwritable: one clear line instead of a traceback.

Rules:

1. A file that this process opens never gets the number of a standard stream. Otherwise code that writes to
   stderr, such as the interpreter in an emergency, would write into a queue or a spool.
2. Reading from a closed stdin, or writing to a closed stdout, is a usage error. Messages that accompany the
   work go through `report`, which a closed stdout doesn't stop.
3. Output to a closed stderr is lost.
4. A stdout whose reader is gone ends a command quietly, with status 1. Any other failure, such as a full
   disk, is an error with its own line.
5. Characters that stdout can't encode are escaped.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn, TextIO, cast

from ..errors import ConfigurationError
from .exit_status import EXIT_FAILURE, failed, print_stderr
from .foreign_text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

#: The highest number of a standard stream.
_STDERR: Final = 2

#: The mistake of a command that is of no use without a stdout.
NO_STDOUT: Final = "there is no stdout to write to"


class EscapingParser(argparse.ArgumentParser):
    """A parser whose errors are escaped: argparse quotes unknown options as they are."""

    def error(self, message: str) -> NoReturn:
        """Report an error in the command line, and exit."""
        super().error(printable(message))


class ClosedStream(io.TextIOBase):
    """Stands in for a standard stream that was closed when the process started.

    Args:
        problem: The usage error for using it; None if output to it is lost.
    """

    def __init__(self, problem: str | None) -> None:
        super().__init__()
        self._problem = problem

    @property
    def buffer(self) -> NoReturn:
        """Not available."""
        self._refuse()

    def write(self, text: str, /) -> int:
        """Discard a text, or refuse it."""
        if self._problem is not None:
            self._refuse()
        return len(text)

    def read(self, size: int | None = -1, /) -> str:
        """Refuse to read."""
        del size
        self._refuse()

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        """Refuse to read."""
        del size
        self._refuse()

    def fileno(self) -> int:
        """Raise an error, but not as use of it: argparse of Python 3.14 calls this before it writes."""
        raise io.UnsupportedOperation("fileno")

    def _refuse(self) -> NoReturn:
        if self._problem is None:
            raise io.UnsupportedOperation
        raise ConfigurationError(self._problem)


class StdoutError(OSError):
    """Raised when stdout can't be written."""


class _Stdout(io.FileIO):
    """Stdout; its errors are distinguishable from those of other files."""

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - any buffer, which has no type before 3.12
        """Write to stdout."""
        try:
            written: int | None = super().write(data)
        except OSError as exc:
            raise StdoutError(exc.errno, exc.strerror) from exc
        if written is None:  # another program has set O_NONBLOCK, and there is no room
            raise StdoutError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return written


def is_open(stream: TextIO | None) -> bool:
    """Return whether a standard stream was open when the process started."""
    return stream is not None and not isinstance(stream, ClosedStream)


def report(line: str) -> None:
    """Write a line to stdout, escaped, if there is one."""
    if is_open(sys.stdout):
        sys.stdout.write(f"{printable(line)}\n")


def occupy_descriptors() -> None:
    """Open /dev/null in place of each closed standard stream; Python itself leaves them closed."""
    with contextlib.suppress(OSError):  # some sandboxes have no /dev/null
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
            pass
        os.close(descriptor)


def run_command(perform: Callable[[], int], *, needs_stdout: bool = True) -> int:
    """Run a command, and return its exit status.

    Args:
        perform: The command. It may raise `SystemExit`, as argparse does.
        needs_stdout: Whether writing to a closed stdout is an error; otherwise the output is lost.
    """
    occupy_descriptors()
    with _stand_ins(needs_stdout=needs_stdout):
        try:
            return _flushed(perform)
        except ConfigurationError as exc:
            return failed(exc)
        except StdoutError as exc:
            _redirect(sys.stdout)
            if exc.errno != errno.EPIPE:  # as after `| head`
                print_stderr(f"can't write to stdout: {exc.strerror}")
            return EXIT_FAILURE
        finally:
            try:
                sys.stderr.flush()
            except OSError:
                _redirect(sys.stderr)


def _flushed(perform: Callable[[], int]) -> int:
    try:
        status = perform()
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return status


def _redirect(stream: TextIO) -> None:
    """Detach an unwritable stream; otherwise Python would report it again at exit."""
    with contextlib.suppress(OSError):  # some sandboxes have no /dev/null
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


@contextlib.contextmanager
def _stand_ins(*, needs_stdout: bool) -> Generator[None]:
    """Replace each closed stream, and stdout by one whose errors are distinguishable."""
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = sys.stdin or _closed("there is no stdin to read from")
    if sys.stdout is None:
        sys.stdout = _closed(NO_STDOUT if needs_stdout else None)
    else:
        sys.stdout = _distinguishable(sys.stdout)
    sys.stderr = sys.stderr or _closed(None)
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def _distinguishable(stdout: TextIO) -> TextIO:
    """Open stdout with errors that are distinguishable; a stream without a descriptor stays as it is."""
    try:
        raw = _Stdout(stdout.fileno(), "w", closefd=False)
    except io.UnsupportedOperation:  # a program that calls `main` has replaced it
        return stdout
    stdout.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        stdout.encoding,
        "backslashreplace" if stdout.errors == "strict" else stdout.errors,
        line_buffering=stdout.isatty() or getattr(stdout, "write_through", False),  # or PYTHONUNBUFFERED
    )


def _closed(problem: str | None) -> TextIO:
    return cast("TextIO", ClosedStream(problem))
