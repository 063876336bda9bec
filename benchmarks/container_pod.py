"""A pod: services, a publisher that is killed repeatedly, and a collector that records every event.

It reads tasks from stdin, one JSON object per line, and answers each with its figures as JSON.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import os
import re
import secrets
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypedDict, cast

from baseplate_events.events import SPOOL_VARIABLE
from baseplate_events.transport.limits import read_limits
from baseplate_events.transport.posix import unlink_queue
from tests.support.commands import IMPORTING
from tests.support.processes import DEVNULL, PIPE, Process, hear, say, started
from tests.support.publishers import publisher_process
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Services in the pod.
SERVICES: Final = 2

#: Seconds without a batch after which what is missing is lost.
SILENCE: Final = 5.0

_EVENT: Final = re.compile(rb'\{"lane":(\d+),"number":(\d+),')

#: Settings of the publisher: those by default of what the tests set otherwise.
_SETTINGS: Final = {
    "batch__max_age": "1 second",
    "retry__base": "1 second",
    "retry__cap": "30 seconds",
    "delivery__concurrency": "16",
    "max_queue_size": "10",
    "max_event_size": "8192",
}


class Task(NamedTuple):
    """A run.

    Attributes:
        transport: `spool` or `posix`.
        rate: Requests a second, of all services together.
        events: Events of a request.
        seconds: Duration.
        kills: Number of times that the publisher is killed.
    """

    transport: str
    rate: float
    events: int
    seconds: float
    kills: int


class Figures(TypedDict):
    """The outcome of a run.

    Attributes:
        put: Events that services put.
        refused: Those that were refused.
        lost: Those that were put and didn't arrive.
        duplicates: Arrivals of events that had arrived before.
        ours: Seconds of each request.
        bare: Seconds of each request of bare writes.
        lateness: Time that the services took, as a multiple of the time planned.
    """

    put: int
    refused: int
    lost: int
    duplicates: int
    ours: list[float]
    bare: list[float]
    lateness: float


class _Server(http.server.ThreadingHTTPServer):
    """Stores the bodies of requests; they are inspected later."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the publisher was killed
            super().handle()

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) == length:
            cast("_Server", self.server).bodies.append(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing."""


def run(task: Task) -> Figures:
    """Run services and a publisher, and count."""
    name = f"pod-{secrets.token_hex(8)}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pod-")))
        stack.callback(unlink_queue, f"/events-{name}")
        server = stack.enter_context(_Server())
        stack.callback(server.shutdown)
        spool = folder / "spool"
        spool.mkdir()
        url = f"http://127.0.0.1:{server.server_port}"
        settings = {**_SETTINGS, "spool__directory": str(spool)}
        if task.transport == "spool":
            settings["queue__transport"] = "spool"
        variables = {**IMPORTING, SPOOL_VARIABLE: str(spool) if task.transport == "spool" else None}
        publisher = stack.enter_context(publisher_process(folder, name, url, **settings))
        publisher.wait_until_it_publishes()
        services = [
            stack.enter_context(_service(name, lane, folder, task, variables)) for lane in range(SERVICES)
        ]
        for service in services:
            hear(service)
        began = time.monotonic()
        for service in services:
            say(service)
        for kill in range(task.kills):
            # In equal parts; sleeping is what this measures with.
            time.sleep(max(0.0, began + task.seconds * (kill + 1) / (task.kills + 1) - time.monotonic()))
            publisher.process.kill()
            publisher.process.wait(PATIENCE)
            publisher = stack.enter_context(publisher_process(folder, name, url, **settings))
        found = [json.loads(hear(service)) for service in services]
        publisher.wait_until_it_publishes()
        expected = sum(result["put"] - len(result["refused"]) for result in found)
        arrived = Arrivals(server.bodies)
        arrived.wait_for(expected)
        publisher.process.send_signal(signal.SIGTERM)
        publisher.process.wait(PATIENCE)
    lost = sum(
        number not in arrived.numbers[lane]
        for lane, result in enumerate(found)
        for number in set(range(result["put"])) - set(result["refused"])
    )
    return {
        "put": sum(result["put"] for result in found),
        "refused": sum(len(result["refused"]) for result in found),
        "lost": lost,
        "duplicates": arrived.count - sum(map(len, arrived.numbers)),
        "ours": [seconds for result in found for seconds in result["ours"]],
        "bare": [seconds for result in found for seconds in result["bare"]],
        "lateness": max(result["seconds"] for result in found) / task.seconds,
    }


class Arrivals:
    """Contents of the bodies received.

    Attributes:
        numbers: Numbers of the events, by lane.
        count: Events received, duplicates included.
    """

    def __init__(self, bodies: list[bytes]) -> None:
        self.numbers: list[set[int]] = [set() for _ in range(SERVICES)]
        self.count = 0
        self._bodies = bodies
        self._read = 0

    def wait_for(self, expected: int) -> None:
        """Return when the expected number of events has arrived, or none has arrived for a while."""
        silent_at = time.monotonic() + SILENCE

        def over() -> bool:
            nonlocal silent_at
            if self._inspect():
                silent_at = time.monotonic() + SILENCE
            return sum(map(len, self.numbers)) >= expected or time.monotonic() > silent_at

        wait_until(over, "events go on coming", patience=600.0)

    def _inspect(self) -> bool:
        new = self._bodies[self._read :]
        self._read += len(new)
        for body in new:
            events = _EVENT.findall(gzip.decompress(body))
            self.count += len(events)
            for lane, number in events:
                self.numbers[int(lane)].add(int(number))
        return bool(new)


def _service(
    name: str, lane: int, folder: Path, task: Task, variables: Mapping[str, str | None]
) -> contextlib.AbstractContextManager[Process]:
    """Run a service that waits for a line."""
    words = (name, lane, folder, task.rate / SERVICES, task.events, task.seconds)
    return started(
        *(sys.executable, "-W", "ignore", "-m", "benchmarks.container_service", *map(str, words)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,  # a warning about a small queue, each time
        environ=variables,
    )


def main() -> None:
    """Run tasks until the end of the input."""
    limits = read_limits()
    print(json.dumps({"uid": os.getuid(), **limits._asdict()}), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(Task(*json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
