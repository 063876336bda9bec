"""A program whose threads are greenlets, which put events on a small queue while another takes them out.

Usage: python -m tests.servers.greenlets QUEUE early|late: monkey-patch before or after the package's import.
"""

from __future__ import annotations

import importlib
import sys
from typing import Protocol, cast


class Monkey(Protocol):
    """The part of `gevent.monkey`, which need not be installed to check types, that is used here."""

    def patch_all(self) -> object:
        """Make what waits cooperative, throughout the standard library."""
        ...

    def is_module_patched(self, mod_name: str) -> bool:
        """Return whether a module was patched."""
        ...


#: Greenlets that put, and events that each puts: many times what the queue holds.
PRODUCERS = 20
EVENTS = 20


def main(name: str, patch: str) -> None:
    """Run the program."""
    monkey = cast("Monkey", importlib.import_module("gevent.monkey"))
    if patch == "early":
        monkey.patch_all()
    from baseplate_events import EventQueue  # noqa: PLC0415 - what is tested
    from baseplate_events.transport.posix import MessageQueue  # noqa: PLC0415

    size, capacity = 1_024, 10
    queue = EventQueue(name, bytes, max_queue_size=capacity, max_event_size=size, put_timeout=30.0)
    if patch == "late":
        monkey.patch_all()
    import threading  # noqa: PLC0415 - patched

    assert monkey.is_module_patched("threading")
    for number in range(capacity):
        queue.put(b"{first %d}" % number)

    finished: list[int] = []

    def produce(producer: int) -> None:
        for number in range(EVENTS):
            queue.put(b"{%d %d}" % (producer, number))
        finished.append(producer)

    producers = [threading.Thread(target=produce, args=(producer,)) for producer in range(PRODUCERS)]
    for producer in producers:
        producer.start()  # returns when it waits, as the queue is full
    assert finished == []

    got: list[bytes] = []
    with MessageQueue(f"/events-{name}", max_messages=capacity, max_message_size=size) as reader:
        total = capacity + PRODUCERS * EVENTS
        while len(got) < total:
            message = reader.get(30.0)
            assert message is not None
            got.append(message)
        assert reader.get() is None
    for producer in producers:
        producer.join()
    expected = {b"{%d %d}" % (p, n) for p in range(PRODUCERS) for n in range(EVENTS)}
    assert expected | {b"{first %d}" % number for number in range(capacity)} == set(got)
    for p in range(PRODUCERS):  # each greenlet's events are in its order
        mine = [message for message in got if message.startswith(b"{%d " % p)]
        assert [b"{%d %d}" % (p, n) for n in range(EVENTS)] == mine
    print("nothing lost")  # noqa: T201 - for the test
    queue.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
