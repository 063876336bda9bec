"""The test vectors of spool segments: what a writer writes, and what a reader finds in it after damage."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING, Any, Final

from baseplate_events.spool import UNKNOWN_FORMAT
from baseplate_events.spool.format import (
    EVENT,
    REFUSALS,
    Encoder,
    Header,
    SegmentParser,
    UnreadableSegmentError,
)

from .records import feed

if TYPE_CHECKING:
    from collections.abc import Iterator

_IDENTITY: Final = bytes(range(0x10, 0x20))
_OURS: Final = Header("2", _IDENTITY)

#: A segment of another writer, and one of the same identity for other events.
_OTHERS: Final = (Header("2", bytes(16)), Header("2j", _IDENTITY))

_EVENTS: Final = (b'{"1":{"str":"a"},"2":{"i64":1}}', b"{}", '{"1":{"str":"Zoë 日本"}}'.encode())
_JSON_EVENTS: Final = (b'{"action":"click"}', b'{ "b" : [] }')


def segments() -> list[dict[str, Any]]:
    """Return the vectors of the file for the version of the format that is written now."""
    return [
        *(_written(*writing) for writing in _writings()),
        *(_vector(*finding) for finding in _findings()),
    ]


def _writings() -> Iterator[tuple[str, Header, list[tuple[bytes, bytes]]]]:
    events = [(EVENT, event) for event in _EVENTS]
    counts = (REFUSALS, b'{"full":12,"too_large":1}')
    yield "no records", _OURS, []
    yield "events of version 2", _OURS, events
    yield (
        "events of version 2j",
        Header("2j", bytes(range(240, 256))),
        [(EVENT, event) for event in _JSON_EVENTS],
    )
    yield "events of an unknown format", Header(UNKNOWN_FORMAT, _IDENTITY), [(EVENT, b"any \0 \xff bytes")]
    yield "an empty payload", _OURS, [(EVENT, b""), events[0]]
    yield "refusals before, between and after events", _OURS, [
        counts, events[0], (REFUSALS, b'{"full":3}'), events[1], (REFUSALS, b'{"full":18446744073709551616}')
    ]  # fmt: skip
    yield "a kind that version 1 doesn't know", _OURS, [events[0], (b"X", b"to be skipped"), events[1]]
    yield "markers and a record of another segment in a payload", _OURS, [
        (EVENT, b"\xffEV\xffEVE" + Encoder(_OTHERS[0]).encode(_EVENTS[0])), events[1]
    ]  # fmt: skip


def _findings() -> Iterator[tuple[str, bytes]]:
    encoder = Encoder(_OURS)
    header, (first, second, third) = encoder.header, map(encoder.encode, _EVENTS)
    largest = encoder.encode(bytes(1 << 24))[:16]
    long = bytearray(largest)
    long[4] ^= 0x80
    too_long = (0x1000001).to_bytes(4, "big") + (0x1000001 ^ encoder.mask(EVENT)).to_bytes(4, "big")
    others = b"".join(Encoder(other).encode(event) for other in _OTHERS for event in _EVENTS[:2])

    yield "a cut payload at the end", header + first + third[:-1]
    yield "a cut head at the end", header + first + third[:15]
    yield "a cut marker at the end", header + first + b"\xffE"
    yield "a head at the end that claims 16 MiB", header + first + largest
    yield "a head at the end that claims a byte more than 16 MiB", header + largest[:4] + too_long + bytes(4)
    yield "a torn record before a whole one", header + first + third[:-9] + second
    yield "two torn records before whole ones", header + third[:40] + third[:17] + first + second
    yield "a torn record that claims 16 MiB before whole ones", header + largest + first + second
    yield "a torn record that claims 16 MiB, and another before it is over", header + largest + third[:-1]
    yield (
        "a torn record between whole ones, and a cut one at the end",
        header + first + third[:30] + second + third[:-1],
    )
    yield "a torn head before a whole record", header + third[:9] + first
    yield "bytes missing in the middle of a payload", header + third[:20] + third[25:] + first
    for name, at in (("marker", 1), ("kind", 3), ("length", 7), ("check", 9), ("CRC", 14), ("payload", 20)):
        changed = bytearray(third)
        changed[at] ^= 1
        yield f"a changed byte: {name}", header + first + changed + second
    yield "a length that fails its check", header + first + long + second
    yield "zeros between records", header + first + bytes(100) + second
    yield "zeros at the end", header + first + bytes(100)
    yield "foreign bytes", header + b"x" + first + b"\xffEV\xffEVE\xff" + second + b"\n"
    yield "records of other segments", header + first + others + second
    yield "a header behind the header", header + header + first

    yield "an empty file", b""
    yield "half a header", header[:30]
    yield "a header without its newline", header[:-1]
    yield "a header with a changed byte in its identity", header.replace(b"10", b"20") + first
    yield "a header with a changed version", header.replace(b" 1 ", b" 2 ", 1) + first
    yield "a header with a changed check", header[:-2] + bytes([header[-2] ^ 1]) + b"\n" + first
    yield "a header with zeros from its middle on", header[:30] + bytes(200)
    yield "a header of version 2", _header(b"event-segment 2 anything that version 2 has there ") + first
    yield "a header of version 2 without more", _header(b"event-segment 2 ")
    yield "a header of version 1 with other fields", _header(b"event-segment 1 2 abcdef ") + first
    yield "a line of more than 128 bytes", _header(b"event-segment 2 " + b"x" * 128 + b" ")
    yield "zeros", bytes(200)
    yield "another file", b"event-spool 1 2\n"


def _header(line: bytes) -> bytes:
    return line + b"%08x\n" % zlib.crc32(line)


def _written(name: str, header: Header, records: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    encoder = Encoder(header)
    data = encoder.header + b"".join(encoder.encode(payload, kind) for kind, payload in records)
    return {**_vector(name, data), "written": True}


def _vector(name: str, data: bytes) -> dict[str, Any]:
    """Return a vector of any bytes."""
    return {"name": name, "segment_base64": base64.b64encode(data).decode(), **read(data), "written": False}


def read(data: bytes) -> dict[str, Any]:
    """Return what a reader finds in a segment, in the form of a vector."""
    nothing: dict[str, Any] = {"format": None, "identity": None, "records": [], "torn": 0, "pending": 0}
    try:
        header = Header.decode(data)
    except UnreadableSegmentError as error:
        return {"header": "newer" if error.newer else "unreadable", **nothing}
    if header is None:
        return {"header": "incomplete", **nothing}
    begin = len(header.encode())
    parser = SegmentParser(header, begin)
    records = [
        {
            "kind": kind.decode(),
            "payload_base64": base64.b64encode(payload).decode(),
            "start": start,
            "end": end,
        }
        for kind, payload, start, end in feed(parser, data[begin:])
    ]
    return {
        "header": "good",
        "format": header.event_format,
        "identity": header.identity.hex(),
        "records": records,
        "torn": parser.torn,
        "pending": parser.pending,
    }
