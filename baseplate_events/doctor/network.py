"""Looks at the way to the event collector, step by step as the publisher takes it.

The name of its host (or of the proxy), a TCP connection, a TLS handshake, and a signed batch without events,
which changes nothing at a collector. A step is skipped where the one before it failed.
"""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from urllib.parse import urlsplit

from ..event_publisher.collector import Collector
from ..event_publisher.outcome import classify
from ..event_publisher.wire import Response, build_request
from .checks import judge_certificate, judge_clock, judge_outcome, ok, problem, skipped, warning
from .patience import within

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ..event_publisher.settings import PublisherSettings
    from .checks import Check

#: Family and address of a socket.
_Address: TypeAlias = tuple[int, "tuple[Any, ...]"]

#: Batches without an event, by `collector.version`.
_EMPTY_BATCHES: Final = {"2": b'{"1":{"lst":["rec",0]}}', "2j": b"[]"}

#: Addresses of a name that are tried at most, each for the whole timeout.
_MOST_ADDRESSES: Final = 4

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
        timeout: Seconds that a step may take; in the case of a connection, for each of up to four addresses.
        probe: Whether to send an empty batch.
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
    except (OSError, UnicodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
        yield problem(
            name,
            f"{peer.host}: {reason}",
            f"check {peer.key}, and the name servers in /etc/resolv.conf: `getent hosts {peer.host}`",
        )
        return []
    found: dict[_Address, None] = {(family, address): None for family, _, _, _, address in entries}
    addresses = list(found)
    yield ok(name, f"{peer.host} is {', '.join(str(address[0]) for _, address in addresses)}")
    return addresses


def _check_connection(peer: _Peer, addresses: list[_Address], timeout: float) -> Generator[Check, None, bool]:
    name = _STEPS[1]
    failures: list[OSError] = []
    failed: list[str] = []
    for family, address in addresses[:_MOST_ADDRESSES]:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as connection:
                connection.settimeout(timeout)
                connection.connect(address)
        except OSError as exc:
            failures.append(exc)
            failed.append(f"{address[0]}: {exc.strerror or exc}")
    tried = len(addresses[:_MOST_ADDRESSES])
    if not failures:
        yield ok(name, f"connected to {peer}")
        return True
    found = f"{peer}: {'; '.join(failed)}"
    if len(failures) < tried:
        yield warning(
            name,
            f"{len(failures)} of {tried} addresses don't answer: {found}",
            "have those addresses taken out of DNS, or mend the way to them: attempts lose time on them",
        )
        return True
    yield problem(name, found, _connection_remedy(peer, failures[0]))
    return False


def _connection_remedy(peer: _Peer, failure: OSError) -> str:
    if failure.errno == errno.ECONNREFUSED:
        return f"nothing listens there: check the port in {peer.key}, and that it runs"
    if isinstance(failure, TimeoutError):
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
            name, f"the certificate isn't accepted: {exc.verify_message}", _tls_remedy(exc, trusted)
        )
        return False
    except ssl.SSLError as exc:
        yield problem(
            name,
            f"the handshake fails: {exc.reason or exc}",
            "check the port in collector.hostname and collector.scheme: it isn't TLS 1.2 or later",
        )
        return False
    except OSError as exc:
        yield problem(
            name,
            f"the handshake fails: {exc.strerror or exc}",
            "check what stands at that address, or between it and this host; a proxy may refuse the tunnel",
        )
        return False
    finally:
        connection.close()
    ends_at = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    yield judge_certificate(name, ends_at, time.time(), f"{version}, accepted by {trusted}")
    return True


def _tls_remedy(exc: ssl.SSLCertVerificationError, trusted: str) -> str:
    if exc.verify_code == _EXPIRED:
        return "have the collector's certificate renewed; if it is good, set this host's clock"
    if exc.verify_code == _NOT_YET_VALID:
        return "set this host's clock: the certificate isn't good yet"
    if exc.verify_code in _OTHER_NAME:
        return "check collector.hostname: the certificate is for another name"
    return (
        "set collector.ca_file to a PEM file with the certificate of the authority that the collector's is "
        f"from; now {trusted} are asked"
    )


def _probe(settings: PublisherSettings, timeout: float) -> Iterator[Check]:
    wanted = settings.collector
    request = build_request(
        _EMPTY_BATCHES[wanted.version],
        key_name=settings.key.name,
        secret=settings.key.secret.reveal(),
        level=settings.compression_level,
        wall_time=time.time(),
    )
    collector = Collector(
        wanted.url,
        timeout=min(wanted.timeout, timeout),
        deadline=min(wanted.deadline, timeout),
        ca_file=wanted.ca_file,
        proxy=wanted.proxy,
    )
    reply = collector.post(request)
    now = time.time()
    collector.close()
    # Without `retry.codes`: what the publisher is told to bear is still worth knowing.
    yield judge_outcome(classify(reply), settings.key.name)
    if isinstance(reply, Response):
        yield judge_clock(reply.date, now)
    else:
        yield skipped("clock", "needs a response")
