"""Spans of a spool: joining and cutting."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.policy.span import (
    Span,
    cut_spans,
    join_spans,
    records_size,
    spans_size,
    spans_without,
)
from baseplate_events.spool.format import Encoder, Header

#: Few segments and offsets, so that neighbours are frequent.
SPANS = st.tuples(st.sampled_from([b"A" * 16, b"B" * 16]), st.integers(0, 6), st.integers(1, 4)).map(
    lambda drawn: Span(drawn[0], drawn[1], drawn[1] + drawn[2])
)


def offsets(spans: tuple[Span, ...] | list[Span]) -> list[tuple[bytes, int]]:
    """All bytes of spans, in order."""
    return [(span.identity, offset) for span in spans for offset in range(span.start, span.end)]


@given(st.lists(SPANS))
def test_joined_spans_have_the_same_bytes_in_the_same_order_and_no_neighbours(spans: list[Span]) -> None:
    """Joining loses nothing, keeps the order, and leaves no two spans that could be one."""
    joined = join_spans(spans)
    assert offsets(joined) == offsets(spans)
    assert all(one[::2] != (two.identity, two.start) for one, two in pairwise(joined))


@given(st.lists(SPANS), st.integers(0, 30))
def test_cut_spans_are_the_first_bytes_and_the_rest(spans: list[Span], size: int) -> None:
    """Cutting loses nothing, and leaves no span empty."""
    head, tail = cut_spans(spans, size)
    assert offsets(head) == offsets(spans)[:size]
    assert offsets(tail) == offsets(spans)[size:]
    assert all(span.start < span.end for span in (*head, *tail))


@given(st.lists(SPANS), st.lists(SPANS))
def test_spans_without_others_have_the_bytes_that_are_in_none_of_these(
    spans: list[Span], others: list[Span]
) -> None:
    """In the order of the spans, and no span is empty."""
    left = spans_without(spans, others)
    assert offsets(left) == [byte for byte in offsets(spans) if byte not in offsets(others)]
    assert all(span.start < span.end for span in left)


@given(st.lists(st.binary(max_size=9), max_size=4))
def test_the_size_of_records_is_what_an_encoder_writes(events: list[bytes]) -> None:
    """None for no event."""
    encoder = Encoder(Header("2j", b"A" * 16))
    assert records_size(events) == sum(len(encoder.encode(event)) for event in events)


@given(st.lists(SPANS))
def test_the_size_of_spans_is_that_of_their_bytes(spans: list[Span]) -> None:
    """Wherever they begin, and bytes that are in two of them count twice."""
    assert spans_size(spans) == len(offsets(spans))
