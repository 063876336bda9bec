"""Judges the way to the event collector by what was found at each step. Pure."""

from __future__ import annotations

import email.utils
import errno
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..._compat import assert_never
from ...event_publisher.policy.outcome import (
    Accepted,
    Misconfigured,
    Refused,
    Retryable,
    TooLarge,
    classify,
)
from ...event_publisher.policy.wire import FailureKind, Response
from ..common import counted
from .findings import Code, ok, problem, skipped, warning

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from http.client import HTTPException

    from ...event_publisher.policy.outcome import Outcome
    from ...event_publisher.policy.wire import Reply
    from .findings import Check, Field

#: Names of the checks, in the order of the steps.
STEPS: Final = ("collector name", "collector connection", "collector TLS", "signed probe", "clock")
_NAME, _CONNECTION, _TLS, _PROBE, _CLOCK = STEPS

#: Days before the end of a certificate from which on that is a warning, as monitors usually have it.
CERTIFICATE_NOTICE: Final = 14

#: Seconds that this host's clock may differ from the collector's.
LARGEST_SKEW: Final = 60.0

_DAY: Final = 86_400.0

#: What `connect` fails with at once, for an address of a kind that this host has no way to: IPv6, mostly.
_NO_WAY: Final = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

#: Why OpenSSL doesn't accept a certificate (X509_V_ERR_... of x509_vfy.h).
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_OTHER_NAME: Final = frozenset({62, 64})

#: What a status means that makes an outcome `Misconfigured`; each has a remedy of its own there.
_STATUS_CODES: Final = {
    401: Code.PROBE_KEY_REJECTED,
    403: Code.PROBE_KEY_FORBIDDEN,
    404: Code.PROBE_PATH_UNKNOWN,
    **dict.fromkeys((405, 501), Code.PROBE_NOT_A_COLLECTOR),
    407: Code.PROBE_PROXY_WANTS_CREDENTIALS,
    411: Code.PROBE_LENGTH_REQUIRED,
    415: Code.PROBE_FORMAT_UNSUPPORTED,
}


@dataclass(frozen=True, slots=True)
class Peer:
    """What is connected to: the collector, or the proxy before it.

    Attributes:
        key: The key of the configuration that names it.
        host: Its host.
        port: Its port.
    """

    key: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def judge_name(peer: Peer, found: Sequence[str] | OSError) -> Check:
    """Judge what looking up a host's name came to.

    Args:
        peer: The host.
        found: Its addresses, or what the lookup failed with.
    """
    if isinstance(found, TimeoutError):
        return problem(
            Code.NAME_SERVERS_SILENT,
            _NAME,
            f"{peer.host}: {found}",
            "check the name servers in /etc/resolv.conf: none answers",
            fields={"host": peer.host, "key": peer.key},
        )
    if isinstance(found, OSError):
        ask = f"getent hosts {peer.host}"
        return problem(
            Code.NAME_UNRESOLVED,
            _NAME,
            f"{peer.host}: {found.strerror}",
            f"check {peer.key}, and the name servers in /etc/resolv.conf: `{ask}`",
            commands=(ask,),
            fields={"host": peer.host, "key": peer.key},
        )
    return ok(
        Code.NAME_RESOLVED,
        _NAME,
        f"{peer.host} is {', '.join(found)}",
        fields={"host": peer.host, "key": peer.key, "addresses": found},
    )


def judge_connection(peer: Peer, failures: Mapping[str, OSError], tried: int) -> Check:
    """Judge what connecting to the addresses of a host came to.

    Args:
        peer: The host.
        failures: What connecting failed with, by address.
        tried: How many addresses were tried.
    """
    reasons = {address: str(exc.strerror or exc) for address, exc in failures.items()}
    fields: dict[str, Field] = {"peer": str(peer), "key": peer.key, "tried": tried, "failures": reasons}
    found = f"{peer}: {'; '.join(f'{address}: {reason}' for address, reason in reasons.items())}"
    if len(failures) == tried:
        code, remedy = _connection_remedy(peer, failures.values())
        return problem(code, _CONNECTION, found, remedy, fields=fields)
    if all(exc.errno in _NO_WAY for exc in failures.values()):
        without = f" (this host has no way to {', '.join(failures)})" if failures else ""
        return ok(Code.CONNECTION_MADE, _CONNECTION, f"connected to {peer}{without}", fields=fields)
    return warning(
        Code.CONNECTION_PARTIAL,
        _CONNECTION,
        f"{len(failures)} of {tried} addresses don't answer: {found}",
        "have those addresses taken out of DNS, or mend the way to them: attempts lose time on them",
        fields=fields,
    )


