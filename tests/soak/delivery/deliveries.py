"""The oracle of these runs: what services put, what the collector got, and what that proves. Pure.

Lanes, events and logs are those of `tests.soak.spool.oracle`, whose rules hold here too. Further rules:

1. A batch that comes again is *repeated* if it carries an idempotency key that came before, with the same
   body: the collector can skip it. Events that come again in another batch are *duplicates*.
2. What arrived is remembered over all rounds, so a duplicate is recognised however late it comes.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.soak.spool.oracle import Entry, decode, identify

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What an event looks like. Besides events, a body of version 2j contains only brackets and commas.
_EVENTS: Final = re.compile(rb'\{"lane":[0-9]+,"number":[0-9]+,"pad":"x*"\}')


@dataclass(frozen=True)
class Puts:
    """What the logs of some services say, and what became of those events.

    Attributes:
        acknowledged: Events whose put returned.
        refused: Events whose put raised.
        lost: Those that were acknowledged and didn't arrive.
        foreign: Those that arrived though they were refused or never put.
    """

    acknowledged: int = 0
    refused: int = 0
    lost: int = 0
    foreign: int = 0


class Deliveries:
    """What the collector got. Used by one thread at a time.

    Attributes:
        batches: Batches that came for the first time.
        repeated: Batches that came again with their key.
        duplicates: Events that came again in other batches.
        foreign: Events, or whole bodies, that no service puts.
    """

    def __init__(self) -> None:
        self.batches = self.repeated = self.duplicates = self.foreign = 0
        self._bodies: dict[str, int] = {}
        self._arrived: dict[int, bytearray] = {}

    def take(self, key: str, body: bytes) -> None:
        """Note a batch.

        Args:
            key: Its idempotency key.
            body: Its body of version 2j, uncompressed.
        """
        content = hash(body)
        if self._bodies.get(key) == content:
            self.repeated += 1
            return
        self._bodies[key] = content
        self.batches += 1
        events = _EVENTS.findall(body)
        if sum(map(len, events)) + len(events) + 1 != len(body):
            self.foreign += 1
        for event in events:
            self._note(event)

    def count(self, lane: int) -> int:
        """Return how many different events of a lane have arrived."""
        return sum(self._arrived.get(lane, b""))

    def compare(self, put_logs: Iterable[bytes]) -> Puts:
        """Compare the logs of services that have ended with what has arrived."""
        totals: Counter[Entry] = Counter()
        lost = foreign = 0
        for log in put_logs:
            ends: Counter[int] = Counter()
            for kind, lane, number in decode(log):
                assert ends[lane] == number, "a lane logs all of its puts, in order"
                ends[lane] += 1
                totals[kind] += 1
                arrived = self._has(lane, number)
                lost += kind is Entry.ACKNOWLEDGED and not arrived
                foreign += kind is Entry.REFUSED and arrived
            # The put of the number after the last one may have been cut short by a kill.
            foreign += sum(sum(self._arrived.get(lane, b"")[end + 1 :]) for lane, end in ends.items())
        return Puts(totals[Entry.ACKNOWLEDGED], totals[Entry.REFUSED], lost, foreign)

    def _has(self, lane: int, number: int) -> bool:
        flags = self._arrived.get(lane, b"")
        return number < len(flags) and flags[number] == 1

    def _note(self, event: bytes) -> None:
        found = identify(event)
        if found is None:
            self.foreign += 1
            return
        lane, number = found
        flags = self._arrived.setdefault(lane, bytearray())
        if number >= len(flags):
            flags.extend(bytes(number + 1 - len(flags)))
        self.duplicates += flags[number]
        flags[number] = 1
