"""The command `status`: what a running publisher is doing, read from its health endpoint.

It shows what `/metrics` and `/readyz` say, and adds only rates, from two looks. On a terminal it refreshes
like `top`; elsewhere it writes one JSON object.

Exit statuses: 0 if the publisher was delivering events at the last look; 1 if it wasn't, or can't be reached;
2 for an error in the command line or the configuration.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import select
import socket
import sys
import time
from typing import TYPE_CHECKING, Final

from ..._compat import assert_never
from ...errors import ConfigurationError, EventError
from ...event_publisher.config.declare import BIND, span
from ...event_publisher.config.values import InternetEndpoint, UnixEndpoint
from ...event_publisher.exit_status import EXIT_FAILURE, failed
from ...event_publisher.foreign_text import MAX_FOREIGN
from ...event_publisher.telemetry.prometheus import parse_samples
from ..common import LONGEST_SPAN, argument, event_queue_name
from ..terminal import printable, wants_colour
from .report import Scrape, format_json, format_status, status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ...event_publisher.config.values import Endpoint

#: Seconds for one read of an answer; the server ends a connection after the same time.
_TIMEOUT: Final = 5.0

#: Bytes of the largest page that is read; `/metrics` has some 10,000.
_MAX_PAGE: Final = 1_000_000

#: Seconds between two looks: what is shown is up to a second old.
_INTERVAL: Final = "2 seconds"

#: Seconds between two looks at least.
_SHORTEST: Final = 0.1

#: Moves the cursor to the top left corner; erases all behind it; goes to another screen, and back (ECMA-48,
#: and xterm's 1049).
_HOME: Final = "\x1b[H"
_ERASE: Final = "\x1b[J"
_OTHER_SCREEN: Final = "\x1b[?1049h"
_OWN_SCREEN: Final = "\x1b[?1049l"

_EPILOG: Final = """\
The address is health.bind of the section [event-publisher:NAME] in CONFIG, or that of --health-bind. Rates
are those of the last ten seconds, as the publisher reports them.

examples:
  %(prog)s publisher.ini                                 on a terminal, until q or Ctrl-C
  %(prog)s --health-bind 127.0.0.1:9102 --once           one table
  %(prog)s --health-bind /run/events/health.sock | jq .ready

exit status: 0 if events are being delivered; 1 if not, or if the publisher can't be reached; 2 for an error
in the command line or the configuration
"""


class UnreachableError(EventError):
    """Raised when a health endpoint doesn't answer as one.

    Attributes:
        address: Its address.
        problem: What happened instead.
    """

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(address, problem)
        self.address = address
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"can't reach the publisher at {self.address}: {self.problem}; check that it runs with "
            "health.bind set to this address"
        )


class _HealthConnection(http.client.HTTPConnection):
    """A connection to a health endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._endpoint = endpoint

    def connect(self) -> None:
        match self._endpoint:
            case UnixEndpoint(path=path):
                self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self.sock.settimeout(_TIMEOUT)
                self.sock.connect(path)
            case InternetEndpoint(host=host, port=port):
                self.sock = socket.create_connection((host, port), _TIMEOUT)
            case _:
                assert_never(self._endpoint)


def scrape(endpoint: Endpoint) -> Scrape:
    """Read the pages of a health endpoint.

    Raises:
        UnreachableError: It doesn't answer, or isn't a publisher's.
    """
    try:
        status, metrics = _get(endpoint, "/metrics")
        if status != http.HTTPStatus.OK:
            raise UnreachableError(str(endpoint), f"/metrics answers {status}: this isn't a publisher")
        samples = parse_samples(metrics)
        status, reason = _get(endpoint, "/readyz")
    except (OSError, http.client.HTTPException, ValueError) as exc:
        problem = (exc.strerror if isinstance(exc, OSError) else None) or str(exc) or type(exc).__name__
        raise UnreachableError(str(endpoint), printable(problem, MAX_FOREIGN)) from exc
    return Scrape(None if status == http.HTTPStatus.OK else reason.strip(), samples)


