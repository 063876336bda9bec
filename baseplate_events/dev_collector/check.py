"""Decides what a collector accepts, what it refuses, and why. Pure.

Rules:

1. Nothing here raises, whatever the bytes: the result is an `AcceptedBatch` or a `RejectedBatch`.
2. A batch is accepted whole or not at all.
3. Nothing is parsed as JSON before its signature is verified, or inflated past the largest size.
4. A reason names what is wrong and where, in one line of printable ASCII. It contains no event data, no
   secret and no valid signature.
"""

from __future__ import annotations

import hmac
import json
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

from .._words import counted
from ..event_publisher.policy.wire import sign

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Largest uncompressed batch in bytes; the limit of the protocol, which the publisher observes.
MAX_SIZE: Final = 512_000

#: Most characters of a client's text that a reason repeats.
_MAX_QUOTED: Final = 100

_VERSIONS: Final = {"/v2": "2", "/v2j": "2j"}

#: Used for an unknown key, so that this takes as long as a wrong signature.
_FALLBACK_SECRET: Final = b"\0" * 32

_SIGNATURE: Final = re.compile(r"key=([^,]+), mac=([0-9a-f]{64})")
_DIGITS: Final = re.compile(r"[0-9]{1,15}")
_V2_OPENING: Final = re.compile(r'\{"1":\{"lst":\["rec",(0|[1-9][0-9]{0,8})(?:,|(?=\]))')
_V2_CLOSING: Final = "]}}"
_BLANKS: Final = re.compile(r"[ \t\r\n]*")
_LINE_BREAK: Final = re.compile(r"[\r\n]")
_STRING_OR_BLANKS: Final = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")|[ \t\r\n]+')


@dataclass(frozen=True, slots=True)
class AcceptedBatch:
    """A valid batch.

    Attributes:
        events: The events in order, each on one line: as sent, or without the blanks between its tokens if it
            was sent on several.
    """

    events: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class RejectedBatch:
    """A refused request.

    Attributes:
        status: The HTTP status to answer with.
        reason: What is wrong, in one line of printable ASCII.
    """

    status: int
    reason: str


class _RefusalError(Exception):
    """Ends a check; never leaves the pure part."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.rejected = RejectedBatch(status, reason)


def check_head(
    method: str, path: str, headers: Sequence[tuple[str, str]], *, max_size: int = MAX_SIZE
) -> int | RejectedBatch:
    """Check what can be checked before the body arrives.

    Args:
        method: The method of the request.
        path: Its target, as sent.
        headers: Names and values of its headers; names in any case, repeated headers repeatedly.
        max_size: Largest uncompressed batch in bytes.

    Returns:
        Bytes of the body to read, or why the request is refused (404, 405, 411, 400, 413 or 415).
    """
    try:
        return _body_length(method, path, headers, max_size)
    except _RefusalError as refusal:
        return refusal.rejected


def check_batch(
    method: str,
    path: str,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    keys: Mapping[str, bytes],
    *,
    max_size: int = MAX_SIZE,
) -> AcceptedBatch | RejectedBatch:
    """Check a whole request: its head, its signature and its batch, in this order.

    Args:
        method: The method of the request.
        path: Its target, as sent.
        headers: Names and values of its headers; names in any case, repeated headers repeatedly.
        body: Its body, as sent.
        keys: Secrets by key name.
        max_size: Largest uncompressed batch in bytes.

    Returns:
        The events of the batch, or the refusal: for its head (see `check_head`), its signature (401),
        its size (413) or its content (400).
    """
    try:
        length = _body_length(method, path, headers, max_size)
        if len(body) != length:
            return RejectedBatch(400, f"the body ended after {len(body):,} of {counted(length, 'byte')}")
        name, mac = _signature(headers)
        plain = _gunzip(body, max_size) if _encoding(headers) == "gzip" else body
        if len(plain) > max_size:
            return RejectedBatch(413, f"the batch is larger than {counted(max_size, 'byte')} uncompressed")
        # Compared in constant time, and for an unknown key as well.
        matches = hmac.compare_digest(sign(keys.get(name, _FALLBACK_SECRET), plain), mac)
        if name not in keys:
            return RejectedBatch(401, f"X-Signature: unknown key {_quote(name)}")
        if not matches:
            return RejectedBatch(401, f"X-Signature: the mac doesn't match the body under key {_quote(name)}")
        return AcceptedBatch(_split(plain, _VERSIONS[path]))
    except _RefusalError as refusal:
        return refusal.rejected


def _body_length(method: str, path: str, headers: Sequence[tuple[str, str]], max_size: int) -> int:
    if path not in _VERSIONS:
        raise _RefusalError(404, f"no such path: {_quote(path)}; batches go to {' or '.join(_VERSIONS)}")
    if method != "POST":
        raise _RefusalError(405, f"method {_quote(method)} isn't allowed; batches are sent with POST")
    if any(name.lower() == "transfer-encoding" for name, _ in headers):
        raise _RefusalError(411, "Transfer-Encoding isn't supported; send Content-Length")
    declared = _header(headers, "Content-Length", 400)
    if declared is None:
        raise _RefusalError(411, "Content-Length is missing")
    if not _DIGITS.fullmatch(declared):
        raise _RefusalError(400, "Content-Length isn't a number of bytes")
    # gzip makes incompressible bytes a little larger, so the limit exceeds max_size.
    limit = 2 * max_size + 1_024
    if int(declared) > limit:
        raise _RefusalError(413, f"the body is larger than {counted(limit, 'byte')} as sent")
    media_type = (_header(headers, "Content-Type", 415) or "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise _RefusalError(415, "Content-Type isn't application/json")
    _encoding(headers)
    return int(declared)


def _header(headers: Sequence[tuple[str, str]], name: str, status: int) -> str | None:
    """Return the value of a header, or None; raise a refusal with this status if there are several."""
    values = [value.strip(" \t") for key, value in headers if key.lower() == name.lower()]
    if len(values) > 1:
        raise _RefusalError(status, f"{name} was sent {counted(len(values), 'time')}")
    return values[0] if values else None


def _encoding(headers: Sequence[tuple[str, str]]) -> str:
    encoding = (_header(headers, "Content-Encoding", 415) or "identity").lower()
    if encoding not in ("gzip", "identity"):
        raise _RefusalError(415, "Content-Encoding is neither gzip nor identity")
    return encoding


def _signature(headers: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Return the name of the key and the mac."""
    value = _header(headers, "X-Signature", 401)
    if value is None:
        raise _RefusalError(401, "X-Signature is missing")
    found = _SIGNATURE.fullmatch(value)
    if found is None:
        raise _RefusalError(
            401, "X-Signature isn't `key=NAME, mac=HEX` with 64 digits of lower-case hexadecimal"
        )
    return found[1], found[2]


