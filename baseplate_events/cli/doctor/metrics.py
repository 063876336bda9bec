"""Checks the statsd server, with two datagrams that contain only a line break, which servers ignore."""

from __future__ import annotations

import errno
import math
import select
import socket
from typing import TYPE_CHECKING, Final

from ...event_publisher.config.values import UnixEndpoint
from ...event_publisher.telemetry.statsd import resolve_host
from .findings import Code, ok, skipped, warning
from .timeouts import within

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...event_publisher.config.values import Endpoint, InternetEndpoint
    from .findings import Check

#: Name of the check. It is never a problem: lost metrics don't affect delivery.
_NAME: Final = "metrics"

#: Seconds to wait for an ICMP refusal.
_REFUSAL_TIME: Final = 0.5

#: Why a Unix socket can't be connected to: code, finding and remedy by error number.
_SOCKET_PROBLEMS: Final[Mapping[int | None, tuple[Code, str, str]]] = {
    errno.ENOENT: (
        Code.STATSD_SOCKET_MISSING,
        "{path} doesn't exist",
        "start the statsd server, or correct metrics.endpoint",
    ),
    errno.ECONNREFUSED: (
        Code.STATSD_SOCKET_UNSERVED,
        "nothing listens on {path}",
        "start the statsd server",
    ),
    errno.EACCES: (
        Code.STATSD_SOCKET_FORBIDDEN,
        "this user may not write to {path}",
        "give it access, by the group of `{path}` and of the folders above it",
    ),
    errno.EPROTOTYPE: (
        Code.STATSD_SOCKET_IS_A_STREAM,
        "{path} is a stream socket",
        "configure the statsd server to use a datagram socket there",
    ),
}
_OTHER_PROBLEM: Final = (Code.STATSD_SOCKET_UNUSABLE, "{path}: {reason}", "correct metrics.endpoint")

#: The datagram: an empty line.
_NOTHING: Final = b"\n"


def check_metrics(endpoint: Endpoint | None, *, timeout: float) -> Check:
    """Check the statsd server.

    Args:
        endpoint: Where it is, or None.
        timeout: Seconds that looking up its address may take.
    """
    if endpoint is None:
        return skipped(Code.STATSD_UNSET, _NAME, "metrics.endpoint isn't set")
    if isinstance(endpoint, UnixEndpoint):
        return _check_path(endpoint.path)
    return _check_port(endpoint, timeout)


def _check_path(path: str) -> Check:
    fields = {"path": path}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except OSError as exc:
            code, found, remedy = _SOCKET_PROBLEMS.get(exc.errno, _OTHER_PROBLEM)
            found = found.format(path=path, reason=exc.strerror)
            return warning(code, _NAME, found, remedy.format(path=path), fields=fields)
    return ok(Code.STATSD_SOCKET_SERVED, _NAME, f"a server listens on {path}", fields=fields)


def _check_port(endpoint: InternetEndpoint, timeout: float) -> Check:
    fields = {"endpoint": str(endpoint)}
    try:
        address = within(timeout, lambda: resolve_host(endpoint.host, endpoint.port))
    except OSError as exc:
        ask = f"getent hosts {endpoint.host}"
        return warning(
            Code.STATSD_NAME_UNRESOLVED,
            _NAME,
            f"{endpoint.host}: {exc.strerror or exc}",
            f"check metrics.endpoint, and the name servers: `{ask}`",
            commands=(ask,),
            fields=fields,
        )
    with socket.socket(address.family, socket.SOCK_DGRAM) as probe:
        try:
            # An ICMP refusal is reported by the next call on the socket.
            probe.connect(address.sockaddr)
            probe.send(_NOTHING)
            poller = select.poll()
            poller.register(probe, 0)
            poller.poll(math.ceil(_REFUSAL_TIME * 1_000))
            probe.send(_NOTHING)
        except ConnectionRefusedError:
            return warning(
                Code.STATSD_PORT_REFUSED,
                _NAME,
                f"nothing listens on {endpoint}: the datagram was refused",
                "start the statsd server there, or correct metrics.endpoint",
                fields=fields,
            )
        except OSError as exc:
            return warning(
                Code.STATSD_UNREACHABLE,
                _NAME,
                f"{endpoint}: {exc.strerror}",
                "check the routes and firewalls of this host, or correct metrics.endpoint",
                fields=fields,
            )
    return ok(
        Code.STATSD_PORT_OPEN,
        _NAME,
        f"{endpoint} doesn't refuse datagrams (whether a server receives them is unknown)",
        fields=fields,
    )
