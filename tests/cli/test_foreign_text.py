"""Foreign text in commands: escaped on a terminal, unchanged in a file or a pipe."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import socket
import sys
import threading
from typing import TYPE_CHECKING, Final

import pytest

from baseplate_events.cli import collect
from baseplate_events.dev_collector import AcceptedBatch
from baseplate_events.event_publisher.config.values import InternetEndpoint
from baseplate_events.event_publisher.policy.accounting import Accounting
from baseplate_events.event_publisher.policy.outcome import Retryable
from baseplate_events.event_publisher.telemetry.health_server import HealthServer
from baseplate_events.event_publisher.telemetry.snapshot import Attempts, Snapshot
from baseplate_events.transport.posix import MessageQueue
from tests.support import processes
from tests.support.commands import run
from tests.support.ledgers import fill
from tests.support.queues import fresh_name

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.unmeasured

#: An event that would clear the screen, in C0, in C1 as UTF-8 and raw, and show its words backwards.
EVENT: Final = b'{"a":"\x1b[2J\xc2\x9b2J\x9b2J\xe2\x80\xae\xe2\x80\x8b\x7f",\t"b":\n"caf\xc3\xa9"}'

#: The same on a terminal.
SHOWN: Final = r'{"a":"\x1b[2J\x9b2J\x9b2J\u202e\u200b\x7f", "b": "café"}'

#: What a collector may say, 60 KB of it, and how that begins on a terminal.
REASON: Final = "\x1b]0;owned\x07\x9b\u202e\n" + "x" * 60_000
SHOWN_REASON: Final = r"\x1b]0;owned\x07\x9b\u202e\nxxx"


def on_terminal(words: Sequence[str]) -> tuple[int, str]:
    """Run a command whose streams are all one terminal; give its status and what it wrote there."""
    environ = {"TERM": "xterm", "NO_COLOR": "1"}
    return processes.on_terminal(sys.executable, "-m", "baseplate_events", *words, environ=environ)


def on_pipe(words: Sequence[str]) -> bytes:
    """Run a command whose stdout is a pipe, and give what it wrote there."""
    result = run(sys.executable, "-m", "baseplate_events", *words)
    assert result.err == ""
    return result.out_bytes


def lines_of(written: str) -> list[str]:
    """Return the lines on a terminal, none of which holds anything that it would obey."""
    lines = written.split("\r\n")
    assert lines.pop() == ""
    assert all(line.isprintable() for line in lines), lines
    return lines


def test_read_shows_an_event_on_a_terminal_and_gives_it_elsewhere() -> None:
    """On a terminal an event is one escaped line, whole; in a pipe only line breaks become blanks."""
    with (
        fresh_name("/events-test-") as name,
        MessageQueue(name, max_messages=2, max_message_size=200) as queue,
    ):
        queue.put(EVENT)
        status, written = on_terminal(["queue", "read", name])
        assert (0, [SHOWN]) == (status, lines_of(written))
        queue.put(EVENT)
        assert EVENT.replace(b"\n", b" ") + b"\n" == on_pipe(["queue", "read", name])


def test_collect_shows_events_on_a_terminal_and_gives_them_elsewhere(tmp_path: Path) -> None:
    """The development collector escapes events on a terminal, and writes them as they came to a file."""
    master, slave = pty.openpty()
    log_file = tmp_path / "events"
    for descriptor in (slave, os.open(log_file, os.O_CREAT | os.O_WRONLY)):
        with io.FileIO(descriptor, "w") as output:
            collect.EventLines(output)(AcceptedBatch((EVENT,)))
            if descriptor == slave:
                assert [SHOWN] == lines_of(os.read(master, 65_536).decode())
    os.close(master)
    assert EVENT + b"\n" == log_file.read_bytes()


@pytest.fixture
def letters(tmp_path: Path) -> str:
    """A folder with a dead letter."""
    path = str(tmp_path)
    fill(path, [EVENT], reason=REASON, excerpt=b"\x1b[2J")
    return path


def test_show_shows_a_letter_on_a_terminal_and_gives_it_elsewhere(letters: str) -> None:
    """On a terminal the event of a letter is one escaped line, whole; in a pipe it is what was received."""
    status, written = on_terminal(["dead-letters", "show", letters, "--all"])
    assert (0, [SHOWN]) == (status, lines_of(written))
    assert EVENT + b"\n" == on_pipe(["dead-letters", "show", letters, "--all"])


def test_list_shows_a_reason_in_one_short_line(letters: str) -> None:
    """A reason is escaped and cut, on a terminal and elsewhere, since each letter has a row."""
    status, written = on_terminal(["dead-letters", "list", letters])
    _, row = lines_of(written)
    assert status == 0
    assert SHOWN_REASON in row
    assert row.endswith("characters)")
    assert len(row) < 1_200
    assert SHOWN_REASON in on_pipe(["dead-letters", "list", letters]).decode()


@contextlib.contextmanager
def health_server() -> Generator[str]:
    """Serve the status of a publisher whose collector says `REASON`; give the address."""
    attempts = Attempts()
    attempts.record(Retryable(reason=REASON, from_collector=True), 0.1, 0.0)
    snapshot = Snapshot("v2", "1.0", 0.0, float("inf"), Accounting(), 0, 10, attempts.counts())
    server = HealthServer(InternetEndpoint("127.0.0.1", 0), lambda: snapshot)
    server.start()
    with contextlib.closing(server):
        yield str(server.endpoint)


@contextlib.contextmanager
def stranger(response: bytes) -> Generator[str]:
    """Answer every request with these bytes, as something that isn't a publisher may; give the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client, contextlib.suppress(OSError):
                        client.recv(65_536)
                        client.sendall(response)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield "{}:{}".format(*listener.getsockname())
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_status_shows_what_the_collector_said_in_one_short_line() -> None:
    """The reason that a collector gave is escaped and cut in the table of `status`."""
    with health_server() as address:
        words = ["status", "--health-bind", address, "--interval", "100 milliseconds", "--once"]
        status, written = on_terminal(words)
    (row,) = (line for line in lines_of(written) if line.startswith("state "))
    assert status == 1
    assert SHOWN_REASON in row
    assert len(row) < 1_200


