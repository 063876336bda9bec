"""The actions of `queue` on a POSIX queue; the first argument of each is its name."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from ..._words import counted
from ...errors import ConfigurationError
from ...event_publisher.exit_status import EXIT_FAILURE, print_stderr
from ...event_publisher.standard_streams import report
from ...events import MAX_EVENT_SIZE, MAX_QUEUE_SIZE
from ...transport.posix import MessageQueue, unlink_queue
from ..common import command
from ..terminal import printable, write_table
from . import transfer
from .info import inspect_queue, user_name
from .posix_ends import PosixSink, PosixSource, absent, open_queue

if TYPE_CHECKING:
    import argparse

    from .info import QueueInfo


def stat(name: str, arguments: argparse.Namespace) -> int:
    """Perform the action `stat`, and return the exit status."""
    info = inspect_existing(name)
    closed = info.chmod_command(info.mode & ~0o007)
    warning = f"every user of this host may read events from {info.name}; to prevent that, run {closed}"
    warnings = [warning] if info.open_to_all else []
    if arguments.json:
        members = {
            "name": info.name,
            "transport": "posix",
            "depth": info.depth,
            "capacity": info.size.max_messages,
            "max_event_size": info.size.max_message_size,
            "bytes_charged": info.size.bytes_charged,
            "uid": info.uid,
            "gid": info.gid,
            "mode": f"{info.mode:04o}",
            "readers": info.readers,
            "warnings": warnings,
        }
        sys.stdout.write(json.dumps(members) + "\n")
        return 0
    share = info.depth * 100 // info.size.max_messages
    rows = (
        ("name", printable(info.name)),
        ("depth", f"{info.depth:,} of {counted(info.size.max_messages, 'event')} ({share} %)"),
        ("event", f"at most {counted(info.size.max_message_size, 'byte')}"),
        ("charged", f"{counted(info.size.bytes_charged, 'byte')} of its owner's RLIMIT_MSGQUEUE"),
        ("owner", user_name(info.uid)),
        ("mode", f"{info.mode:04o}: {info.readers} may read events"),
    )
    write_table(rows, warnings)
    return 0


def read(name: str, arguments: argparse.Namespace) -> int:
    """Perform the action `read`, and return the exit status."""
    with open_queue(name, read=True) as queue:
        return transfer.read(PosixSource(name, queue), arguments)


def write(name: str, arguments: argparse.Namespace) -> int:
    """Perform the action `write`, and return the exit status."""
    if arguments.spool_max_size is not None:
        raise ConfigurationError(f"--spool-max-size: {name} is a POSIX queue; its size is fixed")
    with transfer.open_input(arguments.file) as lines, open_queue(name, read=False) as queue:
        return transfer.write(PosixSink(queue), name, lines, arguments.timeout)


def create(name: str, arguments: argparse.Namespace) -> int:
    """Perform the action `create`, and return the exit status."""
    was_there = inspect_queue(name) is not None
    try:
        queue = MessageQueue(
            name,
            max_messages=arguments.max_queue_size or MAX_QUEUE_SIZE,
            max_message_size=arguments.max_event_size or MAX_EVENT_SIZE,
            mode=arguments.queue_mode,
            strict_size=arguments.strict,
            read=False,
        )
    except ValueError as exc:
        raise ConfigurationError(f"create: {exc}") from exc
    queue.close()
    info = inspect_existing(name)
    verb = "already exists:" if was_there else "created:"
    report(f"{info.name} {verb} {info.size}, mode {info.mode:04o}")
    if was_there and info.mode != arguments.queue_mode:
        print_stderr(f"its mode is unchanged; change it with {info.chmod_command(arguments.queue_mode)}")
    return 0


def unlink(name: str, arguments: argparse.Namespace) -> int:
    """Perform the action `unlink`, and return the exit status."""
    with open_queue(name, read=False) as queue:
        if queue.depth and not arguments.force:
            print_stderr(
                f"{name} holds {counted(queue.depth, 'event')}, which would be lost: have them published, "
                f"read them with {command('queue', 'read', name)}, or give --force"
            )
            return EXIT_FAILURE
        unlink_queue(name)
        lost = queue.depth  # with what was put in the meantime
    what = f" with {counted(lost, 'event')}" if lost else ""
    report(f"removed {name}{what}")
    return 0


def inspect_existing(name: str) -> QueueInfo:
    """Inspect a queue.

    Raises:
        EventQueueUnavailableError: There is none, or it can't be opened.
    """
    info = inspect_queue(name)
    if info is None:
        raise absent(name)
    return info
