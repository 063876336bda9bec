"""Dead letters: events that were given up, on disk with what was wrong, until somebody looks at them.

Layout of the folder, which one publisher at a time writes to:

    letters-0000000003.jsonl    letters, one a line (see `letters`), in the order in which they were buried

Rules:

1. A letter is in the operating system's hands when `write` returns, so that a crash of the process can't lose
   it; with `sync` it is on the disk.
2. The writer waits for nobody. Whoever changes a file locks it meanwhile. A writer that finds its file locked
   or deleted goes on in a new one, and doesn't drop a file that is locked. So nothing is appended to a file
   while a command empties it, and commands work while a publisher runs.
3. A letter is taken out by blanks written over it, beginning with its first byte. That takes no room on the
   disk, moves no other letter, and done half is done. A file in which nothing is left is deleted.
4. Reading takes no lock. A last line without its end was torn by a crash, or is being written: its `write`
   didn't return. Nothing is ever appended to it, for a writer begins with a new file.
5. Files are 0600 in a folder that is 0700 (see `disk`), for they hold what users did. Links aren't followed:
   an administrator may run a command on the folder of a user.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from ..storage import Folder, SpoolError, StorageError
from .record import Number, Unreadable, format_letter, is_taken_out, parse_line

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from .record import Entry

#: Files that the largest size is divided into: about an eighth of the letters is dropped at a time.
_FILES: Final = 8

#: Seconds that a command tries to lock a file. A publisher locks one for the time of a write, a command for
#: as long as it is at work on it.
_LOCK_PATIENCE: Final = 5.0

#: Seconds between two tries.
_LOCK_INTERVAL: Final = 0.01

_NAME: Final = re.compile(r"letters-(\d{10})\.jsonl")


class DeadLetterError(StorageError):
    """Raised when dead letters can't be written, read or taken out."""

    _what = "Dead letters"


