"""The command `queue`: look at a POSIX queue of this host, read it, write to it, make it and remove it.

Rules:

1. Only `create` makes a queue. The others say that there is none, so that a mistyped name leaves nothing
   behind.
2. `read` and `write` lose nothing and do nothing by halves; `transfer` says how.
3. `unlink` needs `--force` where events would be lost.

Exit statuses: 0, also for a `read --follow` that SIGINT or SIGTERM ended and for a `read` whose reader has
gone; 1 for what failed or was left undone, such as a queue that isn't there or stays full; 2 for a mistake in
the command line.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Final

from ...errors import ConfigurationError
from ...event_publisher.exit_status import EXIT_FAILURE, say
from ...event_publisher.standard_streams import report
from ...events import MAX_EVENT_SIZE, MAX_QUEUE_SIZE
from ...transport.descriptor import find_queue
from ...transport.posix import ALL_PERMISSIONS, MessageQueue, unlink_queue
from ..common import command, counted, posix_queue_name, short_queue_name, span, told
from ..terminal import format_table
from . import transfer
from .info import inspect_queue, user_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from .info import QueueInfo

_EPILOG: Final = """\
NAME is the name of an event queue, such as v2 for /events-v2, or with a slash the POSIX name of any queue.

examples:
  %(prog)s stat v2                    how full it is, how large, whose
  %(prog)s read v2 --count 1          take one event away and print it
  %(prog)s write v2 events.jsonl      put each line of a file
  %(prog)s create v2 --strict         make it in its full size, or fail
  %(prog)s unlink v2                  remove it, if it is empty

exit status: 0; 1 for what failed or was left undone; 2 for a mistake in the command line
"""

_STAT_EPILOG: Final = """\
examples:
  %(prog)s v2
  %(prog)s v2 --json | jq .depth
"""

_READ_EPILOG: Final = """\
This TAKES EVENTS AWAY: what it prints is delivered to nobody else. A POSIX queue can't be read in any other
way; for the number of events use `stat`. To print some events use --count: after `read v2 | head -1` the
events that `head` had in its pipe are gone. A line break between the tokens of an event is printed as a
blank. On a terminal, control characters are escaped too.

examples:
  %(prog)s v2 --count 1
  %(prog)s v2 > events.jsonl
  %(prog)s v2 --follow | jq .action     until SIGINT or SIGTERM; the exit status is 0 then
"""

_WRITE_EPILOG: Final = """\
Each line is put as it is, without the blanks around it; it isn't checked to be JSON. Empty lines are skipped.
It stops at the first line that can't be put, tells its number, and ends with status 1.

examples:
  %(prog)s v2 events.jsonl
  %(prog)s v2 --timeout "0 seconds" < events.jsonl
  echo '{"action":"test"}' | %(prog)s v2
"""

_CREATE_EPILOG: Final = """\
It takes the largest size that the host allows, as a service or a publisher would, says what it got and how to
lift the limits. With --strict a smaller size is an error. A queue that is there keeps its size and mode.

examples:
  %(prog)s v2
  %(prog)s v2 --max-messages 10 --max-event-size 8192 --mode 0660
"""

_UNLINK_EPILOG: Final = """\
examples:
  %(prog)s v2
  %(prog)s v2 --force                 also if it holds events, which are lost then
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command `queue` to its parser."""
    parser.description = "Look at a POSIX queue of this host, read it, write to it, make it and remove it."
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")

    def add(
        name: str, perform: Callable[[argparse.Namespace], int], purpose: str, epilog: str
    ) -> argparse.ArgumentParser:
        action = actions.add_parser(
            name,
            help=purpose,
            description=f"{purpose[0].upper()}{purpose[1:]}.",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        action.add_argument("name", metavar="NAME", type=posix_queue_name, help="v2 for /events-v2, or /NAME")
        action.set_defaults(perform=perform)
        return action

    stat = add("stat", _stat, "tell how full a queue is, how large, whose, and who gets at it", _STAT_EPILOG)
    stat.add_argument("--json", action="store_true", help="write one JSON object")

    read = add("read", transfer.read, "TAKE events out of a queue and print them, one a line", _READ_EPILOG)
    read.add_argument(
        "--count", metavar="N", type=_count, help="at most so many; default: all that are there"
    )
    read.add_argument("--follow", action="store_true", help="wait for more, until SIGINT or SIGTERM")
    read.add_argument("--peek", action=_Refused, help=argparse.SUPPRESS)

    write = add("write", transfer.write, "put each line of a file or of stdin onto a queue", _WRITE_EPILOG)
    write.add_argument("file", metavar="FILE", nargs="?", default="-", help="default: stdin")
    write.add_argument(
        "--timeout",
        metavar="SPAN",
        type=span,
        default="30 seconds",
        help="how long a full queue is waited for (default: %(default)s)",
    )

    create = add("create", _create, "make sure that a queue is there", _CREATE_EPILOG)
    create.add_argument(
        "--max-messages",
        metavar="EVENTS",
        type=_count,
        default=MAX_QUEUE_SIZE,
        help="events that it shall hold (default: %(default)s)",
    )
    create.add_argument(
        "--max-event-size",
        metavar="BYTES",
        type=_count,
        default=MAX_EVENT_SIZE,
        help="bytes that an event may have (default: %(default)s)",
    )
    create.add_argument(
        "--mode", type=_mode, default="0600", help="its permissions in octal (default: %(default)s)"
    )
    create.add_argument("--strict", action="store_true", help="fail rather than take a smaller size")

    unlink = add("unlink", _unlink, "remove a queue", _UNLINK_EPILOG)
    unlink.add_argument("--force", action="store_true", help="also if it holds events, which are lost then")


def run(arguments: argparse.Namespace) -> int:
    """Perform what the command line says, and return the exit status.

    Must be called from the main thread. SIGINT and SIGTERM are handled while events are read or written.
    """
    perform: Callable[[argparse.Namespace], int] = arguments.perform
    return told(lambda: perform(arguments))


class _Refused(argparse.Action):
    """The option that everybody looks for and no POSIX queue can give."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:  # noqa: A002 - argparse's name
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error(
            "--peek: a POSIX queue can't be read without taking the event away, and an event that is put "
            "back isn't where it was; `stat` tells how many there are, `read --count 1` takes one"
        )


