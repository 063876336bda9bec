"""The command `dead-letters`: look at the events that a publisher gave up, replay them, delete them.

It works while the publisher runs; `event_publisher/dead_letters.py` says how that is safe.

A letter is deleted when the put of its event has returned, before the next is put. So nothing is lost; only a
replay that is killed (SIGKILL, power cut) or can't write to the disk may leave one letter that was put.

Exit statuses: 0; 1 for what failed or was left undone, such as a queue that stays full; 2 for a mistake in
the command line.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ...errors import ConfigurationError, EventQueueFullError, EventTooLargeError
from ...event_publisher.dead_letters.record import Letter, Number, Unreadable, format_time
from ...event_publisher.dead_letters.store import file_numbers, read_letters, take_out
from ...event_publisher.exit_status import EXIT_FAILURE, EXIT_USAGE, say
from ...event_publisher.foreign_text import MAX_FOREIGN
from ...event_publisher.standard_streams import report
from ...events import MAX_EVENT_SIZE, MAX_QUEUE_SIZE
from ...transport.posix import MessageQueue
from ..common import span, told
from ..terminal import Progress, event_for_terminal, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from ...event_publisher.dead_letters.record import Entry

#: Seconds that a full queue is waited for before looking whether somebody asked to stop.
_SLICE: Final = 0.1

#: A row of `list`: number, time, status, size in bytes, reason.
_ROW: Final = "{:<8}  {:<24}  {:>6}  {:>8}  {}\n"

_EPILOG: Final = """\
DIRECTORY is the publisher's dead_letters.directory, by default `rejected` in its spool.directory. NUMBER is
the number of a letter as `list` shows it, such as 3:17; it stays the same for as long as the letter is
there. Run this as the publisher's user.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command `dead-letters` to its parser."""
    parser.description = "Look after the events that a publisher gave up, also while it runs."
    actions = parser.add_subparsers(
        metavar="ACTION", required=True, dest="action", parser_class=_IntermixedParser
    )

    def add(name: str, perform: Callable[[argparse.Namespace], int], purpose: str) -> argparse.ArgumentParser:
        action = actions.add_parser(
            name, help=purpose, description=f"{purpose.capitalize()}.", epilog=_EPILOG
        )
        action.add_argument("directory", metavar="DIRECTORY", help="the folder of the dead letters")
        action.set_defaults(perform=perform)
        return action

    listing = add("list", _list, "list the letters, oldest first, without their events")
    listing.add_argument("--json", action="store_true", help="write one JSON object a line")

    show = add(
        "show",
        _show,
        "write the events to stdout as they were received (escaped on a terminal), a newline after each",
    )
    show.add_argument("numbers", metavar="NUMBER", nargs="*", type=_number, help="a letter")
    show.add_argument("--all", action="store_true", help="show every letter")

    replay = add(
        "replay", _replay, "put the events back on a queue, and delete the letter of each that was put"
    )
    replay.add_argument("numbers", metavar="NUMBER", nargs="*", type=_number, help="a letter (default: all)")
    replay.add_argument("--queue-name", metavar="NAME", required=True, help="put them on queue /events-NAME")
    replay.add_argument(
        "--timeout",
        metavar="SPAN",
        type=span,
        default="30 seconds",
        help="how long a full queue is waited for (default: %(default)s)",
    )
    replay.add_argument(
        "--max-queue-size",
        metavar="EVENTS",
        type=int,
        default=MAX_QUEUE_SIZE,
        help="events that the queue holds if it isn't there and is made (default: %(default)s)",
    )
    replay.add_argument(
        "--max-event-size",
        metavar="BYTES",
        type=int,
        default=MAX_EVENT_SIZE,
        help="bytes that an event of it may have then (default: %(default)s)",
    )

    purge = add("purge", _purge, "delete letters for good")
    purge.add_argument(
        "--older-than", metavar="SPAN", type=span, help='only letters older than this, such as "7 days"'
    )
    purge.add_argument("--yes", action="store_true", help="don't ask")


