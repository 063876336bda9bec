"""What the commands share: exit statuses, kinds of arguments, and how a command is told to a user.

`event_publisher.exit_status` has the exit statuses.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from typing import TYPE_CHECKING, Final

from ..errors import EventError
from ..event_publisher.config.values import MistakeError, parse_span
from ..event_publisher.exit_status import EXIT_FAILURE, failed, say
from ..event_publisher.standard_streams import leave_stdout
from ..transport.posix import MAX_NAME_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "PACKAGE",
    "command",
    "event_queue_name",
    "hide_former",
    "leave_stdout",
    "posix_queue_name",
    "span",
    "timeout",
    "told",
]

#: Name under which this package is imported, wherever it was vendored.
PACKAGE: Final = __name__.removesuffix(".cli.common")

#: Seconds of the longest span that an option takes.
_LONGEST_SPAN: Final = 100 * 365 * 86_400.0

#: Seconds of the shortest time in which something can happen.
_SHORTEST_TIMEOUT: Final = 0.001

#: What the POSIX name of an event queue begins with.
_EVENTS: Final = "/events-"

_POSIX_NAME: Final = re.compile(r"/(?!\.{1,2}\Z)[^/\0]+")


def command_line(*words: str) -> str:
    """Write a command of this package as it works in a shell, whatever its PATH."""
    return shlex.join([sys.executable, "-m", PACKAGE, *words])


def command(*words: str) -> str:
    """Write a command of this package likewise, in backquotes."""
    return f"`{command_line(*words)}`"


def hide_former(action: argparse.Action, *names: str) -> None:
    """Let former names of an option go on working, but show them nowhere."""
    action.option_strings = [name for name in action.option_strings if name not in names]


def told(perform: Callable[[], int]) -> int:
    """Do the work of a command and return its exit status; say what it raises, and turn that into one."""
    try:
        return perform()
    except EventError as exc:
        return failed(exc)
    except KeyboardInterrupt:
        say("interrupted")
        return EXIT_FAILURE


def span(text: str, minimum: float = 0.0) -> float:
    """Read an argument that is a span of time, in seconds, of at least so many."""
    try:
        return parse_span(text, minimum, _LONGEST_SPAN)
    except MistakeError as exc:
        message = f"{text!a} {exc}; expected a span of time such as '30 seconds' or '7 days'"
        raise argparse.ArgumentTypeError(message) from exc


def timeout(text: str) -> float:
    """Read an argument that is the longest time for something, in seconds: a span that isn't zero."""
    return span(text, _SHORTEST_TIMEOUT)


def posix_queue_name(text: str) -> str:
    """Read an argument that names a queue: `v2` is the event queue `/events-v2`, `/other` any POSIX queue."""
    name = text if text.startswith("/") else _EVENTS + text
    if _POSIX_NAME.fullmatch(name) is None or name == _EVENTS or len(os.fsencode(name)) > MAX_NAME_SIZE:
        raise argparse.ArgumentTypeError(
            f"{text!a} can't name a queue; expected the NAME of an event queue, such as v2, or the POSIX "
            f"name of any, such as /events-v2, with no further slash and at most {MAX_NAME_SIZE} bytes in all"
        )
    return name


def event_queue_name(text: str) -> str:
    """Read an argument that is the NAME of the event queue `/events-NAME`, and give it as it is."""
    if text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!a} is a POSIX name; expected the NAME of /events-NAME")
    posix_queue_name(text)
    return text