def _gunzip(data: bytes, max_size: int) -> bytes:
    """Inflate a gzip body, to at most `max_size` and one byte."""
    member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        plain = member.decompress(data, max_size + 1)
    except zlib.error as exc:
        raise _RefusalError(400, "the body isn't gzip, or is damaged") from exc
    if len(plain) <= max_size and not member.eof:
        raise _RefusalError(400, "the gzipped body ends too early")
    if member.unused_data:
        raise _RefusalError(400, "the body has bytes after its gzip member")
    return plain


def _split(plain: bytes, version: str) -> tuple[bytes, ...]:
    """Return the events of a batch of this protocol version."""
    try:
        text = plain.decode()
    except UnicodeDecodeError as exc:
        raise _RefusalError(400, f"the batch isn't UTF-8 at byte {exc.start}") from None
    if version == "2j":
        if not text.startswith("["):
            raise _RefusalError(400, "a batch of version 2j is `[EVENT,...]`")
        return _events(text, 1, "]")
    opening = _V2_OPENING.match(text)
    if opening is None:
        raise _RefusalError(400, 'a batch of version 2 is `{"1":{"lst":["rec",N,EVENT,...]}}`')
    events = _events(text, opening.end(), _V2_CLOSING)
    if len(events) != int(opening[1]):
        raise _RefusalError(
            400, f"the batch declares {opening[1]}, but holds {counted(len(events), 'event')}"
        )
    return events


def _events(text: str, start: int, closing: str) -> tuple[bytes, ...]:
    """Return the events between the opening of a batch, which ends at `start`, and its closing."""
    if not text.endswith(closing):
        raise _RefusalError(400, f"the batch doesn't end with {closing}")
    final = len(text) - len(closing)
    if start == final:
        raise _RefusalError(400, "the batch holds no events")
    events: list[bytes] = []
    while True:
        number = len(events) + 1
        begin = _skip_blanks(text, start)
        end = _end_of_object(text, begin, number)
        event = text[begin:end]
        if _LINE_BREAK.search(event):
            event = _STRING_OR_BLANKS.sub(r"\1", event)
        events.append(event.encode())
        start = _skip_blanks(text, end)
        if start == final:
            return tuple(events)
        if not text.startswith(",", start):
            raise _RefusalError(
                400, f"event {number} is followed by neither a comma nor the end of the batch"
            )
        start += 1


def _skip_blanks(text: str, start: int) -> int:
    blanks = _BLANKS.match(text, start)
    return start if blanks is None else blanks.end()


def _end_of_object(text: str, begin: int, number: int) -> int:
    """Return the end of the JSON object that begins here; `number` is that of the event."""
    if not text.startswith("{", begin):
        raise _RefusalError(400, f"event {number} isn't a JSON object")
    try:
        _, end = _STRICT_JSON.raw_decode(text, begin)
    except json.JSONDecodeError as exc:
        problem = f"event {number} isn't valid JSON: {exc.msg} (character {exc.pos - begin} of it)"
        raise _RefusalError(400, problem) from None
    except RecursionError:
        raise _RefusalError(400, f"event {number} is nested too deep") from None
    return end


def _refuse_constant(_: str) -> NoReturn:
    raise _RefusalError(400, "an event holds NaN or Infinity, which isn't valid JSON")


# Only the grammar matters here: numbers of any size pass, and aren't converted.
_STRICT_JSON: Final = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant)


def _quote(words: str) -> str:
    """Return a client's text as printable ASCII of limited length."""
    return ascii(words if len(words) <= _MAX_QUOTED else f"{words[:_MAX_QUOTED]}...")
