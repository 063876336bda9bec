"""A service that puts events into a POSIX queue until it is killed, in threads.

Usage: python -m tests.soak.delivery.producer NAME LOG THREADS
"""

from __future__ import annotations

import os
import sys
import threading
from typing import NoReturn

from baseplate_events import EventQueue
from baseplate_events.errors import EventQueueFullError, EventTooLargeError
from tests.soak.spool.oracle import Entry, encode, make_event
from tests.support.publishers import MAX_MESSAGE_SIZE, MAX_MESSAGES

#: Seconds that a put waits for room.
_PATIENCE = 0.1


def put_events(queue: EventQueue[bytes], log: int) -> NoReturn:
    """Put the events of a lane of its own until the process is killed; those too large are refused."""
    lane = int.from_bytes(os.urandom(8), "big")
    number = 0
    while True:
        try:
            queue.put(make_event(lane, number))
        except (EventQueueFullError, EventTooLargeError):
            os.write(log, encode(Entry.REFUSED, lane, number))
        else:
            os.write(log, encode(Entry.ACKNOWLEDGED, lane, number))
        number += 1


def main(name: str, log_path: str, threads: int) -> NoReturn:
    """Put events."""
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    queue = EventQueue(
        name, bytes, max_queue_size=MAX_MESSAGES, max_event_size=MAX_MESSAGE_SIZE, put_timeout=_PATIENCE
    )
    for _ in range(threads - 1):
        threading.Thread(target=put_events, args=(queue, log), daemon=True).start()
    put_events(queue, log)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
