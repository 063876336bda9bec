"""Serves a disk with a volatile cache to qemu, by the NBD protocol, and cuts the power at a chosen request.

The protocol (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md), as far as qemu uses it:
fixed newstyle negotiation with NBD_OPT_GO, simple replies, and the requests read, write, flush and
disconnect. Numbers are big-endian.

    server  NBDMAGIC IHAVEOPT flags:u16        client  flags:u32
    client  IHAVEOPT option:u32 length:u32 data
    server  0x3e889045565a9:u64 option:u32 type:u32 length:u32 data
    client  0x25609513:u32 flags:u16 type:u16 handle:u64 offset:u64 length:u32 [data]
    server  0x67446698:u32 error:u32 handle:u64 [data]

Once the power is cut, no request has an effect or an answer: the machine sees a disk that doesn't answer,
until it is killed.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
import threading
from typing import TYPE_CHECKING, BinaryIO, Final

from tests.machine.volatile_disk import BLOCK

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine.volatile_disk import VolatileDisk

_HELLO: Final = b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3)  # fixed newstyle, no zeroes
_OPTION: Final = struct.Struct(">8sII")
_OPTION_REPLY: Final = struct.Struct(">QIII")
_REQUEST: Final = struct.Struct(">IHHQQI")
_REPLY: Final = struct.Struct(">IIQ")

_OPTION_MAGIC: Final = 0x3E889045565A9
_REPLY_MAGIC: Final = 0x67446698

_OPT_ABORT: Final = 2
_OPT_INFO: Final = 6
_OPT_GO: Final = 7
_REP_ACK: Final = 1
_REP_INFO: Final = 3
_REP_ERR_UNSUP: Final = 2**31 + 1
_INFO_EXPORT: Final = 0
_INFO_BLOCK_SIZE: Final = 3

#: What the server can: it has flags, and sends flush and FUA.
_EXPORT_FLAGS: Final = 1 | 4 | 8
_LARGEST_REQUEST: Final = 1 << 25

_READ: Final = 0
_WRITE: Final = 1
_DISCONNECT: Final = 2
_FLUSH: Final = 3
_FORCE: Final = 1


class Moment(enum.Enum):
    """Which requests are counted until the power is cut, and what becomes of the last one."""

    #: Writes; the last one is in the cache, so that it may be kept.
    WRITE = "write"
    #: Flushes; the last one did nothing yet.
    BEFORE_SYNC = "before sync"
    #: Flushes; the last one was made, but has no answer yet.
    AFTER_SYNC = "after sync"


class NbdServer:
    """Serves a disk to one client after another, until it is closed.

    Args:
        disk: The disk.
        path: That of a Unix socket to make.

    Attributes:
        writes: Requests that wrote.
        flushes: Requests that flushed.
    """

    def __init__(self, disk: VolatileDisk, path: Path) -> None:
        self.writes = 0
        self.flushes = 0
        self._disk = disk
        self._lock = threading.Lock()
        self._cut = threading.Event()
        self._countdown: tuple[Moment, int] | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept, name="nbd", daemon=True)
        self._thread.start()

    def arm(self, moment: Moment, count: int) -> None:
        """Cut the power at the request of this number from now on."""
        with self._lock:
            self._countdown = moment, count

    def wait_for_cut(self, timeout: float) -> bool:
        """Wait until an armed cut has come, and return whether it has."""
        return self._cut.wait(timeout)

    def cut(self) -> None:
        """Cut the power now."""
        with self._lock:
            self._cut.set()

    def restore(self) -> None:
        """Give a new machine power; the old one must have ended."""
        with self._lock:
            self._countdown = None
            self._cut.clear()

    def close(self) -> None:
        """Serve no one any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with (
                connection,
                contextlib.suppress(OSError, EOFError, struct.error),
                connection.makefile("rb") as stream,
            ):
                if self._negotiate(connection, stream):
                    self._serve(connection, stream)

    def _negotiate(self, connection: socket.socket, stream: BinaryIO) -> bool:
        connection.sendall(_HELLO)
        _exactly(stream, 4)
        while True:
            _, option, length = _OPTION.unpack(_exactly(stream, _OPTION.size))
            _exactly(stream, length)

            def reply(kind: int, data: bytes = b"", option: int = option) -> None:
                connection.sendall(_OPTION_REPLY.pack(_OPTION_MAGIC, option, kind, len(data)) + data)

            if option in {_OPT_INFO, _OPT_GO}:
                reply(_REP_INFO, struct.pack(">HQH", _INFO_EXPORT, self._disk.size, _EXPORT_FLAGS))
                reply(_REP_INFO, struct.pack(">HIII", _INFO_BLOCK_SIZE, 1, BLOCK, _LARGEST_REQUEST))
                reply(_REP_ACK)
                if option == _OPT_GO:
                    return True
            elif option == _OPT_ABORT:
                reply(_REP_ACK)
                return False
            else:
                reply(_REP_ERR_UNSUP)

    def _serve(self, connection: socket.socket, stream: BinaryIO) -> None:
        while True:
            _, flags, kind, handle, offset, length = _REQUEST.unpack(_exactly(stream, _REQUEST.size))
            data = _exactly(stream, length) if kind == _WRITE else b""
            if kind == _DISCONNECT:
                return
            with self._lock:
                answer = b"" if self._cut.is_set() else self._do(kind, offset, length, data, flags)
                is_cut = self._cut.is_set()
            if not is_cut:
                connection.sendall(_REPLY.pack(_REPLY_MAGIC, 0, handle) + answer)

    def _do(self, kind: int, offset: int, length: int, data: bytes, flags: int) -> bytes:
        """Do what a request says, unless the power is cut before."""
        syncs = kind == _FLUSH or bool(kind == _WRITE and flags & _FORCE)
        if kind == _READ:
            return self._disk.read(offset, length)
        if kind == _WRITE:
            self.writes += 1
            self._disk.write(offset, data)
            self._count(Moment.WRITE)
        if syncs and not self._cut.is_set():
            self.flushes += 1
            self._count(Moment.BEFORE_SYNC)
            if not self._cut.is_set():
                if kind == _FLUSH:
                    self._disk.flush()
                else:
                    self._disk.force(offset, length)
                self._count(Moment.AFTER_SYNC)
        return b""

    def _count(self, moment: Moment) -> None:
        """Count a request, and cut the power if it is the chosen one."""
        if self._countdown is not None and self._countdown[0] is moment:
            left = self._countdown[1] - 1
            self._countdown = moment, left
            if left == 0:
                self._cut.set()


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data
