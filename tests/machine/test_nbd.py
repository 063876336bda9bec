from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
from typing import TYPE_CHECKING, final

import pytest

from tests.machine.nbd import Moment, NbdServer
from tests.machine.volatile_disk import BLOCK, VolatileDisk

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

SIZE = 8 * BLOCK

#: Seconds after which no answer will come; a server that answers takes far less.
ANSWER = 0.5


@final
class Client:
    """Speaks NBD, as qemu does; a context manager."""

    def __init__(self, path: Path) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(path))
        self._stream = self._connection.makefile("rb")
        assert self._stream.read(18)[:16] == b"NBDMAGICIHAVEOPT"
        self._connection.sendall(struct.pack(">I", 1))
        self._connection.sendall(struct.pack(">8sII", b"IHAVEOPT", 8, 0))  # structured replies: it has none
        assert struct.unpack(">QIII", self._stream.read(20))[2] == 2**31 + 1
        self._connection.sendall(struct.pack(">8sII", b"IHAVEOPT", 7, 6) + bytes(6))
        replies: list[tuple[int, bytes]] = []
        while not replies or replies[-1][0] != 1:
            _, _, kind, length = struct.unpack(">QIII", self._stream.read(20))
            replies.append((kind, self._stream.read(length)))
        assert struct.unpack(">HQH", replies[0][1])[1] == SIZE

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()
        self._connection.close()

    def read(self, offset: int, length: int) -> bytes:
        """Read."""
        answer = self._ask(0, offset, length)
        assert answer is not None
        return answer

    def write(self, offset: int, data: bytes, *, forced: bool = False) -> bool:
        """Write, and return whether there is an answer."""
        return self._ask(1, offset, len(data), data, flags=int(forced)) is not None

    def flush(self) -> bool:
        """Flush, and return whether there is an answer."""
        return self._ask(3, 0, 0) is not None

    def _ask(self, kind: int, offset: int, length: int, data: bytes = b"", *, flags: int = 0) -> bytes | None:
        request = struct.pack(">IHHQQI", 0x25609513, flags, kind, 7, offset, length)
        self._connection.sendall(request + data)
        if select.select([self._connection], [], [], ANSWER)[0] == []:
            return None
        assert struct.unpack(">IIQ", self._stream.read(16)) == (0x67446698, 0, 7)
        return self._stream.read(length) if kind == 0 else b""


@pytest.fixture
def disk(tmp_path: Path) -> Generator[VolatileDisk]:
    """A disk of zeros."""
    (tmp_path / "base").write_bytes(b"")
    with contextlib.closing(VolatileDisk(tmp_path / "base", SIZE)) as disk:
        yield disk


@pytest.fixture
def server(disk: VolatileDisk, tmp_path: Path) -> Generator[NbdServer]:
    """Serves the disk."""
    with contextlib.closing(NbdServer(disk, tmp_path / "socket")) as server:
        yield server


def left(disk: VolatileDisk) -> bytes:
    """Lose what was not flushed, and return the first bytes of the first blocks."""
    disk.cut(random.Random(0), 0)
    return disk.read(0, SIZE)[::BLOCK]


def test_requests_do_what_they_say(server: NbdServer, disk: VolatileDisk, tmp_path: Path) -> None:
    """What was written is read; what was flushed or forced is durable."""
    with Client(tmp_path / "socket") as client:
        assert client.write(0, b"a" * BLOCK)
        assert client.flush()
        assert client.write(BLOCK, b"b" * BLOCK)
        assert client.write(2 * BLOCK, b"c" * BLOCK, forced=True)
        assert b"ab" == client.read(0, 2 * BLOCK)[::BLOCK]
    assert (3, 2) == (server.writes, server.flushes)
    assert b"a\0c" == left(disk)[:3]


@pytest.mark.parametrize(
    ("moment", "count", "answers", "kept"),
    [
        (Moment.WRITE, 1, [False, False, False, False], b"\0\0"),
        (Moment.WRITE, 2, [True, True, False, False], b"a\0"),
        (Moment.BEFORE_SYNC, 1, [True, False, False, False], b"\0\0"),
        (Moment.AFTER_SYNC, 1, [True, False, False, False], b"a\0"),
        (Moment.BEFORE_SYNC, 2, [True, True, True, False], b"a\0"),
        (Moment.AFTER_SYNC, 2, [True, True, True, False], b"ab"),
    ],
)
def test_power_is_cut_at_the_moment(
    server: NbdServer,
    disk: VolatileDisk,
    tmp_path: Path,
    moment: Moment,
    count: int,
    answers: list[bool],
    kept: bytes,
) -> None:
    """From the chosen request on, no request is answered or has an effect."""
    server.arm(moment, count)
    with Client(tmp_path / "socket") as client:
        answered = [
            client.write(0, b"a" * BLOCK),
            client.flush(),
            client.write(BLOCK, b"b" * BLOCK),
            client.flush(),
        ]
    assert answers == answered
    assert server.wait_for_cut(0)
    assert kept == left(disk)[:2]


def test_a_disk_is_served_again_after_a_cut(server: NbdServer, disk: VolatileDisk, tmp_path: Path) -> None:
    """The next machine finds what the cut left."""
    with Client(tmp_path / "socket") as first:
        assert first.write(0, b"a" * BLOCK)
        server.cut()
        assert not first.flush()
    disk.cut(random.Random(0), 1)
    server.restore()
    with Client(tmp_path / "socket") as second:
        assert b"a" == second.read(0, BLOCK)[:1]
