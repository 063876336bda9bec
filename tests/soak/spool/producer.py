"""A service that puts events until it is killed, in threads and in children that it forks, as fast as it can.

Usage: python -m tests.soak.spool.producer NAME LOG THREADS SEED; the spool is in EVENT_SPOOL_DIRECTORY.

Its children put in threads, too. It kills each child after some events and forks another, while its own
threads continue: so at any moment some process is forking, starting a segment, or being killed in a write.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Final, NoReturn

from baseplate_events import EventQueue, EventQueueFullError
from tests.soak.spool.oracle import Entry, encode, make_event

if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes of undelivered events that the spool holds.
MAX_SPOOL_SIZE: Final = 64 * 1024 * 1024

#: Events that a thread of a child puts at most before the child is killed.
_CHILD_EVENTS: Final = 400

#: Seconds that a refused thread leaves the processor to the reader.
_PAUSE: Final = 0.002


def put_events(
    queue: EventQueue[bytes], log: int, after: int = 0, then: Callable[[], object] = bool
) -> NoReturn:
    """Put the events of a lane of its own until the process is killed.

    Args:
        queue: The queue to put them on.
        log: Descriptor of the log.
        after: Events after which to call `then`, once.
        then: The function.
    """
    lane = int.from_bytes(os.urandom(8), "big")
    number = 0
    while True:
        try:
            queue.put(make_event(lane, number))
        except EventQueueFullError:
            os.write(log, encode(Entry.REFUSED, lane, number))
            time.sleep(_PAUSE)
        else:
            os.write(log, encode(Entry.ACKNOWLEDGED, lane, number))
        number += 1
        if number == after:
            then()


def main(name: str, log_path: str, threads: int, seed: int) -> NoReturn:
    """Put events."""
    chance = random.Random(seed)
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    queue = EventQueue(name, bytes, max_spool_size=MAX_SPOOL_SIZE)

    def start_threads() -> None:
        for _ in range(threads):
            threading.Thread(target=put_events, args=(queue, log), daemon=True).start()

    start_threads()
    while True:
        ready, announce = os.pipe()
        after = chance.randint(1, _CHILD_EVENTS)
        child = os.fork()
        if not child:
            os.close(ready)
            start_threads()

            def report(to: int = announce) -> None:
                with contextlib.suppress(BrokenPipeError):  # the parent was killed
                    os.write(to, b".")

            put_events(queue, log, after, report)
        os.close(announce)
        os.read(ready, 1)  # of a child that was killed by another, the end
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
