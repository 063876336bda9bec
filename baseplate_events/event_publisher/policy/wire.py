"""The wire: what the event publisher sends to an event collector, and what comes back. Pure.

A batch is sent as

    POST {scheme}://{hostname}/v{version}
    Content-Type: application/json
    Content-Encoding: gzip
    Date: an HTTP date in GMT
    User-Agent: baseplate-event-publisher/1.0
    X-Signature: key=NAME, mac=HEX
    Idempotency-Key: HEX

with the gzipped body of the batch. HEX is the HMAC-SHA256, in lower-case hexadecimal, of the *uncompressed*
body under the shared secret. It depends on nothing else. So it is the same on every attempt to deliver a
batch, unless the secret was rotated in between, and a collector can recognise a batch that it has seen
before.
"""

from __future__ import annotations

import email.utils
import enum
import hmac
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: What the publisher calls itself, as baseplate.py's does.
USER_AGENT: Final = "baseplate-event-publisher/1.0"

#: Makes zlib write gzip's format, with the largest window.
_GZIP_FORMAT: Final = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is ready to be posted.

    Attributes:
        headers: All headers except those that HTTP itself needs (Host, Content-Length).
        body: The compressed body.
    """

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """What the collector answered.

    Attributes:
        status: The HTTP status code.
        reason: The words behind the code, as the collector put them.
        retry_after: The Retry-After header, or None.
        date: The Date header, or None.
        excerpt: The beginning of the response's body, at most 8 KiB.
    """

    status: int
    reason: str = ""
    retry_after: str | None = None
    date: str | None = None
    excerpt: bytes = b""


class FailureKind(enum.Enum):
    """Why there is no response."""

    UNREACHABLE = "can't connect"
    TIMED_OUT = "timed out"
    INTERRUPTED = "connection lost"
    MALFORMED = "not an HTTP response"
    UNTRUSTED = "TLS certificate not accepted"
    UNKNOWN_NAME = "host name not found"
    NO_CERTIFICATES = "can't load the certificates to trust"
    OUT_OF_RESOURCES = "this host has no descriptors or memory left"


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that ended without a response; the collector may have taken the batch or not.

    Attributes:
        kind: What went wrong.
        detail: The words of the system or library that noticed.
    """

    kind: FailureKind
    detail: str


#: How an attempt to post ended.
Reply = Response | Failure


def sign(secret: bytes, body: bytes) -> str:
    """Return the HMAC-SHA256 of an uncompressed body in lower-case hexadecimal."""
    return hmac.digest(secret, body, "sha256").hex()


def signature_header(key_name: str, mac: str) -> str:
    """Return the value of the X-Signature header."""
    return f"key={key_name}, mac={mac}"


def build_request(
    body: bytes | Iterable[bytes], *, key_name: str, secret: bytes, level: int, wall_time: float
) -> Request:
    """Sign and compress the body of a batch.

    Args:
        body: The uncompressed body, whole or in pieces, of which one is used at a time.
        key_name: Name of the shared secret, known to the collector.
        secret: The shared secret.
        level: gzip level, 1 (fast) to 9 (small).
        wall_time: Seconds since the epoch, for the Date header.

    Returns:
        The request; the same for the same arguments.
    """
    signer = hmac.new(secret, digestmod="sha256")
    pieces = (body,) if isinstance(body, bytes) else body
    compressed = b"".join(_compress(_signed(pieces, signer), level))
    mac = signer.hexdigest()
    headers = {
        "Content-Type": "application/json",
        "Content-Encoding": "gzip",
        "Date": email.utils.formatdate(wall_time, usegmt=True),
        "User-Agent": USER_AGENT,
        "X-Signature": signature_header(key_name, mac),
        "Idempotency-Key": mac,
    }
    return Request(headers, compressed)


def compress(data: bytes, level: int) -> bytes:
    """Return the gzip form (RFC 1952) of `data`: the same for the same arguments, as it has no time in it."""
    return b"".join(_compress((data,), level))


def _compress(pieces: Iterable[bytes], level: int) -> Iterator[bytes]:
    """Yield the gzip form of a body in pieces."""
    compressor = zlib.compressobj(level, wbits=_GZIP_FORMAT)
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()


def _signed(pieces: Iterable[bytes], signer: hmac.HMAC) -> Iterator[bytes]:
    """Yield the pieces of a body, and sign them."""
    for piece in pieces:
        signer.update(piece)
        yield piece
