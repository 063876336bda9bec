"""The blocks of a disk with a volatile cache, and what a power cut leaves of them.

Rules:

1. What was written before a flush that has ended is durable, and so is a write that forces unit access (FUA).
2. Of what was written since then, each block is durable or not, on its own: a cut keeps some blocks, each
with any of
   the contents that it had since the flush.
3. A block of 4 KiB is kept whole or not at all. Smaller tears of the superblock make ext4 unmountable, which
   no disk with sectors of 4 KiB does.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from pathlib import Path

#: Bytes of a block.
BLOCK: Final = 4_096


@dataclass(frozen=True)
class Loss:
    """What a power cut did.

    Attributes:
        unflushed: Blocks that were written after the last flush.
        lost: How many of them have their last flushed contents again, or an older one of those since.
    """

    unflushed: int
    lost: int


class VolatileDisk:
    """A disk. What is written stays in memory; the file isn't changed.

    Args:
        base: The file with its first contents; bytes beyond its end are zero.
        size: Bytes; a multiple of `BLOCK`.
    """

    def __init__(self, base: Path, size: int) -> None:
        assert size % BLOCK == 0
        self.size = size
        self._base = base
        self._fd = os.open(base, os.O_RDONLY)
        self._durable: dict[int, bytes] = {}
        # The contents of a block since the last flush, the latest last.
        self._volatile: dict[int, list[bytes]] = {}

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _block(self, index: int) -> bytes:
        """Return what the machine sees."""
        versions = self._volatile.get(index)
        return versions[-1] if versions else self._durable_block(index)

    def _durable_block(self, index: int) -> bytes:
        block = self._durable.get(index)
        return os.pread(self._fd, BLOCK, index * BLOCK).ljust(BLOCK, b"\0") if block is None else block

    def read(self, offset: int, length: int) -> bytes:
        """Return what was written last."""
        first, last = offset // BLOCK, (offset + length - 1) // BLOCK
        blocks = b"".join(map(self._block, range(first, last + 1)))
        return blocks[offset - first * BLOCK :][:length]

    def write(self, offset: int, data: bytes) -> None:
        """Write into the cache."""
        view = memoryview(data)
        while view:
            index, begin = divmod(offset, BLOCK)
            part = view[: BLOCK - begin]
            block = part if len(part) == BLOCK else _with(self._block(index), begin, part)
            self._volatile.setdefault(index, []).append(bytes(block))
            offset += len(part)
            view = view[len(part) :]

    def force(self, offset: int, length: int) -> None:
        """Make the blocks durable that these bytes are in."""
        for index in range(offset // BLOCK, (offset + length - 1) // BLOCK + 1):
            versions = self._volatile.pop(index, None)
            if versions:
                self._durable[index] = versions[-1]

    def flush(self) -> None:
        """Make all durable that was written."""
        for index, versions in self._volatile.items():
            self._durable[index] = versions[-1]
        self._volatile.clear()

    def cut(self, chance: random.Random, keep: float) -> Loss:
        """Cut the power.

        Args:
            chance: Chooses what is kept.
            keep: The part of the unflushed blocks that is kept: 0 to 1. A block is kept in any of its
                contents, except
                if all are: then it is in its last.
        """
        lost = 0
        for index, versions in self._volatile.items():
            kept = versions[-1] if keep >= 1 else chance.choice(versions) if chance.random() < keep else None
            if kept is not None:
                self._durable[index] = kept
            lost += kept is not versions[-1]
        loss = Loss(len(self._volatile), lost)
        self._volatile.clear()
        return loss

    def dump(self, path: Path) -> None:
        """Write what is durable into a file."""
        shutil.copyfile(self._base, path)
        with path.open("r+b") as file:
            file.truncate(self.size)
            for index, block in self._durable.items():
                file.seek(index * BLOCK)
                file.write(block)


def _with(block: bytes, begin: int, part: memoryview) -> bytes:
    """Return a block with a part of it replaced."""
    return block[:begin] + bytes(part) + block[begin + len(part) :]
