"""Real servers in processes of their own, clients that keep them busy, and the reader of their queue."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypedDict, cast, final

from tests.support.commands import IMPORTING
from tests.support.processes import Process, started
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from tests.support.spool_reader import SpoolFileReader

#: Clients that send requests at the same time: more than any server here has workers.
CLIENTS = 8


class Visit(TypedDict):
    """An event as it arrived."""

    id: str
    worker: int


@dataclass(frozen=True)
class Server:
    """A server that was started; it may not be ready, but connections to it wait until it is."""

    process: Process
    port: int
    log_file: Path

    def get(self, path: str) -> tuple[int, str]:
        """Send a request, and return status and body of the answer.

        Raises:
            OSError: The connection broke.
            http.client.HTTPException: So it did, in the middle of the answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        return self.log_file.read_text()


def serve(folder: Path, queue_name: str, module: str, *arguments: str) -> AbstractContextManager[Server]:
    """Run `python -m MODULE ARGUMENTS`, in which `{fd}` stands for a socket that listens on a free port.

    Args:
        folder: Where its log is written.
        queue_name: The event queue of the application.
        module: The server.
        arguments: Its arguments; the application is among them.
    """
    environ = {**os.environ, **IMPORTING, "EVENT_QUEUE": queue_name}
    return serve_command(folder, [sys.executable, "-m", module, *arguments], environ, Path.cwd())


@contextlib.contextmanager
def serve_command(
    folder: Path, command: Sequence[str], environ: Mapping[str, str], cwd: Path
) -> Generator[Server]:
    """Run a server; in its words and variables `{fd}` stands for a socket that listens on a free port.

    Args:
        folder: Where its log is written.
        command: The server and its arguments.
        environ: Variables of its environment, besides those of this process.
        cwd: The folder that it runs in.
    """
    log_file = folder / "server.log"
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, log_file.open("wb") as log:
        fd = str(listener.fileno())
        with started(
            *(word.replace("{fd}", fd) for word in command),
            stderr=log,
            stdout=log,
            pass_fds=[listener.fileno()],
            session=True,  # a worker that hangs outlives its master
            environ={name: value.replace("{fd}", fd) for name, value in environ.items()},
            cwd=cwd,
        ) as process:
            port = int(listener.getsockname()[1])
            listener.close()  # the server has it: if it ends, connections are refused
            try:
                yield Server(process, port, log_file)
            finally:
                process.terminate()
                process.wait(PATIENCE)


@final
class Load:
    """Clients that send requests at the same time, from the start of a `with` block to its end.

    Attributes:
        sent: The events of all requests so far.
        answered: Those that were acknowledged, and the worker that did it.
        refused: Those whose request was answered with an error.
        broken: Those whose request got no answer.
    """

    def __init__(self, server: Server, path: str) -> None:
        self.sent: list[str] = []
        self.answered: dict[str, int] = {}
        self.refused: list[str] = []
        self.broken: list[str] = []
        self._server = server
        self._path = path
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._over = False
        self._clients = [threading.Thread(target=self._send) for _ in range(CLIENTS)]

    @property
    def workers(self) -> set[int]:
        """The workers that acknowledged an event."""
        return set(self.answered.values())

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return as soon as a condition on the attributes holds; it is asked at each answer.

        Raises:
            TimeoutError: It doesn't.
        """
        with self._changed:
            if not self._changed.wait_for(condition, PATIENCE):
                raise TimeoutError(
                    f"{len(self.answered)} answered, by {self.workers}; see {self._server.log}"
                )

    def check(self, arrived: list[Visit]) -> None:
        """Check that each event that was acknowledged arrived once, and none that was refused."""
        workers = {event["id"]: event["worker"] for event in arrived}
        assert len(workers) == len(arrived)
        assert set(self.answered) <= set(workers) <= {*self.answered, *self.broken}
        assert self.answered == {event_id: workers[event_id] for event_id in self.answered}
        assert sorted(self.sent) == sorted([*self.answered, *self.refused, *self.broken])

    def __enter__(self) -> Load:
        for client in self._clients:
            client.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        for client in self._clients:
            client.join()

    def _send(self) -> None:
        while not self._over:
            event_id = str(next(self._numbers))
            self.sent.append(event_id)
            try:
                status, body = self._server.get(f"{self._path}/{event_id}")
            except (OSError, http.client.HTTPException):
                status, body = 0, ""
            with self._changed:
                if status == 200:
                    self.answered[event_id] = int(body)
                elif status:
                    self.refused.append(event_id)
                else:
                    self.broken.append(event_id)
                self._changed.notify_all()


class Getter(Protocol):
    """Where events arrive."""

    def get(self, timeout: float = 0.0, /) -> bytes | None:
        """Take an event out; return None if none arrives in so many seconds."""
        ...


@final
class SpoolGetter:
    """The events of a spool.

    Args:
        reader: Its reader.
    """

    def __init__(self, reader: SpoolFileReader) -> None:
        self._reader = reader
        self._taken = 0

    def get(self, timeout: float = 0.0) -> bytes | None:
        """Take an event out; see `Getter.get`."""
        if self._taken == len(self._reader.events):
            self._reader.read()
        if self._taken == len(self._reader.events):
            time.sleep(min(timeout, 0.001))  # leaves the processor to the server
            return None
        self._taken += 1
        return self._reader.events[self._taken - 1]


@final
class Reader:
    """Takes events out of a queue in a thread, as the publisher does; a context manager that ends it."""

    def __init__(self, source: Getter) -> None:
        self._source = source
        self._messages: list[bytes] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def start(self) -> None:
        """Begin to take events out."""
        self._thread.start()

    def finish(self) -> list[Visit]:
        """Take the rest out, and return all events."""
        self._stop()
        self._messages += iter(self._source.get, None)
        return [cast("Visit", json.loads(message)) for message in self._messages]

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _read(self) -> None:
        while not self._over.is_set():
            message = self._source.get(0.05)
            if message is not None:
                self._messages.append(message)
