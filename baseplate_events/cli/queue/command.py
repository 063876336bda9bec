"""The command `queue`: list, inspect, read, write, create and remove the event queues of this host.

Rules:

1. Only `create` creates a queue. The other actions report that there is none, so that a mistyped name leaves
   nothing behind.
2. `read` and `write` lose no event and never print or put a part of one; see `transfer`.
3. `unlink` needs `--force` if events would be lost.
4. NAME is the spool in `--spool-directory` (default: $EVENT_SPOOL_DIRECTORY, as for services); without either
   it is the POSIX queue `/events-NAME`. A name that begins with a slash is always that of a POSIX queue.

Exit statuses: 0, also for a `read --follow` that SIGINT or SIGTERM ended and for a `read` whose reader is
gone; 1 if something failed or was left undone, for example because a queue doesn't exist or stays full; 2 for
a command-line error.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Final

from ...errors import ConfigurationError
from ...event_publisher.config.declare import MODE, integer
from ...events import MAX_EVENT_SIZE, MAX_QUEUE_SIZE, MAX_SPOOL_SIZE, SPOOL_VARIABLE
from ...spool import MIN_SPOOL_SIZE
from ..common import SPAN, argument, exit_status_of, posix_queue_name
from . import posix, spool
from .listing import list_queues
from .spool_place import SpoolPlace
from .spool_unlink import unlink as unlink_spool

if TYPE_CHECKING:
    from collections.abc import Callable

    _PosixAction = Callable[[str, argparse.Namespace], int]
    _SpoolAction = Callable[[SpoolPlace, argparse.Namespace], int]

#: The largest number that is accepted; the system has its own bounds.
_LARGEST: Final = 10**18 - 1

_EPILOG: Final = """\
NAME is the name of an event queue, such as v2: the spool events-v2 in --spool-directory (default:
$EVENT_SPOOL_DIRECTORY), or without either the POSIX queue /events-v2. With a leading slash it is the POSIX
name of any queue, even if the variable is set.

examples:
  %(prog)s list                       all event queues and spools
  %(prog)s stat v2                    its size, depth, owner and mode
  %(prog)s stat /events-v2            the POSIX queue, even if $EVENT_SPOOL_DIRECTORY is set
  %(prog)s read v2 --count 1          remove one event and print it
  %(prog)s write v2 events.jsonl      put each line of a file
  %(prog)s create v2 --strict         create it in its full size, or fail
  %(prog)s unlink v2                  remove it, if it is empty

exit status: 0; 1 if something failed or was left undone; 2 for a command-line error
"""

_LIST_EPILOG: Final = """\
examples:
  %(prog)s
  %(prog)s --spool-directory /var/spool/events
  %(prog)s --json | jq -r '.queues[] | select(.publisher == false) | .path'
"""

_STAT_EPILOG: Final = """\
The number of events in a spool is unknown unless all of it is read; it is null in JSON. Refused events
are those that services reported in the spool's remaining segments; the publisher's metrics count all of them.

examples:
  %(prog)s v2
  %(prog)s v2 --json | jq .depth
  %(prog)s v2 --spool-directory /var/spool/events --json | jq .backlog_bytes
"""

_READ_EPILOG: Final = """\
This REMOVES THE EVENTS: what it prints isn't delivered. A POSIX queue can't be read in any other way; use
`stat` for the number of events. To print a few events use --count: after `read v2 | head -1`, the events
that `head` had in its pipe are lost. A line break between the tokens of an event is printed as a blank. On a
terminal, control characters are escaped too.

To read a spool, stop its publisher first. Delivered events aren't printed, and printed events aren't
delivered; after a kill, up to 1,000 of the last events may be both.

examples:
  %(prog)s v2 --count 1
  %(prog)s v2 > events.jsonl
  %(prog)s v2 --follow | jq .action     until SIGINT or SIGTERM, with exit status 0
"""

_WRITE_EPILOG: Final = """\
Each line is put as an event, without leading and trailing blanks; it needn't be JSON. Empty lines are
skipped. It stops at the first line that can't be put, reports its number, and ends with status 1.
A spool accepts events of at most 16 MiB, and writes them as services do.

examples:
  %(prog)s v2 events.jsonl
  %(prog)s v2 --timeout "0 seconds" < events.jsonl
  echo '{"action":"test"}' | %(prog)s v2
"""

_CREATE_EPILOG: Final = """\
The queue gets the largest size that the host allows, as from a service or a publisher. The command prints the
size and how to raise the limits. With --strict a smaller size is an error. An existing queue keeps its size
and mode.

A spool is a folder of one user or, with --queue-mode 0660, shared with the folder's group. The directory
that contains it must exist. Its size is set by the services that write to it.

examples:
  %(prog)s v2
  %(prog)s v2 --max-queue-size 10 --max-event-size 8192 --queue-mode 0660
  %(prog)s v2 --spool-directory /var/spool/events --queue-mode 0660