def _stat(arguments: argparse.Namespace) -> int:
    info = inspect_queue(arguments.name)
    if info is None:
        return _say_absent(arguments.name)
    warnings = _warnings(info)
    if arguments.json:
        members = {
            "name": info.name,
            "depth": info.depth,
            "capacity": info.size.max_messages,
            "max_event_size": info.size.max_message_size,
            "bytes_charged": info.size.bytes_charged,
            "uid": info.uid,
            "gid": info.gid,
            "mode": f"{info.mode:04o}",
            "takers": info.takers,
            "warnings": warnings,
        }
        sys.stdout.write(json.dumps(members) + "\n")
        return 0
    share = info.depth * 100 // info.size.max_messages
    rows = (
        ("name", info.name),
        ("depth", f"{info.depth:,} of {info.size.max_messages:,} events ({share} %)"),
        ("event", f"at most {info.size.max_message_size:,} bytes"),
        ("charged", f"{info.size.bytes_charged:,} bytes of its owner's RLIMIT_MSGQUEUE"),
        ("owner", user_name(info.uid)),
        ("mode", f"{info.mode:04o}: {info.takers} may take events away"),
    )
    sys.stdout.write("".join(f"{line}\n" for line in format_table(rows)))
    for warning in warnings:
        say(f"warning: {warning}")
    return 0


def _warnings(info: QueueInfo) -> list[str]:
    warnings: list[str] = []
    if info.open_to_all:
        warnings.append(
            f"every user of this host may take events away from {info.name}; that ends with "
            f"{info.chmod_command(info.mode & ~0o007)}"
        )
    return warnings


def _create(arguments: argparse.Namespace) -> int:
    was_there = inspect_queue(arguments.name) is not None
    try:
        queue = MessageQueue(
            arguments.name,
            max_messages=arguments.max_messages,
            max_message_size=arguments.max_event_size,
            mode=arguments.mode,
            strict_size=arguments.strict,
            read=False,
        )
    except ValueError as exc:
        raise ConfigurationError(f"create: {exc}") from exc
    queue.close()
    info = inspect_queue(arguments.name)
    if info is None:
        return _say_absent(arguments.name)
    verb = "was there already:" if was_there else "made:"
    report(f"{info.name} {verb} {info.size}, mode {info.mode:04o}")
    if was_there and info.mode != arguments.mode:
        say(f"it keeps its mode, which is changed with {info.chmod_command(arguments.mode)}")
    return 0


def _unlink(arguments: argparse.Namespace) -> int:
    force: bool = arguments.force
    if not force:
        info = inspect_queue(arguments.name)
        if info is None:
            return _say_absent(arguments.name)
        if info.depth:
            say(
                f"{info.name} holds {counted(info.depth, 'event')}, which would be lost: have them "
                f"published, take them out with {command('queue', 'read', short_queue_name(info.name))}, "
                "or give --force"
            )
            return EXIT_FAILURE
    # Kept open, to see what came in meanwhile.
    queue = find_queue(arguments.name, read=False)
    if queue is None or not unlink_queue(arguments.name):
        return _say_absent(arguments.name)
    lost = queue.depth
    queue.close()
    what = f" with {counted(lost, 'event')}" if lost else ""
    report(f"removed {arguments.name}{what}")
    return 0


def _say_absent(name: str) -> int:
    say(f"Event queue {name}: {transfer.absence(name)}")
    return EXIT_FAILURE


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < len(text) < 10 or int(text) < 1:  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"{text!a} isn't a whole number from 1 on")
    return int(text)


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= ALL_PERMISSIONS:
        raise argparse.ArgumentTypeError(f"{text!a} isn't an octal mode such as 0600 or 0660")
    return mode
