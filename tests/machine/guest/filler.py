"""Puts events of full size onto the POSIX queue v2 until it stays full.

    filler.py SERIES

The last line is JSON: `put`, how many events; `depth` of the queue; `error`, the name of the last error;
`memory`, the most bytes that its control group used.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from baseplate_events import MAX_EVENT_SIZE, EventQueue, EventQueueFullError

#: Seconds without room until the queue is full for good: meanwhile the publisher may still move events.
_FULL: Final = 10


def event(series: str, number: int) -> bytes:
    """Return an event of full size."""
    begin = json.dumps({"id": f"{series}-{number}", "text": ""}, separators=(",", ":"))[:-2]
    return f'{begin.ljust(MAX_EVENT_SIZE - 2, "x")}"}}'.encode()


def main() -> None:
    """Fill the queue."""
    series = sys.argv[1]
    number = 0
    with EventQueue("v2", bytes, mode=0o660, put_timeout=_FULL) as queue:
        error = ""
        while not error:
            try:
                queue.put(event(series, number + 1))
                number += 1
            except EventQueueFullError as exc:
                error = type(exc).__name__
        group = Path("/proc/self/cgroup").read_text().strip().rpartition(":")[2]
        memory = int(Path(f"/sys/fs/cgroup{group}/memory.peak").read_text())
        print(json.dumps({"put": number, "depth": queue.depth, "error": error, "memory": memory}), flush=True)


if __name__ == "__main__":
    main()