class _IntermixedParser(argparse.ArgumentParser):
    """A parser of an action that takes options before, after and among the numbers of letters."""

    _is_parsing = False

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse as `parse_known_intermixed_args` does, which calls this again."""
        namespace = argparse.Namespace() if namespace is None else namespace
        if self._is_parsing:
            return super().parse_known_args(args, namespace)
        self._is_parsing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_parsing = False


def run(arguments: argparse.Namespace) -> int:
    """Perform what the command line says, and return the exit status.

    Must be called from the main thread. SIGINT and SIGTERM are handled while letters are replayed.
    """
    directory: str = arguments.directory
    perform: Callable[[argparse.Namespace], int] = arguments.perform
    if not Path(directory).is_dir():
        say(f"{directory}: there is no such folder")
        return EXIT_USAGE
    return told(lambda: perform(arguments))


def _list(arguments: argparse.Namespace) -> int:
    directory: str = arguments.directory
    write = _write_json if arguments.json else _write_row
    first = True
    unreadable = 0
    for entry in _read(directory):
        if isinstance(entry, Unreadable):
            unreadable += 1
        else:
            write(entry, first)
            first = False
    if unreadable:
        say(f"{unreadable} lines can't be read: torn by a crash, being written right now, or damaged")
    return 0


def _write_json(letter: Letter, _first: bool) -> None:
    members = {
        "number": str(letter.number),
        "time": format_time(letter.time),
        "status": letter.status,
        "size": len(letter.event),
        "reason": letter.reason,
        "excerpt": letter.excerpt,
    }
    sys.stdout.write(json.dumps(members) + "\n")


def _write_row(letter: Letter, first: bool) -> None:
    if first:
        sys.stdout.write(_ROW.format("NUMBER", "TIME", "STATUS", "SIZE", "REASON"))
    status = "-" if letter.status is None else letter.status
    reason = printable(letter.reason, MAX_FOREIGN)
    number, moment = str(letter.number), format_time(letter.time)
    sys.stdout.write(_ROW.format(number, moment, status, len(letter.event), reason))


def _show(arguments: argparse.Namespace) -> int:
    numbers: list[Number] = arguments.numbers
    if bool(numbers) == arguments.all:
        raise ConfigurationError("show: give either the numbers of letters or --all")
    selection = _Selection(numbers)
    sys.stdout.flush()
    terminal = sys.stdout.isatty()
    for entry in _read(arguments.directory, selection):
        if isinstance(entry, Letter) and selection.has(entry):
            event = event_for_terminal(entry.event) if terminal else entry.event
            sys.stdout.buffer.write(event + b"\n")
    return selection.complain()


def _replay(arguments: argparse.Namespace) -> int:
    directory: str = arguments.directory
    selection = _Selection(arguments.numbers)
    with _open_queue(arguments) as queue:
        replay = _Replay(queue, arguments.timeout, selection)
        handlers = {number: signal.signal(number, replay.stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for file in selection.files(directory):
                if not replay.stopped:
                    take_out(directory, file, replay.put)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            replay.report()
    if replay.stopped:
        say("interrupted; the letters that weren't put are where they were")
        return EXIT_FAILURE
    return selection.complain() or (EXIT_FAILURE if replay.failed else 0)


def _purge(arguments: argparse.Namespace) -> int:
    directory: str = arguments.directory
    older_than: float | None = arguments.older_than
    before = None
    if older_than is not None:
        before = datetime.now(timezone.utc) - timedelta(seconds=older_than)
    is_meant = partial(_is_meant, before=before)
    meant = [entry.number for entry in _read(directory) if is_meant(entry)]
    if not meant:
        report("nothing to delete")
        return 0
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise ConfigurationError(
                "purge: there is no terminal to ask on; give --yes to delete without asking"
            )
        sys.stderr.write(f"Delete {len(meant)} letters of {directory} for good? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            say("nothing was deleted")
            return EXIT_FAILURE
    purged = 0

    def take(entry: Entry) -> bool:
        nonlocal purged
        # What was buried since isn't what was asked about.
        taken = entry.number <= meant[-1] and is_meant(entry)
        purged += taken
        return taken

    for file in sorted({number.file for number in meant}):
        take_out(directory, file, take)
    report(f"deleted {purged} letters")
    return 0


def _is_meant(entry: Entry, before: datetime | None) -> bool:
    """Tell whether a line is to be purged; one that can't be read has no time, and goes with all."""
    if before is None:
        return not (isinstance(entry, Unreadable) and entry.torn)
    return isinstance(entry, Letter) and entry.time < before


