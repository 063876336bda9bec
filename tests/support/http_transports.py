"""HTTP transports for tests: a transport to a server, a request, and its result."""

from __future__ import annotations

import socket
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from baseplate_events.event_publisher.http_transport import HTTPTransport
from baseplate_events.event_publisher.policy.wire import Failure, FailureKind, Reply, Request, Response
from tests.support.fault_collector import (
    Behaviour,
    FaultCollector,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import pytest

    from baseplate_events.event_publisher.addresses import AddressBook

REQUEST = Request({"X-Signature": "key=k, mac=00", "Content-Type": "application/json"}, b"compressed")


@contextmanager
def collector_for(
    url: str,
    *,
    timeout: float = 20.0,
    deadline: float = 20.0,
    ca_file: str | None = None,
    proxy: str | None = None,
    addresses: AddressBook | None = None,
) -> Generator[HTTPTransport]:
    """Yield a collector for a server's URL; it waits long enough that nothing times out by accident."""
    collector = HTTPTransport(
        f"{url}/v2", timeout=timeout, deadline=deadline, ca_file=ca_file, proxy=proxy, addresses=addresses
    )
    with closing(collector):
        yield collector


@contextmanager
def serving(*script: Behaviour) -> Generator[tuple[FaultCollector, HTTPTransport]]:
    """Run a server with this script, and a collector that posts to it."""
    with FaultCollector(script) as server, collector_for(server.url) as collector:
        yield server, collector


def post_once(url: str, *, timeout: float = 20.0, ca_file: str | None = None) -> Reply:
    """Post one request over a collector of its own."""
    with collector_for(url, timeout=timeout, ca_file=ca_file) as collector:
        return collector.post(REQUEST)


def status_of(reply: Reply) -> int:
    """Return the status of a reply that must be a response."""
    assert isinstance(reply, Response), reply
    return reply.status


def kind_of(reply: Reply) -> FailureKind:
    """Return the kind of a reply that must be a failure."""
    assert isinstance(reply, Failure), reply
    return reply.kind


def resolve_to(monkeypatch: pytest.MonkeyPatch, addresses: Sequence[tuple[str, int]]) -> list[str]:
    """Resolve each name to these addresses; return the list of names looked up, as text."""
    names: list[str] = []

    def getaddrinfo(host: str | bytes, *_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        names.append(host.decode() if isinstance(host, bytes) else host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names
