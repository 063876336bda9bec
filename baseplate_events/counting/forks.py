"""Values that belong to one process: a forked child starts with new ones.

Rules:

1. A fork is noticed whoever makes it, also C code that runs none of Python's hooks, such as uWSGI's.
2. It is noticed at the next use, before anything is counted. So no count of a parent is ever its child's.
3. Nothing is locked, so a fork at any moment leaves no lock behind. Threads of a child that are first at the
   same time get the same value.

How a process knows that it is new: a page of memory is cleared by the kernel in each child (MADV_WIPEONFORK,
madvise(2)). To look at it costs some ten nanoseconds, less than `getpid`, and holds across PID namespaces,
in which a child may have its parent's number.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

#: madvise(2), from Linux 4.14 on; Python has no name for it.
_MADV_WIPEONFORK = 18

#: The greatest value of a cell.
_MOST = 255

T = TypeVar("T")


class Cell(Protocol):
    """Two bytes of memory that are 0 in a forked child. `OfProcess` uses the first; the second is free."""

    def __getitem__(self, index: int, /) -> int:
        """Return a byte."""
        ...

    def __setitem__(self, index: int, value: int, /) -> None:
        """Set a byte."""
        ...


class Held(Generic[T]):
    """The value of one process.

    Attributes:
        cell: Has the same mark while this is the value of the process.
        mark: 1 to 255.
        value: The value.
        successors: The value of a child, under `None`, from its first use on.
    """

    __slots__ = ("cell", "mark", "successors", "value")

    def __init__(self, cell: Cell, mark: int, value: T) -> None:
        self.cell: Cell = cell
        self.mark: int = mark
        self.value: T = value
        self.successors: dict[None, Held[T]] = {}


class OfProcess(Generic[T]):
    """A value that each process has its own of.

    Args:
        make: Makes the value of a process.
        cell: Notices forks; None for the one that this system has.

    Attributes:
        held: The value of this process if its cell has its mark; otherwise that of an ancestor.
    """

    __slots__ = ("_make", "held")

    def __init__(self, make: Callable[[], T], cell: Cell | None = None) -> None:
        self._make = make
        self.held: Held[T] = Held(_new_cell() if cell is None else cell, 1, make())
        self.held.cell[0] = 1

    def get(self) -> T:
        """Return the value of this process."""
        held = self.held
        if held.cell[0] != held.mark:
            # One step, so that all threads of a child get the same. The mark is set before `held`: a thread
            # that sees only the mark comes here too, and one that sees `held` sees its mark.
            held = held.successors.setdefault(None, Held(held.cell, held.mark % _MOST + 1, self._make()))
            held.cell[0] = held.mark
            self.held = held
        return held.value


class _NumberedCell:
    """A cell for systems whose kernel clears no memory. It compares process numbers, which takes longer."""

    __slots__ = ("_bytes", "_processes")

    def __init__(self) -> None:
        self._bytes = [0, 0]
        self._processes = [0, 0]

    def __getitem__(self, index: int, /) -> int:
        return self._bytes[index] if self._processes[index] == os.getpid() else 0

    def __setitem__(self, index: int, value: int, /) -> None:
        self._bytes[index] = value  # first, as another thread may look in between
        self._processes[index] = os.getpid()


def _new_cell() -> Cell:
    if sys.platform == "linux":
        try:
            from mmap import (  # noqa: PLC0415 - a program that makes no queue doesn't need it
                MAP_ANONYMOUS,
                MAP_PRIVATE,
                PAGESIZE,
                mmap,
            )

            page = mmap(-1, PAGESIZE, flags=MAP_PRIVATE | MAP_ANONYMOUS)
            page.madvise(_MADV_WIPEONFORK)
        except (ImportError, OSError):  # an older kernel, or a sandbox such as gVisor
            pass
        else:
            return page
    return _NumberedCell()
