"""What a reply means for the batch that was posted. Pure.

Every reply is exactly one outcome:

- `Accepted`: 2xx. The collector has the batch.
- `Retryable`: the same batch may well pass later: 408, 425, 429, 5xx except 501, anything below 200 or above
  599, no response.
- `TooLarge`: 413. Fewer events may pass.
- `Refused`: 400 and 422. The collector doesn't take this content, now or later.
- `Misconfigured`: the collector, or a proxy before it, accepts nothing until someone corrects a
  configuration: every other 3xx and 4xx, 501, a TLS certificate that isn't trusted, a name that doesn't
  exist, certificates that can't be loaded, a host without free descriptors.

A redirect is never followed, since body and signature would go wherever it points, and never counts as
delivery.
"""

from __future__ import annotations

import email.utils
from dataclasses import dataclass, field
from typing import Final

from ..._compat import assert_never
from .wire import Failure, FailureKind, Reply, Response

#: Seconds that a Retry-After header can ask for at most; a collector's mistake must not stop delivery for a
#: day.
MAX_RETRY_AFTER: Final = 300.0

#: Statuses below 500 that may pass later: request timeout, too early, too many requests.
RETRYABLE_STATUSES: Final = frozenset({408, 425, 429})

#: Statuses about the content: bad request, unprocessable content.
_REFUSED: Final = frozenset({400, 422})

#: What to check, by status, when the collector accepts nothing.
REMEDIES: Final = {
    401: "check key.name and key.secret",
    403: "check that the collector allows key.name to send",
    404: "check collector.hostname and collector.version",
    405: "check collector.hostname: this doesn't look like an event collector",
    407: "check collector.proxy: the proxy wants credentials",
    411: "check the proxy in front of the collector: it misses a Content-Length that was sent",
    415: "check collector.version",
    501: "check collector.hostname: this doesn't look like an event collector",
}


@dataclass(frozen=True, slots=True)
class Accepted:
    """The collector has the batch."""

    status: int


@dataclass(frozen=True, slots=True)
class Retryable:
    """The same batch may pass later.

    Attributes:
        reason: What happened, in words for a log.
        from_collector: Whether there was an HTTP response.
        retry_after: Seconds that the collector asks to wait at least, 0 to `MAX_RETRY_AFTER`.
        status: The HTTP status, or None if there was no response.
        may_be_poison: Whether the batch itself may be the reason: a 5xx response, or none after connecting.
    """

    reason: str
    from_collector: bool
    retry_after: float = 0.0
    status: int | None = None
    may_be_poison: bool = False


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The collector doesn't take a body of this size.

    Attributes:
        reason: What happened, in words for a log.
        status: The HTTP status.
        excerpt: The beginning of the response's body, for the dead letters; never for a log.
    """

    reason: str
    status: int
    excerpt: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The collector doesn't take this content.

    Attributes:
        reason: What happened, in words for a log.
        status: The HTTP status.
        excerpt: The beginning of the response's body, for the dead letters; never for a log.
    """

    reason: str
    status: int
    excerpt: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """Nothing passes until someone corrects a configuration.

    Attributes:
        reason: What happened, in words for a log.
        remedy: What to check.
        from_collector: Whether there was an HTTP response.
        retry_after: Seconds that the collector asks to wait at least, 0 to `MAX_RETRY_AFTER`.
        status: The HTTP status, or None if there was no response.
    """

    reason: str
    remedy: str
    from_collector: bool
    retry_after: float = 0.0
    status: int | None = None


#: What a reply means.
Outcome = Accepted | Retryable | TooLarge | Refused | Misconfigured


def classify(reply: Reply, also_retryable: frozenset[int] = frozenset()) -> Outcome:
    """Return what a reply means.

    Args:
        reply: How the attempt ended, with any status, even one that HTTP doesn't know.
        also_retryable: Statuses that count as `Retryable` besides those above (`retry.codes`). A 2xx among
            them is ignored.
    """
    if isinstance(reply, Failure):
        return _classify_failure(reply)
    status = reply.status
    reason = f"{status} {reply.reason}".rstrip()
    if 200 <= status <= 299:
        return Accepted(status)
    if status in also_retryable:
        return _retryable(reply, reason)
    if status == 413:
        return TooLarge(reason, status, reply.excerpt)
    if status in _REFUSED:
        return Refused(reason, status, reply.excerpt)
    if (status // 100 in {3, 4} and status not in RETRYABLE_STATUSES) or status == 501:
        return Misconfigured(
            reason=reason,
            remedy=REMEDIES.get(status, "check collector.scheme and collector.hostname"),
            from_collector=True,
            retry_after=retry_after(reply),
            status=status,
        )
    return _retryable(reply, reason)


def _retryable(response: Response, reason: str) -> Retryable:
    return Retryable(
        reason=reason,
        from_collector=True,
        retry_after=retry_after(response),
        status=response.status,
        may_be_poison=500 <= response.status <= 599,
    )


def _classify_failure(failure: Failure) -> Retryable | Misconfigured:
    reason = f"{failure.kind.value}: {failure.detail}"
    match failure.kind:
        case FailureKind.UNTRUSTED:
            remedy = "check collector.hostname and collector.ca_file"
        case FailureKind.UNKNOWN_NAME:
            remedy = "check collector.hostname and the host's name servers"
        case FailureKind.NO_CERTIFICATES:
            remedy = "check that collector.ca_file is a PEM file that the publisher can read"
        case FailureKind.OUT_OF_RESOURCES:
            remedy = "raise the publisher's limit of open files (LimitNOFILE), or look for what uses them up"
        case FailureKind.UNREACHABLE:
            return Retryable(reason=reason, from_collector=False)
        case FailureKind.TIMED_OUT | FailureKind.INTERRUPTED | FailureKind.MALFORMED:
            # A collector can hang or crash on an event, or be killed in the middle of its response.
            return Retryable(reason=reason, from_collector=False, may_be_poison=True)
        case _:
            assert_never(failure.kind)
    return Misconfigured(reason=reason, remedy=remedy, from_collector=False)


def retry_after(response: Response) -> float:
    """Read the Retry-After header (RFC 9110, section 10.2.3).

    Returns:
        Seconds to wait at least, 0 to `MAX_RETRY_AFTER`; 0 if the header is missing or invalid. A date is
        taken relative to the response's own Date header, so that this host's clock doesn't matter.
    """
    text = (response.retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER)  # of any length; int() has a limit
    try:
        until = email.utils.parsedate_to_datetime(text)
        since = email.utils.parsedate_to_datetime(response.date or "")
        seconds = (until - since).total_seconds()
    except (TypeError, ValueError, OverflowError):  # missing, not dates, or only one has a time zone
        return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)
