"""Starts the peers as processes of their own, on ports of loopback that are free."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from tests.support import vector_files
from tests.support.processes import PIPE, Process, started
from tests.support.publishers import KEY_NAME, SECRET
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

#: A line that the collector in another language prints.
Line: TypeAlias = dict[str, Any]

COLLECTOR: Final = Path(__file__).with_name("collector.mjs")

#: How often a peer is restarted because another process took its port.
_TRIES: Final = 5


def peers_folder() -> Path:
    """Return the folder of the peers."""
    return Path(os.environ["PEERS_FOLDER"])


def node() -> str:
    """Return the path of Node."""
    return str(peers_folder() / "node")


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a loopback port that is free at this moment."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def answering(command: Callable[[], list[str]], answers: Callable[[], bool], log: Path) -> Generator[Process]:
    """Run a process until the end of the block, which begins when it answers.

    Args:
        command: Returns its arguments, with other ports at each call.
        answers: Returns whether it answers.
        log: The file of its output.

    Raises:
        RuntimeError: It ends, whatever the ports.
    """
    for _ in range(_TRIES):
        with log.open("ab") as output, started(*command(), stdout=output, stderr=output) as process:
            wait_until(lambda: process.poll() is not None or answers(), "it doesn't answer")
            if process.poll() is None:
                yield process
                return
    raise RuntimeError(f"it ends at once: {log.read_text()}")


def can_connect(port: int) -> bool:
    """Return whether something listens on a port."""
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except ConnectionRefusedError:
        return False
    return True


@final
class Statsd:
    """The statsd daemon, asked over its management port."""

    def __init__(self) -> None:
        self.port = 0
        self.management_port = 0

    def counters(self) -> dict[str, float]:
        """Return the sums of the counters."""
        return {name: float(value) for name, value in self._ask("counters").items()}

    def gauges(self) -> dict[str, float]:
        """Return the values of the gauges."""
        return {name: float(value) for name, value in self._ask("gauges").items()}

    def timers(self) -> dict[str, list[float]]:
        """Return the samples of the timers."""
        return {
            name: [float(sample) for sample in re.findall(r"[^\s,\[\]]+", value)]
            for name, value in self._ask("timers").items()
        }

    def _ask(self, command: str) -> dict[str, str]:
        """Return the values of a kind as the daemon prints them: numbers, or lists of up to 100."""
        with socket.create_connection(("127.0.0.1", self.management_port), PATIENCE) as connection:
            connection.sendall(f"{command}\n".encode())
            text = ""
            with connection.makefile() as lines:
                for line in lines:
                    if line == "END\n":
                        break
                    text += line
        return dict(re.findall(r"'?([\w.\-]+)'?: (\[[^\]]*\]|[^\s,\[\]{}]+)", text))


@contextmanager
def statsd(folder: Path) -> Generator[Statsd]:
    """Run the statsd daemon, which keeps all metrics sent to it."""
    daemon = Statsd()
    config_file = folder / "statsd.js"

    def command() -> list[str]:
        daemon.port = free_port(socket.SOCK_DGRAM)
        daemon.management_port = free_port()
        config: dict[str, object] = {
            "address": "127.0.0.1",
            "port": daemon.port,
            "mgmt_address": "127.0.0.1",
            "mgmt_port": daemon.management_port,
            "backends": [],
            "flushInterval": 3_600_000,  # milliseconds: a flush would forget what came
        }
        config_file.write_text(json.dumps(config))
        return [node(), str(peers_folder() / "statsd/node_modules/statsd/stats.js"), str(config_file)]

    with answering(command, lambda: can_connect(daemon.management_port), folder / "statsd.log"):
        yield daemon


@final
class NodeCollector:
    """The collector in another language, observed through its output."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._changed = threading.Condition()
        self._lines: list[Line] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = f"http://127.0.0.1:{self.wait_for(bool)[0]['listening']}"

    def _read(self) -> None:
        if self._process.stdout is None:
            raise AssertionError("it was started with a pipe")
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(json.loads(line))
                self._changed.notify_all()

    def wait_for(self, condition: Callable[[list[Line]], bool]) -> list[Line]:
        """Return its output as soon as a condition holds for it.

        Raises:
            TimeoutError: It doesn't in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self._lines), PATIENCE):
                raise TimeoutError(f"it printed {len(self._lines)} lines")
            return list(self._lines)

    def wait_for_events(self, number: int) -> list[bytes]:
        """Return the events that it accepted, once there are this many."""
        return events_in(self.wait_for(lambda lines: len(events_in(lines)) >= number))


def events_in(lines: list[Line]) -> list[bytes]:
    """Return the events in a collector's output."""
    return [event.encode() for line in lines for event in line.get("events", [])]


@contextmanager
def node_collector(*options: str) -> Generator[NodeCollector]:
    """Run the collector in another language, on a port that the system chooses."""
    key = f"{KEY_NAME}={vector_files.in_base64(SECRET)}"
    command = [node(), str(COLLECTOR), "--key", key, *options]
    with started(*command, stdout=PIPE) as process:
        yield NodeCollector(process)
