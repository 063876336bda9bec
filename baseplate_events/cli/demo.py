"""The command `demo`: events from a service to a collector, on this machine, without privileges or a network.

A development collector runs in this process. Two real event publishers run beside it, one for Thrift events
and one for JSON events. This process puts events on their queues as a service would, and watches them arrive.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar

from ..dev_collector import DevCollector
from ..errors import EventError
from ..events import SPOOL_VARIABLE, EventQueue
from ..serializers import serialize_v2_event, serialize_v2j_event
from ..transport.posix import unlink_queue
from .common import PACKAGE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Generator

T = TypeVar("T")

#: Events put on each of the two queues.
_EVENTS: Final = 200

#: Seconds until the demo gives up. On an idle machine it takes about two.
_PATIENCE: Final = 20.0

#: Seconds between two looks at what has arrived.
_PAUSE: Final = 0.05

#: Events and bytes of the queues: what a stock Linux allows every user.
_QUEUE_SIZE: Final = 10
_EVENT_SIZE: Final = 1_024

_KEY_NAME: Final = "demo"

_CONFIG: Final = """\
[event-publisher:{queue}]
collector.hostname = {hostname}
collector.scheme = http
collector.version = {version}
key.name = {key_name}
key.secret = {secret}
max_queue_size = {queue_size}
max_event_size = {event_size}
batch.max_age = 100 milliseconds
"""


class _ViewEvent:
    """What the Thrift compiler generates for `struct ViewEvent`, shortened to what the demo needs."""

    thrift_spec = (
        None,
        (1, 11, "source", "UTF8", None),
        (2, 11, "action", "UTF8", None),
        (3, 10, "client_timestamp", None, None),
        (4, 11, "uuid", "UTF8", None),
    )

    def __init__(self, source: str, action: str, client_timestamp: int, uuid: str) -> None:
        self.source = source
        self.action = action
        self.client_timestamp = client_timestamp
        self.uuid = uuid

    def read(self, iprot: Any) -> None:  # noqa: ANN401  Thrift has no types
        """Read the struct; a service that only sends never calls this."""
        raise NotImplementedError

    def write(self, oprot: Any) -> None:  # noqa: ANN401  as above
        """Write the struct with a Thrift protocol."""
        oprot.writeStructBegin("ViewEvent")
        for number, kind, name, _, _ in filter(None, self.thrift_spec):
            oprot.writeFieldBegin(name, kind, number)
            value = getattr(self, name)
            if isinstance(value, str):
                oprot.writeString(value)
            else:
                oprot.writeI64(value)
            oprot.writeFieldEnd()
        oprot.writeFieldStop()
        oprot.writeStructEnd()


class _ClickEvent(TypedDict):
    """A JSON event."""

    action: str
    client_timestamp: int
    uuid: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description of the demo to its parser; it has no arguments."""
    parser.description = (
        f"Put {_EVENTS} Thrift events and {_EVENTS} JSON events on queues of this host, and watch two event "
        "publishers deliver them to a collector in this process. Cleans up after itself. Exits with status 0 "
        "if every event arrived."
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and return the exit status."""
    del arguments
    started_at = time.monotonic()
    secret = secrets.token_bytes(32)
    arrived: list[bytes] = []
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            DevCollector({_KEY_NAME: secret}, lambda batch: arrived.extend(batch.events)) as collector,
            _flow("2", serialize_v2_event, collector, secret, Path(folder)) as (
                thrift_queue,
                thrift_publisher,
            ),
            _flow("2j", serialize_v2j_event, collector, secret, Path(folder)) as (json_queue, json_publisher),
        ):
            print(f"development collector at {collector.url}, two queues with a publisher each")
            publishers = [thrift_publisher, json_publisher]
            put = 0
            for _ in range(_EVENTS):
                timestamp = time.time_ns() // 1_000_000
                thrift_queue.put(_ViewEvent("demo", "view", timestamp, str(uuid.uuid4())))
                json_queue.put(
                    _ClickEvent(action="click", client_timestamp=timestamp, uuid=str(uuid.uuid4()))
                )
                put += 2
                _show(put, len(arrived))
            while len(arrived) < put and time.monotonic() < started_at + _PATIENCE:
                time.sleep(_PAUSE)
                _show(put, len(arrived))
            if sys.stdout.isatty():
                print()
            for publisher in publishers:
                publisher.terminate()
            statuses = [publisher.wait(_PATIENCE) for publisher in publishers]
            counts = collector.counts
    except (EventError, OSError, subprocess.TimeoutExpired) as exc:
        print(f"\nthe demo failed: {exc}", file=sys.stderr)
        return 1
    print(
        f"put {put} events ({_EVENTS} Thrift, {_EVENTS} JSON), delivered {len(arrived)} in "
        f"{counts.batches} batches, {counts.events} with a verified signature, "
        f"in {time.monotonic() - started_at:.1f} seconds"
    )
    complete = put == counts.events == len(set(arrived)) and not counts.rejected and not any(statuses)
    print("every event that was put arrived, once" if complete else "NOT every event arrived once")
    return 0 if complete else 1


@contextlib.contextmanager
def _flow(
    version: str, serializer: Callable[[T], bytes], collector: DevCollector, secret: bytes, folder: Path
) -> Generator[tuple[EventQueue[T], subprocess.Popen[bytes]]]:
    """Open a queue and start its publisher; afterwards stop the publisher and remove the queue."""
    name = f"demo-v{version}-{secrets.token_hex(6)}"
    host, port = collector.address
    config_file = folder / f"{name}.ini"
    config_file.write_text(
        _CONFIG.format(
            queue=name,
            hostname=f"{host}:{port}",
            version=version,
            key_name=_KEY_NAME,
            secret=base64.b64encode(secret).decode(),
            queue_size=_QUEUE_SIZE,
            event_size=_EVENT_SIZE,
        ),
        encoding="utf-8",
    )
    # The demo uses POSIX queues, since its publishers read these.
    os.environ.pop(SPOOL_VARIABLE, None)
    queue = EventQueue(
        name,
        serializer,
        max_queue_size=_QUEUE_SIZE,
        max_event_size=_EVENT_SIZE,
        put_timeout=_PATIENCE,
        enabled=True,
    )
    try:
        command = [
            sys.executable,
            "-m",
            f"{PACKAGE}.event_publisher",
            "--queue-name",
            name,
            str(config_file),
        ]
        log_file = folder / f"{name}.log"
        with (
            log_file.open("wb") as log,
            subprocess.Popen(command, stderr=log) as publisher,  # noqa: S603  our own publisher
        ):
            try:
                yield queue, publisher
            finally:
                publisher.terminate()
                publisher.wait(_PATIENCE)
                print(f"publisher of /events-{name}:")
                print(textwrap.indent(log_file.read_text(encoding="utf-8").rstrip(), "  "))
    finally:
        queue.close()
        unlink_queue(f"/events-{name}")


def _show(put: int, delivered: int) -> None:
    """Show the progress on one line of a terminal; a file or a pipe gets only the result."""
    if sys.stdout.isatty():
        print(f"\rput {put:4d}   delivered {delivered:4d}", end="", flush=True)