class _Selection:
    """Which letters are meant: all, or those that were named."""

    def __init__(self, numbers: Sequence[Number]) -> None:
        self._named = frozenset(numbers)
        self._missing = set(numbers)

    def files(self, directory: str) -> list[int]:
        """Give the numbers of the files in which they can be."""
        files = {number.file for number in self._named}
        return [file for file in file_numbers(directory) if not files or file in files]

    def has(self, letter: Letter) -> bool:
        """Tell whether a letter that was found is meant."""
        self._missing.discard(letter.number)
        return not self._named or letter.number in self._named

    def complain(self) -> int:
        """Say which of those named weren't found, and return the exit status for that."""
        for number in sorted(self._missing):
            say(f"there is no letter {number}")
        return EXIT_FAILURE if self._missing else 0


class _Replay:
    """Puts letters onto a queue.

    Attributes:
        stopped: Whether a signal asked to stop.
        failed: Whether a letter didn't fit into the queue.
    """

    def __init__(self, queue: MessageQueue, timeout: float, selection: _Selection) -> None:
        self._queue = queue
        self._timeout = timeout
        self._selection = selection
        self._count = 0
        self._progress = Progress(sys.stderr, "events put")
        self.stopped = False
        self.failed = False

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """Ask to stop. A signal only sets this, so that it can't come between a put and the deletion."""
        self.stopped = True

    def put(self, entry: Entry) -> bool:
        """Put a letter if it is meant, and tell whether its event is in the queue now.

        Raises:
            EventQueueFullError: The queue was full all of the time.
            EventQueueUnavailableError: The queue can't be used.
        """
        if not isinstance(entry, Letter) or not self._selection.has(entry):
            return False
        try:
            if not self._wait_and_put(entry.event):
                return False
        except EventTooLargeError as exc:
            say(f"letter {entry.number} stays where it is: {exc}")
            self.failed = True
            return False
        self._count += 1
        self._progress.show(self._count)
        return True

    def report(self) -> None:
        """Write how many were put."""
        self._progress.close()
        report(f"put {self._count} events on {self._queue.name}")

    def _wait_and_put(self, event: bytes) -> bool:
        deadline = time.monotonic() + self._timeout
        while not self.stopped:
            remaining = deadline - time.monotonic()
            try:
                self._queue.put(event, timeout=max(0.0, min(_SLICE, remaining)))
            except EventQueueFullError:
                if remaining <= _SLICE:
                    raise
                self._progress.show(self._count)
            else:
                return True
        return False


def _open_queue(arguments: argparse.Namespace) -> MessageQueue:
    try:
        return MessageQueue(
            f"/events-{arguments.queue_name}",
            max_messages=arguments.max_queue_size,
            max_message_size=arguments.max_event_size,
            read=False,
        )
    except ValueError as exc:
        raise ConfigurationError(f"replay: {exc}") from exc


def _read(directory: str, selection: _Selection | None = None) -> Iterator[Entry]:
    for file in (selection or _Selection(())).files(directory):
        yield from read_letters(directory, file)


def _number(text: str) -> Number:
    try:
        return Number.parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!a} {exc}") from exc
