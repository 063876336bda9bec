"""The oracle of the survival runs: what was put, and what became of it. Pure.

Every event has a number. Events are numbered in the order of their puts, and each is made from its number
alone, so that whatever arrives is known to be whole.

Rules:

1. An event is *put* if `put` returned, and *lost* if it was put and is found nowhere: not at the
   collector, in the dead letters, in the queue or in the spool.
2. A batch that comes again is *explained* if it carries an idempotency key that came before, with the same
   events: the collector can recognise it, and skip it. An event that comes again under another key is an
   *unexplained* duplicate.
3. A loss is explained by a kill if the event can be the one that the publisher had received and not yet
   appended to the spool. At most one event is explained by one kill.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Bytes of padding that events have at most; they are of different sizes, and fit into a queue of 1 KiB.
MAX_PAD: Final = 200

_NUMBER: Final = re.compile(rb'\{"id":([0-9]{1,15}),')


def make_event(number: int) -> bytes:
    """Make the event of this number."""
    return b'{"id":%d,"pad":"%b"}' % (number, b"x" * (number % (MAX_PAD + 1)))


def number_of(event: bytes) -> int | None:
    """Return the number of an event; None if it isn't, byte for byte, what `make_event` makes."""
    match = _NUMBER.match(event)
    if match is None or event != make_event(int(match[1])):
        return None
    return int(match[1])


def numbers_of(events: Iterable[bytes]) -> set[int]:
    """Return the numbers of all events that have one."""
    return {number for number in map(number_of, events) if number is not None}


@dataclass
class Receipts:
    """What the collector received. Used by one thread at a time.

    Attributes:
        batches: Batches that came for the first time.
        repeats: Batches that came again, and carried a key that had come before.
        duplicates: Events in them.
        unexplained: Events that came again under a key that hadn't come before, or under none.
        foreign: Events that no one put.
    """

    batches: int = 0
    repeats: int = 0
    duplicates: int = 0
    unexplained: int = 0
    foreign: int = 0
    _events_by_key: dict[str, int] = field(default_factory=dict[str, int], repr=False)
    _delivered: set[int] = field(default_factory=set[int], repr=False)

    @property
    def delivered(self) -> set[int]:
        """Numbers of the events that were delivered, each once."""
        return self._delivered

    def take(self, key: str | None, events: tuple[bytes, ...]) -> None:
        """Note a batch that the collector received.

        Args:
            key: Its idempotency key, or None if it has none.
            events: Its events.
        """
        content = hash(events)
        if key is not None and self._events_by_key.get(key) == content:
            self.repeats += 1
            self.duplicates += len(events)
            return
        self.batches += 1
        for event in events:
            number = number_of(event)
            if number is None:
                self.foreign += 1
            elif number in self._delivered:
                self.unexplained += 1
            else:
                self._delivered.add(number)
        if key is not None:
            self._events_by_key.setdefault(key, content)


def unexplained_losses(lost: Iterable[int], kills: Sequence[int], window: int) -> list[int]:
    """Return the losses that no kill explains.

    Args:
        lost: Numbers of the events that were lost.
        kills: For each kill, how many events had been numbered by then.
        window: How many events can be put between the lost one and the kill: as many as the queue holds, and
            one that is being put.
    """
    unused = sorted(kills)
    left: list[int] = []
    for number in sorted(lost):
        kill = next((kill for kill in unused if number <= kill <= number + window), None)
        if kill is None:
            left.append(number)
        else:
            unused.remove(kill)
    return left
