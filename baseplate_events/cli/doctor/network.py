"""Looks at the way to the event collector, step by step as the publisher takes it.

The name of its host (or of the proxy), a TCP connection, a TLS handshake, and a signed batch without events,
which changes nothing at a collector. A collector may refuse that for being empty; then it gets another one
with a false signature, to see whether it tells the two apart. A step is skipped where the one before it
failed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import http.client
import secrets
import socket
import ssl
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from urllib.parse import urlsplit

from ...event_publisher.http_transport import HTTPTransport
from ...event_publisher.policy.outcome import Refused, classify
from ...event_publisher.policy.wire import Response, build_request
from .checks import judge_certificate, judge_clock, judge_outcome, ok, problem, skipped, warning
from .timeouts import within

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator

    from ...event_publisher.config.settings import PublisherSettings
    from ...event_publisher.policy.wire import Reply
    from .checks import Check

#: Family and address of a socket.
_Address: TypeAlias = tuple[int, "tuple[Any, ...]"]

#: Batches without an event, by `collector.version`.
_EMPTY_BATCHES: Final = {"2": b'{"1":{"lst":["rec",0]}}', "2j": b"[]"}

#: What `connect` fails with at once, for an address of a kind that this host has no way to: IPv6, mostly.
_NO_WAY: Final = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

#: Bytes of the secret of a false signature.
_SECRET_SIZE: Final = 32

#: Ports that a URL needn't have.
_PORTS: Final = {"http": 80, "https": 443}

#: Why OpenSSL doesn't accept a certificate (X509_V_ERR_... of x509_vfy.h).
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_OTHER_NAME: Final = frozenset({62, 64})

_STEPS: Final = ("collector name", "collector connection", "collector TLS", "signed probe", "clock")


@dataclass(frozen=True, slots=True)
class _Peer:
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


def check_collector(settings: PublisherSettings, *, timeout: float, probe: bool) -> Iterator[Check]:
    """Look at the way to the collector.

    Args:
        settings: The publisher's.
        timeout: Seconds that a step may take, or a probe.
        probe: Whether to send empty batches.
    """
    proxy = settings.collector.proxy
    peer = _peer("collector.proxy", proxy) if proxy else _peer("collector.hostname", settings.collector.url)
    addresses = yield from _check_name(peer, timeout)
    done = 2 if addresses else 1
    if addresses and (yield from _check_connection(peer, addresses, timeout)):
        done = 3
        if (yield from _check_tls(settings, peer, timeout)):
            if probe:
                yield from _probe(settings, timeout)
            else:
                yield skipped(
                    "signed probe", "left out by --no-probe, so it isn't known whether the key is accepted"
                )
                yield skipped("clock", "left out by --no-probe")
            return
    for name in _STEPS[done:]:
        yield skipped(name, "needs what failed above")


def _peer(key: str, url: str) -> _Peer:
    parts = urlsplit(url)
    return _Peer(key, parts.hostname or "", parts.port or _PORTS[parts.scheme])


def _check_name(peer: _Peer, timeout: float) -> Generator[Check, None, list[_Address]]:
    name = _STEPS[0]
    try:
        entries = within(timeout, lambda: socket.getaddrinfo(peer.host, peer.port, 0, socket.SOCK_STREAM))
    except TimeoutError as exc:
        yield problem(name, f"{peer.host}: {exc}", "check the name servers in /etc/resolv.conf: none answers")
        return []
    except OSError as exc:
        yield problem(
            name,
            f"{peer.host}: {exc.strerror}",
            f"check {peer.key}, and the name servers in /etc/resolv.conf: `getent hosts {peer.host}`",
        )
        return []
    found: dict[_Address, None] = {(family, address): None for family, _, _, _, address in entries}
    addresses = list(found)
    yield ok(name, f"{peer.host} is {', '.join(str(address[0]) for _, address in addresses)}")
    return addresses


def _check_connection(peer: _Peer, addresses: list[_Address], timeout: float) -> Generator[Check, None, bool]:
    name = _STEPS[1]
    with concurrent.futures.ThreadPoolExecutor(len(addresses)) as pool:
        results = pool.map(partial(_connect, timeout=timeout), addresses)
    failures = {address[0]: exc for (_, address), exc in zip(addresses, results, strict=True) if exc}
    found = f"{peer}: {'; '.join(f'{address}: {exc.strerror or exc}' for address, exc in failures.items())}"
    if len(failures) == len(addresses):
        yield problem(name, found, _connection_remedy(peer, failures.values()))
        return False
    if all(exc.errno in _NO_WAY for exc in failures.values()):
        without = f" (this host has no way to {', '.join(failures)})" if failures else ""
        yield ok(name, f"connected to {peer}{without}")
    else:
        yield warning(
            name,
            f"{len(failures)} of {len(addresses)} addresses don't answer: {found}",
            "have those addresses taken out of DNS, or mend the way to them: attempts lose time on them",
        )
    return True


def _connect(address: _Address, *, timeout: float) -> OSError | None:
    """Try to connect to an address, and give what it fails with."""
    family, place = address
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(place)
    except OSError as exc:
        return exc
    return None


def _connection_remedy(peer: _Peer, failures: Collection[OSError]) -> str:
    if any(failure.errno == errno.ECONNREFUSED for failure in failures):
        return f"nothing listens there: check the port in {peer.key}, and that it runs"
    if any(isinstance(failure, TimeoutError) for failure in failures):
        return f"packets are dropped on the way: have the firewalls let this host through to {peer}"
    return f"check the routes and firewalls of this host towards {peer}, and {peer.key}"


def _check_tls(settings: PublisherSettings, peer: _Peer, timeout: float) -> Generator[Check, None, bool]:
    name = _STEPS[2]
    if settings.collector.scheme == "http":
        yield skipped(name, "collector.scheme is http: events travel unencrypted")
        return True
    ca_file = settings.collector.ca_file
    trusted = f"the certificates of {ca_file}" if ca_file else "the system's certificates"
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    connection = http.client.HTTPSConnection(peer.host, peer.port, timeout=timeout, context=context)
    if settings.collector.proxy:
        collector = _peer("collector.hostname", settings.collector.url)
        connection.set_tunnel(collector.host, collector.port)
    try:
        connection.connect()
        handshake = cast("ssl.SSLSocket", connection.sock)
        certificate = handshake.getpeercert() or {}
        version = handshake.version()
    except ssl.SSLCertVerificationError as exc:
        yield problem(
            name, f"the certificate isn't accepted: {exc.verify_message}", _certificate_remedy(exc, trusted)
        )
        return False
    except (OSError, http.client.HTTPException) as exc:
        yield problem(name, f"the handshake fails: {_handshake_failure(exc)}", _handshake_remedy(exc, peer))
        return False
    finally:
        connection.close()
    ends_at = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    yield judge_certificate(name, ends_at, time.time(), f"{version}, accepted by {trusted}")
    return True


def _handshake_failure(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "timed out"
    if isinstance(exc, ssl.SSLError):
        return exc.reason or str(exc)
    if isinstance(exc, OSError):
        return exc.strerror or str(exc)
    return "the proxy answers something else than HTTP"


def _handshake_remedy(exc: Exception, peer: _Peer) -> str:
    # One that hangs up in the middle says nothing of its TLS.
    if isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError):
        return (
            "check the port in collector.hostname, and collector.scheme: what answers there doesn't speak "
            "TLS 1.2 or later, or refuses the handshake for a reason that its log tells"
        )
    return f"check what answers at {peer}, and its log: {peer.key} leads there"


def _certificate_remedy(exc: ssl.SSLCertVerificationError, trusted: str) -> str:
    if exc.verify_code == _EXPIRED:
        return "have the collector's certificate renewed; if it is good, set this host's clock"
    if exc.verify_code == _NOT_YET_VALID:
        return "set this host's clock: the certificate isn't good yet"
    if exc.verify_code in _OTHER_NAME:
        return "check collector.hostname: the certificate is for another name"
    return (
        "set collector.ca_file to a PEM file with the certificate of the authority that the collector's is "
        f"from, or have the collector send the certificates in between; now {trusted} are asked"
    )


def _probe(settings: PublisherSettings, timeout: float) -> Iterator[Check]:
    wanted = settings.collector
    collector = HTTPTransport(
        wanted.url,
        timeout=min(wanted.timeout, timeout),
        deadline=min(wanted.deadline, timeout),
        ca_file=wanted.ca_file,
        proxy=wanted.proxy,
    )

    def post(secret: bytes) -> Reply:
        request = build_request(
            _EMPTY_BATCHES[wanted.version],
            key_name=settings.key.name,
            secret=secret,
            level=settings.compression_level,
            wall_time=time.time(),
        )
        return collector.post(request)

    with contextlib.closing(collector):
        reply = post(settings.key.secret.reveal())
        now = time.time()
        # Without `retry.codes`: what the publisher is told to bear is still worth knowing.
        outcome = classify(reply)
        forged = None
        if isinstance(outcome, Refused):
            forged = classify(post(secrets.token_bytes(_SECRET_SIZE)))
    yield judge_outcome(outcome, settings.key.name, forged)
    if isinstance(reply, Response):
        yield judge_clock(reply.date, now)
    else:
        yield skipped("clock", "needs a response")
