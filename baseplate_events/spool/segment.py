"""The segment that a process appends to, and what a writer needs of the directory that it is in.

Rules:

1. One `write` appends all that it is given, or the segment ends: what was cut short stays as a torn record.
2. If the program closes our descriptor, its number can become another file's. `check` notices that within a
   millisecond (`TRUST`), in which events may go to that file; from then on it is neither used nor closed.
3. Otherwise it is closed when the last thread that uses it lets go of it, by reference count.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol
from zlib import crc32

from .format import EVENT, EVENT_MARKER, OVERHEAD, pack_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from .format import Encoder

#: Seconds for which a writer trusts that its descriptor is its segment's, and the segment in the directory.
TRUST = 1e-3

#: Seconds after which a segment ends, so that even where holes can't be punched its space is given back. One
#: that isn't full to one part in so many goes on: else a service with few events would leave a file a minute.
MAX_AGE = 60.0
_SMALL = 8


class FileStatus(NamedTuple):
    """What fstat(2) says of an open file.

    Attributes:
        device: Number of its file system.
        inode: Its number there.
        links: How many names it has; 0 after it was deleted.
        size: Its length in bytes.
    """

    device: int
    inode: int
    links: int
    size: int


class OpenSpoolFolder(Protocol):
    """The directory of a spool, opened to start a segment."""

    def used(self) -> int:
        """Return the bytes in it that aren't delivered."""
        ...

    def create(self, name: str, /) -> int:
        """Create a file to append to, and return its descriptor."""
        ...

    def publish(self, name: str, final: str, /) -> None:
        """Rename a file."""

    def remove(self, name: str, /) -> None:
        """Delete a file."""

    def has_reader(self) -> bool | None:
        """Return whether an event publisher reads this spool; None if that can't be known."""
        ...

    def __enter__(self) -> OpenSpoolFolder:  # noqa: PYI034 - typing has Self from Python 3.11 on
        ...

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...


class SpoolFolder(Protocol):
    """What a writer needs of the directory of a spool; each method is a system call, or a few."""

    @property
    def path(self) -> str:
        """Where it is."""
        ...

    def open(self) -> OpenSpoolFolder:
        """Open it; recreate it if it is gone.

        Raises:
            EventQueueUnavailableError: It can't be used.
            OSError: There is no room for it.
        """
        ...

    def lock(self, fd: int, /) -> bool:
        """Lock a file shared, without waiting; return whether that worked."""
        ...

    @property
    def write(self) -> Callable[[int, bytes], int]:
        """Append to a file, and return how many bytes were. For speed, a segment gets it once."""
        ...

    def status(self, fd: int, /) -> FileStatus:
        """Return what is known of a file."""
        ...

    def close(self, fd: int, /) -> None:
        """Close a file."""


class NotAppendedError(Exception):
    """Raised by `Segment.send` if nothing was appended; never leaves this package."""


