"""The action `unlink` on a spool.

Rules:

1. Nothing is removed while a publisher reads the spool. This process holds the publisher's lock until it
   ends, so that none starts in the meantime.
2. Without `--force` nothing is removed if an event could be lost: an undelivered one, a dead letter, an
   unreadable segment, or events that a service with an open segment puts in the meantime.
3. If the folder contains foreign files, nothing is removed.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from ..._words import counted
from ...errors import EventQueueUnavailableError
from ...event_publisher.exit_status import EXIT_FAILURE, print_stderr
from ...event_publisher.ledger.file import JOURNAL, SPOOL_NAME
from ...event_publisher.standard_streams import report
from ...spool.open_directory import READER_LOCK
from .spool_events import own_spool
from .spool_info import inspect_spool

if TYPE_CHECKING:
    import argparse

    from .spool_events import OwnedSpool
    from .spool_info import SpoolInfo
    from .spool_place import SpoolPlace


def unlink(place: SpoolPlace, arguments: argparse.Namespace) -> int:
    """Perform the action `unlink`, and return the exit status."""
    force: bool = arguments.force
    path = place.path
    with own_spool(place) as spool:
        info = inspect_spool(path) or spool.info
        if info.others:
            problem = (
                f"it contains {', '.join(info.others)}, which is no part of a spool; move that away first"
            )
            raise EventQueueUnavailableError(path, problem)
        lost = _list_losses(spool, info)
        if lost and not force:
            remedy = f"have them published, read them with {place.command('read')}, or give --force"
            print_stderr(f"Event queue {path}: removing it would lose {', '.join(lost)}; {remedy}")
            return EXIT_FAILURE
        spool.ledger.close()
        try:
            for name in (*info.segments, *info.unfinished, *info.ledgers, READER_LOCK):
                with contextlib.suppress(FileNotFoundError):
                    spool.files.delete(name)
            os.rmdir(path)  # noqa: PTH106 - strings throughout
        except OSError as exc:
            problem = f"it can't be removed ({exc.strerror}); stop whatever uses it, and retry"
            raise EventQueueUnavailableError(path, problem) from exc
    report(f"removed {path}{' with ' * bool(lost)}{', '.join(lost)}")
    return 0


def _list_losses(spool: OwnedSpool, info: SpoolInfo) -> list[str]:
    """List what would be lost with the spool, in words."""
    names = [*info.segments, *info.unfinished]
    in_use = sum(_is_open(spool, name) for name in names)  # before they are read, which locks them too
    events = 0
    while run := spool.reader.read(sys.maxsize, 1 << 20).events:
        events += len(run)
    unreadable = sum(spool.reader.status().aside.values())
    damaged = sum(name not in {SPOOL_NAME, SPOOL_NAME + JOURNAL} for name in info.ledgers)
    counts = (
        (events, "event", ""),
        (spool.ledger.letters[0], "dead letter", ""),
        (unreadable, "segment", " that can't be read"),
        (in_use, "segment", " that a service has open"),
        (damaged, "damaged ledger", " with dead letters"),
    )
    return [f"{counted(count, noun)}{which}" for count, noun, which in counts if count]


def _is_open(spool: OwnedSpool, name: str) -> bool:
    """Return whether a service has a file open. If none has, none will: files are never reopened."""
    try:
        descriptor = spool.files.open(name)
    except OSError:
        return False  # it is gone, or unreadable, which the reader reports
    try:
        return not spool.files.lock(descriptor)
    finally:
        spool.files.close_file(descriptor)
