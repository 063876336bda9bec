"""The command `dead-letters`: list, show, replay or delete the events that a publisher gave up on.

It is safe while the publisher runs; `event_publisher.ledger.letters` explains why.

A letter is deleted after the put of its event has returned, before the next is put. So nothing is lost; only
a replay that is killed (SIGKILL, power cut) or can't write to the disk may leave one letter whose event was
put.

Exit statuses: 0; 1 if something failed or was left undone, for example because a queue stays full; 2 for a
command-line error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from datetime import datetime, timezone
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..._words import counted
from ...counting.refusals import RefusalCounts
from ...errors import ConfigurationError, EventQueueFullError, EventTooLargeError
from ...event_publisher.config.declare import integer
from ...event_publisher.exit_status import EXIT_FAILURE, print_stderr
from ...event_publisher.foreign_text import MAX_FOREIGN
from ...event_publisher.ledger.file import LETTERS_NAME, SPOOL_NAME
from ...event_publisher.ledger.letters import DamagedLetterError, LetterFile, damage_of
from ...event_publisher.standard_streams import report
from ...events import MAX_EVENT_SIZE, MAX_QUEUE_SIZE, MAX_SPOOL_SIZE, SPOOL_VARIABLE
from ...spool import MIN_SPOOL_SIZE, UNKNOWN_FORMAT
from ...spool.directory import SpoolDirectory
from ...spool.permissions import file_mode
from ...transport.posix import MessageQueue
from ...transport.spool import SpoolTransport
from ..common import SPAN, argument, event_queue_name, exit_status_of
from ..queue.transfer import Interrupts
from ..terminal import Progress, event_for_terminal, printable
from .place import find_letters, load_configuration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ...event_publisher.config.settings import StoreSettings
    from ...event_publisher.ledger.letters import Letter
    from ...transport import Transport

#: Seconds to wait for a full queue between two checks for a signal.
_SLICE: Final = 0.1

#: A row of `list`: number, time, status, size, reason.
_ROW: Final = "{:<8}  {:<24}  {:>6}  {:>15}  {}\n"

#: The largest number of a letter that is accepted, within SQLite's range.
_LAST_NUMBER: Final = 10**18 - 1

_EPILOG: Final = f"""\
PATH is the publisher's INI file, with --queue-name NAME if it has several queues; or the place of its dead
letters: with a spool, the folder events-NAME in its spool.directory (or spool.directory itself if it has only
one spool), otherwise its dead_letters.directory; or the file itself, {SPOOL_NAME} or {LETTERS_NAME}.
NUMBER is the number of a letter as shown by `list`; it doesn't change. Run this as the publisher's user.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command `dead-letters` to its parser."""
    number = argument(integer(1, _LAST_NUMBER))
    parser.description = (
        "List, show, replay or delete events that a publisher gave up on, also while it runs."
    )
    actions = parser.add_subparsers(
        metavar="ACTION", required=True, dest="action", parser_class=_IntermixedParser
    )

    def add(
        name: str, perform: Callable[[argparse.Namespace, LetterFile], int], purpose: str
    ) -> argparse.ArgumentParser:
        action = actions.add_parser(
            name, help=purpose, description=f"{purpose.capitalize()}.", epilog=_EPILOG
        )
        action.add_argument(
            "path",
            metavar="CONFIG|DIRECTORY",
            help="the publisher's INI file, or the place of its dead letters",
        )
        action.add_argument(
            "--queue-name",
            metavar="NAME",
            type=event_queue_name,
            help="the queue (default: the only one of the INI file, or main if it has several)"
            if perform is not _replay
            else "put them on queue /events-NAME, or into the spool events-NAME; required without an INI "
            "file, otherwise its only queue by default",
        )
        action.set_defaults(perform=perform)
        return action

    listing = add("list", _list, "list the letters, oldest first, without their events")
    listing.add_argument("--json", action="store_true", help="write one JSON object per line")

    show = add(
        "show",
        _show,
        "write the events to stdout as they were received (escaped on a terminal), a newline after each",
    )
    show.add_argument("numbers", metavar="NUMBER", nargs="*", type=number, help="a letter")
    show.add_argument("--all", action="store_true", help="show every letter")

    replay = add(
        "replay", _replay, "put the events on a queue again, and delete the letter of each one that was put"
    )
    replay.add_argument("numbers", metavar="NUMBER", nargs="*", type=number, help="a letter (default: all)")
    replay.add_argument(
        "--spool-directory",
        metavar="DIRECTORY",
        help="put them into the spool in this directory (default: that of the INI file, or "
        f"${SPOOL_VARIABLE}; without either, the POSIX queue)",
    )
    replay.add_argument(
        "--timeout",
        metavar="SPAN",
        type=argument(SPAN),
        default="30 seconds",
        help="how long to wait while the queue is full (default: %(default)s)",
    )
    replay.add_argument(
        "--max-queue-size",
        metavar="EVENTS",
        type=int,
        help="events that the POSIX queue holds if it is created (default: that of the INI "
        f"file, or {MAX_QUEUE_SIZE:,})",
    )
    replay.add_argument(
        "--max-event-size",
        metavar="BYTES",
        type=int,
        help="largest event in bytes, for a spool or a queue that is created (default: that of the INI "
        f"file, or {MAX_EVENT_SIZE:,})",
    )
    replay.add_argument(
        "--spool-max-size",
        metavar="BYTES",
        type=int,
        help="bytes of undelivered events that the spool holds (default: that of the INI file, or "
        f"{MAX_SPOOL_SIZE:,})",
    )

    purge = add("purge", _purge, "delete letters permanently")
    purge.add_argument(
        "--older-than",
        metavar="SPAN",
        type=argument(SPAN),
        help='only letters older than this, such as "7 days"',
    )
    purge.add_argument("--yes", action="store_true", help="don't ask for confirmation")


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
    """Perform the action, and return the exit status.

    Must be called from the main thread. SIGINT and SIGTERM are handled while letters are replayed.
    """
    perform: Callable[[argparse.Namespace, LetterFile], int] = arguments.perform

    def open_and_perform() -> int:
        path, name = arguments.path, arguments.queue_name
        arguments.store = store = load_configuration(path, name, os.environ)
        with contextlib.closing(LetterFile(find_letters(path, name, store))) as file:
            return perform(arguments, file)

    return exit_status_of(open_and_perform)


def _list(arguments: argparse.Namespace, file: LetterFile) -> int:
    write = _write_json if arguments.json else _write_row
    first = True
    selection = _Selection(file, ())
    for number, letter in selection.read():
        write(number, letter, first)
        first = False
    return selection.report_problems()


def _write_json(number: int, letter: Letter, _first: bool) -> None:
    members = {
        "number": number,
        "time": _format_time(letter.time),
        "status": letter.status,
        "size": len(letter.event),
        "reason": letter.reason,
        "excerpt": letter.excerpt.decode(errors="replace"),
    }
    sys.stdout.write(json.dumps(members) + "\n")


def _write_row(number: int, letter: Letter, first: bool) -> None:
    if first:
        sys.stdout.write(_ROW.format("NUMBER", "TIME", "STATUS", "SIZE", "REASON"))
    status = "-" if letter.status is None else letter.status
    reason = printable(letter.reason, MAX_FOREIGN)
    sys.stdout.write(
        _ROW.format(number, _format_time(letter.time), status, counted(len(letter.event), "byte"), reason)
    )


def _format_time(seconds: float) -> str:
    """Format a time in UTC: `2026-11-03T08:15:30.250Z`."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _show(arguments: argparse.Namespace, file: LetterFile) -> int:
    numbers: list[int] = arguments.numbers
    if bool(numbers) == arguments.all:
        raise ConfigurationError("show: give either the numbers of letters or --all")
    selection = _Selection(file, numbers)
    sys.stdout.flush()
    terminal = sys.stdout.isatty()
    for _, letter in selection.read():
        event = event_for_terminal(letter.event) if terminal else letter.event
        sys.stdout.buffer.write(event + b"\n")
    return selection.report_problems()


