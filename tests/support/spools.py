"""Spools for tests, and what the next process finds in them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from baseplate_events.event_publisher.config.settings import Sync
from baseplate_events.event_publisher.spool.segment_format import SegmentFormat
from baseplate_events.event_publisher.spool.spool import Spool
from baseplate_events.event_publisher.storage import Folder

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from baseplate_events.event_publisher.policy.store import StoredBatch
    from baseplate_events.event_publisher.storage import Disk

#: The first line of a segment of version 2, and the name of the first one.
HEADER = SegmentFormat("2").header
FIRST = "segment-0000000000"

#: More bytes than any test writes.
ROOM = 10**9

#: Bytes of a journal for a few events, and of one that is too large for any spool.
SMALL = 250
NONE = ROOM


def spool_on(
    disk: Disk,
    sync: Sync = Sync.NEVER,
    *,
    max_size: int = ROOM,
    version: str = "2",
    path: str = "spool",
    journal_size: int = NONE,
) -> Spool:
    """Make a spool that hasn't recovered anything yet, by default one without journals."""
    return Spool(disk, path, version=version, max_size=max_size, sync=sync, journal_size=journal_size)


def append_all(spool: Spool, events: Iterable[bytes]) -> StoredBatch | None:
    """Write a segment of these events."""
    for event in events:
        spool.append(event)
    return spool.close_segment()


def recovered(disk: Disk) -> tuple[list[bytes], int]:
    """Tell what the next process finds, and how many segments it cut."""
    spool = spool_on(disk)
    events = [event for segment in spool.recover() for event in spool.load(segment)]
    return events, spool.cut


class TrackedFolder(Folder):
    """A real folder that can end as with its process: everything closed, nothing finished."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.handles: set[int] = set()

    @property
    def maps(self) -> bool:
        """Whatever the file system is: it is neither full nor failing while a file of it is mapped."""
        return True

    def create(self, name: str, /) -> int:
        handle = super().create(name)
        self.handles.add(handle)
        return handle

    def close(self, handle: int, /) -> None:
        self.handles.remove(handle)
        super().close(handle)

    def crash(self) -> None:
        for handle in self.handles:
            os.close(handle)
        self.release()

    @property
    def used(self) -> int:
        return sum(path.stat().st_size for path in Path(self.path).iterdir())


@contextlib.contextmanager
def folder_at(path: Path) -> Generator[TrackedFolder]:
    """Use a folder for a while, and leave nothing open."""
    folder = TrackedFolder(str(path))
    try:
        yield folder
    finally:
        folder.crash()
