from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.ledger.rows import (
    APPLICATION_ID,
    OVERHEAD,
    SCHEMA_VERSION,
    DamagedLedgerError,
    put_batch,
    put_segment,
    read_batch,
    read_segment,
)
from baseplate_events.event_publisher.policy.byte_ranges import ByteRanges
from baseplate_events.event_publisher.policy.poison import CLEAN
from tests.support.ledgers import (
    IDENTITIES,
    batch_of,
    batches,
)

if TYPE_CHECKING:
    from baseplate_events.event_publisher.policy.journal import EnteredBatch

A = IDENTITIES[0]
NOW = 5.0


def as_restored(batch: EnteredBatch, now: float = NOW) -> EnteredBatch:
    """Return a batch as restored by a run that starts now."""
    record = replace(batch.record, refused_at=None if batch.record.refused_at is None else now)
    return replace(batch, record=record)


@given(batches)
def test_a_batch_comes_back_from_its_row(batch: EnteredBatch) -> None:
    """A row has everything of a batch except the counts and times of this run."""
    assert as_restored(batch) == read_batch(put_batch(batch)[1], NOW)
    lost = replace(batch, record=replace(batch.record, tried=9, failed=9, accepted=9))
    assert put_batch(batch) == put_batch(lost)


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)), max_size=6))
def test_a_segment_comes_back_from_its_row(pairs: list[tuple[int, int]]) -> None:
    """All resolved ranges of a segment are in its row."""
    ranges = ByteRanges(pairs)
    identity, found = read_segment(put_segment(A, ranges)[1])
    assert (A, ranges.pairs()) == (identity, found.pairs())


@given(batches, st.data())
def test_a_flipped_bit_of_a_row_is_damage(batch: EnteredBatch, data: st.DataObject) -> None:
    """No value of a row can change without being noticed: it could hide events."""
    row = list(put_batch(batch)[1])
    place = data.draw(st.integers(0, len(row) - 1))
    value = row[place]
    if isinstance(value, bytes):
        at = data.draw(st.integers(0, len(value) - 1))
        row[place] = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
    else:
        assert isinstance(value, (int, float))
        row[place] = value + 1
    with pytest.raises(DamagedLedgerError):
        read_batch(row, NOW)
    with pytest.raises(DamagedLedgerError):
        read_segment((A, bytes(16), 0))


def test_a_clean_record_stays_clean() -> None:
    """A batch that never failed is restored as one that never failed."""
    assert read_batch(put_batch(batch_of(1, (A, 0, 1)))[1], NOW).record == CLEAN


def test_the_numbers_of_the_format() -> None:
    """Other releases read and write them."""
    assert (SCHEMA_VERSION, OVERHEAD) == (1, 64)
    assert APPLICATION_ID.to_bytes(4, "big") == b"bple"
