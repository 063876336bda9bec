"""Exit statuses of every command, and the one place where an error becomes lines on stderr and a status.

0 for success; 1 if something failed or was left undone; 2 for an error in the command line, or in a
configuration that the command needs.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Final

from ..errors import ConfigurationError, EventError
from .foreign_text import printable

#: Exit status of a command that failed or left something undone.
EXIT_FAILURE: Final = 1

#: Exit status for an error in the command line or in a configuration; argparse uses the same.
EXIT_USAGE: Final = 2


def print_stderr(line: str) -> None:
    """Write a line to stderr, escaped; do nothing if stderr is closed or can't be written."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{printable(line)}\n")
            sys.stderr.flush()


def failed(error: EventError) -> int:
    """Write an error to stderr, one line per problem, and return its exit status."""
    for line in error.problems if isinstance(error, ConfigurationError) else [str(error)]:
        print_stderr(line)
    return EXIT_USAGE if isinstance(error, ConfigurationError) else EXIT_FAILURE
