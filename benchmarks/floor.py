"""A process that does the least that a publisher must: take events, join, sign, compress. It sends nothing.

It works through batches of the publisher's size in a bare loop. At the end it prints, in a line of JSON, when
each was complete and how large it was. A publisher is compared with this floor.

It receives the events from a POSIX queue. With `--relay FOLDER` it also appends each to a file there, as a
record of a spool, before it receives the next one. With `--spool FOLDER` it reads them from the segments
there instead, checks their CRCs, and deletes the segments: the least that any reader of a spool must do.
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import select
import struct
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from baseplate_events.spool.format import (
    EVENT,
    EVENT_MARKER,
    IDENTITY_SIZE,
    MAX_HEADER,
    OVERHEAD,
    SEGMENT_SUFFIX,
    Encoder,
    Header,
    pack_prefix,
)
from benchmarks.deep_queue import bare_queue
from benchmarks.light_collector import GZIP

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Bytes of a body, as many as the publisher gathers by default.
_BATCH_SIZE: Final = 512_000

#: Events that are received, and bytes that are read, at a time; bytes of a file to which events are appended.
_BURST: Final = 350
_CHUNK: Final = 256 * 1024
_FILE_SIZE: Final = 4 * 1024 * 1024

#: Seconds until the folder is listed again, if only its last segment is left, to which services append.
_PAUSE: Final = 0.001

#: What batches are signed with.
SECRET: Final = b"the secret of the benchmarks"

_unpack_prefix: Final = struct.Struct(">4sIII").unpack_from


def compress(body: bytes, level: int) -> bytes:
    """Compress in the format of gzip, with nothing between this and zlib."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, GZIP)
    return compressor.compress(body) + compressor.flush()


def received(name: str) -> Iterator[list[bytes]]:
    """Receive forever."""
    queue, busy = bare_queue(name, read=True)
    poller = select.poll()
    poller.register(queue.mqd, select.POLLIN)
    receive = queue.receive
    while True:
        events: list[bytes] = []
        try:
            while len(events) < _BURST:
                events.append(receive()[0])
        except busy:
            if not events:
                poller.poll()
        yield events


def relayed(name: str, folder: Path) -> Iterator[list[bytes]]:
    """Receive forever, and append each event to a file before the next one; large files are deleted."""
    queue, busy = bare_queue(name, read=True)
    poller = select.poll()
    poller.register(queue.mqd, select.POLLIN)
    encoder = Encoder(Header("2", bytes(IDENTITY_SIZE)))
    mask, seed = encoder.mask(EVENT), encoder.seed
    receive, write, pack, crc32 = queue.receive, os.write, pack_prefix, zlib.crc32
    path = folder / "records"
    while True:
        with path.open("ab", buffering=0) as file:
            fd = file.fileno()
            while file.tell() < _FILE_SIZE:
                events: list[bytes] = []
                try:
                    while len(events) < _BURST:
                        event = receive()[0]
                        size = len(event)
                        write(fd, pack(EVENT_MARKER, size, size ^ mask, crc32(event, seed)) + event)
                        events.append(event)
                except busy:
                    if not events:
                        poller.poll()
                yield events
        path.unlink()


def read(folder: Path) -> Iterator[list[bytes]]:
    """Read the segments in a folder forever, one after the other, and delete them."""
    while True:
        done = sorted(folder.glob(f"*{SEGMENT_SUFFIX}"))[:-1]
        for path in done:
            with path.open("rb", buffering=0) as file:
                header = Header.decode(file.read(MAX_HEADER))
                if header is None:
                    raise ValueError(f"{path} has no header")
                encoder, at = Encoder(header), len(header.encode())
                while data := os.pread(file.fileno(), _CHUNK, at):
                    events, size = _whole(data, encoder)
                    at += size
                    yield events
            path.unlink()
        if not done:
            time.sleep(_PAUSE)


def _whole(data: bytes, encoder: Encoder) -> tuple[list[bytes], int]:
    """Return the events in the whole records at the beginning of the data, and the bytes that these take."""
    mask, seed, unpack, crc32 = encoder.mask(EVENT), encoder.seed, _unpack_prefix, zlib.crc32
    at, total = 0, len(data)
    events: list[bytes] = []
    while at + OVERHEAD <= total:
        marker, size, check, crc = unpack(data, at)
        end = at + OVERHEAD + size
        if end > total:
            break
        event = data[at + OVERHEAD : end]
        if marker != EVENT_MARKER or size ^ check != mask or crc32(event, seed) != crc:
            raise ValueError("a record is damaged")
        events.append(event)
        at = end
    return events, at


def batches(bursts: Iterable[list[bytes]]) -> Iterator[tuple[bytes, int]]:
    """Yield the bodies of batches of these events, and the number of events in each."""
    events: list[bytes] = []
    size = 0
    for burst in bursts:
        events += burst
        size += sum(map(len, burst)) + len(burst)
        if size >= _BATCH_SIZE:
            yield b'{"1":{"lst":["rec",%d,%b]}}' % (len(events), b",".join(events)), len(events)
            events, size = [], 0


def main() -> None:
    """Run the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="POSIX name of the queue")
    parser.add_argument("level", type=int, help="level of gzip")
    parser.add_argument("warm_up", type=float, help="seconds that don't count, from the first batch on")
    parser.add_argument("seconds", type=float, help="seconds that count")
    parser.add_argument("--relay", metavar="FOLDER", type=Path, help="append the events to a file there")
    parser.add_argument("--spool", metavar="FOLDER", type=Path, help="read the segments there instead")
    arguments = parser.parse_args()
    if arguments.spool is not None:
        bursts = read(arguments.spool)
    elif arguments.relay is not None:
        bursts = relayed(arguments.name, arguments.relay)
    else:
        bursts = received(arguments.name)
    done: list[tuple[float, int, int]] = []
    warm_at = cpu = 0.0
    for body, count in batches(bursts):
        hmac.digest(SECRET, body, "sha256")
        size = len(compress(body, arguments.level))
        now = time.monotonic()
        warm_at = warm_at or now + arguments.warm_up
        if now < warm_at or not cpu:
            cpu = time.process_time()
            continue
        done.append((now, count, size))
        if now >= warm_at + arguments.seconds and len(done) > 1:
            break
    print(json.dumps({"batches": done, "cpu": time.process_time() - cpu}), flush=True)


if __name__ == "__main__":
    main()
