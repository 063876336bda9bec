"""The candidates of the spool's benchmarks: our put, the least of a put, and the bare write of a record.

Rules:

1. Each burst has a spool or a file of its own, in a folder that is removed afterwards, outside of the time
   that counts. So neither memory nor a disk fills up.
2. A burst of `BURST` events nearly fills a segment. So ours starts one segment a burst, which counts, and the
   bare write begins a file, which doesn't. Both pay for new pages.
3. The bare write is that of `io.FileIO`, which does nothing but write(2).
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Final
from zlib import crc32

from baseplate_events import EventQueue, serialize_v2_event
from baseplate_events.events import MAX_SPOOL_SIZE
from baseplate_events.spool.file_systems import file_system_of
from baseplate_events.spool.format import EVENT as EVENT_KIND
from baseplate_events.spool.format import EVENT_MARKER, IDENTITY_SIZE, OVERHEAD, Encoder, Header, pack_prefix
from baseplate_events.spool.writer import SEGMENTS
from tests.support.schema_samples import rich_event

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

#: What is put: the bytes of the rich event, ready.
MESSAGE: Final = serialize_v2_event(rich_event())

#: The same as an event: a tuple, from which the serializer takes it at next to no cost.
EVENT: Final = (MESSAGE,)
SERIALIZER: Final[Callable[[tuple[bytes]], bytes]] = itemgetter(0)

#: What is written bare: as many bytes as the record of it has.
RECORD: Final = MESSAGE + bytes(OVERHEAD)

#: Events of a burst: what a segment takes before the next one starts, less one part in a hundred.
BURST: Final = MAX_SPOOL_SIZE // SEGMENTS * 7 // 8 * 99 // 100 // len(RECORD)

#: File system of memory, and a place that usually has it.
TMPFS: Final = "tmpfs"
_MEMORY: Final = "/dev/shm"  # noqa: S108 - each folder in it has a random name

#: A place that is usually on a disk, for when that of temporary files isn't.
_DISK: Final = "/var/tmp"  # noqa: S108 - likewise


@dataclass(frozen=True)
class Place:
    """A directory to measure in.

    Attributes:
        path: Where it is.
        file_system: The type of its file system.
    """

    path: str
    file_system: str

    @contextlib.contextmanager
    def folder(self) -> Generator[str]:
        """Make a folder for a burst, and remove it."""
        with TemporaryDirectory(dir=self.path) as path:
            yield path

    @contextlib.contextmanager
    def ours(self) -> Generator[Callable[[tuple[bytes]], object]]:
        """Yield our put into a new spool."""
        with self.folder() as path, open_queue(path) as queue:
            yield queue.put

    @contextlib.contextmanager
    def bare(self) -> Generator[Callable[[bytes], object]]:
        """Yield the bare write to a new file."""
        with self.folder() as path, Path(path, "bare").open("ab", buffering=0) as file:
            yield file.write

    @contextlib.contextmanager
    def least(self) -> Generator[Callable[[bytes], object]]:
        """Yield the least that a put in Python does: to encode a record of the format, and write it."""
        encoder = Encoder(Header("2", os.urandom(IDENTITY_SIZE)))
        mask, seed, write = encoder.mask(EVENT_KIND), encoder.seed, os.write
        with self.folder() as path, Path(path, "least").open("ab", buffering=0) as file:
            fd = file.fileno()

            def put(message: bytes) -> None:
                size = len(message)
                write(fd, pack_prefix(EVENT_MARKER, size, size ^ mask, crc32(message, seed)) + message)

            yield put


def open_queue(path: str) -> EventQueue[tuple[bytes]]:
    """Open a queue that puts `EVENT` into a spool."""
    return EventQueue("benchmark", SERIALIZER, spool_directory=path)


def places() -> list[Place]:
    """Return where to measure: in memory, on a disk, or both; at least one place."""
    memory, *disks = (Place(path, file_system_of(path) or "?") for path in (_MEMORY, gettempdir(), _DISK))
    found = [memory] if memory.file_system == TMPFS else []
    found += [place for place in disks if place.file_system != TMPFS][:1]
    return found or disks[:1]


def notes(found: Sequence[Place]) -> tuple[str, ...]:
    """Return what a reader must know about all these figures."""
    where = ", ".join(f"{place.file_system} is {place.path}" for place in found)
    return (
        f"The event is {len(MESSAGE)} bytes, ready, and its record {len(RECORD)}; {where}.",
        "The bare write is write(2) of as many bytes, to files that are as new as our segments.",
    )
