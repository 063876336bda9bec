"""What the commands share: argument types and error reporting.

`event_publisher.exit_status` defines the exit statuses.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import shlex
import sys
from typing import TYPE_CHECKING, Final, TypeVar

from ..errors import EventError
from ..event_publisher.config.declare import span
from ..event_publisher.config.values import MistakeError
from ..event_publisher.exit_status import EXIT_FAILURE, failed, print_stderr
from ..transport.posix import MAX_NAME_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..event_publisher.config.declare import Kind

__all__ = [
    "LONGEST_SPAN",
    "PACKAGE",
    "SPAN",
    "argument",
    "command",
    "event_queue_name",
    "exit_status_of",
    "posix_queue_name",
]

_T = TypeVar("_T")

#: Name under which this package is imported, also if it is vendored.
PACKAGE: Final = __name__.removesuffix(".cli.common")

#: Seconds of the longest time span that an option accepts.
LONGEST_SPAN: Final = 100 * 365 * 86_400.0

#: Any span of time.
SPAN: Final = span(0.0, LONGEST_SPAN, "30 seconds or 7 days")

#: Prefix of the POSIX name of an event queue.
_EVENTS: Final = "/events-"

_POSIX_NAME: Final = re.compile(r"/(?!\.{1,2}\Z|events-\Z)[^/\0]+")


def command_line(*words: str) -> str:
    """Format a command of this package so that it works in a shell, whatever its PATH."""
    return shlex.join([sys.executable, "-m", PACKAGE, *words])


def command(*words: str) -> str:
    """Format a command of this package likewise, in backquotes."""
    return f"`{command_line(*words)}`"


class _EscapedLog(logging.Handler):
    """Writes the warnings of the library to stderr, escaped: a queue's name may be foreign text."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a log record as one line."""
        print_stderr(self.format(record))


def exit_status_of(perform: Callable[[], int]) -> int:
    """Run a command and return its exit status; report an error in one line on stderr."""
    logging.basicConfig(level=logging.WARNING, handlers=[_EscapedLog()])
    try:
        return perform()
    except EventError as exc:
        return failed(exc)
    except KeyboardInterrupt:
        print_stderr("interrupted")
        return EXIT_FAILURE


def argument(kind: Kind[_T]) -> Callable[[str], _T]:
    """Return the type of an argument that has the values of a kind of options."""

    def parse(text: str) -> _T:
        try:
            return kind.parse(text)
        except MistakeError as exc:
            raise argparse.ArgumentTypeError(f"{text!a} {exc}; expected {kind.expected}") from exc

    return parse


def posix_queue_name(text: str) -> str:
    """Parse an argument that names a queue: `v2` is `/events-v2`, `/other` any POSIX queue."""
    name = text if text.startswith("/") else _EVENTS + text
    if _POSIX_NAME.fullmatch(name) is None or len(os.fsencode(name)) > MAX_NAME_SIZE:
        raise argparse.ArgumentTypeError(
            f"{text!a} can't name a queue; expected the NAME of an event queue, such as v2, or the POSIX "
            f"name of any queue, such as /events-v2, without another slash, at most {MAX_NAME_SIZE} bytes"
        )
    return name


def event_queue_name(text: str) -> str:
    """Check an argument that is the NAME of the event queue `/events-NAME`, and return it unchanged."""
    if text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!a} is a POSIX name; expected the NAME of /events-NAME")
    posix_queue_name(text)
    return text
