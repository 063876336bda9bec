"""Requests with batches, signed independently of the package."""

from __future__ import annotations

import gzip
import hashlib
import hmac
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from baseplate_events.dev_collector import MAX_SIZE, AcceptedBatch, RejectedBatch, check_batch

if TYPE_CHECKING:
    import http.client

KEYS = {"TestKey": b"a secret", "other.key": b"\x00\xff another"}

#: A text that no reason may repeat.
MARKER = "d41d8cd9"


@dataclass(frozen=True)
class SignedRequest:
    """A request to check; its Content-Length is always right."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def check(self, max_size: int = MAX_SIZE) -> AcceptedBatch | RejectedBatch:
        headers = [*self.headers, ("Content-Length", str(len(self.body)))]
        return check_batch(self.method, self.path, headers, self.body, KEYS, max_size=max_size)

    def with_header(self, name: str, *values: str) -> SignedRequest:
        """Return the request with exactly these values of a header."""
        others = tuple(pair for pair in self.headers if pair[0].lower() != name.lower())
        return replace(self, headers=(*others, *((name, value) for value in values)))


def mac_of(plain: bytes, key: str = "TestKey") -> str:
    """Return the right mac of a body, computed independently of the package."""
    return hmac.new(KEYS[key], plain, hashlib.sha256).hexdigest()


def sealed(path: str, plain: bytes, key: str = "TestKey", level: int | None = 1) -> SignedRequest:
    """Return a correctly signed request with these bytes; level None means no compression."""
    headers = (("Content-Type", "application/json"), ("X-Signature", f"key={key}, mac={mac_of(plain, key)}"))
    if level is None:
        return SignedRequest("POST", path, headers, plain)
    body = gzip.compress(plain, level, mtime=0)
    return SignedRequest("POST", path, (*headers, ("Content-Encoding", "gzip")), body)


def batch_of(events: list[bytes], path: str, count: int | None = None) -> bytes:
    """Return the body of a batch by the wire format."""
    joined = b",".join(events)
    if path == "/v2j":
        return b"[" + joined + b"]"
    return b'{"1":{"lst":["rec",%d,' % (len(events) if count is None else count) + joined + b"]}}"


SAMPLE = sealed("/v2", batch_of([b'{"id":1}', b'{"id":2}'], "/v2"))


def post(connection: http.client.HTTPConnection, request: SignedRequest) -> tuple[int, str]:
    """Send a request and return the status and the body of the answer."""
    connection.request(request.method, request.path, request.body, dict(request.headers))
    response = connection.getresponse()
    return response.status, response.read().decode()
