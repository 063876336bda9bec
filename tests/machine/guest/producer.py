"""Puts numbered events until the machine ends, and reports to the host those for which `put` returned.

    producer.py QUEUE SERIES HOST:PORT RATE DEPTH

    RATE   events a second; 0 for as many as it can
    DEPTH  events that the POSIX queue holds; 0 for the spool in $EVENT_SPOOL_DIRECTORY

A line of the report: the number of the event, how many events the POSIX queue holds, seconds of the clock.
"""

from __future__ import annotations

import socket
import sys
import time
from typing import Final

from baseplate_events import EventQueue
from tests.machine.guest.numbered import MAX_EVENT_SIZE, numbered

#: Seconds that a line waits for others, so that the reports don't slow down the puts.
_GATHER: Final = 0.005


def main() -> None:
    """Put events; never returns."""
    queue_name, series, target, rate, depth = sys.argv[1:]
    host, _, port = target.partition(":")
    pause = 1 / float(rate) if float(rate) else 0.0
    if int(depth):
        queue = EventQueue(
            queue_name,
            bytes,
            mode=0o660,
            max_queue_size=int(depth),
            max_event_size=MAX_EVENT_SIZE,
            put_timeout=60,
        )
    else:
        queue = EventQueue(queue_name, bytes, mode=0o660, max_event_size=MAX_EVENT_SIZE)
    with queue, socket.create_connection((host, int(port))) as reports:
        reports.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        waiting: list[str] = []
        begin = reported = time.monotonic()
        number = 0
        while True:
            number += 1
            queue.put(numbered(series, number))
            now = time.monotonic()
            held = (queue.depth or 0) if int(depth) else 0
            waiting.append(f"{number} {held} {now:.4f}\n")
            if pause or now - reported >= _GATHER:
                reports.sendall("".join(waiting).encode())
                waiting.clear()
                reported = now
            if pause and (early := begin + number * pause - now) > 0:
                time.sleep(early)


if __name__ == "__main__":
    main()
