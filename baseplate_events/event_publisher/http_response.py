"""Reads an HTTP/1.1 response (RFC 9112) from a peer that may send anything. Does no I/O of its own.

Rules:

1. Interim responses (1xx except 101) are read and discarded until a final response arrives.
2. A head that the peer breaks off is no response. A head that is longer than *we* read is a response: its
   status line counts, and those of its headers that were read.
3. Whatever the peer claims or sends, one call reads at most `MAX_HEAD` + `MAX_BODY` bytes and keeps at most
   `MAX_EXCERPT` bytes of a body.
4. Oddities cost the connection, never the status. `_leaves_reusable` alone decides that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from .policy.wire import Response

if TYPE_CHECKING:
    from collections.abc import Callable

#: Most bytes read for all heads of one exchange, including interim responses. Eight times what nginx, Node
#: and Go's proxies allow by default.
MAX_HEAD: Final = 64 * 1024

#: Most bytes kept of a response's body. Enough for an error text.
MAX_EXCERPT: Final = 8 * 1024

#: Most bytes read after the head: an excerpt, and as much again for chunk sizes, chunk extensions
#: and trailers.
MAX_BODY: Final = 2 * MAX_EXCERPT

#: Bytes requested from the connection at a time. A usual response fits.
_READ: Final = 8 * 1024

#: Most characters kept of the reason phrase, which goes to the log.
_MAX_REASON: Final = 100

#: Interim statuses, and the one among them that is final (RFC 9110, 15.2).
_INTERIM: Final = range(100, 200)
_SWITCHING_PROTOCOLS: Final = 101

_SUCCESS: Final = range(200, 300)

#: Statuses whose response has no body, whatever its headers say (RFC 9112, 6.3).
_NO_CONTENT: Final = frozenset({204, 304})

_BEGINNING: Final = b"HTTP/1."
_LINE_ENDS = re.compile(rb"[\r\n]+")
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_LINE = re.compile(rb"([^\n]*)\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9])[ \t]+([1-9][0-9]{2})(?:[ \t]([^\n]*))?\r?\n")
_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*")
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?")

#: Headers that are used; all others are ignored.
_KNOWN: Final = frozenset({"connection", "content-length", "date", "retry-after", "transfer-encoding"})

#: How a body ends: after this many bytes, after its last chunk, or with the connection.
_Extent: TypeAlias = int | Literal["chunked", "until close"]

#: Returns up to this many bytes from the peer; waits for at least one; b"" at the end.
Receive: TypeAlias = "Callable[[int], bytes]"


class MalformedResponseError(ValueError):
    """The peer sends something other than HTTP/1.x. The text quotes nothing of it."""


class InterruptedResponseError(ConnectionError):
    """The peer ended the connection before the head of a final response was complete."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A final response, and what it implies for its connection.

    Attributes:
        response: The response.
        reusable: Whether the connection can take another request.
        premature: Whether it began to arrive before the whole request was sent.
        rest: Number of bytes after the head or body, which are discarded.
    """

    response: Response
    reusable: bool
    premature: bool
    rest: int

    @property
    def success(self) -> bool:
        """Whether the request succeeded."""
        return self.response.status in _SUCCESS

    @property
    def refusal(self) -> bool:
        """Whether the request was refused; 101 is neither."""
        return self.response.status >= _SUCCESS.stop


@dataclass(slots=True)
class _Head:
    """The head of a response.

    Attributes:
        minor: The digit after `HTTP/1.`.
        status: 100 to 999.
        reason: The text after it, without control characters.
        premature: As for `Answer`.
        fields: The values of the headers of `_KNOWN`, by their names in lower case.
        whole: Whether it was read to its end.
        sound: Whether all of it conforms to RFC 9112.
    """

    minor: int
    status: int
    reason: str
    premature: bool
    fields: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    whole: bool = True
    sound: bool = True

    @property
    def interim(self) -> bool:
        return self.status in _INTERIM and self.status != _SWITCHING_PROTOCOLS

    def first(self, name: str) -> str | None:
        return next(iter(self.fields.get(name, ())), None)

    def items(self, name: str) -> list[str]:
        """Return the members of a comma-separated list in lower case."""
        return [item.strip().lower() for item in ",".join(self.fields.get(name, ())).split(",")]


class ResponseReader:
    """Reads the response to one request.

    Args:
        receive: Returns bytes from the peer. An exception in the head is passed on; in the body it only ends
            the body.
        early: The bytes received before the whole request was sent, at most `MAX_HEAD`.
        begin_body: Called before a body is read.
    """

    def __init__(
        self, receive: Receive, early: bytes = b"", begin_body: Callable[[], None] = lambda: None
    ) -> None:
        self._receive = receive
        self._begin_body = begin_body
        self._buffer = bytearray(early)
        self._early = len(early)
        self._may_read = MAX_HEAD - len(early)
        self._ended = False

    def read(self, *, tunnel: bool = False) -> Answer:
        """Read the final response.

        Args:
            tunnel: Whether the request was a CONNECT, whose success has no body.

        Raises:
            MalformedResponseError: The peer doesn't send HTTP/1.x.
            InterruptedResponseError: The peer ended the connection too early.
            Exception: Any exception of `receive` before the head was complete.
        """
        head = self._read_head()
        while head.interim:
            head = self._read_head()
        extent = 0 if tunnel and head.status in _SUCCESS else _extent(head)
        excerpt, complete = b"", extent == 0
        # The body of a success is read only so that the connection can be kept.
        if head.status in _SUCCESS:
            wanted = _leaves_reusable(head, extent, complete=True, rest=0)
        else:
            wanted = head.whole
        if wanted and not complete:
            self._may_read = MAX_BODY
            self._begin_body()
            excerpt, complete = self._read_body(extent)
        rest = len(self._buffer)
        return Answer(
            Response(
                status=head.status,
                reason=head.reason,
                retry_after=head.first("retry-after"),
                date=head.first("date"),
                excerpt=excerpt,
            ),
            reusable=_leaves_reusable(head, extent, complete=complete, rest=rest),
            premature=head.premature,
            rest=rest,
        )

    # --- the head ---

    def _read_head(self) -> _Head:
        head = None
        searched = 0
        while True:
            if head is None:
                head = self._status_line()
            end = _END_OF_HEAD.search(self._buffer, searched)
            if end is not None:
                break
            searched = max(0, len(self._buffer) - len(b"\r\n\r"))
            if not self._fill():
                break
        if end is None and self._ended:
            raise InterruptedResponseError("the connection ended before the response was complete")
        if head is None or (end is None and head.interim):
            raise MalformedResponseError(f"no final response within {MAX_HEAD} bytes")
        head.whole = end is not None
        _parse_fields(self._take(end.end() if end else self._buffer.rfind(b"\n") + 1), head)
        return head

    def _status_line(self) -> _Head | None:
        """Read the status line and leave it in the buffer; return None while it isn't complete."""
        blank = _LINE_ENDS.match(self._buffer)
        if blank is not None:  # from a server that sends an extra line end
            self._take(blank.end())
        if not _BEGINNING.startswith(self._buffer[: len(_BEGINNING)]):
            raise MalformedResponseError("it doesn't begin with HTTP/1.")
        if b"\n" not in self._buffer:
            return None
        line = _STATUS_LINE.match(self._buffer)
        if line is None:
            raise MalformedResponseError("the status line isn't one of HTTP/1.x")
        text = (line[3] or b"").strip()[:_MAX_REASON].decode("latin-1")
        reason = "".join(char if char.isprintable() else " " for char in text)
        return _Head(int(line[1]), int(line[2]), reason, premature=self._early > 0, sound=reason == text)

    # --- the body ---

    def _read_body(self, extent: _Extent) -> tuple[bytes, bool]:
        """Read the body or its beginning; return it, and whether it is complete."""
        if extent == "chunked":
            return self._read_chunks()
        wanted = MAX_EXCERPT if extent == "until close" else min(extent, MAX_EXCERPT)
        self._gather(wanted)
        excerpt = self._take(wanted)
        return excerpt, len(excerpt) == extent

    def _read_chunks(self) -> tuple[bytes, bool]:
        excerpt = b""
        while True:
            line = self._body_line()
            size = _CHUNK_SIZE.fullmatch(line) if line is not None else None
            if size is None:
                return excerpt, False
            length = int(size[1], 16)
            if length == 0:
                break
            wanted = min(length, MAX_EXCERPT - len(excerpt))
            self._gather(wanted)
            excerpt += self._take(wanted)
            if wanted < length or self._body_line() != b"":
                return excerpt, False
        while (line := self._body_line()) is not None:  # trailers
            if not line:
                return excerpt, True
        return excerpt, False

    def _body_line(self) -> bytes | None:
        """Return a line of the body without its end; None if it isn't complete."""
        searched = 0
        while True:
            place = self._buffer.find(b"\n", searched)
            if place >= 0:
                return self._take(place + 1)[:-1].removesuffix(b"\r")
            searched = len(self._buffer)
            if not self._fill_body():
                return None

    # --- the bytes ---

    def _gather(self, size: int) -> None:
        """Fill the buffer with this many bytes of the body, or all there are."""
        while len(self._buffer) < size and self._fill_body():
            pass

    def _fill_body(self) -> bool:
        try:
            return self._fill()
        except OSError:
            return False  # the status is known; what follows it changes nothing

    def _fill(self) -> bool:
        """Receive more; return whether there was more."""
        data = self._receive(min(self._may_read, _READ)) if self._may_read and not self._ended else b""
        if not data:
            self._ended = self._may_read > 0
            return False
        self._may_read -= len(data)
        self._buffer += data
        return True

    def _take(self, size: int) -> bytes:
        """Remove up to `size` bytes from the buffer."""
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._early -= len(data)
        return data


