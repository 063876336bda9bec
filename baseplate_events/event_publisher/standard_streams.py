"""Standard streams that are closed, or that take nothing: one clear line instead of a traceback.

Rules:

1. A file that this process opens never gets the number of a standard stream. Otherwise whoever writes to
   stderr, such as the interpreter in an emergency, would write into a queue or a spool.
2. To read from a closed stdin, or to write to a closed stdout, is a mistake of usage. What is only said
   beside the work goes through `report`, which a closed stdout doesn't stop.
3. What is written to a closed stderr is lost.
4. A stdout that no one reads any more ends a command quietly, with 1. Another one that takes nothing, such as
   a full disk, is an error with a line of its own.
5. What the encoding of stdout can't write is escaped.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import TYPE_CHECKING, BinaryIO, Final, NoReturn, TextIO, cast

from ..errors import ConfigurationError
from .exit_status import EXIT_FAILURE, failed, say

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

#: The highest number of a standard stream.
_STDERR: Final = 2


class ClosedStream(io.TextIOBase):
    """Stands for a standard stream that was closed before the process began.

    Args:
        problem: What its use is, as a mistake of usage; None if what is written to it is lost.
    """

    def __init__(self, problem: str | None) -> None:
        super().__init__()
        self._problem = problem

    @property
    def buffer(self) -> NoReturn:
        """There is none."""
        self._refuse()

    def write(self, text: str, /) -> int:
        """Lose a text, or refuse it."""
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
        """Give no descriptor; to ask isn't to use it: from Python 3.14 on, argparse asks before it writes."""
        raise io.UnsupportedOperation("fileno")

    def _refuse(self) -> NoReturn:
        if self._problem is None:
            raise io.UnsupportedOperation
        raise ConfigurationError(self._problem)


class _Output(io.TextIOBase):
    """Stdout, whose errors can be told from those of other files."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of stdout."""
        return self._stream.encoding

    @property
    def buffer(self) -> _BinaryOutput:
        """Stdout in bytes."""
        return _BinaryOutput(self._stream.buffer)

    def write(self, text: str, /) -> int:
        """Write to stdout."""
        with _told_apart():
            return self._stream.write(text)

    def flush(self) -> None:
        """Write what is in the buffer of stdout."""
        with _told_apart():
            self._stream.flush()

    def fileno(self) -> int:
        """Give its descriptor."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return self._stream.isatty()


class _BinaryOutput:
    """Stdout in bytes likewise."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes, /) -> int:
        """Write to stdout."""
        with _told_apart():
            return self._stream.write(data)


class StdoutError(OSError):
    """Raised when stdout takes nothing."""


@contextlib.contextmanager
def _told_apart() -> Generator[None]:
    try:
        yield
    except OSError as exc:
        raise StdoutError(exc.errno, exc.strerror) from exc


def is_open(stream: TextIO | None) -> bool:
    """Tell whether a standard stream was open when the process began."""
    return stream is not None and not isinstance(stream, ClosedStream)


def report(line: str) -> None:
    """Say on stdout what was done, if there is one."""
    if is_open(sys.stdout):
        sys.stdout.write(f"{line}\n")


def occupy_descriptors() -> None:
    """Open /dev/null in place of each standard stream that is closed; Python goes on without those."""
    with contextlib.suppress(OSError):  # there is no /dev/null in some sandboxes
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
            pass
        os.close(descriptor)


def leave_stdout() -> None:
    """Write no more to a stdout that takes nothing; Python would complain about that once more at its end."""
    _redirect(sys.stdout)


def run_command(perform: Callable[[], int], *, needs_stdout: bool = True) -> int:
    """Run a command, and return its exit status.

    Args:
        perform: The command. It may raise `SystemExit`, as argparse does.
        needs_stdout: Whether it is a mistake that it writes to a closed stdout, rather than lost.
    """
    occupy_descriptors()
    with _stand_ins(needs_stdout=needs_stdout):
        try:
            return _flushed(perform)
        except ConfigurationError as exc:
            return failed(exc)
        except StdoutError as exc:
            leave_stdout()
            if exc.errno != errno.EPIPE:  # as after `| head`
                say(f"can't write to stdout: {exc.strerror}")
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
    with contextlib.suppress(OSError):  # there is no /dev/null in some sandboxes
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


@contextlib.contextmanager
def _stand_ins(*, needs_stdout: bool) -> Generator[None]:
    """Put a stream in place of each one that is closed, and of stdout one whose errors are told apart."""
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = sys.stdin or _closed("there is no stdin to read from")
    if sys.stdout is None:
        sys.stdout = _closed("there is no stdout to write to" if needs_stdout else None)
    else:
        reconfigure = getattr(sys.stdout, "reconfigure", None)
        if sys.stdout.errors == "strict" and callable(reconfigure):
            reconfigure(errors="backslashreplace")
        sys.stdout = cast("TextIO", _Output(sys.stdout))
    sys.stderr = sys.stderr or _closed(None)
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def _closed(problem: str | None) -> TextIO:
    return cast("TextIO", ClosedStream(problem))