class DeadLetters:
    """The writer: the end of the events that a publisher gives up. Used by one thread.

    Args:
        directory: The folder, which is made if it isn't there and locked until `close`.
        max_size: Bytes that all letters together may take, whereupon the oldest are dropped, a file at a
            time. More is taken only by a single letter that is larger, and by a file that a command is at
            work on.
        sync: Whether each letter is forced onto the disk before `write` returns.
        wall_clock: Gives the seconds since 1970.

    Raises:
        DeadLetterError: The folder can't be made or used, or another publisher uses it.
    """

    def __init__(
        self,
        directory: str,
        *,
        max_size: int,
        sync: bool = False,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._max_size = max_size
        self._sync = sync
        self._wall_clock = wall_clock
        try:
            self._folder: Folder = Folder(directory)
        except SpoolError as exc:
            raise DeadLetterError(exc.path, exc.problem) from exc
        with contextlib.ExitStack() as undo, _translated(directory, "can't be read"):
            undo.callback(self._folder.release)
            # Files are named within it, also if the folder is moved meanwhile.
            self._within: int = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            undo.callback(os.close, self._within)
            sizes = self._measure()
            self._close: contextlib.ExitStack = undo.pop_all()
        # At least what the letters take; commands may have made it less.
        self._size = sum(sizes.values())
        self._newest = max(sizes, default=0)
        # The file that is being written, if any, and whether that went wrong, so that it is to be left.
        self._handle: int | None = None
        self._is_spoiled = False
        self._uncounted = 0
        self._closed = False

    def write(self, event: bytes, *, status: int | None, reason: str, excerpt: bytes = b"") -> int:
        """Add a letter.

        Args:
            event: The event as it was received, any bytes.
            status: The HTTP status that refused it, or None.
            reason: What was wrong.
            excerpt: The collector's answer, of which the first 1,024 bytes are kept.

        Returns:
            How many old letters were dropped, also by calls since the last that returned.

        Raises:
            DeadLetterError: The disk is full or fails, or the writer was closed; the letter isn't there.
        """
        if self._closed:
            raise DeadLetterError(self._directory, "was closed; make a new writer to go on")
        line = format_letter(
            event, wall_time=self._wall_clock(), status=status, reason=reason, excerpt=excerpt
        )
        with _translated(self._directory, "can't be written"):
            if self._size > self._max_size:  # as it is after a deletion that failed
                self._shrink()
            self._append(line)
        self._size += len(line)
        if self._size > self._max_size:
            # The letter is there: a disk that fails now is the next call's error.
            with contextlib.suppress(OSError):
                self._shrink()
        dropped, self._uncounted = self._uncounted, 0
        return dropped

    def close(self) -> None:
        """Let go of the folder; the letters stay. Closing again does nothing."""
        if not self._closed:
            self._closed = True
            self._leave()
            self._close.close()

    def _append(self, line: bytes) -> None:
        while True:  # ends, for a command takes only files that were there when it began
            handle = self._start() if self._handle is None else self._handle
            if _try_lock(handle):
                try:
                    state = os.fstat(handle)
                    fits = state.st_size == 0 or state.st_size + len(line) <= self._max_size // _FILES
                    if fits and state.st_nlink and not self._is_spoiled:
                        self._write(handle, line, state.st_size)
                        return
                finally:
                    fcntl.flock(handle, fcntl.LOCK_UN)
            self._leave()

    def _start(self) -> int:
        self._newest += 1
        handle = self._handle = self._folder.create(_name(self._newest))
        if self._sync:
            self._is_spoiled = True  # unless the disk knows that it is there
            self._folder.sync_names()
            self._is_spoiled = False
        return handle

    def _leave(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self._is_spoiled = False
            self._folder.close(handle)

    def _write(self, handle: int, line: bytes, size: int) -> None:
        """Append a line to a file of this size, or leave the file as it is."""
        try:
            while line:
                line = line[self._folder.write(handle, line) :]
            if self._sync:
                self._is_spoiled = True  # after an error it isn't known what of the file is on the disk
                self._folder.sync(handle)
                self._is_spoiled = False
        except OSError:
            try:
                self._folder.truncate(handle, size)
            except OSError:
                self._is_spoiled = True  # so that the torn line remains the last of its file
            raise

    def _shrink(self) -> None:
        """Drop the oldest files until the rest is small enough, but none that a command is at work on."""
        sizes = self._measure()
        self._size = sum(sizes.values())
        for number in sorted(sizes):
            if self._size <= self._max_size:
                break
            in_use = self._handle is not None and number == self._newest
            if not in_use and self._drop(number):
                self._size -= sizes[number]

    def _drop(self, number: int) -> bool:
        """Delete a file and count its letters; tell whether it is gone."""
        file = _open(_name(number), within=self._within)
        if file is None:
            return True
        with file:
            if not _try_lock(file.fileno()):
                return False
            if os.fstat(file.fileno()).st_nlink:
                letters = sum(line.endswith(b"\n") and not is_taken_out(line) for line in file)
                self._folder.delete(_name(number))
                self._uncounted += letters
        return True

    def _measure(self) -> dict[int, int]:
        """Give the sizes of the files by their numbers."""
        sizes: dict[int, int] = {}
        for number in _numbers(self._folder.names()):
            with contextlib.suppress(FileNotFoundError):  # a command may delete it at any moment
                name = _name(number)
                sizes[number] = os.stat(name, dir_fd=self._within, follow_symlinks=False).st_size
        return sizes


def file_numbers(directory: str) -> list[int]:
    """Give the numbers of the files in a folder of dead letters, oldest first.

    Raises:
        DeadLetterError: The folder can't be read.
    """
    with _translated(directory, "can't be read"):
        return _numbers([path.name for path in Path(directory).iterdir()])


def read_letters(directory: str, number: int) -> Iterator[Entry]:
    """Read a file, oldest letter first, also while others change it; nothing if it is gone.

    Raises:
        DeadLetterError: It can't be read.
    """
    path = _path(directory, number)
    with _translated(path, "can't be opened"):
        file = _open(path, change=False)
    if file is not None:
        with file:
            for entry, _ in _entries(file, path, number):
                yield entry


def take_out(directory: str, number: int, take: Callable[[Entry], bool]) -> None:
    """Give each line of a file to `take`, oldest first, and take out those for which it returns True.

    Each is out before the next is given, so that whatever ends this, no more than one was taken without being
    out. The file is locked meanwhile, and deleted if nothing is left. A torn line isn't given, and counts as
    nothing. If the file is gone already, nothing happens.

    Args:
        directory: The folder.
        number: Number of the file.
        take: Tells whether the line is to be taken out. What it raises ends this.

    Raises:
        DeadLetterError: The file can't be changed, or another command is at work on it.
    """
    path = _path(directory, number)
    with _translated(path, "can't be opened"):
        file = _open(path)
    if file is None:
        return
    with file:
        handle = file.fileno()
        with _translated(path, "can't be locked"):
            _lock(handle, path)
        if not os.fstat(handle).st_nlink:
            return
        left = False
        for entry, span in _entries(file, path, number):
            if isinstance(entry, Unreadable) and entry.torn:
                continue
            if take(entry):
                with _translated(path, f"letter {entry.number} can't be taken out"):
                    os.pwrite(handle, b" " * (len(span) - 1), span.start)
            else:
                left = True
        if not left:
            with _translated(path, "can't be deleted"):
                Path(path).unlink()


def _entries(file: BinaryIO, path: str, number: int) -> Iterator[tuple[Entry, range]]:
    """Give the lines of a file, but for what was taken out, and where in the file each is."""
    start = 0
    with _translated(path, "can't be read"):
        for index, line in enumerate(file, 1):
            entry = parse_line(line, Number(number, index))
            if entry is not None:
                yield entry, range(start, start + len(line))
            start += len(line)


def _lock(handle: int, path: str) -> None:
    deadline = time.monotonic() + _LOCK_PATIENCE
    while not _try_lock(handle):
        if time.monotonic() >= deadline:
            raise DeadLetterError(path, "another command is at work on it; wait for its end")
        time.sleep(_LOCK_INTERVAL)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: str, *, change: bool = True, within: int | None = None) -> BinaryIO | None:
    """Open a file to read it, and perhaps to change it by its descriptor; None if it isn't there.

    Args:
        path: Its path, or its name within the folder that is open as `within`.
        change: Whether it is to be changed.
        within: The folder's descriptor.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_RDWR if change else os.O_RDONLY)
    try:
        handle = os.open(path, flags, dir_fd=within)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "Not a regular file")
    return os.fdopen(handle, "rb")


def _numbers(names: list[str]) -> list[int]:
    return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)


def _name(number: int) -> str:
    return f"letters-{number:010d}.jsonl"


def _path(directory: str, number: int) -> str:
    return str(Path(directory, _name(number)))


@contextlib.contextmanager
def _translated(path: str, problem: str) -> Generator[None]:
    try:
        yield
    except OSError as exc:
        raise DeadLetterError(path, f"{problem}: {exc.strerror or exc}") from exc