"""

_UNLINK_EPILOG: Final = """\
A spool is removed only while no publisher reads it and, without --force, no service has a segment open.

examples:
  %(prog)s v2
  %(prog)s v2 --force                 also if it holds events, which are lost then
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command `queue` to its parser."""
    count = argument(integer(1, _LARGEST))
    parser.description = "List, inspect, read, write, create and remove the event queues of this host."
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")

    def add(name: str, purpose: str, epilog: str) -> argparse.ArgumentParser:
        action = actions.add_parser(
            name,
            help=purpose,
            description=f"{purpose[0].upper()}{purpose[1:]}.",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        action.add_argument(
            "--spool-directory",
            metavar="DIRECTORY",
            type=_directory,
            help=f"the directory of spools (default: ${SPOOL_VARIABLE}; without it, POSIX queues)",
        )
        return action

    def add_named(
        name: str, on_posix: _PosixAction, on_spool: _SpoolAction, purpose: str, epilog: str
    ) -> argparse.ArgumentParser:
        action = add(name, purpose, epilog)
        action.add_argument(
            "name", metavar="NAME", type=_name, help="v2 for the event queue v2, /NAME for a POSIX queue"
        )
        action.set_defaults(on_posix=on_posix, on_spool=on_spool)
        return action

    listing = add("list", "list event queues and spools, with their depth", _LIST_EPILOG)
    listing.add_argument("--json", action="store_true", help="write one JSON object")

    stat = add_named(
        "stat", posix.stat, spool.stat, "report the size, depth, owner and mode of a queue", _STAT_EPILOG
    )
    stat.add_argument("--json", action="store_true", help="write one JSON object")

    read = add_named(
        "read",
        posix.read,
        spool.read,
        "REMOVE events from a queue and print them, one per line",
        _READ_EPILOG,
    )
    read.add_argument("--count", metavar="N", type=count, help="at most N events (default: all)")
    read.add_argument("--follow", action="store_true", help="wait for more, until SIGINT or SIGTERM")

    write = add_named(
        "write", posix.write, spool.write, "put each line of a file or of stdin onto a queue", _WRITE_EPILOG
    )
    write.add_argument("file", metavar="FILE", nargs="?", default="-", help="default: stdin")
    write.add_argument(
        "--timeout",
        metavar="SPAN",
        type=argument(SPAN),
        default="30 seconds",
        help="how long to wait while the queue is full (default: %(default)s)",
    )
    write.add_argument(
        "--spool-max-size",
        metavar="BYTES",
        type=argument(integer(MIN_SPOOL_SIZE, _LARGEST)),
        help=f"largest undelivered size of a spool in bytes (default: {MAX_SPOOL_SIZE}, as for services)",
    )

    create = add_named(
        "create", posix.create, spool.create, "create a queue if it doesn't exist", _CREATE_EPILOG
    )
    create.add_argument(
        "--max-queue-size",
        metavar="EVENTS",
        type=count,
        help=f"events that a POSIX queue holds (default: {MAX_QUEUE_SIZE})",
    )
    create.add_argument(
        "--max-event-size",
        metavar="BYTES",
        type=count,
        help=f"largest event of a POSIX queue in bytes (default: {MAX_EVENT_SIZE})",
    )
    create.add_argument(
        "--queue-mode",
        metavar="MODE",
        type=argument(MODE),
        default="0600",
        help="permissions in octal (default: %(default)s)",
    )
    create.add_argument("--strict", action="store_true", help="fail rather than accept a smaller size")

    unlink = add_named("unlink", posix.unlink, unlink_spool, "remove a queue", _UNLINK_EPILOG)
    unlink.add_argument("--force", action="store_true", help="even if it holds events, which are lost")


def run(arguments: argparse.Namespace) -> int:
    """Perform the action, and return the exit status.

    Must be called from the main thread. SIGINT and SIGTERM are handled while events are read or written.
    """
    return exit_status_of(lambda: _perform(arguments))


def _perform(arguments: argparse.Namespace) -> int:
    directory: str | None = arguments.spool_directory
    chosen = directory or os.environ.get(SPOOL_VARIABLE, "").strip()
    if chosen:
        chosen = os.path.abspath(chosen)  # noqa: PTH100 - as services do
    if arguments.action == "list":
        return list_queues(chosen or None, as_json=arguments.json)
    name: str = arguments.name
    on_posix: _PosixAction = arguments.on_posix
    on_spool: _SpoolAction = arguments.on_spool
    if name.startswith("/"):
        if directory is not None:
            raise ConfigurationError(
                f"{name} names a POSIX queue; omit either the slash or --spool-directory"
            )
        return on_posix(name, arguments)
    if chosen:
        return on_spool(SpoolPlace(chosen, name), arguments)
    return on_posix(posix_queue_name(name), arguments)


def _name(text: str) -> str:
    posix_queue_name(text)
    return text


def _directory(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected the path of a directory, not ''; omit it for POSIX queues")
    return text