def _connection_remedy(peer: Peer, failures: Collection[OSError]) -> tuple[Code, str]:
    if any(failure.errno == errno.ECONNREFUSED for failure in failures):
        remedy = f"nothing listens there: check the port in {peer.key}, and that it runs"
        return Code.CONNECTION_REFUSED, remedy
    if any(isinstance(failure, TimeoutError) for failure in failures):
        remedy = f"packets are dropped on the way: have the firewalls let this host through to {peer}"
        return Code.CONNECTION_TIMED_OUT, remedy
    remedy = f"check the routes and firewalls of this host towards {peer}, and {peer.key}"
    return Code.CONNECTION_FAILED, remedy


def judge_handshake(exc: OSError | HTTPException, peer: Peer, ca_file: str | None) -> Check:
    """Judge what a TLS handshake failed with.

    Args:
        exc: The error.
        peer: What was connected to.
        ca_file: The file with the certificates that are trusted, or None for the system's.
    """
    if isinstance(exc, ssl.SSLCertVerificationError):
        code, remedy = _certificate_remedy(exc, ca_file)
        return problem(
            code,
            _TLS,
            f"the certificate isn't accepted: {exc.verify_message}",
            remedy,
            fields={"peer": str(peer), "ca_file": ca_file, "verify_code": exc.verify_code},
        )
    fields = {"peer": str(peer), "key": peer.key}
    remedy = f"check what answers at {peer}, and its log: {peer.key} leads there"
    if isinstance(exc, TimeoutError):
        code, reason = Code.HANDSHAKE_TIMED_OUT, "timed out"
    # One that hangs up in the middle says nothing of its TLS.
    elif isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError):
        code, reason = Code.HANDSHAKE_REFUSED, exc.reason or str(exc)
        fields["reason"] = reason
        remedy = (
            "check the port in collector.hostname, and collector.scheme: what answers there doesn't speak "
            "TLS 1.2 or later, or refuses the handshake for a reason that its log tells"
        )
    elif isinstance(exc, OSError):
        words = exc.reason if isinstance(exc, ssl.SSLError) else exc.strerror
        code, reason = Code.HANDSHAKE_BROKEN, words or str(exc)
        fields["reason"] = reason
    else:
        code, reason = Code.HANDSHAKE_PROXY_NOT_HTTP, "the proxy answers something else than HTTP"
    return problem(
        code,
        _TLS,
        f"the handshake fails: {reason}",
        remedy,
        fields=fields,
    )


def _certificate_remedy(exc: ssl.SSLCertVerificationError, ca_file: str | None) -> tuple[Code, str]:
    if exc.verify_code == _EXPIRED:
        remedy = "have the collector's certificate renewed; if it is good, set this host's clock"
        return Code.CERTIFICATE_EXPIRED, remedy
    if exc.verify_code == _NOT_YET_VALID:
        remedy = "set this host's clock: the certificate isn't good yet"
        return Code.CERTIFICATE_NOT_YET_VALID, remedy
    if exc.verify_code in _OTHER_NAME:
        remedy = "check collector.hostname: the certificate is for another name"
        return Code.CERTIFICATE_FOR_ANOTHER_NAME, remedy
    remedy = (
        "set collector.ca_file to a PEM file with the certificate of the authority that the collector's is "
        f"from, or have the collector send the certificates in between; now {_trusted(ca_file)} are asked"
    )
    return Code.CERTIFICATE_UNTRUSTED, remedy


def _trusted(ca_file: str | None) -> str:
    return f"the certificates of {ca_file}" if ca_file else "the system's certificates"


def judge_certificate(ends_at: float, now: float, *, version: str | None, ca_file: str | None) -> Check:
    """Judge the time that an accepted certificate is still good for.

    Args:
        ends_at: When it ends, in seconds since 1970.
        now: The same for now.
        version: Which TLS is spoken.
        ca_file: The file with the certificates that are trusted, or None for the system's.
    """
    days = int((ends_at - now) // _DAY)
    fields: dict[str, Field] = {"days": days, "version": version, "ca_file": ca_file}
    accepted = f"{version}, accepted by {_trusted(ca_file)}"
    found = f"{accepted}; the certificate ends in {counted(days, 'day')}"
    if days >= CERTIFICATE_NOTICE:
        return ok(Code.CERTIFICATE_ACCEPTED, _TLS, found, fields=fields)
    return warning(
        Code.CERTIFICATE_ENDS_SOON,
        _TLS,
        found,
        "have the collector's certificate renewed before then; delivery stops otherwise",
        fields=fields,
    )


def judge_clock(date: str | None, now: float) -> Check:
    """Judge this host's clock.

    Args:
        date: The Date header of a response, or None.
        now: Seconds since 1970 by the clock of this host, when the response came.
    """
    if date is None:
        return skipped(Code.CLOCK_WITHOUT_DATE, _CLOCK, "the collector's response has no date")
    try:
        skew = now - email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, OverflowError):
        found = "the collector's response has a date that can't be read"
        return skipped(Code.CLOCK_UNREADABLE_DATE, _CLOCK, found)
    fields = {"skew": skew}
    if abs(skew) <= LARGEST_SKEW:
        found = f"within {LARGEST_SKEW:.0f} seconds of the collector's"
        return ok(Code.CLOCK_RIGHT, _CLOCK, found, fields=fields)
    direction = "ahead of" if skew > 0 else "behind"
    synchronize = "timedatectl set-ntp true"
    return warning(
        Code.CLOCK_OFF,
        _CLOCK,
        f"{abs(skew):,.0f} seconds {direction} the collector's",
        f"set this host's clock and keep it set: `{synchronize}`; a collector may refuse what was signed at "
        "another time",
        commands=(synchronize,),
        fields=fields,
    )


