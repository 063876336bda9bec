"""Where events are in a spool: byte ranges of its segments. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...spool.format import OVERHEAD
from .byte_ranges import ByteRanges

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Span(NamedTuple):
    """A range of a segment that holds one or more whole records, one after the other.

    Attributes:
        identity: The identity of the segment, 16 bytes.
        start: The offset of the first byte.
        end: The offset behind the last byte, greater than `start`.
    """

    identity: bytes
    start: int
    end: int


class EventRun(NamedTuple):
    """Events that were read from a spool, in order.

    Attributes:
        events: Their payloads.
        spans: Their places, joined: the records of these events and nothing else, in the same order.
    """

    events: list[bytes]
    spans: tuple[Span, ...]


def join_spans(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Join each span with the one before it if it begins where that one ends.

    The order stays, so a batch that is read again from the joined spans has its events in the same order.
    """
    joined: list[Span] = []
    for span in spans:
        if joined and joined[-1].identity == span.identity and joined[-1].end == span.start:
            joined[-1] = Span(span.identity, joined[-1].start, span.end)
        else:
            joined.append(span)
    return tuple(joined)


def cut_spans(spans: Sequence[Span], size: int) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """Cut spans behind their first `size` bytes.

    Returns:
        The spans of those bytes, and the rest; either may be empty.
    """
    for index, (identity, start, end) in enumerate(spans):
        if size < end - start:
            cut = start + size
            head = (*spans[:index], Span(identity, start, cut)) if size else tuple(spans[:index])
            return head, (Span(identity, cut, end), *spans[index + 1 :])
        size -= end - start
    return tuple(spans), ()


def spans_without(spans: Sequence[Span], others: Iterable[Span]) -> tuple[Span, ...]:
    """Return the parts of spans that are in none of the others, in the order of the spans."""
    ranges: dict[bytes, ByteRanges] = {}
    for identity, start, end in others:
        ranges.setdefault(identity, ByteRanges()).add(start, end)
    nothing = ByteRanges()
    return tuple(
        Span(identity, *gap)
        for identity, start, end in spans
        for gap in ranges.get(identity, nothing).gaps(start, end)
    )


def records_size(events: Sequence[bytes]) -> int:
    """Return the bytes that the records of events take in a segment."""
    return sum(map(len, events)) + OVERHEAD * len(events)


def spans_size(spans: Iterable[Span]) -> int:
    """Return the bytes of spans."""
    return sum(end - start for _, start, end in spans)
