from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

import pytest

from baseplate_events.cli.doctor.findings import Code
from baseplate_events.cli.doctor.metrics import check_metrics
from baseplate_events.event_publisher.config.values import InternetEndpoint, UnixEndpoint
from tests.support.doctors import check_words, diagnose, sound
from tests.support.queues import needs_root, unprivileged
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from baseplate_events.cli.doctor.findings import Check


def metrics_of(tmp_path: Path, endpoint: str) -> Check:
    """Return the doctor's check of this endpoint."""
    return diagnose(tmp_path, "http://127.0.0.1:9", "--no-probe", metrics__endpoint=endpoint)["metrics"]


@contextlib.contextmanager
def statsd() -> Generator[socket.socket]:
    """Yield the socket of a statsd server."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE)
        yield server


@contextlib.contextmanager
def refusing_port() -> Generator[int]:
    """Yield a port that refuses datagrams, and keep others from using it meanwhile."""
    with statsd() as bound:
        bound.connect(("127.0.0.1", 9))  # so that the system refuses what comes from elsewhere
        yield bound.getsockname()[1]


def test_without_an_endpoint_there_is_nothing_to_check(tmp_path: Path) -> None:
    """An unset endpoint is no problem."""
    check = diagnose(tmp_path, "http://127.0.0.1:9", "--no-probe")["metrics"]
    assert check.code is Code.STATSD_UNSET
    check_words(check, "metrics.endpoint isn't set")


# --- over UDP ---


def test_a_statsd_server_gets_nothing_that_it_would_count(tmp_path: Path) -> None:
    """A server that listens is ok, and got line breaks only."""
    with statsd() as server:
        endpoint = f"127.0.0.1:{server.getsockname()[1]}"
        check = metrics_of(tmp_path, endpoint)
        assert [server.recv(100), server.recv(100)] == [b"\n", b"\n"]
    assert (Code.STATSD_PORT_OPEN, {"endpoint": endpoint}) == (check.code, check.fields)


def test_a_dead_udp_port_is_a_warning(tmp_path: Path) -> None:
    """A refused datagram is reported, although UDP has no connections."""
    with refusing_port() as port:
        check = metrics_of(tmp_path, f"127.0.0.1:{port}")
    assert (Code.STATSD_PORT_REFUSED, {"endpoint": f"127.0.0.1:{port}"}) == (check.code, check.fields)


def test_a_statsd_name_that_doesnt_exist_is_a_warning(tmp_path: Path) -> None:
    """It is reported with the command that shows it."""
    check = metrics_of(tmp_path, "statsd.invalid:8125")
    assert (Code.STATSD_NAME_UNRESOLVED, {"endpoint": "statsd.invalid:8125"}) == (check.code, check.fields)
    assert ["getent hosts statsd.invalid"] == list(check.commands)


def test_an_address_without_a_way_is_a_warning(tmp_path: Path) -> None:
    """An address that can't be sent to is a warning."""
    check = metrics_of(tmp_path, "255.255.255.255:8125")
    assert (Code.STATSD_UNREACHABLE, {"endpoint": "255.255.255.255:8125"}) == (check.code, check.fields)


def test_the_words_on_a_port() -> None:
    """The endpoint is named, and what to do about it."""

    def look(host: str, port: int) -> Check:
        return sound(check_metrics(InternetEndpoint(host, port), timeout=PATIENCE))

    with statsd() as server:
        endpoint = InternetEndpoint(*server.getsockname())
        check_words(
            look(endpoint.host, endpoint.port),
            f"{endpoint} doesn't refuse datagrams (whether a server receives them is unknown)",
        )
    with refusing_port() as port:
        check_words(
            look("127.0.0.1", port),
            f"nothing listens on 127.0.0.1:{port}: the datagram was refused",
            "start the statsd server there, or correct metrics.endpoint",
        )
    with pytest.raises(socket.gaierror) as caught:
        socket.getaddrinfo("statsd.invalid", 8125)
    check_words(
        look("statsd.invalid", 8125),
        f"statsd.invalid: {caught.value.strerror}",
        "check metrics.endpoint, and the name servers: `getent hosts statsd.invalid`",
    )
    unreachable = look("255.255.255.255", 8125)
    assert unreachable.found.startswith("255.255.255.255:8125: ")
    assert unreachable.remedy == "check the routes and firewalls of this host, or correct metrics.endpoint"


# --- over a Unix socket ---


@contextlib.contextmanager
def server_at(path: Path, kind: str) -> Generator[str]:
    """Put something at a path, and give the path that the endpoint has."""
    with contextlib.ExitStack() as stack:
        if kind in {"left behind", "server", "stream"}:
            stream = socket.SOCK_STREAM if kind == "stream" else socket.SOCK_DGRAM
            server = stack.enter_context(socket.socket(socket.AF_UNIX, stream))
            server.bind(str(path))
            if kind == "stream":
                server.listen()
            if kind == "left behind":
                server.close()
        elif kind != "nothing":
            path.write_text("")
        yield str(path / "x" if kind == "folder in a file" else path)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("nothing", Code.STATSD_SOCKET_MISSING),
        ("file", Code.STATSD_SOCKET_UNSERVED),
        ("left behind", Code.STATSD_SOCKET_UNSERVED),
        ("stream", Code.STATSD_SOCKET_IS_A_STREAM),
        ("folder in a file", Code.STATSD_SOCKET_UNUSABLE),
        ("server", Code.STATSD_SOCKET_SERVED),
    ],
)
def test_the_path_of_a_statsd_server_is_checked(tmp_path: Path, kind: str, code: Code) -> None:
    """What isn't a socket with a server behind it is a warning."""
    with server_at(tmp_path / "s", kind) as path:
        check = metrics_of(tmp_path, path)
    assert (code, {"path": path}) == (check.code, check.fields)


@pytest.mark.parametrize(
    ("kind", "found", "remedy"),
    [
        ("nothing", "{} doesn't exist", "start the statsd server, or correct metrics.endpoint"),
        ("file", "nothing listens on {}", "start the statsd server"),
        ("stream", "{} is a stream socket", "configure the statsd server to use a datagram socket there"),
        ("folder in a file", "{}: Not a directory", "correct metrics.endpoint"),
        ("server", "a server listens on {}", ""),
    ],
)
def test_the_words_on_a_path(tmp_path: Path, kind: str, found: str, remedy: str) -> None:
    """The path is named, with what it is, and what to do."""
    with server_at(tmp_path / "s", kind) as path:
        check = sound(check_metrics(UnixEndpoint(path), timeout=PATIENCE))
    check_words(check, found.format(path), remedy)


@needs_root
def test_a_statsd_path_that_is_closed_to_this_user_is_a_warning(tmp_path: Path) -> None:
    """The permission that is missing is named."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        os.chmod(path, 0o600)  # noqa: PTH101 - a socket, named by a text
        with unprivileged(tmp_path):
            check = sound(check_metrics(UnixEndpoint(path), timeout=PATIENCE))
    assert (Code.STATSD_SOCKET_FORBIDDEN, {"path": path}) == (check.code, check.fields)
    check_words(
        check,
        f"this user may not write to {path}",
        f"give it access, by the group of `{path}` and of the folders above it",
    )
