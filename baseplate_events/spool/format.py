"""The format of a spool segment: encodes its header and records, and finds the whole records in one. Pure.

`docs/protocol.md` describes the format for other programs.

A segment is a file with the records of one writer. It begins with a header, which is one line of ASCII:

    event-segment 1 FORMAT IDENTITY CHECK

FORMAT is the `collector.version` that the events are for, `2` or `2j`, or `unknown`. IDENTITY is 16 random
bytes in hexadecimal. CHECK is the CRC-32 of everything before it, as 8 hexadecimal digits.

Records follow. Numbers are big-endian:

    3 bytes   ff 45 56, the marker
    1 byte    kind: 45 ("E") for an event, 52 ("R") for refusals; readers skip unknown kinds
    4 bytes   length of the payload, at most 16 MiB
    4 bytes   check of kind and length: length XOR first 4 bytes of IDENTITY XOR (kind, kind, kind, kind)
    4 bytes   CRC-32 of the header line, including its newline, followed by the payload
    ...       payload

The payload of an event is what the serializer returned. The payload of a refusals record is a JSON object:
how many events the writer refused since its last such record, by reason.

Rules:

1. A record is *whole* if it is complete and both checks hold. Both depend on IDENTITY. So bytes of
   another segment, which a file system may leave in a file after a power cut, never pass for a record.
2. An incomplete record at the end of the data is *pending*: its writer may still be writing. It is *torn*
   if a whole record begins inside it, or if the segment ended. A complete record that fails a check is torn.
3. A torn record costs only itself. The reader searches for the next marker, which never occurs in UTF-8, and
   ignores a length that fails its check. (A payload that isn't UTF-8 may end with the bytes that a marker
   begins with. A record that is cut exactly before them is completed by the next one, which is then torn.)
4. A payload never contains a whole record of its own segment, because IDENTITY is random, and known only to
   those who may read the segment. So a whole record inside a pending one proves that the pending one is torn.
"""

from __future__ import annotations

import re
import struct
import zlib
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Bytes of the random identity of a segment.
IDENTITY_SIZE = 16

#: Suffixes of the names of unpublished files and of segments.
NEW_SUFFIX = ".new"
SEGMENT_SUFFIX = ".segment"

#: Most bytes of a payload: the same as for a message of a POSIX queue.
MAX_PAYLOAD = 16 * 1024 * 1024

#: Kinds of records.
EVENT = b"E"
REFUSALS = b"R"

#: Most bytes of a header, newline included, in this version of the format and all later ones.
MAX_HEADER = 128

#: The format version written, and the newest that can be read.
VERSION = 1

_RECORD = struct.Struct(">4sIII")

#: Bytes of a record before its payload.
OVERHEAD = _RECORD.size

_MARKER = b"\xffEV"

#: The marker and kind of an event, and the packer for everything before its payload: these, the length, its
#: check and the CRC. They are for callers that can't afford to call `Encoder.encode`.
EVENT_MARKER = _MARKER + EVENT
pack_prefix: Callable[[bytes, int, int, int], bytes] = _RECORD.pack

#: Where a record may begin: at a marker, or at the end of the data if that may be the beginning of a marker.
_BEGINNING = re.compile(rb"\xff(?:EV|E?\Z)")

#: Multiplied by a byte, this repeats it four times.
_FOUR_TIMES = 0x01010101

#: The beginning and the shape of headers in every version; the part before CHECK in this version.
_START = b"event-segment "
_HEADER = re.compile(rb"(event-segment ([0-9]{1,9}) (?:[^\n]* )?)([0-9a-f]{8})\n")
_HEADER_1 = re.compile(rb"event-segment 1 ([0-9a-z]{1,16}) ([0-9a-f]{32}) ")


class UnreadableSegmentError(Exception):
    """Raised if the header of a segment can't be read.

    Attributes:
        newer: Whether it has a later version of the format, which an upgraded publisher may be able to read.
    """

    def __init__(self, problem: str, *, newer: bool = False) -> None:
        super().__init__(problem)
        self.newer: bool = newer