def _get(endpoint: Endpoint, path: str) -> tuple[int, str]:
    with contextlib.closing(_HealthConnection(endpoint)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(_MAX_PAGE).decode()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command `status` to its parser."""
    parser.description = "Show what a running publisher is doing."
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("config_file", metavar="CONFIG", nargs="?", help="INI file with health.bind")
    parser.add_argument(
        "--queue-name",
        metavar="NAME",
        type=event_queue_name,
        help="default: the only queue of CONFIG, or main if it has several",
    )
    parser.add_argument(
        "--health-bind",
        metavar="ADDRESS",
        type=argument(BIND),
        help="HOST:PORT or the path of a socket; default: health.bind of CONFIG",
    )
    parser.add_argument(
        "--interval",
        metavar="SPAN",
        type=argument(span(_SHORTEST, LONGEST_SPAN, _INTERVAL)),
        default=_INTERVAL,
        help=f"time between two updates; default: {_INTERVAL}",
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="report once; on a terminal, as one table",
    )
    parser.add_argument("--json", action="store_true", help="write one JSON object, also on a terminal")


def run(arguments: argparse.Namespace) -> int:
    """Show the status and return the exit status."""
    try:
        endpoint = _find_endpoint(arguments)
    except ConfigurationError as exc:
        return failed(exc)
    terminal = sys.stdout.isatty() and not arguments.json
    try:
        if terminal and not arguments.once and os.environ.get("TERM") != "dumb":
            return _watch(endpoint, arguments.interval)
        status = status_of(scrape(endpoint))
    except UnreachableError as exc:
        return failed(exc)
    except KeyboardInterrupt:
        return EXIT_FAILURE
    lines = (
        format_status(status, colour=wants_colour(sys.stdout, os.environ))
        if terminal
        else [format_json(status)]
    )
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0 if status.ready else EXIT_FAILURE


def _find_endpoint(arguments: argparse.Namespace) -> Endpoint:
    if arguments.health_bind is not None:
        given: Endpoint = arguments.health_bind
        return given
    if arguments.config_file is None:
        raise ConfigurationError("expected a CONFIG that has health.bind, or --health-bind ADDRESS")
    # Imported late: with an address, no configuration is read.
    from ...event_publisher.config.settings import find_queue_name, load_health  # noqa: PLC0415

    name: str = arguments.queue_name or find_queue_name(arguments.config_file)
    endpoint = load_health(arguments.config_file, name, os.environ)
    if endpoint is None:
        raise ConfigurationError(
            f"{arguments.config_file}: [event-publisher:{name}] health.bind: not set, so the "
            "publisher can't be queried; set it to 127.0.0.1:9102, for example, and restart the publisher"
        )
    return endpoint


def _watch(endpoint: Endpoint, interval: float) -> int:
    """Show the status until the user presses q; return the exit status of the last look."""
    scrape(endpoint)  # if this fails, the address is likely wrong
    ready = False
    colour = wants_colour(sys.stdout, os.environ)
    with contextlib.suppress(KeyboardInterrupt), _screen() as has_ended:
        while True:
            try:
                status = status_of(scrape(endpoint))
                ready, lines = status.ready, format_status(status, colour=colour)
            except UnreachableError as exc:
                ready, lines = False, [printable(str(exc))]
            _show([*lines, "", f"every {interval:g} s; q ends"])
            if has_ended(interval):
                break
    return 0 if ready else EXIT_FAILURE


def _show(lines: list[str]) -> None:
    sys.stdout.write(_HOME + "".join(f"{line}\x1b[K\r\n" for line in lines) + _ERASE)
    sys.stdout.flush()


@contextlib.contextmanager
def _screen() -> Generator[Callable[[float], bool]]:
    """Use another screen; yield what waits some seconds for a key and returns whether it was a `q`."""
    sys.stdout.write(_OTHER_SCREEN)
    try:
        with _keys() as has_ended:
            yield has_ended
    finally:
        sys.stdout.write(_OWN_SCREEN)
        sys.stdout.flush()


@contextlib.contextmanager
def _keys() -> Generator[Callable[[float], bool]]:
    """Read keys as they are pressed, if stdin is a terminal."""

    def wait(seconds: float) -> bool:
        time.sleep(seconds)
        return False

    if not sys.stdin.isatty():
        yield wait
        return
    import termios  # noqa: PLC0415  isn't there on every system
    import tty  # noqa: PLC0415

    keyboard = sys.stdin.fileno()

    def has_ended(seconds: float) -> bool:
        give_up_at = time.monotonic() + seconds
        while (left := give_up_at - time.monotonic()) > 0:
            if select.select([keyboard], [], [], left)[0]:
                keys = os.read(keyboard, 100)
                if not keys or b"q" in keys.lower():
                    return True
        return False

    settings = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    try:
        yield has_ended
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, settings)
