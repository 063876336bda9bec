"""The action `unlink` on a spool.

Rules:

1. While a publisher reads the spool, nothing is removed. This process is in its place until all is over, so
   that none begins meanwhile.
2. Without `--force` nothing is removed if an event could be lost: one that wasn't delivered, a dead letter,
   what can't be read, or what a service puts meanwhile, which has a segment open.
3. What isn't of a spool is left alone: then nothing is removed at all.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from ..._words import counted
from ...errors import EventQueueUnavailableError
from ...event_publisher.exit_status import EXIT_FAILURE, say
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
            problem = f"it holds {', '.join(info.others)}, which isn't of a spool; move that away first"
            raise EventQueueUnavailableError(path, problem)
        lost = _what_is_lost(spool, info)
        if lost and not force:
            remedy = f"have them published, take them out with {place.command('read')}, or give --force"
            say(f"Event queue {path}: it would be lost: {', '.join(lost)}; {remedy}")
            return EXIT_FAILURE
        spool.ledger.close()
        try:
            for name in (*info.segments, *info.unfinished, *info.ledgers, READER_LOCK):
                with contextlib.suppress(FileNotFoundError):
                    spool.files.delete(name)
            os.rmdir(path)  # noqa: PTH106 - strings throughout
        except OSError as exc:
            problem = f"it can't be removed ({exc.strerror}); stop what uses it, and try again"
            raise EventQueueUnavailableError(path, problem) from exc
    report(f"removed {path}{' with ' * bool(lost)}{', '.join(lost)}")
    return 0


def _what_is_lost(spool: OwnedSpool, info: SpoolInfo) -> list[str]:
    """Say what would be lost with the spool; nothing if that is nothing."""
    names = [*info.segments, *info.unfinished]
    in_use = sum(_is_open(spool, name) for name in names)  # before they are read, which locks them as well
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
    """Say whether a service has a file open. If none has, none will: it isn't opened a second time."""
    try:
        descriptor = spool.files.open(name)
    except OSError:
        return False  # it is gone, or can't be read, as the reader finds out
    try:
        return not spool.files.lock(descriptor)
    finally:
        spool.files.close_file(descriptor)