class Header(NamedTuple):
    """The header of a segment.

    Attributes:
        event_format: The `collector.version` that the events are for, or `UNKNOWN_FORMAT`; 1 to 16 characters
            of `0-9a-z`.
        identity: `IDENTITY_SIZE` random bytes.
    """

    event_format: str
    identity: bytes

    def encode(self) -> bytes:
        """Return the header line of the segment.

        Raises:
            ValueError: The format or the identity isn't as described above.
        """
        line = f"event-segment {VERSION} {self.event_format} {self.identity.hex()} ".encode()
        if _HEADER_1.fullmatch(line) is None:
            raise ValueError(f"no header can hold the format {self.event_format!r}, or that identity")
        return b"%b%08x\n" % (line, zlib.crc32(line))

    @classmethod
    def decode(cls, data: bytes) -> Header | None:
        """Parse the header of a segment.

        Args:
            data: The beginning of the file: its first `MAX_HEADER` bytes or more, or the whole file.

        Returns:
            The header, or None if the file ends before the header does.

        Raises:
            UnreadableSegmentError: The file isn't a segment, its header is damaged, or its version is newer.
        """
        match = _HEADER.match(data[:MAX_HEADER])
        if match is None:
            if len(data) < MAX_HEADER and b"\n" not in data and _START.startswith(data[: len(_START)]):
                return None
            raise UnreadableSegmentError("it isn't a segment of a spool, or its header is damaged")
        line, version = match[1], int(match[2])
        if zlib.crc32(line) != int(match[3], 16):
            raise UnreadableSegmentError("its header is damaged")
        if version > VERSION:
            raise UnreadableSegmentError(
                f"its format version is {version}, and this release reads versions up to {VERSION}; "
                "upgrade the event publisher",
                newer=True,
            )
        fields = _HEADER_1.fullmatch(line)
        if fields is None:
            raise UnreadableSegmentError("its header is invalid")
        return cls(fields[1].decode(), bytes.fromhex(fields[2].decode()))


class Encoder:
    """Encodes the records of one segment.

    Args:
        header: The segment's header.

    Attributes:
        header: The header line of the segment.
        identity: The segment's identity.
        seed: CRC-32 of that line. The CRC-32 of each payload continues from it.

    Raises:
        ValueError: As from `Header.encode`.
    """

    __slots__ = ("_base", "_event_mask", "header", "identity", "seed")

    def __init__(self, header: Header) -> None:
        self.header: bytes = header.encode()
        self.identity: bytes = header.identity
        self.seed: int = zlib.crc32(self.header)
        self._base = int.from_bytes(header.identity[:4], "big")
        self._event_mask = self.mask(EVENT)

    def mask(self, kind: bytes) -> int:
        """Return the number that, XORed with the length of a record of this kind, gives its check."""
        return self._base ^ kind[0] * _FOUR_TIMES

    def encode(self, payload: bytes, kind: bytes = EVENT) -> bytes:
        """Return a record.

        Args:
            payload: At most `MAX_PAYLOAD` bytes.
            kind: One byte.

        Raises:
            ValueError: The payload is too large: no reader would find the record.
        """
        size = len(payload)
        if size > MAX_PAYLOAD:
            raise ValueError(f"a record holds at most {MAX_PAYLOAD} bytes, not {size}")
        mask = self._event_mask if kind == EVENT else self.mask(kind)
        return _RECORD.pack(_MARKER + kind, size, size ^ mask, zlib.crc32(payload, self.seed)) + payload

    def encode_refusals(self, counts: Mapping[str, int]) -> bytes:
        """Return a record that reports refused events.

        Args:
            counts: How many were refused, by reason; a reason is a word of ASCII letters and underscores.
        """
        members = ",".join(f'"{reason}":{count}' for reason, count in counts.items())
        return self.encode(f"{{{members}}}".encode(), REFUSALS)


class RecordRun(NamedTuple):
    """Whole records of one kind, one after the other.

    Attributes:
        kind: `EVENT`, `REFUSALS`, or a byte that only later releases know.
        payloads: What the writer encoded; in the segment each takes `OVERHEAD` more bytes.
        start: Offset in the segment of the first record's first byte.
        end: Offset in the segment of the byte after the last one.
    """

    kind: bytes
    payloads: list[bytes]
    start: int
    end: int