def _replay(arguments: argparse.Namespace, file: LetterFile) -> int:
    selection = _Selection(file, arguments.numbers)
    # A signal is only recorded, so that it can't come between a put and the deletion.
    with contextlib.closing(_open_transport(arguments)) as transport, Interrupts() as interrupts:
        replay = _Replay(transport, interrupts, arguments.timeout, len(selection.numbers))
        try:
            numbers = takewhile(lambda _: not interrupts.came, selection.numbers)
            selection.damaged = file.replay(numbers, replay.put)
        finally:
            replay.report()
    if interrupts.came:
        print_stderr("interrupted; the remaining letters are unchanged")
        return EXIT_FAILURE
    return selection.report_problems() or (EXIT_FAILURE if replay.failed else 0)


def _purge(arguments: argparse.Namespace, file: LetterFile) -> int:
    older_than: float | None = arguments.older_than
    if older_than is None:
        meant = file.numbers()
    else:
        before = time.time() - older_than
        meant = [number for number, letter in _Selection(file, ()).read() if letter.time < before]
    if not meant:
        report("nothing to delete")
        return 0
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise ConfigurationError("purge: stdin is no terminal; give --yes to delete without confirmation")
        sys.stderr.write(f"Delete {counted(len(meant), 'letter')} of {arguments.path} permanently? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            print_stderr("nothing deleted")
            return EXIT_FAILURE
    report(f"deleted {counted(file.purge(meant), 'letter')}")
    return 0


class _Selection:
    """The selected letters: all, or the existing ones among those named.

    Attributes:
        numbers: Their numbers, oldest first.
        damaged: Those that can't be read.
    """

    def __init__(self, file: LetterFile, named: Sequence[int]) -> None:
        there = file.numbers()
        self._file = file
        self._missing = sorted(set(named).difference(there))
        self.numbers: list[int] = [number for number in there if number in set(named)] if named else there
        self.damaged: list[int] = []

    def read(self) -> Iterator[tuple[int, Letter]]:
        """Yield the letters, except those that are damaged or were deleted in the meantime."""
        for number in self.numbers:
            try:
                letter = self._file.read(number)
            except DamagedLetterError:
                self.damaged.append(number)
                continue
            if letter is not None:
                yield number, letter

    def report_problems(self) -> int:
        """Report missing and damaged letters, and return the exit status."""
        for number in self._missing:
            print_stderr(f"there is no letter {number}")
        for number in self.damaged:
            print_stderr(damage_of(number))
        return EXIT_FAILURE if self._missing or self.damaged else 0


class _Replay:
    """Puts events of letters on a queue, or into a spool.

    Attributes:
        failed: Whether a letter didn't fit into the queue.
    """

    def __init__(self, transport: Transport, interrupts: Interrupts, timeout: float, total: int) -> None:
        self._transport = transport
        self._interrupts = interrupts
        self._timeout = timeout
        self._count = 0
        self._progress = Progress(sys.stderr, "events put", total)
        self.failed = False

    def put(self, number: int, event: bytes) -> bool:
        """Put the event of a letter, and return whether it is in the queue now.

        Raises:
            EventQueueFullError: The queue was full all of the time.
            EventQueueUnavailableError: The queue can't be used.
        """
        try:
            if not self._wait_and_put(event):
                return False
        except EventTooLargeError as exc:
            print_stderr(f"letter {number} is unchanged: {exc}")
            self.failed = True
            return False
        self._count += 1
        self._progress.show(self._count)
        return True

    def report(self) -> None:
        """Report how many were put."""
        self._progress.close()
        report(f"put {counted(self._count, 'event')} on {self._transport.name}")

    def _wait_and_put(self, event: bytes) -> bool:
        deadline = time.monotonic() + self._timeout
        while not self._interrupts.came:
            remaining = deadline - time.monotonic()
            try:
                self._transport.put(event, max(0.0, min(_SLICE, remaining)))
            except EventQueueFullError:
                if remaining <= _SLICE:
                    raise
                self._progress.show(self._count)
            else:
                return True
        return False


def _open_transport(arguments: argparse.Namespace) -> Transport:
    store: StoreSettings | None = arguments.store
    name: str | None = arguments.queue_name
    spool: str = arguments.spool_directory or ""
    queue_size, event_size, spool_size = MAX_QUEUE_SIZE, MAX_EVENT_SIZE, MAX_SPOOL_SIZE
    if store is not None:
        name, queue_size, event_size = store.queue.name, store.queue.max_size, store.queue.max_event_size
        if store.spool is not None and store.queue.transport != "posix":
            spool, spool_size = spool or store.spool.directory, store.spool.max_size
    else:
        spool = spool or os.environ.get(SPOOL_VARIABLE, "").strip()
    if name is None:
        raise ConfigurationError("replay: give --queue-name NAME, or the publisher's INI file as PATH")
    queue_size = queue_size if arguments.max_queue_size is None else arguments.max_queue_size
    event_size = event_size if arguments.max_event_size is None else arguments.max_event_size
    spool_size = spool_size if arguments.spool_max_size is None else arguments.spool_max_size
    try:
        if spool:
            return _open_spool(Path(spool).absolute(), name, spool_size, event_size)
        return MessageQueue(
            f"/events-{name}", max_messages=queue_size, max_message_size=event_size, read=False
        )
    except ValueError as exc:
        raise ConfigurationError(f"replay: {exc}") from exc


def _open_spool(directory: Path, name: str, max_size: int, max_event_size: int) -> Transport:
    """Open an existing spool; its mode shows whether it is shared with a group."""
    folder = directory / f"events-{name}"
    if not folder.is_dir():
        raise ConfigurationError(
            f"replay: the spool {folder} doesn't exist; give the directory of an existing one"
        )
    if max_size < MIN_SPOOL_SIZE:
        raise ConfigurationError(f"replay: --spool-max-size must be {MIN_SPOOL_SIZE:,} or more")
    place = SpoolDirectory(str(directory), name, mode=file_mode(folder.stat().st_mode))
    place.prepare()
    return SpoolTransport(
        place,
        UNKNOWN_FORMAT,
        max_size=max_size,
        max_message_size=max_event_size,
        refusals=RefusalCounts(),
    )
