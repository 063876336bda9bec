"""What the files of the spool look like. Pure.

A file begins with a line that says of which format it is and of which the events are, VERSION being
`collector.version`:

    event-spool 1 VERSION           a segment that was written to a file of its own
    event-spool 2 VERSION NUMBER    a segment of that number that was written to a journal, there or moved

After it comes a frame for each event:

    4 bytes    length of the event, big-endian
    4 bytes    CRC-32 of the line and the event together, big-endian
    ...        the event

After the last frame, a journal has zeros. One without events begins with a zero.

Rules:

1. The CRC begins with the line, so that frames of another version aren't valid, nor what another segment
   left in a journal, nor the zeros that a power cut leaves where nothing was written.
2. What follows a frame that isn't whole is unknown: where it began can't be told.
3. Nothing is allocated by a length that was read.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_FRAME: Final = struct.Struct(">II")

#: Bytes that a frame has beside its event.
FRAME_SIZE: Final[int] = _FRAME.size

#: Makes what precedes an event in a frame, of its length and its CRC; for who has no time to call `frame`.
pack_frame: Final = _FRAME.pack

#: The first words of a file, with the versions of its format.
_MAGIC: Final = b"event-spool"
_FORMATS: Final = (b"1", b"2")

#: Bytes of a file that are looked at for its first line: more than that takes with any number that can be
#: counted to.
LINE_LIMIT: Final[int] = 64


def frame(event: bytes, seed: int) -> bytes:
    """Put an event of less than 4 GiB in its frame.

    Args:
        event: The event.
        seed: The CRC-32 of the first line.
    """
    return _FRAME.pack(len(event), zlib.crc32(event, seed)) + event


class SegmentFormat:
    """Writes and reads segments and journals of one version.

    Args:
        version: Format of the events, `collector.version`.

    Attributes:
        header: The line that a segment in a file of its own begins with.
        seed: The CRC-32 of that line.
    """

    def __init__(self, version: str) -> None:
        self.header: bytes = b"%b %b %b\n" % (_MAGIC, _FORMATS[0], version.encode())
        self.seed: int = zlib.crc32(self.header)
        self._beginning = b"%b %b %b " % (_MAGIC, _FORMATS[1], version.encode())
        self._line = re.compile(re.escape(self._beginning) + rb"([0-9]+)\n")

    def line(self, number: int) -> bytes:
        """Make the line that a segment in a journal begins with."""
        return self._beginning + b"%d\n" % number

    def number(self, data: bytes, default: int) -> int:
        """Tell the number in the first line, or `default` if there is none."""
        match = self._line.match(data[:LINE_LIMIT])
        return int(match[1]) if match is not None else default

    def frame(self, event: bytes) -> bytes:
        """Put an event of less than 4 GiB in its frame, for a segment that begins with `header`."""
        return frame(event, self.seed)

    def spans(self, data: bytes, number: int | None = None) -> Iterator[tuple[int, int]]:
        """Give where each event of a file begins and ends, up to the first frame that isn't whole.

        Args:
            data: All of the file.
            number: Which segment it is, if that is known. Then the first line is passed over, whatever it
                says: a frame that is whole proves what it must have been.
        """
        match = self._line.match(data[:LINE_LIMIT])
        lines = [self.header] if match is None else [match[0], self.header]
        if number is not None:
            lines.append(self.line(number))
        for line in lines:
            spans = _spans(data, len(line), zlib.crc32(line))
            first = next(spans, None)
            if first is not None:
                yield first
                yield from spans
                return

    def refusal(self, data: bytes) -> str | None:
        """Tell why a file without a whole frame can't be one of these that was torn, and what to do.

        Returns:
            None for one that was torn: its first line is whole, or what is missing of it was never written
            and is absent or zeros.
        """
        if self.header.startswith(data[: len(self.header)].rstrip(b"\0")):
            return None
        if self._line.match(data[:LINE_LIMIT]):
            return None
        begun = data[:LINE_LIMIT].rstrip(b"\0")
        if self._beginning.startswith(begun) or self._line.fullmatch(begun + b"\n"):
            return None
        words = data[:LINE_LIMIT].split(b"\n")[0].split(b" ")
        if words[0] != _MAGIC:
            return "isn't a segment of a spool, or its beginning is damaged; move it away"
        if words[1:2] not in ([known] for known in _FORMATS):
            return "is of another format; deliver it with the release of the publisher that wrote it"
        return (
            "holds events of another collector.version; deliver them with that setting first, or name "
            "another folder"
        )


def _spans(data: bytes, position: int, seed: int) -> Iterator[tuple[int, int]]:
    view = memoryview(data)
    while position + FRAME_SIZE <= len(data):
        length, crc = _FRAME.unpack_from(data, position)
        start = position + FRAME_SIZE
        position = start + length
        if position > len(data) or zlib.crc32(view[start:position], seed) != crc:
            return
        yield start, position
