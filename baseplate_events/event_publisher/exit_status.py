"""Exit statuses of every command, and the one place where an error becomes a line on stderr and a status.

0 for success; 1 if something failed or was left undone; 2 for an error in the command line, or in a
configuration that the command needs.
"""

from __future__ import annotations

import sys
from typing import Final

from ..errors import ConfigurationError, EventError

#: Exit status of a command that failed or left something undone.
EXIT_FAILURE: Final = 1

#: Exit status for an error in the command line or in a configuration; argparse uses the same.
EXIT_USAGE: Final = 2


def say(line: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def failed(error: EventError) -> int:
    """Write an error to stderr and return the exit status for it."""
    say(str(error))
    return EXIT_USAGE if isinstance(error, ConfigurationError) else EXIT_FAILURE
