"""Judges the connection to the event collector, step by step; `probe` judges its answers. Pure."""

from __future__ import annotations

import errno
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..._words import counted
from ...event_publisher.config.values import InternetEndpoint
from ...event_publisher.http_connection import TunnelError
from ...event_publisher.policy.outcome import RETRYABLE_STATUSES
from .findings import Code, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ...event_publisher.http_response import MalformedResponseError
    from .findings import Check, Field

#: Names of the checks, in the order of the steps.
STEPS: Final = ("collector name", "collector connection", "collector TLS", "signed probe", "clock")
_NAME, _CONNECTION, _TLS, PROBE, CLOCK = STEPS

#: Days before a certificate expires at which monitors usually warn.
CERTIFICATE_NOTICE: Final = 14

_DAY: Final = 86_400.0

#: Errors of `connect` for an address family that this host has no route for, usually IPv6.
_NO_WAY: Final = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

#: What OpenSSL checks only with VERIFY_X509_STRICT, the default from Python 3.13 (X509_V_ERR_... of
#: x509_vfy.h).
_NOT_STRICT: Final = range(80, 94)

#: The same for a chain without a trusted authority.
_NO_AUTHORITY: Final = frozenset({2, 18, 19, 20, 21})

#: The same for every other reason not to accept a certificate that has a remedy of its own.
_CERTIFICATE_REMEDIES: Final = {
    9: (Code.CERTIFICATE_NOT_YET_VALID, "set this host's clock: the certificate isn't valid yet"),
    10: (
        Code.CERTIFICATE_EXPIRED,
        "renew the collector's certificate; if it is still valid, set this host's clock",
    ),
    26: (
        Code.CERTIFICATE_FOR_ANOTHER_PURPOSE,
        "have the certificate reissued for servers (`extendedKeyUsage = serverAuth`)",
    ),
    **dict.fromkeys(
        (62, 64),
        (
            Code.CERTIFICATE_FOR_ANOTHER_NAME,
            "check collector.hostname: the certificate is for another name",
        ),
    ),
    **dict.fromkeys(
        (66, 67, 68),
        (
            Code.CERTIFICATE_WEAK,
            "have the certificate reissued, with an RSA key of 2048 bits or more and SHA-256",
        ),
    ),
    **dict.fromkeys(
        _NOT_STRICT,
        (
            Code.CERTIFICATE_NOT_STRICT,
            (
                "have the offending certificate reissued as RFC 5280 requires, with key identifiers "
                "(`subjectKeyIdentifier`, `authorityKeyIdentifier`): it is the collector's, an intermediate "
                "one, or the authority's in {trusted}. Python 3.13 and newer require this, older ones don't"
            ),
        ),
    ),
}

#: The remedy for any other certificate that isn't accepted.
_UNTRUSTED: Final = (
    Code.CERTIFICATE_UNTRUSTED,
    (
        "set collector.ca_file to a PEM file with the certificate of the authority that issued the "
        "collector's, or have the collector send the intermediate certificates; now {trusted} are trusted"
    ),
)

#: Statuses with which a proxy refuses CONNECT: because it wants credentials, or doesn't support CONNECT.
_WANTS_CREDENTIALS: Final = 407
_FORBIDDEN: Final = frozenset(range(300, 500)) - RETRYABLE_STATUSES - {_WANTS_CREDENTIALS} | {501}


@dataclass(frozen=True, slots=True)
class Peer:
    """The host connected to: the collector, or the proxy in front of it.

    Attributes:
        key: The option that names it.
        host: Its host.
        port: Its port.
    """

    key: str
    host: str
    port: int

    def __str__(self) -> str:
        return str(InternetEndpoint(self.host, self.port))


