"""The ledger's tables, and the conversion of values to rows and back. Pure.

1. A batch is one row, and so are the resolved ranges of a segment, so that a change touches few pages.
2. The last value of a row is the CRC-32 of the others. A flipped bit in a range could hide undelivered
   events, so a row without the right CRC counts as damage, never as data.
3. Monotonic times and counts of this process are useless to the next one, so they aren't stored. Evidence
   against a lone event then starts at zero, which is the safe side.
4. `SCHEMA` and the table `written_by` are the contract with other releases. A later schema may change
   everything except `written_by`, so that any release can name the one that is needed.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from ..policy.byte_ranges import ByteRanges
from ..policy.journal import EnteredBatch
from ..policy.poison import FaultRecord
from ..policy.span import Span

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Marks the file as a ledger: "bple" in ASCII (SQLite's `application_id`).
APPLICATION_ID: Final = 0x62706C65

#: Version of the schema (SQLite's `user_version`, and in `written_by`).
SCHEMA_VERSION: Final = 1

#: Bytes accounted per letter besides its event, reason and excerpt: its row, and a share of the pages.
OVERHEAD: Final = 64

#: The contents of `sqlite_master`. The triggers maintain `totals`, whoever deletes letters. The accounted
#: bytes of a letter aren't stored, since a flipped bit there could drop other letters.
SCHEMA: Final = (
    "CREATE TABLE written_by (version INTEGER NOT NULL, release TEXT NOT NULL)",
    (
        "CREATE TABLE batches (number INTEGER, part INTEGER, count INTEGER, spans BLOB, "
        "failures INTEGER, evidence REAL, was_refused INTEGER, is_part INTEGER, crc INTEGER, "
        "PRIMARY KEY (number, part)) WITHOUT ROWID"
    ),
    "CREATE TABLE segments (identity BLOB PRIMARY KEY, resolved BLOB, crc INTEGER) WITHOUT ROWID",
    (
        "CREATE TABLE letters (number INTEGER PRIMARY KEY AUTOINCREMENT, time REAL, "
        "status INTEGER, queue TEXT, reason TEXT, excerpt BLOB, event BLOB, crc INTEGER)"
    ),
    (
        f"CREATE VIEW sizes AS SELECT number, coalesce({OVERHEAD} + length(event) + length(excerpt) + "  # noqa: S608
        "length(CAST(reason AS BLOB)), 0) AS size FROM letters"
    ),
    "CREATE TABLE totals (count INTEGER, size INTEGER)",
    (
        "CREATE TRIGGER written AFTER INSERT ON letters BEGIN UPDATE totals SET count = count + 1, "
        "size = size + (SELECT size FROM sizes WHERE number = new.number); END"
    ),
    (
        "CREATE TRIGGER deleted BEFORE DELETE ON letters BEGIN UPDATE totals SET count = count - 1, "
        "size = size - (SELECT size FROM sizes WHERE number = old.number); END"
    ),
)

#: A value of a column, and a statement with its values.
Value: TypeAlias = "int | float | str | bytes | None"
Statement: TypeAlias = "tuple[str, Sequence[Value]]"

DELETE_BATCH: Final = "DELETE FROM batches WHERE number = ? AND part = ?"
DELETE_SEGMENT: Final = "DELETE FROM segments WHERE identity = ?"

_SPAN: Final = struct.Struct(">16sQQ")
_RANGE: Final = struct.Struct(">QQ")


class DamagedLedgerError(Exception):
    """Raised for a damaged file or row, or a file that isn't a ledger; the text says what was found."""


def seal(*values: Value) -> tuple[Value, ...]:
    """Return values, followed by their CRC."""
    return (*values, zlib.crc32(repr(values).encode()))


def unseal(row: Sequence[Value]) -> Sequence[Value]:
    """Check the CRC of a row, and return its values without it.

    Raises:
        DamagedLedgerError: They aren't what was written.
    """
    if row[-1] != zlib.crc32(repr(tuple(row[:-1])).encode()):
        raise DamagedLedgerError("has a damaged row")
    return row[:-1]


def put_batch(batch: EnteredBatch) -> Statement:
    """Return the statement that stores a batch, new or changed."""
    record = batch.record
    spans = b"".join([_SPAN.pack(*span) for span in batch.spans])
    row = seal(
        *(*batch.order, batch.count, spans, record.failures, float(record.evidence)),
        *(int(record.refused_at is not None), int(record.is_part)),
    )
    return "INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row


def read_batch(row: Sequence[Value], now: float) -> EnteredBatch:
    """Convert the row of a batch.

    Args:
        row: The row.
        now: The time to use for the first refusal of its events, if they were refused.

    Raises:
        DamagedLedgerError: It is damaged.
    """
    values = cast("tuple[int, int, int, bytes, int, float, int, int]", tuple(unseal(row)))
    number, part, count, spans, failures, evidence, was_refused, is_part = values
    record = FaultRecord(
        failures=failures,
        evidence=evidence,
        refused_at=now if was_refused else None,
        is_part=bool(is_part),
    )
    return EnteredBatch(
        (number, part), count, tuple(Span(*fields) for fields in _SPAN.iter_unpack(spans)), record
    )


def put_segment(identity: bytes, resolved: ByteRanges) -> Statement:
    """Return the statement that stores the resolved ranges of a segment."""
    packed = b"".join([_RANGE.pack(*pair) for pair in resolved.pairs()])
    return "INSERT OR REPLACE INTO segments VALUES (?, ?, ?)", seal(identity, packed)


def read_segment(row: Sequence[Value]) -> tuple[bytes, ByteRanges]:
    """Convert the row of a segment.

    Raises:
        DamagedLedgerError: It is damaged.
    """
    identity, packed = cast("tuple[bytes, bytes]", tuple(unseal(row)))
    return identity, ByteRanges(cast("list[tuple[int, int]]", list(_RANGE.iter_unpack(packed))))
