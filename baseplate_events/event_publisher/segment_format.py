"""What a segment of the spool looks like. Pure.

A segment begins with the line `event-spool 1 VERSION`, VERSION being the format of its events
(`collector.version`). After it comes a frame for each event:

    4 bytes    length of the event, big-endian
    4 bytes    CRC-32 of the line and the event together, big-endian
    ...        the event

Rules:

1. The CRC begins with the line, so that frames of another version aren't valid, and neither are the zeros
   that a power cut leaves where nothing was written.
2. What follows a frame that isn't whole is unknown: where it began can't be told.
3. Nothing is allocated by a length that was read.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_FRAME: Final = struct.Struct(">II")

#: Bytes that a frame has beside its event.
FRAME_SIZE: Final[int] = _FRAME.size

#: The first words of a segment, with the version of its format.
_MAGIC: Final = b"event-spool"
_FORMAT: Final = b"1"

#: Bytes of a file that are looked at for its first line if that isn't the expected one.
_LINE_LIMIT: Final = 64


class SegmentFormat:
    """Writes and reads segments of one version.

    Args:
        version: Format of the events, `collector.version`.

    Attributes:
        header: The line that a segment begins with.
    """

    def __init__(self, version: str) -> None:
        self.header: bytes = b"%b %b %b\n" % (_MAGIC, _FORMAT, version.encode())
        self._seed = zlib.crc32(self.header)

    def frame(self, event: bytes) -> bytes:
        """Put an event of less than 4 GiB in its frame."""
        return _FRAME.pack(len(event), zlib.crc32(event, self._seed)) + event

    def spans(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Give where each event of a segment begins and ends, up to the first frame that isn't whole.

        The first line is passed over, whatever it says: a frame that is whole proves which version it is of.
        """
        view = memoryview(data)
        position = len(self.header)
        while position + FRAME_SIZE <= len(data):
            length, crc = _FRAME.unpack_from(data, position)
            start = position + FRAME_SIZE
            position = start + length
            if position > len(data) or zlib.crc32(view[start:position], self._seed) != crc:
                return
            yield start, position

    def refusal(self, data: bytes) -> str | None:
        """Tell why a file without a whole frame can't be one of these segments that was torn, and what to do.

        Returns:
            None for a segment that was torn: its first line is whole, or what is missing of it was never
            written and is absent or zeros.
        """
        if self.header.startswith(data[: len(self.header)].rstrip(b"\0")):
            return None
        words = data[:_LINE_LIMIT].split(b"\n")[0].split(b" ")
        if words[0] != _MAGIC:
            return "isn't a segment of a spool, or its beginning is damaged; move it away"
        if words[1:2] != [_FORMAT]:
            return "is of another format; deliver it with the release of the publisher that wrote it"
        return (
            "holds events of another collector.version; deliver them with that setting first, or name "
            "another folder"
        )