def judge_name(peer: Peer, found: Sequence[str] | OSError) -> Check:
    """Judge the lookup of a host's name.

    Args:
        peer: The host.
        found: Its addresses, or the error of the lookup.
    """
    if isinstance(found, TimeoutError):
        return problem(
            Code.NAME_SERVERS_SILENT,
            _NAME,
            f"{peer.host}: {found}",
            "check the name servers in /etc/resolv.conf: none answered",
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
    """Judge the connections to the addresses of a host.

    Args:
        peer: The host.
        failures: The error of each failed connection, by address.
        tried: How many addresses were tried.
    """
    reasons = {address: str(exc.strerror or exc) for address, exc in failures.items()}
    fields: dict[str, Field] = {"peer": str(peer), "key": peer.key, "tried": tried, "failures": reasons}
    found = f"{peer}: {'; '.join(f'{address}: {reason}' for address, reason in reasons.items())}"
    if len(failures) == tried:
        code, remedy = _connection_remedy(peer, failures.values())
        return problem(code, _CONNECTION, found, remedy, fields=fields)
    if all(exc.errno in _NO_WAY for exc in failures.values()):
        without = f" (no route to {', '.join(failures)})" if failures else ""
        return ok(Code.CONNECTION_MADE, _CONNECTION, f"connected to {peer}{without}", fields=fields)
    return warning(
        Code.CONNECTION_PARTIAL,
        _CONNECTION,
        f"addresses that don't accept connections: {len(failures)} of {tried}: {found}",
        "remove those addresses from DNS, or fix the route to them: each attempt loses time on them",
        fields=fields,
    )


def _connection_remedy(peer: Peer, failures: Collection[OSError]) -> tuple[Code, str]:
    if any(failure.errno == errno.ECONNREFUSED for failure in failures):
        remedy = f"nothing listens there: check the port in {peer.key}, and that the server runs"
        return Code.CONNECTION_REFUSED, remedy
    if any(isinstance(failure, TimeoutError) for failure in failures):
        remedy = f"packets are dropped: check that the firewalls let this host connect to {peer}"
        return Code.CONNECTION_TIMED_OUT, remedy
    remedy = f"check the routes and firewalls of this host towards {peer}, and {peer.key}"
    return Code.CONNECTION_FAILED, remedy


def judge_handshake(
    exc: OSError | MalformedResponseError, peer: Peer, ca_file: str | None, *, empty_store: str | None = None
) -> Check:
    """Judge the error of a TLS handshake.

    Args:
        exc: The error.
        peer: The host connected to.
        ca_file: The file with the certificates that are trusted, or None for the system's.
        empty_store: Where the system's certificates should be, if there are none; otherwise None.
    """
    if isinstance(exc, ssl.SSLCertVerificationError):
        if ca_file is None and empty_store is not None and exc.verify_code in _NO_AUTHORITY:
            return _without_authorities(exc, peer, empty_store)
        code, remedy = _CERTIFICATE_REMEDIES.get(exc.verify_code, _UNTRUSTED)
        return problem(
            code,
            _TLS,
            f"the certificate isn't accepted: {exc.verify_message}",
            remedy.format(trusted=_trusted(ca_file)),
            fields={"peer": str(peer), "ca_file": ca_file, "verify_code": exc.verify_code},
        )
    if isinstance(exc, TunnelError):
        return _judge_tunnel(exc, peer)
    fields = {"peer": str(peer), "key": peer.key}
    remedy = f"check the server at {peer} (from {peer.key}), and its log"
    if isinstance(exc, TimeoutError):
        code, reason = Code.HANDSHAKE_TIMED_OUT, "timed out"
    # A peer that hangs up says nothing about its TLS.
    elif isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError):
        code, reason = Code.HANDSHAKE_REFUSED, exc.reason or str(exc)
        fields["reason"] = reason
        remedy = (
            "check the port in collector.hostname, and collector.scheme: the server doesn't speak "
            "TLS 1.2 or later, or refuses the handshake for a reason given in its log"
        )
    elif isinstance(exc, OSError):
        words = exc.reason if isinstance(exc, ssl.SSLError) else exc.strerror
        code, reason = Code.HANDSHAKE_BROKEN, words or str(exc)
        fields["reason"] = reason
    else:
        code, reason = Code.HANDSHAKE_PROXY_NOT_HTTP, "the proxy doesn't answer in HTTP"
    return problem(
        code,
        _TLS,
        f"the handshake failed: {reason}",
        remedy,
        fields=fields,
    )


def _without_authorities(exc: ssl.SSLCertVerificationError, peer: Peer, place: str) -> Check:
    install = "apt-get install ca-certificates"
    return problem(
        Code.CERTIFICATE_AUTHORITIES_MISSING,
        _TLS,
        f"the certificate can't be checked: this host has no authority's certificate in {place}",
        f"as root, in the image or on the host: `{install}`, or the package of that name of another "
        "distribution; or set collector.ca_file to a PEM file with the certificate of the collector's "
        "authority",
        commands=(install,),
        fields={"peer": str(peer), "place": place, "verify_code": exc.verify_code},
    )


def _judge_tunnel(refusal: TunnelError, proxy: Peer) -> Check:
    """Judge the status of a proxy that refuses to connect to the collector."""
    status = refusal.status
    words = f"Tunnel connection failed: {status} {refusal.reason}".rstrip()
    if status == _WANTS_CREDENTIALS:
        code = Code.TUNNEL_WANTS_CREDENTIALS
        remedy = (
            "the publisher sends no credentials to a proxy: configure the proxy to let this host connect to "
            "the collector without any, or set collector.proxy to one that wants none"
        )
    elif status in _FORBIDDEN:
        code = Code.TUNNEL_FORBIDDEN
        remedy = (
            "configure the proxy to allow CONNECT from this host to the collector's host and port; and check "
            "that an HTTP proxy answers at collector.proxy"
        )
    else:
        code = Code.TUNNEL_FAILED
        remedy = (
            "see the log of the proxy: it has to resolve and reach the collector; and check "
            "collector.hostname"
        )
    return problem(
        code,
        _TLS,
        f"the proxy {proxy} doesn't connect to the collector: {words}",
        remedy,
        fields={"peer": str(proxy), "key": proxy.key, "status": status, "reason": words},
    )


def _trusted(ca_file: str | None) -> str:
    return f"the certificates of {ca_file}" if ca_file else "the system's certificates"


def judge_certificate(ends_at: float, now: float, *, version: str | None, ca_file: str | None) -> Check:
    """Judge how long an accepted certificate is still valid.

    Args:
        ends_at: When it expires, in seconds since 1970.
        now: The current time, likewise.
        version: The TLS version in use.
        ca_file: The file with the certificates that are trusted, or None for the system's.
    """
    days = int((ends_at - now) // _DAY)
    fields: dict[str, Field] = {"days": days, "version": version, "ca_file": ca_file}
    accepted = f"{version}, accepted by {_trusted(ca_file)}"
    found = f"{accepted}; the certificate expires in {counted(days, 'day')}"
    if days >= CERTIFICATE_NOTICE:
        return ok(Code.CERTIFICATE_ACCEPTED, _TLS, found, fields=fields)
    return warning(
        Code.CERTIFICATE_ENDS_SOON,
        _TLS,
        found,
        "renew the collector's certificate before then; otherwise delivery stops",
        fields=fields,
    )