def _parse_fields(raw: bytes, head: _Head) -> None:
    """Add the headers after a status line to the head, and record whether they conform."""
    lines = _LINE.finditer(raw)
    head.sound = next(lines)[1].endswith(b"\r") and head.sound
    values: list[str] = []
    for match in lines:
        line = match[1]
        # A bare line feed ends a line too (RFC 9112, 2.2), but not every peer agrees.
        if not line.endswith(b"\r"):
            head.sound = False
        line = line.removesuffix(b"\r")
        if line and not _FIELD.fullmatch(line):
            head.sound = False
        if line.startswith((b" ", b"\t")):  # folded; obsolete (RFC 9112, 5.2)
            if values:
                values[-1] = f"{values[-1]} {line.strip().decode('latin-1')}".strip()
            continue
        name, _, value = line.partition(b":")
        key = name.strip().lower().decode("latin-1")
        values = []
        if key in _KNOWN:
            values = head.fields.setdefault(key, [])
            values.append(value.strip(b" \t").decode("latin-1"))


def _extent(head: _Head) -> _Extent:
    """Return where the body ends (RFC 9112, 6.3)."""
    if head.status in _NO_CONTENT or head.status == _SWITCHING_PROTOCOLS:
        return 0
    if "transfer-encoding" in head.fields:
        return "chunked" if head.items("transfer-encoding") == ["chunked"] else "until close"
    length = head.items("content-length")[0]
    return int(length) if _LENGTH.fullmatch(length) else "until close"


def _leaves_reusable(head: _Head, extent: _Extent, *, complete: bool, rest: int) -> bool:
    """Decide whether a connection can take another request after a response.

    True only after exactly one response whose end is certain, with nothing behind it, and only if it was a
    success: a collector whose name has moved may refuse everything at its old address while the connection is
    kept.
    """
    lengths = head.fields.get("content-length", [])
    encodings = head.fields.get("transfer-encoding", [])
    if head.status in _NO_CONTENT:
        one_extent = not encodings and lengths in ([], ["0"])
    else:
        one_extent = len(lengths) + len(encodings) == 1 and "," not in "".join(lengths + encodings)
    return (
        head.status in _SUCCESS
        and head.whole
        and head.sound
        and head.minor >= 1
        and "close" not in head.items("connection")
        and extent != "until close"
        and one_extent
        and complete
        and not rest
    )
