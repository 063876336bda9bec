"""A disk in memory that crashes, fills up, fails and loses power on demand, always in the same way.

What it promises is no more than what POSIX and Linux do:

1. What was written is there for the next process, also if this one crashes, and is lost by a power cut.
2. A file that was synced survives a power cut, under its name if the names were synced after it was made.
   Of what wasn't, a power cut keeps a part: bytes up to anywhere, then nothing, zeros or garbage; the file as
   it was before it was truncated; a deletion or not.
3. A sync that fails gives up what it should have forced: later ones succeed without any effect.
4. A full disk takes a part of a write, then fails.
5. A process that crashes may leave any part of its last write, and of its last copy to a mapped file.
6. A copy to a mapped file is there for the next process at once and never fails. A power cut keeps of each
   page, by itself, what was synced or what it held at any moment since.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from random import Random

Call: TypeAlias = Literal[
    "names",
    "read",
    "create",
    "write",
    "map",
    "truncate",
    "cut",
    "sync",
    "sync_names",
    "close",
    "delete",
    "copy",
]

#: Calls that can fail; a copy to memory can't.
CALLS: tuple[Call, ...] = tuple(call for call in get_args(Call) if call != "copy")

#: Calls that a file system refuses when it is read-only.
_CHANGES: frozenset[Call] = frozenset({"create", "write", "truncate", "cut", "delete"})

#: Bytes of a page of a mapped file; few, so that small files have many.
PAGE = 32


class Crashed(BaseException):
    """Raised where the process ends; nothing of it may be used afterwards but the disk."""


@dataclass
class _File:
    """A file: what a process sees, and what a power cut leaves for sure.

    Attributes:
        content: What a process sees.
        durable: What a power cut leaves.
        past: What the content was before it was truncated, since the last sync.
        moments: What the content was before and after each copy to it, since the last sync.
        spoiled: Whether a sync failed, after which none has an effect.
    """

    content: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    past: list[bytes] = field(default_factory=list[bytes])
    moments: list[bytes] = field(default_factory=list[bytes])
    spoiled: bool = False

    def sync(self) -> None:
        if not self.spoiled:
            self.durable = bytearray(self.content)
            self.past.clear()
            self.moments.clear()

    def truncate(self, size: int) -> None:
        self.past.append(bytes(self.content))
        del self.content[size:]

    def copy(self, position: int, data: bytes) -> None:
        assert position + len(data) <= len(self.content), "a copy behind the end of the file ends the process"
        if not self.moments:
            self.moments.append(bytes(self.content))
        self.content[position : position + len(data)] = data
        self.moments.append(bytes(self.content))

    def _mix(self, random: Random, base: bytes) -> bytes:
        """Take each page from any moment; one may have been written in the midst of a copy."""
        pages: list[bytes] = []
        for start in range(0, len(base), PAGE):
            if start >= len(self.durable) and start >= min(map(len, self.moments)):
                pages.append(base[start : start + PAGE])
                continue
            later = random.randrange(len(self.moments))
            ends = [self.moments[max(0, later - 1)], self.moments[later]]
            if random.random() < 0.3:
                ends = [bytes(self.durable), bytes(self.durable)]
            middle = start + random.choice([0, PAGE, random.randint(0, PAGE)])
            page = ends[1][start:middle] + ends[0][middle : start + PAGE]
            pages.append(page.ljust(PAGE, b"\0")[: len(base) - start])
        return b"".join(pages)

    def cut_power(self, random: Random, garbage_from: int) -> _File:
        base = random.choice([bytes(self.content), *self.past])
        kept = random.randint(len(self.durable), max(len(self.durable), len(base)))
        data = self.durable + base[len(self.durable) : kept]
        if self.moments:
            base = self._mix(random, base)
            data = bytearray(base[:kept])
        fill = random.choice(["none", "zeros", "garbage"])
        if fill != "none":
            data += bytes(random.randint(0, max(0, len(base) - kept)))
        if fill == "garbage":
            start = max(kept, garbage_from)
            data[start:] = random.getrandbits(8 * len(data[start:])).to_bytes(len(data[start:]), "big")
        return _File(data, bytearray(data))


class SimulatedDisk:
    """A `Disk` of the spool, for one process after the other.

    Args:
        capacity: Bytes that all files together may take, or None.

    Attributes:
        capacity: As given; may be changed.
        maps: Whether files can be mapped.
        read_only: Whether nothing can be changed.
        calls: How often each call was made.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.maps = True
        self.read_only = False
        self.calls: Counter[Call] = Counter()
        self._files: dict[str, _File] = {}
        self._durable: dict[str, _File] = {}
        # What each name stood for since the names were synced, and of names that a failed sync gave up.
        self._changes: dict[str, list[_File | None]] = {}
        self._given_up: dict[str, list[_File | None]] = {}
        self._handles: dict[int, _File] = {}
        self._last_handle = 0
        self._faults: dict[Call, list[int]] = {}
        self._shorten_to: int | None = None
        self._crash_in: int | None = None
        self._torn = 0

    # --- what a test does to it ---

    @property
    def used(self) -> int:
        """Bytes of all files."""
        return sum(len(file.content) for file in self._files.values())

    @property
    def open_handles(self) -> int:
        """Files that are open."""
        return len(self._handles)

    def content(self, name: str) -> bytes:
        """Tell what is in a file."""
        return bytes(self._files[name].content)

    def put(self, name: str, data: bytes) -> None:
        """Make a file, or give it another content, that a power cut leaves alone."""
        self._files[name] = self._durable[name] = _File(bytearray(data), bytearray(data))

    def remove(self, name: str) -> None:
        """Delete a file, for good."""
        del self._files[name]
        self._durable.pop(name, None)

    def fail(self, call: Call, number: int = errno.EIO, times: int = 1) -> None:
        """Let the next calls of a kind fail."""
        self._faults.setdefault(call, []).extend([number] * times)

    def shorten(self, size: int) -> None:
        """Let the next write of more than `size` bytes, at least 1, take only these."""
        self._shorten_to = size

    def crash_after(self, calls: int, torn: int = 0) -> None:
        """Let the process crash within the call after so many.

        Args:
            calls: Calls that are still made.
            torn: How much of the last one is done: bytes of a write; of a copy to memory half of that from
                its beginning, or (odd) its end; of others whether it is (odd) or not.
        """
        self._crash_in, self._torn = calls, torn

    def heal(self) -> None:
        """Take all faults away, those that were to come too; a crash that was to come still comes."""
        self.capacity = None
        self.read_only = False
        self._faults.clear()
        self._shorten_to = None

    def crash(self) -> None:
        """End the process that used the disk."""
        self._handles.clear()
        self._crash_in = None

    def cut_power(self, random: Random, garbage_from: int = 64) -> None:
        """End the process, and lose what isn't durable, as far as chance will have it.

        Args:
            random: Where chance comes from.
            garbage_from: Where garbage may begin in a file; before, there are zeros. With 0 a segment's first
                line can become garbage, and the spool refuses it by name.
        """
        self.crash()
        names = dict(self._durable)
        for name, states in [*self._given_up.items(), *self._changes.items()]:
            file = random.choice([self._durable.get(name), *states])
            if file is None:
                names.pop(name, None)
            else:
                names[name] = file
        self._files = {name: file.cut_power(random, garbage_from) for name, file in sorted(names.items())}
        self._durable = dict(self._files)
        self._changes.clear()
        self._given_up.clear()

    # --- what the spool does ---

    def names(self) -> list[str]:
        """Name the files, newest first so that nobody relies on the order."""
        self._enter("names")
        return sorted(self._files, reverse=True)

    def read(self, name: str, limit: int, /) -> bytes:
        """Read a whole file; one of more than `limit` bytes is an error (`EFBIG`)."""
        self._enter("read")
        content = self._file(name).content
        if len(content) > limit:
            raise _error(errno.EFBIG)
        return bytes(content)

    def create(self, name: str, /) -> int:
        """Make a file that isn't there yet, and open it to write."""
        dying = self._enter("create")
        if name in self._files:
            raise _error(errno.EEXIST)
        if not dying or self._torn % 2:
            self._files[name] = _File()
            self._note(name, self._files[name])
        self._leave(dying=dying)
        self._last_handle += 1
        self._handles[self._last_handle] = self._files[name]
        return self._last_handle

    def write(self, handle: int, data: bytes, /) -> int:
        """Write at the end of a file; return how many bytes were taken, which may be fewer."""
        file = self._opened(handle)
        dying = self._enter("write")
        size = len(data) if not dying else self._torn % (len(data) + 1)
        if self._shorten_to is not None and self._shorten_to < size:
            size, self._shorten_to = self._shorten_to, None
        if self.capacity is not None and self.used + size > self.capacity:
            size = max(0, self.capacity - self.used)
            if not size and not dying:
                raise _error(errno.ENOSPC)
        file.content += data[:size]
        self._leave(dying=dying)
        return size

    def map(self, handle: int, /) -> SimulatedMemory:
        """Map a file that is open, and was written to its end."""
        file = self._opened(handle)
        self._leave(dying=self._enter("map"))
        return SimulatedMemory(self, file)

    def copy(self, file: _File, position: int, data: bytes) -> None:
        """Copy to a file that is mapped."""
        dying = self._enter("copy")
        if dying:
            size = self._torn // 2 % (len(data) + 1)
            skipped = len(data) - size if self._torn % 2 else 0
            position, data = position + skipped, data[skipped : skipped + size]
        file.copy(position, data)
        self._leave(dying=dying)

    def cut(self, name: str, size: int, /) -> None:
        """Cut a file that isn't open to its first `size` bytes."""
        dying = self._enter("cut")
        file = self._file(name)
        assert size <= len(file.content), "a file is never made longer"
        if not dying or self._torn % 2:
            file.truncate(size)
        self._leave(dying=dying)

    def truncate(self, handle: int, size: int, /) -> None:
        """Cut a file that is open to its first `size` bytes."""
        file = self._opened(handle)
        dying = self._enter("truncate")
        assert size <= len(file.content), "a file is never made longer"
        if not dying or self._torn % 2:
            file.truncate(size)
        self._leave(dying=dying)

    def sync(self, handle: int, /) -> None:
        """Force what was written to a file that is open onto the disk."""
        file = self._opened(handle)
        try:
            dying = self._enter("sync")
        except OSError:
            file.spoiled = True
            raise
        if not dying or self._torn % 2:
            file.sync()
        self._leave(dying=dying)

    def sync_names(self) -> None:
        """Force onto the disk which files there are."""
        try:
            dying = self._enter("sync_names")
        except OSError:
            self._given_up.update(self._changes)
            self._changes.clear()
            raise
        if not dying or self._torn % 2:
            for name in self._changes:
                if name in self._files:
                    self._durable[name] = self._files[name]
                else:
                    self._durable.pop(name, None)
            self._changes.clear()
        self._leave(dying=dying)

    def close(self, handle: int, /) -> None:
        """Close a file; it is closed afterwards also if there is an error."""
        self._opened(handle)
        del self._handles[handle]
        self._leave(dying=self._enter("close"))

    def delete(self, name: str, /) -> None:
        """Delete a file."""
        dying = self._enter("delete")
        self._file(name)
        if not dying or self._torn % 2:
            del self._files[name]
            self._note(name, None)
        self._leave(dying=dying)

    def _enter(self, call: Call) -> bool:
        """Begin a call: raise what was planned for it; tell whether the process dies in it."""
        self.calls[call] += 1
        dying = self._crash_in == 0
        if self._crash_in:
            self._crash_in -= 1
        if self.read_only and call in _CHANGES:
            raise _error(errno.EROFS)
        if self._faults.get(call):
            raise _error(self._faults[call].pop(0))
        if dying and call in {"names", "read"}:
            self._leave(dying=True)
        return dying

    def _leave(self, *, dying: bool) -> None:
        if dying:
            self.crash()
            raise Crashed

    def _note(self, name: str, file: _File | None) -> None:
        self._changes.setdefault(name, self._given_up.pop(name, [])).append(file)

    def _file(self, name: str) -> _File:
        if name not in self._files:
            raise _error(errno.ENOENT)
        return self._files[name]

    def _opened(self, handle: int) -> _File:
        assert handle in self._handles, "only what is open is used"
        return self._handles[handle]


class SimulatedMemory:
    """A file that is mapped, until it is closed or the process ends."""

    def __init__(self, disk: SimulatedDisk, file: _File) -> None:
        self._disk = disk
        self._file: _File | None = file
        self._position = 0

    def seek(self, position: int, /) -> None:
        """Let the next write begin there."""
        assert self._file is not None
        assert 0 <= position <= len(self._file.content)
        self._position = position

    def write(self, data: bytes, /) -> None:
        """Put bytes where the last write ended."""
        assert self._file is not None, "only what is mapped is used"
        self._disk.copy(self._file, self._position, data)
        self._position += len(data)

    def read(self, size: int, /) -> bytes:
        """Return so many bytes from where the next write would begin."""
        assert self._file is not None
        start, self._position = self._position, self._position + size
        return bytes(self._file.content[start : self._position])

    def close(self) -> None:
        """End the use of the memory."""
        self._file = None


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