#: Heads and bodies of what isn't a publisher.
_NO_HTTP: Final = b"\x1b]0;owned\x07\x9b2J" + b"y" * 30_000 + b"\r\n\r\n"
_LABELS: Final = (
    f'event_publisher_build_info{{queue="\x1b[2J\x9b2J{"y" * 30_000}",version="\u202e"}} 1\n'.encode()
)
_METRICS: Final = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(_LABELS), _LABELS)


@pytest.mark.parametrize("response", [_NO_HTTP, _METRICS], ids=["no HTTP", "metrics"])
def test_status_shows_nothing_raw_of_a_stranger(response: bytes) -> None:
    """A foreign server at the address can't control the terminal."""
    with stranger(response) as address:
        words = ["status", "--health-bind", address, "--interval", "100 milliseconds", "--once"]
        _, written = on_terminal(words)
    assert all(len(line) < 2_500 for line in lines_of(written))
    assert re.search(r"\\x1b", written)


def test_an_error_shows_nothing_raw_of_a_file(tmp_path: Path) -> None:
    """A foreign configuration can't control the terminal by the names in it."""
    config_file = tmp_path / "config.ini"
    config_file.write_text("[\x1b[2J\x9b2J\u202e]\n")
    status, written = on_terminal(["status", str(config_file)])
    (line,) = lines_of(written)
    assert status == 2
    assert r"[\x1b[2J\x9b2J\u202e]" in line


@pytest.mark.parametrize(
    "action", ["create", "stat", "write", "unlink", "read", "stat --unknown=\x1b[2J\x9b2J"]
)
@pytest.mark.parametrize("there", [False, True])
def test_an_action_shows_nothing_raw_of_a_name(action: str, there: bool) -> None:
    """The name of a POSIX queue can't control the terminal, whether there is such a queue or not."""
    with fresh_name("/events-\x1b[31m\x9b2J") as name, contextlib.ExitStack() as stack:
        if there:
            stack.enter_context(MessageQueue(name, max_messages=2, max_message_size=200))
        words = [*action.split(" "), name]
        words += ["/dev/null"] if action == "write" else []
        words += ["--max-queue-size=2", "--max-event-size=200"] if action == "create" else []
        _, written = on_terminal(["queue", *words])
    lines = lines_of(written)
    if action not in {"unlink", "read"}:
        assert any(r"\x1b[" in line and r"\x9b" in line for line in lines)
