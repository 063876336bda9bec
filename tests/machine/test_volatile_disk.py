from __future__ import annotations

import contextlib
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from tests.machine.volatile_disk import BLOCK, VolatileDisk

if TYPE_CHECKING:
    from collections.abc import Generator

BLOCKS = 4
SIZE = BLOCKS * BLOCK

#: Writes of some sectors of 512 bytes, each with a byte of its own; None is a flush.
WRITES = st.lists(
    st.none()
    | st.tuples(st.integers(0, SIZE // 512 - 1), st.integers(1, 20), st.integers(1, 255)).map(
        lambda drawn: (drawn[0] * 512, min(drawn[1] * 512, SIZE - drawn[0] * 512), drawn[2])
    ),
    max_size=12,
)
KEPT = st.sampled_from([0.0, 0.3, 0.7, 1.0])


@contextlib.contextmanager
def disk_of(contents: bytes) -> Generator[VolatileDisk]:
    """Make a disk with these first contents."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        base.write_bytes(contents)
        with contextlib.closing(VolatileDisk(base, SIZE)) as disk:
            yield disk


def blocks_of(contents: bytes | bytearray) -> list[bytes]:
    """Cut contents into blocks."""
    return [bytes(contents[begin : begin + BLOCK]) for begin in range(0, SIZE, BLOCK)]


@given(writes=WRITES, keep=KEPT, seed=st.integers(0, 100))
def test_a_cut_takes_only_what_was_not_flushed(
    writes: list[tuple[int, int, int] | None], keep: float, seed: int
) -> None:
    """What is read was written last; after a cut, a block has its last flushed contents or any since."""
    model = bytearray(b"\xee" * 5_000).ljust(SIZE, b"\0")
    possible = [{block} for block in blocks_of(model)]
    with disk_of(bytes(model[:5_000])) as disk:
        for write in writes:
            if write is None:
                disk.flush()
                possible = [{block} for block in blocks_of(model)]
            else:
                offset, length, byte = write
                disk.write(offset, bytes([byte]) * length)
                model[offset : offset + length] = bytes([byte]) * length
                for allowed, block in zip(possible, blocks_of(model), strict=True):
                    allowed.add(block)
            assert disk.read(0, SIZE) == model
        loss = disk.cut(random.Random(seed), keep)
        left = blocks_of(disk.read(0, SIZE))
        assert all(block in allowed for block, allowed in zip(left, possible, strict=True))
        assert loss.lost <= loss.unflushed
        if keep == 1.0:
            assert left == blocks_of(model)


@given(writes=WRITES)
def test_a_disk_may_keep_nothing(writes: list[tuple[int, int, int] | None]) -> None:
    """If it keeps nothing, it has the contents of the last flush."""
    flushed = bytes(SIZE)
    with disk_of(b"") as disk:
        for write in writes:
            if write is None:
                disk.flush()
                flushed = disk.read(0, SIZE)
            else:
                disk.write(write[0], bytes([write[2]]) * write[1])
        disk.cut(random.Random(0), 0)
        assert flushed == disk.read(0, SIZE)


@given(offset=st.integers(0, SIZE - 1), length=st.integers(1, SIZE))
def test_a_read_needs_no_alignment(offset: int, length: int) -> None:
    """Any bytes can be read."""
    contents = bytes(index % 251 for index in range(SIZE))
    length = min(length, SIZE - offset)
    with disk_of(contents[: SIZE // 2]) as disk:
        disk.write(SIZE // 2, contents[SIZE // 2 :])
        assert contents[offset : offset + length] == disk.read(offset, length)


def test_a_forced_write_is_durable() -> None:
    """What was forced survives a cut, what was written beside it doesn't."""
    with disk_of(b"") as disk:
        disk.write(0, b"a" * BLOCK)
        disk.write(BLOCK, b"b" * BLOCK)
        disk.force(0, BLOCK)
        disk.cut(random.Random(0), 0)
        assert b"a" * BLOCK + bytes(BLOCK) == disk.read(0, 2 * BLOCK)


def test_a_dump_has_what_is_durable(tmp_path: Path) -> None:
    """A file made of a disk has what was flushed."""
    with disk_of(b"first") as disk:
        disk.write(2 * BLOCK, b"c" * BLOCK)
        disk.flush()
        disk.write(0, b"d" * BLOCK)
        disk.dump(tmp_path / "dump")
        expected = b"first".ljust(2 * BLOCK, b"\0") + b"c" * BLOCK + bytes(BLOCK)
        assert expected == (tmp_path / "dump").read_bytes()
