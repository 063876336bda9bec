"""A process that does the least that a publisher must: receive, join, sign, compress. It sends nothing.

It works through batches of the publisher's size in a bare loop. At the end it prints, in a line of JSON, when
each was complete and how large it was. A publisher is compared with this floor.
"""

from __future__ import annotations

import argparse
import hmac
import json
import select
import time
import zlib
from typing import TYPE_CHECKING, Final

from benchmarks.deep_queue import bare_queue
from benchmarks.light_collector import GZIP

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Bytes of a body, as many as the publisher gathers by default.
_BATCH_SIZE: Final = 512_000

#: What batches are signed with.
SECRET: Final = b"the secret of the benchmarks"


def compress(body: bytes, level: int) -> bytes:
    """Compress in the format of gzip, with nothing between this and zlib."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, GZIP)
    return compressor.compress(body) + compressor.flush()


def batches(name: str) -> Iterator[tuple[bytes, int]]:
    """Receive forever; yield the body of each batch and the number of its events."""
    queue, busy = bare_queue(name, read=True)
    poller = select.poll()
    poller.register(queue.mqd, select.POLLIN)
    receive = queue.receive
    while True:
        events: list[bytes] = []
        size = 0
        while size < _BATCH_SIZE:
            try:
                event, _ = receive()
            except busy:
                poller.poll()
                continue
            events.append(event)
            size += len(event) + 1
        yield b'{"1":{"lst":["rec",%d,%b]}}' % (len(events), b",".join(events)), len(events)


def main() -> None:
    """Run the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="POSIX name of the queue")
    parser.add_argument("level", type=int, help="level of gzip")
    parser.add_argument("warm_up", type=float, help="seconds that don't count, from the first batch on")
    parser.add_argument("seconds", type=float, help="seconds that count")
    arguments = parser.parse_args()
    done: list[tuple[float, int, int]] = []
    warm_at = cpu = 0.0
    for body, count in batches(arguments.name):
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
