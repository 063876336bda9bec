"""A model of segments, written from `docs/protocol.md` alone: slow, and independent of the package."""

from __future__ import annotations

import zlib
from typing import NamedTuple

MARKER = b"\xffEV"

#: Bytes before a payload, and at most in one.
HEAD = 16
LIMIT = 16 * 1024 * 1024


class Whole(NamedTuple):
    """A whole record: its kind, payload, and the offsets of its first byte and of the byte behind it."""

    kind: bytes
    payload: bytes
    start: int
    end: int


class ModelSegment(NamedTuple):
    """A segment, by its format and identity."""

    event_format: str
    identity: bytes

    @property
    def line(self) -> bytes:
        """The header."""
        fields = b"event-segment 1 " + self.event_format.encode() + b" " + self.identity.hex().encode() + b" "
        return fields + b"%08x\n" % zlib.crc32(fields)

    def head(self, size: int, kind: bytes = b"E", crc: int = 0) -> bytes:
        """Return what precedes a payload of this size."""
        length = size.to_bytes(4, "big")
        check = bytes(a ^ b ^ kind[0] for a, b in zip(length, self.identity[:4], strict=True))
        return MARKER + kind + length + check + crc.to_bytes(4, "big")

    def record(self, payload: bytes, kind: bytes = b"E") -> bytes:
        """Return a record."""
        return self.head(len(payload), kind, zlib.crc32(self.line + payload)) + payload

    def whole_at(self, data: bytes, at: int) -> Whole | None:
        """Return the whole record that begins at an offset, if there is one."""
        size = int.from_bytes(data[at + 4 : at + 8], "big")
        payload, kind = data[at + HEAD : at + HEAD + size], data[at + 3 : at + 4]
        end = at + HEAD + size
        if end > len(data) or size > LIMIT or data[at:end] != self.record(payload, kind):
            return None
        return Whole(kind, payload, at, end)

    def records(self, data: bytes) -> list[Whole]:
        """Return all whole records, from left to right, none inside another."""
        found: list[Whole] = []
        at = data.find(MARKER)
        while at >= 0:
            record = self.whole_at(data, at)
            if record is not None:
                found.append(record)
            at = data.find(MARKER, record.end if record else at + 1)
        return found

    def pending(self, data: bytes) -> int:
        """Return the offset of the bytes at the end that may become a record as more data comes."""
        records = self.records(data)
        begin = records[-1].end if records else 0
        return next(
            (at for at in range(begin, len(data)) if self._may_begin(data[at : at + HEAD], len(data) - at)),
            len(data),
        )

    def _may_begin(self, head: bytes, available: int) -> bool:
        if len(head) < HEAD:
            return MARKER.startswith(head[:3])
        size = int.from_bytes(head[4:8], "big")
        right = head[:12] == self.head(size, head[3:4])[:12]
        return right and available < HEAD + size and size <= LIMIT