def judge_probe(  # noqa: RET503 - the last case never returns
    reply: Reply, key_name: str, forged: Outcome | None = None
) -> Check:
    """Judge what the collector made of an empty batch.

    Args:
        reply: How the attempt ended.
        key_name: The key that it was signed with.
        forged: What became of another with a false signature, where the first one was `Refused`.
    """
    status = reply.status if isinstance(reply, Response) else None
    fields: dict[str, Field] = {"key_name": key_name, "status": status}
    # Without `retry.codes`: what the publisher is told to bear is still worth knowing.
    outcome = classify(reply)
    see_log = "see the log of the collector, or of what stands before it"
    match outcome:
        case Accepted():
            found = f"the collector takes an empty batch signed with key {key_name} ({status})"
            return ok(Code.PROBE_ACCEPTED, _PROBE, found, fields=fields)
        case Refused(reason=reason):
            return _judge_refusal(reason, key_name, forged, fields)
        case TooLarge(reason=reason):
            return problem(
                Code.PROBE_TOO_LARGE,
                _PROBE,
                f"an empty batch is too large for the collector, or for what stands before it ({reason})",
                "check the largest body that a proxy before the collector allows, such as nginx' "
                "client_max_body_size; batch.max_size has to fit into it",
                fields=fields,
            )
        case Misconfigured(reason=reason, remedy=remedy):
            return problem(
                _misconfiguration(reply),
                _PROBE,
                reason,
                f"{remedy}; the publisher holds all events until then",
                fields=fields,
            )
        case Retryable(reason=reason, status=408 | 425 | 429):
            return warning(
                Code.PROBE_POSTPONED,
                _PROBE,
                f"the collector asks to come back later ({reason})",
                "see to the load of the collector",
                fields=fields,
            )
        case Retryable(reason=reason, from_collector=True):
            return problem(
                Code.PROBE_COLLECTOR_FAILS,
                _PROBE,
                reason,
                f"{see_log}; if it falls over empty batches alone, leave the probe out with --no-probe",
                fields=fields,
            )
        case Retryable(reason=reason):
            return problem(
                Code.PROBE_UNANSWERED,
                _PROBE,
                reason,
                f"{see_log}; and check the port in collector.hostname, and collector.scheme",
                fields=fields,
            )
        case _:
            assert_never(outcome)


def _misconfiguration(reply: Reply) -> Code:
    if isinstance(reply, Response):
        return _STATUS_CODES.get(reply.status, Code.PROBE_UNEXPECTED_STATUS)
    if reply.kind is FailureKind.UNTRUSTED:
        return Code.PROBE_UNTRUSTED
    return Code.PROBE_NAME_UNKNOWN


def _judge_refusal(reason: str, key_name: str, forged: Outcome | None, fields: Mapping[str, Field]) -> Check:
    """Judge a refusal of an empty batch for what is in it, as the protocol has it: nothing.

    A collector checks the signature first, so by its answer to a false one is seen whether it does.
    """
    match forged:
        case Misconfigured(reason=other_reason, from_collector=True):
            return ok(
                Code.PROBE_KEY_ACCEPTED,
                _PROBE,
                f"the collector accepts key {key_name}: it refuses an empty batch for what is in it "
                f"({reason}), and one with a false signature for that ({other_reason})",
                fields=fields,
            )
        case Refused():
            return warning(
                Code.PROBE_SIGNATURE_IGNORED,
                _PROBE,
                f"an empty batch is refused for what is in it ({reason}), whatever its signature: whether "
                f"key {key_name} is accepted isn't known, nor whether an event collector answers",
                "check collector.scheme, and the port in collector.hostname; events that are refused like "
                "that become dead letters",
                fields=fields,
            )
        case _:
            return skipped(
                Code.PROBE_INCONCLUSIVE,
                _PROBE,
                f"the collector refuses an empty batch for what is in it ({reason}); whether it accepts key "
                f"{key_name} isn't known",
                fields=fields,
            )
