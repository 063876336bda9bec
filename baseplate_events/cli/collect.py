"""The command `collect`: a development collector that writes events as lines to stdout or a file."""

from __future__ import annotations

import base64
import io
import os
import re
import signal
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ..dev_collector.check import MAX_SIZE
from ..dev_collector.server import DevCollector
from ..errors import ConfigurationError
from ..event_publisher.exit_status import print_stderr
from ..event_publisher.standard_streams import is_open
from .terminal import event_for_terminal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from ..dev_collector.check import AcceptedBatch

#: Largest `--batch-max-size` in bytes: a batch is held in memory several times while it is checked.
_LARGEST_MAX_SIZE: Final = 1 << 30

#: A key name that the X-Signature header can carry.
_KEY_NAME: Final = re.compile(r"[!-+\--~]+")

_DIGITS: Final = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class _Settings:
    host: str
    port: int
    keys: Mapping[str, bytes] = field(repr=False)
    max_size: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command `collect` to its parser."""
    parser.description = (
        "A collector for development and tests, NOT for production: it keeps no state, and every user of "
        "this host can see its secrets. It verifies the signature and format of each batch and writes one "
        "JSON line per event. It answers a bad batch with the reason, and writes the reason to stderr "
        "too."
    )
    parser.add_argument(
        "--bind",
        metavar="HOST:PORT",
        default="127.0.0.1:8080",
        help="where to listen (default: %(default)s); port 0 picks a free one",
    )
    parser.add_argument(
        "--key",
        metavar="NAME=BASE64",
        action="append",
        required=True,
        help="name and secret of a key that batches may be signed with; repeatable",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="append the events to this file instead of writing to stdout"
    )
    parser.add_argument(
        "--batch-max-size",
        metavar="BYTES",
        default=str(MAX_SIZE),
        help="largest batch, uncompressed (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command `collect` until SIGINT or SIGTERM, or until the reader of its stdout is gone.

    Must be called from the main thread. Blocks both signals while it runs.

    Args:
        arguments: The command line, parsed with `add_arguments`.

    Returns:
        The exit status: 0, or 2 for unusable arguments, each reported in one line on stderr.
    """
    signals = {signal.SIGINT, signal.SIGTERM}
    # Blocked here so that threads inherit it, and only `sigwait` receives them.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        settings = _settings(arguments)
        with _open_output(arguments.output) as output, _listen(settings, EventLines(output)) as collector:
            print_stderr(f"listening on {collector.url} (for development only)")
            signal.sigwait(signals)
    except ConfigurationError as exc:
        for problem in exc.problems:
            print_stderr(f"collect: {problem}")
        return 2
    else:
        return 0
    finally:
        # Consume a second signal that arrived while closing.
        while signal.sigpending() & signals:
            signal.sigwait(signals)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class EventLines:
    """Writes each event of a batch as one line, escaped on a terminal; batches aren't interleaved."""

    def __init__(self, output: io.FileIO) -> None:
        self._output = output
        self._terminal = output.isatty()
        self._lock = threading.Lock()

    def __call__(self, batch: AcceptedBatch) -> None:
        """Write a batch; after a failure its first lines may have been written."""
        events = map(event_for_terminal, batch.events) if self._terminal else batch.events
        rest = memoryview(b"".join(event + b"\n" for event in events))
        with self._lock:
            try:
                while rest:
                    rest = rest[self._output.write(rest) :]
            except BrokenPipeError:
                os.kill(os.getpid(), signal.SIGTERM)
                raise


def _settings(arguments: argparse.Namespace) -> _Settings:
    """Return the checked arguments; raise a ConfigurationError with all mistakes."""
    problems: list[str] = []
    bind: str = arguments.bind
    host, _, port = bind.rpartition(":")
    bare_host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare_host or (":" in host) != (bare_host != host) or not _is_number(port, 0, 65_535):
        problems.append(
            f"--bind {bind!a}: expected HOST:PORT with a port from 0 to 65535, "
            "such as 127.0.0.1:8080 or [::1]:0"
        )
    keys: dict[str, bytes] = {}
    given: list[str] = arguments.key
    for number, pair in enumerate(given, 1):
        # Neither part is shown: without a name, the first part is the secret.
        name, _, encoded = pair.partition("=")
        try:
            secret = base64.b64decode(encoded, validate=True)
        except ValueError:
            secret = b""
        if not secret or not _KEY_NAME.fullmatch(name):
            problems.append(
                f"--key, number {number}: expected NAME=BASE64, a name of printable ASCII without blanks and "
                "commas and a secret in base64 that isn't empty"
            )
        elif name in keys:
            problems.append(f"--key, number {number}: duplicate name")
        keys[name] = secret
    max_size: str = arguments.batch_max_size
    if not _is_number(max_size, 1, _LARGEST_MAX_SIZE):
        problems.append(
            f"--batch-max-size {max_size!a}: expected a number of bytes from 1 to {_LARGEST_MAX_SIZE:,}"
        )
    if problems:
        raise ConfigurationError(*problems)
    return _Settings(bare_host, int(port), keys, int(max_size))


def _is_number(text: str, least: int, most: int) -> bool:
    return _DIGITS.fullmatch(text) is not None and least <= int(text) <= most


def _open_output(path: str | None) -> io.FileIO:
    """Open the file, or stdout; unbuffered, so that a failed batch isn't written later."""
    if path is None:
        if not is_open(sys.stdout):
            raise ConfigurationError("there is no stdout; give --output FILE")
        return io.FileIO(sys.stdout.fileno(), "w", closefd=False)
    try:
        return io.FileIO(path, "a")
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"--output {path!a}: can't be written: {_words(exc)}") from exc


def _listen(settings: _Settings, lines: EventLines) -> DevCollector:
    try:
        return DevCollector(
            settings.keys,
            lines,
            on_rejected=lambda rejected: print_stderr(
                f"batch refused with {rejected.status}: {rejected.reason}"
            ),
            host=settings.host,
            port=settings.port,
            max_size=settings.max_size,
        )
    except (OSError, ValueError) as exc:
        where = f"{settings.host}, port {settings.port}"
        raise ConfigurationError(f"--bind: can't listen on {where}: {_words(exc)}") from exc


def _words(exc: OSError | ValueError) -> str:
    return (exc.strerror if isinstance(exc, OSError) else None) or type(exc).__name__
