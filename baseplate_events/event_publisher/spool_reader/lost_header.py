"""What stands in for the header of a segment that lost it, as a power cut may leave one.

Everything in a header is known from elsewhere: the identity from the name of the file, the version is the one
that this release reads, and there are few formats. The CRC of a record depends on the whole header. So a
header that a whole record confirms is the one that was lost, and without such a record there is nothing to
deliver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...spool import UNKNOWN_FORMAT
from ...spool.format import Header, SegmentParser
from ..policy.batching import FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..policy.byte_ranges import ByteRanges

    #: Returns up to so many bytes of a file from an offset on; none only at its end.
    Read = Callable[[int, int], bytes]

#: Bytes read at a time.
_PIECE: Final = 128 * 1024


def rebuild_header(identity: bytes, read: Read) -> Header | None:
    """Return the header of a segment without it; None if no whole record confirms one.

    The time is linear in the size of the file.
    """
    for event_format in (*FORMATS, UNKNOWN_FORMAT):
        header = Header(event_format, identity)
        parser = SegmentParser(header, 0)
        at = 0
        while data := read(_PIECE, at):
            if parser.feed_runs(data):
                return header
            at += len(data)
    return None


class LostHeader:
    """What was found in a segment without a header.

    Attributes:
        header: The header that it had; None if no whole record confirms one.
        only_zeros: Whether all bytes that weren't settled when it was searched are zeros.
    """

    __slots__ = ("_searched", "header", "only_zeros")

    def __init__(self) -> None:
        self._searched = -1
        self.header: Header | None = None
        self.only_zeros: bool = False

    def search(self, identity: bytes, read: Read, size: int, settled: ByteRanges) -> None:
        """Search a segment, unless the header is known or the size is the same as last time.

        Raises:
            OSError: It can't be read.
        """
        if self.header is None and size != self._searched:
            self.header = rebuild_header(identity, read)
            self.only_zeros = self.header is None and _has_only_zeros(read, settled.gaps(0, size))
            self._searched = size


def _has_only_zeros(read: Read, places: Iterable[tuple[int, int]]) -> bool:
    for start, end in places:
        at = start
        while at < end and (data := read(min(_PIECE, end - at), at)):
            if data.strip(b"\0"):
                return False
            at += len(data)
    return True
