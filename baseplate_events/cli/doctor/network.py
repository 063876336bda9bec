"""Checks the connection to the event collector, step by step as the publisher connects.

`collector` and `probe` judge the results.

The steps: resolve the name of its host (or of the proxy), open a TCP connection, do a TLS handshake, and send
a signed batch without events, which changes nothing at a collector. A collector may accept that, or refuse it
for being empty; then it gets another one with a false signature, to see whether it checks signatures. A step
is skipped if the one before it failed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import secrets
import socket
import ssl
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ...event_publisher.addresses import AddressBook
from ...event_publisher.certificates import Certificates
from ...event_publisher.http_connection import Budget, Connection, Route, dial
from ...event_publisher.http_response import MalformedResponseError
from ...event_publisher.http_transport import HTTPTransport
from ...event_publisher.policy.outcome import Accepted, Refused, classify
from ...event_publisher.policy.wire import Response, build_request
from .collector import (
    STEPS,
    Peer,
    judge_certificate,
    judge_connection,
    judge_handshake,
    judge_name,
)
from .findings import Code, Verdict, skipped
from .probe import judge_clock, judge_probe
from .timeouts import within

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ...event_publisher.config.settings import PublisherSettings
    from ...event_publisher.policy.wire import Reply
    from .findings import Check

#: Family and address of a socket.
_Address: TypeAlias = tuple[int, "tuple[Any, ...]"]

#: Batches without an event, by `collector.version`.
_EMPTY_BATCHES: Final = {"2": b'{"1":{"lst":["rec",0]}}', "2j": b"[]"}

#: Bytes of the secret for a false signature.
_SECRET_SIZE: Final = 32

#: The name of a certificate in a folder of them, from which OpenSSL loads them on demand.
_HASHED_NAME: Final = "????????.[0-9]*"


def check_collector(settings: PublisherSettings, *, timeout: float, probe: bool) -> Iterator[Check]:
    """Check the connection to the collector.

    Args:
        settings: The publisher's settings.
        timeout: Seconds that a step may take, or a probe.
        probe: Whether to send empty batches.
    """
    route = Route.to(settings.collector.url, settings.collector.proxy)
    key = "collector.hostname" if route.tunnel is None else "collector.proxy"
    peer = Peer(key, route.host, route.port)
    addresses = yield from _check_name(peer, timeout)
    done = 2 if addresses else 1
    if addresses and (yield from _check_connection(peer, addresses, timeout)):
        done = 3
        if (yield from _check_tls(settings, route, peer, timeout)):
            if probe:
                yield from _probe(settings, timeout)
            else:
                yield skipped(
                    Code.PROBE_LEFT_OUT,
                    "signed probe",
                    "skipped by --no-probe, so whether the key is accepted is unknown",
                )
                yield skipped(Code.CLOCK_LEFT_OUT, "clock", "skipped by --no-probe")
            return
    for name in STEPS[done:]:
        yield skipped(Code.STEP_BLOCKED, name, "needs the step that failed above")


def _check_name(peer: Peer, timeout: float) -> Generator[Check, None, list[_Address]]:
    try:
        entries = within(timeout, lambda: socket.getaddrinfo(peer.host, peer.port, 0, socket.SOCK_STREAM))
    except OSError as exc:
        yield judge_name(peer, exc)
        return []
    found: dict[_Address, None] = {(family, address): None for family, _, _, _, address in entries}
    yield judge_name(peer, [str(address[0]) for _, address in found])
    return list(found)


def _check_connection(peer: Peer, addresses: list[_Address], timeout: float) -> Generator[Check, None, bool]:
    with concurrent.futures.ThreadPoolExecutor(len(addresses)) as pool:
        results = pool.map(partial(_connect, timeout=timeout), addresses)
    failures = {str(address[0]): exc for (_, address), exc in zip(addresses, results, strict=True) if exc}
    check = judge_connection(peer, failures, len(addresses))
    yield check
    return check.verdict is not Verdict.PROBLEM


def _connect(address: _Address, *, timeout: float) -> OSError | None:
    """Try to connect to an address; return the error, or None."""
    family, place = address
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(place)
    except OSError as exc:
        return exc
    return None


def _check_tls(
    settings: PublisherSettings, route: Route, peer: Peer, timeout: float
) -> Generator[Check, None, bool]:
    if not route.secure:
        yield skipped(Code.TLS_UNUSED, "collector TLS", "collector.scheme is http: events travel unencrypted")
        return True
    ca_file = settings.collector.ca_file
    context = Certificates().context(ca_file)
    budget = Budget(timeout, timeout, time.monotonic)
    budget.start()
    try:
        connected, address, detour = dial(route.host, route.port, budget, AddressBook())
        with contextlib.closing(Connection(connected, address, budget, detour=detour)) as connection:
            if route.tunnel is not None:
                connection.open_tunnel(route.tunnel)
            handshake = connection.start_tls(context, route.name)
            certificate = handshake.getpeercert() or {}
            version = handshake.version()
    except (OSError, MalformedResponseError) as exc:
        yield judge_handshake(exc, peer, ca_file, empty_store=_empty_store(context))
        return False
    ends_at = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    yield judge_certificate(ends_at, time.time(), version=version, ca_file=ca_file)
    return True


def _empty_store(context: ssl.SSLContext) -> str | None:
    """Return where the system's certificates should be, if there are none; otherwise None."""
    paths = ssl.get_default_verify_paths()  # SSL_CERT_FILE and SSL_CERT_DIR of the environment come first
    file, folder = paths.cafile or paths.openssl_cafile, paths.capath or paths.openssl_capath
    # OpenSSL counts the certificates of a folder only when it uses them.
    if context.cert_store_stats()["x509_ca"] or list(Path(folder).glob(_HASHED_NAME)):
        return None
    return f"{file} and {folder}"


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
            level=settings.compression.level,
            wall_time=time.time(),
        )
        return collector.post(request)

    with contextlib.closing(collector):
        reply = post(settings.key.secret.reveal())
        now = time.time()
        forged = None
        if isinstance(classify(reply), Accepted | Refused):
            forged = classify(post(secrets.token_bytes(_SECRET_SIZE)))
    yield judge_probe(reply, settings.key.name, forged)
    if isinstance(reply, Response):
        yield judge_clock(reply.date, now)
    else:
        yield skipped(Code.CLOCK_UNANSWERED, "clock", "needs a response")
