"""Looks at the statsd server. It gets two datagrams that hold a line break, which means nothing to it."""

from __future__ import annotations

import errno
import math
import select
import socket
from typing import TYPE_CHECKING, Final

from ...event_publisher.config.values import UnixEndpoint
from ...event_publisher.telemetry.statsd import resolve_host
from .checks import ok, skipped, warning
from .timeouts import within

if TYPE_CHECKING:
    from ...event_publisher.config.values import Endpoint, InternetEndpoint
    from .checks import Check

#: Name of the check. It is never a problem: metrics that get lost disturb nothing else.
_NAME: Final = "metrics"

#: Seconds in which a refusal comes back, if one comes.
_REFUSAL_TIME: Final = 0.5

#: What is sent: a line of statsd without anything in it.
_NOTHING: Final = b"\n"


def check_metrics(endpoint: Endpoint | None, *, timeout: float) -> Check:
    """Look at the statsd server.

    Args:
        endpoint: Where it is, or None.
        timeout: Seconds that finding its address may take.
    """
    if endpoint is None:
        return skipped(_NAME, "metrics.endpoint isn't set")
    if isinstance(endpoint, UnixEndpoint):
        return _check_path(endpoint.path)
    return _check_port(endpoint, timeout)


def _check_path(path: str) -> Check:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            return warning(
                _NAME, f"{path} isn't there", "start the statsd server, or correct metrics.endpoint"
            )
        except ConnectionRefusedError:
            return warning(_NAME, f"nobody listens on {path}", "start the statsd server")
        except PermissionError:
            return warning(
                _NAME,
                f"this user may not write to {path}",
                f"let it, by a group of `{path}` and of the folders above it",
            )
        except OSError as exc:
            if exc.errno == errno.EPROTOTYPE:
                return warning(
                    _NAME, f"{path} is a stream socket", "have the statsd server listen for datagrams there"
                )
            return warning(_NAME, f"{path}: {exc.strerror}", "correct metrics.endpoint")
    return ok(_NAME, f"a server listens on {path}")


def _check_port(endpoint: InternetEndpoint, timeout: float) -> Check:
    try:
        address = within(timeout, lambda: resolve_host(endpoint.host, endpoint.port))
    except OSError as exc:
        return warning(
            _NAME,
            f"{endpoint.host}: {exc.strerror or exc}",
            f"check metrics.endpoint, and the name servers: `getent hosts {endpoint.host}`",
        )
    with socket.socket(address.family, socket.SOCK_DGRAM) as probe:
        try:
            # A refusal comes back as a packet, and is told by what is called next.
            probe.connect(address.sockaddr)
            probe.send(_NOTHING)
            poller = select.poll()
            poller.register(probe, 0)
            poller.poll(math.ceil(_REFUSAL_TIME * 1_000))
            probe.send(_NOTHING)
        except ConnectionRefusedError:
            return warning(
                _NAME,
                f"nothing listens on {endpoint}: the datagram was refused",
                "start the statsd server there, or correct metrics.endpoint",
            )
        except OSError as exc:
            return warning(
                _NAME,
                f"{endpoint}: {exc.strerror}",
                "check the routes and firewalls of this host, or correct metrics.endpoint",
            )
    return ok(_NAME, f"{endpoint} doesn't refuse datagrams (whether it takes them can't be known)")
