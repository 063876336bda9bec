"""What an earlier publisher left in the spool, and what of it is to be delivered.

Rules:

1. Of two files with events of the same segment, the one with more of them is taken, and the segment's own if
   both have as many: a crash came before the journal was emptied.
2. Nothing of the disk is changed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .segment_files import segment_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .segment_format import SegmentFormat


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file, and what is in it.

    Attributes:
        name: Its name.
        number: The segment whose events are in it.
        count: Events that are whole.
        events_size: Bytes of these, without frames.
        end: Where the last of them ends.
        size: Bytes of the file.
        torn: Whether there was more than these.
        problem: Why it isn't one of ours, and what to do; None if it is.
    """

    name: str
    number: int
    count: int
    events_size: int
    end: int
    size: int
    torn: bool
    problem: str | None


def look_into(name: str, number: int, data: bytes, body_format: SegmentFormat) -> Leftover:
    """Tell what is in a file.

    Args:
        name: Its name.
        number: The number in its name.
        data: All of its bytes.
        body_format: Its format.
    """
    is_segment = name == segment_name(number)
    count = events_size = end = 0
    for start, end in body_format.spans(data, number if is_segment else None):
        count += 1
        events_size += end - start
    # Zeros in a journal are what was free, and one at the beginning says that there is nothing.
    is_empty = not is_segment and data[:1] in {b"", b"\0"}
    rest = end < len(data) if is_segment else bool(data[end:].strip(b"\0"))
    return Leftover(
        name,
        number if is_segment else body_format.number(data, number),
        count,
        events_size,
        end,
        len(data),
        not is_empty and (rest or not count),
        None if count or is_empty else body_format.refusal(data),
    )


def sort_out(leftovers: Iterable[Leftover]) -> tuple[list[Leftover], list[Leftover]]:
    """Give the files to be delivered, oldest first, and those that aren't needed."""
    needed: dict[int, Leftover] = {}
    useless: list[Leftover] = []
    for leftover in leftovers:
        other = needed.get(leftover.number)
        if not leftover.count:
            useless.append(leftover)
        elif other is None:
            needed[leftover.number] = leftover
        else:
            ranked = sorted((other, leftover), key=_rank)
            useless.append(ranked[0])
            needed[leftover.number] = ranked[1]
    return [needed[number] for number in sorted(needed)], useless


def _rank(leftover: Leftover) -> tuple[int, bool]:
    return leftover.count, leftover.name == segment_name(leftover.number)
