"""The segment that a process appends to, and the interface to its directory.

Rules:

1. One `write` appends all its data, or the segment ends and the incomplete data stays as a torn record.
2. If the program closes our descriptor, its number can become another file's. `check` notices that within a
   millisecond (`TRUST`), in which events may go to that file; afterwards it is neither used nor closed.
3. Otherwise it is closed with its last reference, so never while a thread uses it.
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

#: Seconds for which a writer trusts that its descriptor is still its segment's, and not deleted.
TRUST = 1e-3

#: Seconds after which a segment ends, so that its space is freed even without hole punching. A segment that
#: is less than 1/n full goes on, since otherwise a service with few events would leave a file per minute.
MAX_AGE = 60.0
_SMALL = 8


class FileStatus(NamedTuple):
    """The result of fstat(2) for an open file.

    Attributes:
        device: Number of its file system.
        inode: Its number there.
        links: Its number of names; 0 after it was deleted.
        size: Its length in bytes.
    """

    device: int
    inode: int
    links: int
    size: int


class OpenSpoolFolder(Protocol):
    """The directory of a spool, opened to start a segment."""

    def used(self) -> int:
        """Return the undelivered bytes in it."""
        ...

    def create(self, name: str, /) -> int:
        """Create a file for appending, and return its descriptor."""
        ...

    def publish(self, name: str, final: str, /) -> None:
        """Rename a file."""

    def remove(self, name: str, /) -> None:
        """Delete a file."""

    def has_reader(self) -> bool | None:
        """Return whether an event publisher reads this spool; None if unknown."""
        ...

    def __enter__(self) -> OpenSpoolFolder:  # noqa: PYI034 - typing has Self from Python 3.11 on
        ...

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...


class SpoolFolder(Protocol):
    """The writer's interface to the directory of a spool; each method is one system call or a few."""

    @property
    def path(self) -> str:
        """Its path."""
        ...

    def open(self) -> OpenSpoolFolder:
        """Open it; recreate it if it was deleted.

        Raises:
            EventQueueUnavailableError: It can't be used.
            OSError: There is no room for it.
        """
        ...

    def lock(self, fd: int, /) -> bool:
        """Take the shared lock of a file, without waiting; return whether that succeeded."""
        ...

    @property
    def write(self) -> Callable[[int, bytes], int]:
        """Append to a file; return how many bytes were written. For speed, a segment looks this up once."""
        ...

    def status(self, fd: int, /) -> FileStatus:
        """Return the status of a file."""
        ...

    def close(self, fd: int, /) -> None:
        """Close a file."""


class NotAppendedError(Exception):
    """Raised by `Segment.send` if nothing was appended; never leaves this package."""


class Segment:
    """A segment created by this process, or by one that it was forked from. It is a `Channel`.

    Args:
        directory: Its directory.
        fd: Its descriptor, locked.
        encoder: Encodes its records.
        created: Time of the wall clock, in nanoseconds.
        limit: Size in bytes at which it should end.
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
        self._lost = True  # until the descriptor's identity is known
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
            NotAppendedError: The event isn't in the segment, which has ended.
            OSError: The event isn't in the segment. (`refused` recognises these errors.)
        """
        length = len(message)
        whole = OVERHEAD + length
        size = self._size + whole
        if size > self._limit:
            raise NotAppendedError
        # `Encoder.encode`, inlined.
        prefix = pack_prefix(EVENT_MARKER, length, length ^ self._mask, crc32(message, self._seed))
        if self._write(self._fd, prefix + message) != whole:
            self.end()
            raise NotAppendedError
        self._size = size  # other threads set it too: it is never too large, and `check` corrects it

    def send_each(self, messages: Iterator[bytes], sent: list[bytes], most: int) -> bytes | None:
        """Append events, each before the next one is taken, and add the appended ones to `sent`.

        Args:
            messages: The events.
            sent: Gets those that were appended.
            most: Bytes of events to append, at least 1; the last event may exceed that.

        Returns:
            The event that couldn't be appended, as from `send`; None if all that were taken were.
        """
        mask, seed, write, fd, limit = self._mask, self._seed, self._write, self._fd, self._limit
        size, add = self._size, sent.append
        try:
            for message in messages:
                length = len(message)
                whole = OVERHEAD + length
                if size + whole > limit:
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
                size += whole
                add(message)
                most -= length
                if most <= 0:
                    break
        finally:
            self._size = size
        return None

    def append(self, data: bytes) -> int:
        """Append whole records, whatever their size; return how many bytes were appended, 0 if it failed."""
        size = (
            self._size
        )  # read before the write: afterwards `check` in another thread may include these bytes
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
        """Return whether an exception of `send` comes from `send` itself, not from a signal handler.

        Only errors of the system have a number. (Handlers that time out raise a bare `TimeoutError`.)
        """
        return isinstance(exc, NotAppendedError) or (isinstance(exc, OSError) and exc.errno is not None)

    def is_full(self, exc: Exception) -> bool:
        """Return False: `SpoolWriter.append` finds out whether there is room elsewhere."""
        del exc
        return False

    def room(self, *, shared: bool) -> int:
        """Return the bytes that may be appended; `shared` while another thread starts the next segment."""
        return (self._limit if shared else self._limit * 7 // 8) - self._size

    def claim(self) -> bool:
        """Return True in one thread per process, which then starts the next segment or calls `unclaim`."""
        try:
            self._claim.pop()
        except IndexError:
            return False
        return True

    def unclaim(self) -> None:
        """Let another thread claim it, since the next segment couldn't be started."""
        self._claim.append(None)

    def check(self, now: float) -> bool:
        """Check the file; return whether it may be appended to, also by its age and size."""
        if self._limit == 0 or not self._is_there():
            self.end()
            return False
        is_old = now >= self._ends_at and self._size * _SMALL >= self._limit
        return not is_old and self.room(shared=False) > 0

    @property
    def size(self) -> int:
        """Its size in bytes; exact unless others append to it."""
        return self._size

    def sync(self) -> None:
        """Sync the appended data to the disk.

        Raises:
            OSError: That failed. A later success proves nothing, since the system may have dropped the data.
        """
        os.fdatasync(self._fd)

    @property
    def ended(self) -> bool:
        """Whether nothing may be appended any more."""
        return self._limit == 0

    def end(self) -> None:
        """Stop appending to it."""
        self._limit = 0

    def discard(self) -> None:
        """Close the file; only if no other thread uses it."""
        self.end()
        if not self._lost:
            self._is_there()
        if not self._lost:
            self._lost = True
            self._directory.close(self._fd)

    def _is_there(self) -> bool:
        known = self._size  # read before the check: afterwards another thread may have appended more
        try:
            status = self._directory.status(self._fd)
        except OSError:
            self._lost = True
            return False
        if (status.device, status.inode) != (self._device, self._inode):
            self._lost = True  # the number belongs to another file now
            return False
        self._size = status.size
        # Readers don't read on in a file that was truncated.
        return status.links > 0 and status.size >= known

    def __del__(self) -> None:
        # Half constructed, or the interpreter is shutting down; then even module names may be gone.
        try:  # noqa: SIM105
            self.discard()
        except Exception:  # noqa: BLE001, S110
            pass
