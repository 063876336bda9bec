"""Puts events on a queue, by our EventQueue or by baseplate.py's.

Its arguments are `ours` or `theirs`, the queue's name, the first event, their number, and the sizes of the
queue.

If the queue is full it tries again, which a service wouldn't: here every event counts.
"""

from __future__ import annotations

import importlib
import sys
import time
import warnings
from pathlib import Path
from typing import Any

#: Seconds between two tries to put an event.
_PAUSE = 0.001


def event(serial: int) -> Any:  # noqa: ANN401 - a generated class, which is untyped
    """Return an event that no other serial has, every tenth a rich one."""
    samples = importlib.import_module("tests.support.schema_samples")
    return (samples.small_event if serial % 10 else samples.rich_event)(serial=serial)


def _main(kind: str, name: str, first: int, count: int, messages: int, size: int) -> None:
    if kind == "ours":
        module = importlib.import_module("baseplate_events")
        queue = module.EventQueue(
            name, module.serialize_v2_event, max_queue_size=messages, max_event_size=size
        )
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module("baseplate.lib.events")
        vars(module).update(MAX_QUEUE_SIZE=messages, MAX_EVENT_SIZE=size)
        queue = module.EventQueue(name, module.serialize_v2_event)
    for serial in range(first, first + count):
        item = event(serial)
        while True:
            try:
                queue.put(item)
            except module.EventQueueFullError:
                time.sleep(_PAUSE)
            else:
                break


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    _main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