class Segment:
    """A segment that this process, or one that it was forked from, created. It can be sent to.

    Args:
        directory: Where it is.
        fd: Its descriptor, locked.
        encoder: Makes its records.
        created: Time of the wall clock, in nanoseconds.
        limit: Bytes at which it should end.
        now: Time of the monotonic clock.

    Attributes:
        created: As given; of two segments, readers deliver the one that was created earlier first.
        encoder: As given.
    """

    __slots__ = (
        *("_claim", "_device", "_directory", "_ends_at", "_fd", "_inode", "_limit", "_lost", "_mask"),
        *("_seed", "_size", "_write", "created", "encoder"),
    )

    def __init__(
        self, directory: SpoolFolder, fd: int, encoder: Encoder, *, created: int, limit: int, now: float
    ) -> None:
        self._lost = True  # until it is known what to compare the descriptor with
        self._directory = directory
        self._fd = fd
        self._mask = encoder.mask(EVENT)
        self._seed = encoder.seed
        self._write = directory.write
        self._limit = limit
        self._ends_at = now + MAX_AGE
        self._claim = deque((None,))
        self.created: int = created
        self.encoder: Encoder = encoder
        status = directory.status(fd)
        self._device, self._inode, self._size = status.device, status.inode, status.size
        self._lost = False

    def send(self, message: bytes) -> None:
        """Append an event.

        Raises:
            NotAppendedError: It isn't in the segment, which has ended.
            OSError: It isn't in the segment. (`refused` knows which errors those are.)
        """
        length = len(message)
        whole = OVERHEAD + length
        size = self._size + whole
        if size > self._limit:
            raise NotAppendedError
        # Encoder.encode, without the call.
        prefix = pack_prefix(EVENT_MARKER, length, length ^ self._mask, crc32(message, self._seed))
        if self._write(self._fd, prefix + message) != whole:
            self.end()
            raise NotAppendedError
        self._size = size  # other threads write it as well: it is never too much, and `check` corrects it

    def send_each(self, messages: Iterator[bytes], sent: list[bytes]) -> bytes | None:
        """Append events, each before the next one is asked for, and add those that were to `sent`.

        Returns:
            The event that couldn't be appended, as from `send`; None if all were.
        """
        mask, seed, write, fd = self._mask, self._seed, self._write, self._fd
        size, add = self._size, sent.append
        for message in messages:
            length = len(message)
            whole = OVERHEAD + length
            if size + whole > self._limit:
                return message
            prefix = pack_prefix(EVENT_MARKER, length, length ^ mask, crc32(message, seed))
            try:
                written = write(fd, prefix + message)
            except OSError as exc:
                if not self.refused(exc):
                    raise
                return message
            if written != whole:
                self.end()
                return message
            self._size = size = size + whole
            add(message)
        return None

    def append(self, data: bytes) -> int:
        """Append whole records, whatever their size; return how many bytes were appended, 0 if it failed."""
        size = self._size  # before the write: after it, `check` in another thread may count these bytes
        try:
            written = self._write(self._fd, data)
        except OSError as exc:
            if not self.refused(exc):
                raise
            written = 0
        self._size = size + written
        if written < len(data):
            self.end()
        return written

    def refused(self, exc: Exception) -> bool:
        """Return whether an exception of `send` is its own, not one of a signal handler."""
        return type(exc) in {NotAppendedError, OSError, PermissionError}

    def is_full(self, exc: Exception) -> bool:
        """Return False: whether there is room elsewhere is for `SpoolWriter.append` to find out."""
        del exc
        return False

    def room(self, *, shared: bool) -> int:
        """Return the bytes that may be appended; `shared`: while another thread starts the next segment."""
        return (self._limit if shared else self._limit * 7 // 8) - self._size

    def claim(self) -> bool:
        """Return True to one thread of each process, which starts the next segment or calls `unclaim`."""
        try:
            self._claim.pop()
        except IndexError:
            return False
        return True

    def unclaim(self) -> None:
        """Let another thread claim it, since the next segment couldn't be started."""
        self._claim.append(None)

    def check(self, now: float) -> bool:
        """Look at the file, and return whether it may be appended to; its age and size count as well."""
        if self._limit == 0 or not self._is_there():
            self.end()
            return False
        is_old = now >= self._ends_at and self._size * _SMALL >= self._limit
        return not is_old and self.room(shared=False) > 0

    @property
    def size(self) -> int:
        """Bytes in it; exact if no one else appends to it."""
        return self._size

    def sync(self) -> None:
        """Force what was appended onto the disk.

        Raises:
            OSError: That failed. A later success proves nothing, since the system may have dropped the data.
        """
        os.fdatasync(self._fd)

    @property
    def ended(self) -> bool:
        """Whether it must not be appended to any more."""
        return self._limit == 0

    def end(self) -> None:
        """Stop appending to it."""
        self._limit = 0

    def discard(self) -> None:
        """Close the file; for the one who knows that no other thread uses it."""
        self.end()
        if not self._lost:
            self._is_there()
        if not self._lost:
            self._lost = True
            self._directory.close(self._fd)

    def _is_there(self) -> bool:
        known = self._size  # before the look: after it, another thread may have appended more
        try:
            status = self._directory.status(self._fd)
        except OSError:
            self._lost = True
            return False
        if (status.device, status.inode) != (self._device, self._inode):
            self._lost = True  # the number is another file's now
            return False
        self._size = status.size
        # What follows in a file that someone has cut isn't read.
        return status.links > 0 and status.size >= known

    def __del__(self) -> None:
        # Made only in part, or the interpreter is ending. Then even the names of modules may be gone.
        try:  # noqa: SIM105
            self.discard()
        except Exception:  # noqa: BLE001, S110
            pass
