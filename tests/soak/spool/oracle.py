"""The oracle of the kills: what was put into a spool, what came out, and what that proves. Pure.

A thread that puts is a *lane*. Its events are numbered from 0 on. Each is made from lane and number alone, so
that whatever arrives is known to be whole.

Rules:

1. Processes log in *entries* of 16 bytes, each appended by one write(2) to a file that gets nothing else. A
   kill can cut a write only between two pages, so it never cuts an entry.
2. A lane logs the outcome of a put after the put and before the next one. So every put that the log calls
   acknowledged was. The outcome of at most one put of each lane isn't in the log: that of the number after
   the last one. Whether it arrives proves nothing.
3. An event is *lost* if it was acknowledged and didn't arrive; *foreign* if it arrived though it was refused,
   was never put, or isn't what its lane made; a *duplicate* each time that it arrives after the first.
"""

from __future__ import annotations

import enum
import re
import struct
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: A lane, and a number with the kind of the entry in its highest byte.
_ENTRY: Final = struct.Struct(">QQ")
_KIND_SHIFT: Final = 56

#: Bytes of an entry; a page holds a whole number of them.
ENTRY_SIZE: Final = _ENTRY.size

_EVENT: Final = re.compile(rb'\{"lane":([0-9]{1,20}),"number":([0-9]{1,16}),')

#: Longest padding of an event; and how often an event has more, so that it is larger than a page.
_MAX_PAD: Final = 700
_LONG_PAD: Final = 9_000
_LONG_EVERY: Final = 64
_PAD: Final = b"x" * _LONG_PAD


class Entry(enum.IntEnum):
    """What an entry says."""

    ACKNOWLEDGED = 1
    """`put` returned."""

    REFUSED = 2
    """`put` raised."""

    ARRIVED = 3
    """The reader got the event."""

    FOREIGN = 4
    """The reader got something that isn't an event of any lane."""

    TORN = 5
    """The reader found so many torn places."""

    REMOVED = 6
    """The reader removed so many files that were never completed."""

    GROWN = 7
    """So many bytes came after the reader deleted a segment."""


def make_event(lane: int, number: int) -> bytes:
    """Make the event of this number of this lane."""
    pad = _LONG_PAD if number % _LONG_EVERY == _LONG_EVERY - 1 else number * 37 % _MAX_PAD
    return b'{"lane":%d,"number":%d,"pad":"%b"}' % (lane, number, _PAD[:pad])


def identify(event: bytes) -> tuple[int, int] | None:
    """Return lane and number of an event; None if it isn't, byte for byte, what `make_event` makes."""
    match = _EVENT.match(event)
    if match is None:
        return None
    lane, number = int(match[1]), int(match[2])
    return (lane, number) if event == make_event(lane, number) else None


def encode(kind: Entry, lane: int, number: int) -> bytes:
    """Return an entry."""
    return _ENTRY.pack(lane, kind << _KIND_SHIFT | number)


def decode(log: bytes) -> Iterator[tuple[Entry, int, int]]:
    """Yield kind, lane and number of each entry of a log.

    Raises:
        struct.error: The log ends with a part of an entry.
    """
    for lane, word in _ENTRY.iter_unpack(log):
        yield Entry(word >> _KIND_SHIFT), lane, word & (1 << _KIND_SHIFT) - 1


@dataclass(frozen=True)
class Audit:
    """What a round proves.

    Attributes:
        acknowledged: Events whose put returned.
        refused: Events whose put raised.
        lost: Those that were acknowledged and didn't arrive.
        foreign: Events that arrived and were never put.
        duplicates: How often events arrived after the first time.
        torn: Torn places that the reader found.
        removed: Files that the reader removed because they were never completed.
        grown: Bytes that were added to a segment after the reader had deleted it.
    """

    acknowledged: int = 0
    refused: int = 0
    lost: int = 0
    foreign: int = 0
    duplicates: int = 0
    torn: int = 0
    removed: int = 0
    grown: int = 0

    def __add__(self, other: Audit) -> Audit:
        return Audit(*(mine + others for mine, others in zip(self.figures, other.figures, strict=True)))

    @property
    def figures(self) -> tuple[int, ...]:
        """All figures, in order."""
        return tuple(vars(self).values())


def audit(put_logs: Iterable[bytes], reader_log: bytes) -> Audit:
    """Compare what producers logged with what readers did."""
    acknowledged: dict[int, set[int]] = {}
    refused: dict[int, set[int]] = {}
    next_number: Counter[int] = Counter()
    for log in put_logs:
        for kind, lane, number in decode(log):
            assert kind in {Entry.ACKNOWLEDGED, Entry.REFUSED}
            assert next_number[lane] == number, "a lane logs all of its puts, in order"
            next_number[lane] += 1
            (acknowledged if kind is Entry.ACKNOWLEDGED else refused).setdefault(lane, set()).add(number)
    arrived: dict[int, set[int]] = {}
    counts: Counter[Entry] = Counter()
    duplicates = foreign = 0
    for kind, lane, number in decode(reader_log):
        if kind is not Entry.ARRIVED:
            counts[kind] += number
            continue
        seen = arrived.setdefault(lane, set())
        if number in seen:
            duplicates += 1
        elif number > next_number[lane] or number in refused.get(lane, ()):
            foreign += 1
        seen.add(number)
    return Audit(
        acknowledged=sum(map(len, acknowledged.values())),
        refused=sum(map(len, refused.values())),
        lost=sum(len(numbers - arrived.get(lane, set())) for lane, numbers in acknowledged.items()),
        foreign=foreign + counts[Entry.FOREIGN],
        duplicates=duplicates,
        torn=counts[Entry.TORN],
        removed=counts[Entry.REMOVED],
        grown=counts[Entry.GROWN],
    )
