"""Which hosts a request to the health endpoint may name, so that no web page can read it."""

from __future__ import annotations

import contextlib
import http.client
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.config.settings import load_settings
from baseplate_events.event_publisher.config.values import InternetEndpoint, UnixEndpoint
from baseplate_events.event_publisher.policy.accounting import Accounting
from baseplate_events.event_publisher.telemetry.health_pages import answer
from baseplate_events.event_publisher.telemetry.health_server import HealthServer
from baseplate_events.event_publisher.telemetry.host_check import host_of, is_allowed
from baseplate_events.event_publisher.telemetry.reporter import Reporter
from baseplate_events.event_publisher.telemetry.snapshot import Snapshot
from baseplate_events.event_publisher.telemetry.systemd import Notifier
from tests.support.publishers import config_text
from tests.support.strategies import host_names
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SNAPSHOT = Snapshot("v2", "1.0", 0.0, float("inf"), Accounting(), 0, 10)
_LISTED = frozenset({"node1.example.com"})


def status_of(request: str) -> int:
    """Return the status of the answer to a request, where `node1.example.com` is listed."""
    response = answer(f"{request}\r\n\r\n".encode("latin-1"), _SNAPSHOT, 1.0, hosts=_LISTED)
    return int(response.split()[1])


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:9102",
        "10.0.0.7:80",
        "127.0.0.1.",
        "[::1]",
        "[::1]:9102",
        "[fe80::1%25eth0]:9102",
        "[fe80::1%eth0]",
        "[::ffff:127.0.0.1]",
        "localhost",
        "LocalHost:9102",
        "localhost.:9102",
        "node1.example.com",
        "NODE1.example.COM.:80",
        " localhost\t",
        "",
    ],
)
def test_addresses_localhost_and_listed_names_are_answered(host: str) -> None:
    """A host that no page can have as its name is allowed, however it is written."""
    assert status_of(f"GET /readyz HTTP/1.1\r\nHost:{host}") == 200
    assert status_of(f"GET /metrics HTTP/1.1\r\nAccept: */*\r\nhOST: {host}\r\nA: b") == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:9102",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evillocalhost",
        "node1.example.com.evil.example",
        "x.node1.example.com",
        "node1.example.com..",
        "127.1",
        "2130706433",
        "0x7f000001",
        "127.0.0.1:9102:80",
        "127.0.0.1@evil.example",
        "evil.example@127.0.0.1",
        "[evil.example]",
        "[::1",
        "[::1]x",
        "[]",
        "::1 evil",
        "localhost, evil.example",
        "localhost\x00",
        "l\xf6calhost",
        ":9102",
        ".",
    ],
)
def test_other_names_are_not_answered(host: str) -> None:
    """Any other name may belong to a page that rebinds it to this host, so the request is refused."""
    for page in ("/readyz", "/metrics", "/healthz", "/"):
        assert status_of(f"GET {page} HTTP/1.1\r\nHost: {host}") == 421
    assert status_of(f"HEAD /readyz HTTP/1.0\r\nhost : {host}") == 421


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        ("GET /readyz HTTP/1.0", 200),
        ("GET /readyz HTTP/1.1", 200),
        ("GET /readyz HTTP/1.1\r\nX-Host: evil.example", 200),
        ("GET http://127.0.0.1:9102/readyz HTTP/1.1\r\nHost: localhost", 400),
        ("GET http://evil.example/readyz HTTP/1.1\r\nHost: localhost", 400),
        ("GET //evil.example/readyz HTTP/1.1\r\nHost: localhost", 404),
        ("GET evil.example/readyz HTTP/1.1\r\nHost: localhost", 400),
        ("GET /readyz HTTP/1.1\r\nHost: localhost\r\nHost: localhost", 400),
        ("GET /readyz HTTP/1.1\r\nHost: localhost\r\nhost: evil.example", 400),
        ("POST /readyz HTTP/1.1\r\nHost: evil.example", 421),
    ],
)
def test_the_host_is_that_of_the_field(request_head: str, status: int) -> None:
    """The one Host field has it; without one there is none; and a target that is a URL is refused."""
    assert status_of(request_head) == status


@given(
    host_names,
    st.sampled_from(["", ".", ":1", ".:65535", ":"]),
    st.sampled_from([str.upper, str.lower, str.title]),
)
def test_a_name_is_allowed_if_it_is_listed(name: str, rest: str, case: Callable[[str], str]) -> None:
    """However a listed name is written it is allowed; not listed, only an address or `localhost` is."""
    host = case(name) + rest
    assert is_allowed(host, {name.lower()})
    number = name.replace(".", "").isdigit()
    assert is_allowed(host, ()) == (number or name.lower() == "localhost")


@given(st.text(max_size=20) | st.text("[]:%.@0123456789abcdef", max_size=20))
def test_any_host_is_allowed_or_not(host: str) -> None:
    """Whatever a client sends, nothing is raised, and what is allowed is an address or `localhost`."""
    if is_allowed(host, ()):
        name = host.rpartition("]")[0].lstrip("[") or host.partition(":")[0]
        name = name.partition("%")[0].removesuffix(".")
        if name.lower() != "localhost":
            socket.inet_pton(socket.AF_INET6 if ":" in name else socket.AF_INET, name)


@given(st.binary(max_size=40))
def test_any_fields_name_a_host_or_none(fields: bytes) -> None:
    """Whatever fields a client sends, there is one host, none, or an error."""
    with contextlib.suppress(ValueError):
        host = host_of(fields)
        assert host is None or host


def ask(endpoint: InternetEndpoint, host: str) -> int:
    """Query a server by a name, like a browser after DNS rebinding."""
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics", headers={"Host": host})
        return connection.getresponse().status


def test_a_page_cannot_read_a_publisher(tmp_path: Path) -> None:
    """A publisher answers to the names of `health.hosts` and to no other."""
    config_file = tmp_path / "config.ini"
    text = config_text("main", "http://c.test", health__bind="127.0.0.1:1", health__hosts="a.test, B.test.")
    config_file.write_text(text)
    settings = load_settings(config_file, "main", {})
    assert settings.health.hosts == {"a.test", "b.test"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = InternetEndpoint(*free.getsockname())
    config_file.write_text(text.replace("127.0.0.1:1\n", f"{endpoint}\n"))
    telemetry = Reporter(
        load_settings(config_file, "main", {}),
        Notifier({}),
        lambda now: Snapshot("main", "1.0", 0.0, now, Accounting(), 0, 10),
    )
    telemetry.start(1.0)
    try:
        names = ["a.test", f"b.test:{endpoint.port}", "localhost", str(endpoint), "c.test"]
        assert [ask(endpoint, name) for name in names] == [200, 200, 200, 200, 421]
    finally:
        telemetry.close()


def test_a_unix_socket_answers_to_any_name(tmp_path: Path) -> None:
    """No browser can use a Unix socket, so a proxy in front of it may pass any name."""
    path = str(tmp_path / "socket")
    server = HealthServer(UnixEndpoint(path), lambda: _SNAPSHOT)
    server.start()
    with contextlib.closing(server), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        client.connect(path)
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert client.recv(1_000).startswith(b"HTTP/1.1 200 ")
