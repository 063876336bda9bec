"""Commands in a machine, through its agent (`guest/agent.py`)."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

from tests.machine.image import paste
from tests.support.commands import Result
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds until what should happen is given up; an emulated machine takes ten times as long as this host.
PATIENCE: Final = 400.0

#: Seconds of silence after which a connection isn't one to the agent.
_SILENCE: Final = 2.0

#: Bytes that new random numbers are drawn from.
_SEED_SIZE: Final = 32

#: What the agent sends in the end.
_END: Final = re.compile(rb"\n\0exit (-?\d+)\n\Z")


class Job:
    """A command that runs in a machine.

    Args:
        connection: A connection to the agent, which has greeted.
        request: What it is asked for.
    """

    def __init__(self, connection: socket.socket, request: dict[str, object]) -> None:
        self._connection = connection
        self._output = bytearray()
        connection.sendall(json.dumps(request).encode() + b"\n")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self._connection:
            while True:
                try:
                    data = self._connection.recv(65_536)
                except OSError:  # the machine was killed
                    return
                if not data:
                    return
                self._output += data

    @property
    def said(self) -> str:
        """What the command has written so far."""
        return _END.sub(b"", bytes(self._output)).decode(errors="surrogateescape")

    def wait_for(self, text: str) -> None:
        """Return as soon as the command has written this.

        Raises:
            TimeoutError: It didn't.
        """
        wait_until(
            lambda: text in self.said,
            lambda: f"{text!a} not in {self.said!a}",
            patience=PATIENCE,
            interval=0.001,
        )

    def rest(self) -> str:
        """Wait until the connection ends, as it does with the machine; return all that the command wrote."""
        self._reader.join(PATIENCE)
        return self.said

    def finish(self, timeout: float = PATIENCE) -> Result:
        """Wait for the end of the command, and return what it did; all that it wrote is in `out`.

        Raises:
            TimeoutError: It didn't end in time, or the machine ended first.
        """
        self._reader.join(timeout)
        end = _END.search(self._output)
        if end is None:
            raise TimeoutError(f"no end of a command in {timeout:g} seconds: {self.said[-2000:]}")
        return Result(int(end[1]), self.said, "")


class Guest:
    """What runs in a machine.

    Args:
        port: That of this host that leads to the agent.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    def answers(self) -> bool:
        """Return whether the agent is there."""
        try:
            self._connect().close()
        except (OSError, EOFError):
            return False
        return True

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=_SILENCE)
        try:
            greeting = connection.recv(6)
        except OSError:
            connection.close()
            raise
        if greeting != b"hello\n":
            connection.close()
            raise EOFError
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def start(self, *command: str, stdin: str = "") -> Job:
        """Start a command as root."""
        return self._start({"command": command, "stdin": stdin})

    def _start(self, request: dict[str, object]) -> Job:
        connections: list[socket.socket] = []

        def connected() -> bool:
            try:
                connections.append(self._connect())
            except (OSError, EOFError):
                return False
            return True

        wait_until(connected, "the agent of the machine does not answer", patience=PATIENCE)
        return Job(connections[0], request)

    def wake(self) -> None:
        """Set the clock, and draw new random numbers, after the machine was restored."""
        seed = os.urandom(_SEED_SIZE).hex()
        request: dict[str, object] = {"command": ["true"], "stdin": "", "time": time.time(), "seed": seed}
        assert self._start(request).finish().status == 0

    def run(self, *command: str, check: bool = True, stdin: str = "", timeout: float = PATIENCE) -> str:
        """Run a command as root, and return what it wrote to stdout and stderr.

        Args:
            command: The command and its arguments.
            check: Whether a failure is raised.
            stdin: What it reads.
            timeout: Seconds that it may take.

        Raises:
            AssertionError: It failed, and `check` is true.
            TimeoutError: It took too long.
        """
        result = self.start(*command, stdin=stdin).finish(timeout)
        if check and result.status != 0:
            raise AssertionError(f"{command} ended with {result.status}: {result.out}\n{self.logs()}")
        return result.out

    def shell(self, script: str, *arguments: str, check: bool = True, timeout: float = PATIENCE) -> str:
        """Run commands of a shell as root; `arguments` are its `$1` and so on."""
        return self.run("sh", "-euc", script, "sh", *arguments, check=check, timeout=timeout)

    def paste(self, block: str, timeout: float = PATIENCE) -> str:
        """Run commands of the guide as a strict root, and return what they write; each has to succeed."""
        return self.run(*paste(block), timeout=timeout)

    def write(self, path: str, text: str, *, owner: str = "root", mode: str = "0644") -> None:
        """Write a file, and make the folders that it is in."""
        self.run("install", "-D", "-o", owner, "-m", mode, "/dev/stdin", path, stdin=text)

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def wait(self, what: str, true: Callable[[], bool], *, patience: float = PATIENCE) -> None:
        """Wait until something holds.

        Raises:
            TimeoutError: It doesn't.
        """
        wait_until(true, lambda: f"waited in vain: {what}\n{self.logs()}", patience=patience, interval=0.2)

    def logs(self) -> str:
        """Return the end of the journal."""
        return self.start("journalctl", "--no-pager", "--lines=60").finish().out