class SegmentParser:
    """Finds the whole records in the data of one segment, which arrives in pieces of any size.

    Each byte belongs to a whole record, is torn, or is pending. The records returned so far, `torn` and
    `pending` depend on the data so far, and not on how it was cut into pieces. The time is linear in the size
    of the data: bytes are searched for markers once or twice, and the CRC of a payload is computed only if
    its length passes its check. But each piece costs a copy of the pending bytes, so pieces shouldn't be
    much smaller than records.

    Args:
        header: The segment's header.
        position: Offset in the segment of the first byte fed, at the end of the header or of a record.

    Attributes:
        torn: Bytes so far that are part of no whole record.
        position: Offset in the segment of the first pending byte; without any, of the next byte to feed.

    Raises:
        ValueError: As from `Header.encode`.
    """

    __slots__ = ("_encoder", "_event_mask", "_pending", "_probed", "_unsure", "position", "torn")

    def __init__(self, header: Header, position: int) -> None:
        self._encoder = Encoder(header)
        self._event_mask = self._encoder.mask(EVENT)
        self._pending = b""
        self.position: int = position
        # Offsets behind a pending record: no whole record begins before `_probed`, except perhaps, later, at
        # those in `_unsure`.
        self._probed = position
        self._unsure: list[int] = []
        self.torn: int = 0

    @property
    def pending(self) -> int:
        """Bytes at the end of the data that may become a record."""
        return len(self._pending)

    def feed_runs(self, data: bytes) -> list[RecordRun]:
        """Feed the next bytes of the segment; return the records that became whole, in order.

        Records of one kind are grouped, though not always maximally.
        """
        data = self._pending + data
        runs: list[RecordRun] = []
        at = 0
        while (at := self._walk(data, at, runs)) < len(data):
            found = self._parse_at(data, at)
            if found is True:
                found = self._find_behind(data, at)
                if found is True:
                    break
            if isinstance(found, RecordRun):
                runs.append(found)
                self.torn += found.start - self.position - at
                at = found.end - self.position
            else:
                after = next(_beginnings(data, at + 1), len(data))
                self.torn += after - at
                at = after
        self._pending = data[at:]
        self.position += at
        return runs

    def finish(self) -> None:
        """Count the pending bytes as torn, since the segment ended. Further bytes may still be fed."""
        self.torn += len(self._pending)
        self.position += len(self._pending)
        self._pending = b""

    def _walk(self, data: bytes, at: int, runs: list[RecordRun]) -> int:
        """Collect the whole events from an index of the data on; return the index after them.

        It finds the same as `_parse_at`, but much faster.
        """
        begin, total = at, len(data)
        last = total - OVERHEAD
        mask, seed, unpack, crc_of = self._event_mask, self._encoder.seed, _RECORD.unpack_from, zlib.crc32
        payloads: list[bytes] = []
        while at <= last:
            words, size, check, crc = unpack(data, at)
            start = at + OVERHEAD
            end = start + size
            if words != EVENT_MARKER or size ^ check != mask or size > MAX_PAYLOAD or end > total:
                break
            payload = data[start:end]
            if crc_of(payload, seed) != crc:
                break
            payloads.append(payload)
            at = end
        if payloads:
            runs.append(RecordRun(EVENT, payloads, self.position + begin, self.position + at))
        return at

    def _parse_at(self, data: bytes, at: int) -> RecordRun | bool:
        """Return the whole record at an index of the data, or whether one may follow later."""
        start = at + OVERHEAD
        if len(data) < start:
            return _MARKER.startswith(data[at : at + len(_MARKER)])
        words, size, check, crc = _RECORD.unpack_from(data, at)
        marker, kind = words[: len(_MARKER)], words[len(_MARKER) :]
        if marker != _MARKER or size ^ check != self._encoder.mask(kind) or size > MAX_PAYLOAD:
            return False
        end = start + size
        if len(data) < end:
            return True
        payload = data[start:end]
        if zlib.crc32(payload, self._encoder.seed) != crc:
            return False
        return RecordRun(kind, [payload], self.position + at, self.position + end)

    def _find_behind(self, data: bytes, at: int) -> RecordRun | bool:
        """Return the first whole record behind the pending one at an index; True if that stays pending."""
        position = self.position
        known = [offset - position for offset in self._unsure if offset > position + at]
        unsure: list[int] = []
        for index in chain(known, _beginnings(data, max(at + 1, self._probed - position))):
            found = self._parse_at(data, index)
            if isinstance(found, RecordRun):
                return found
            if found:
                unsure.append(position + index)
        self._unsure = unsure
        self._probed = position + len(data)
        return True


def _beginnings(data: bytes, at: int) -> Iterator[int]:
    """Yield the indexes of the data, from `at` on, at which a record may begin."""
    while match := _BEGINNING.search(data, at):
        yield match.start()
        at = match.start() + 1
