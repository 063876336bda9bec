"""Every command with closed or unwritable standard streams: one line, never a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from baseplate_events.event_publisher.standard_streams import ClosedStream
from baseplate_events.transport.posix import MessageQueue
from tests.support.ledgers import fill
from tests.support.publishers import config_text
from tests.support.queues import drain

if TYPE_CHECKING:
    from collections.abc import Generator

#: Each test starts a command, or more.
pytestmark = pytest.mark.slow

PATIENCE: Final = 30.0

#: What a shell does to the streams of a command.
CLOSED_IN, CLOSED_OUT, CLOSED_ERR, ALL_CLOSED = "<&-", ">&-", "2>&-", "<&- >&- 2>&-"
FULL, ALL_FULL = ">/dev/full", ">/dev/full 2>/dev/full"

#: Its own stdout is a pipe that no one reads; see `stdout_for`.
NO_READER: Final = ">&1"

#: The commands by what they need of their streams, and their exit status if all is well.
SHOW: Final = {  # what they are for goes to stdout
    "queue list --json": 0,
    "queue stat {name}": 0,
    "dead-letters list {letters}": 0,
    "dead-letters show {letters} --all": 0,
    "doctor --json": 0,
    "doctor {config} --queue-name {name} --no-probe": 1,  # no one listens there
    "--help": 0,
}
WORK: Final = {  # stdout gets only a word about what was done
    "queue create {name} --max-messages 5 --max-event-size 100": 0,
    "queue unlink {name} --force": 0,
    "queue write {name} /dev/null": 0,
    "dead-letters replay {letters} --queue-name {name}": 0,
    "dead-letters purge {letters} --yes": 0,
    "publish --check {config} --queue-name {name}": 0,
}
FAIL: Final = {  # they say on stderr why they don't
    "queue stat no-{name}": 1,
    "dead-letters list {letters}/nowhere": 2,
    "dead-letters purge {letters}": 2,  # there is no terminal to ask on
    "status --health {letters}/socket --interval '100 milliseconds'": 1,
    "collect --key x": 2,
    "publish --check {letters}/nothing.ini": 2,
}


@pytest.fixture
def words(name: str, tmp_path: Path) -> dict[str, str]:
    """Make a folder with a dead letter and a configuration; give what stands for them, and for the queue."""
    letters = tmp_path / "letters"
    letters.mkdir()
    fill(letters, [b"{}"])
    config = tmp_path / "config.ini"
    config.write_text(config_text(name, "http://127.0.0.1:1"))
    return {"name": name, "letters": str(letters), "config": str(config)}


@contextlib.contextmanager
def stdout_for(streams: str) -> Generator[int]:
    """Give the stdout of a shell. Its reader has gone before it starts: `| true` might go after its end."""
    if streams != NO_READER:
        yield subprocess.PIPE
        return
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)


def run(command: str, streams: str, words: dict[str, str]) -> tuple[int, bytes, bytes]:
    """Run a command as a shell does; give its status, and what it said on both streams."""
    with (
        MessageQueue(f"/events-{words['name']}", max_messages=5, max_message_size=1_024) as queue,
        stdout_for(streams) as stdout,
    ):
        if not queue.current_messages:
            queue.put(b"{}")
        script = f"{sys.executable} -m baseplate_events {command.format_map(words)} {streams}"
        result = subprocess.run(
            ["bash", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
            # With a buffer, in which Python finds something to write once more at its end.
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        )
    assert b"Traceback" not in result.stderr
    assert b"Exception ignored" not in result.stderr
    return result.returncode, result.stdout or b"", result.stderr


@pytest.mark.parametrize("command", SHOW)
def test_what_is_to_be_shown_needs_a_stdout(command: str, words: dict[str, str]) -> None:
    """Without stdout it is a usage error; a full disk is reported, and a reader that is gone isn't."""
    for streams in (CLOSED_IN, CLOSED_ERR):
        status, out, _ = run(command, streams, words)
        assert (SHOW[command], True) == (status, bool(out))
    assert (2, b"", b"there is no stdout to write to\n") == run(command, CLOSED_OUT, words)
    assert (2, b"", b"") == run(command, ALL_CLOSED, words)
    assert (1, b"", b"can't write to stdout: No space left on device\n") == run(command, FULL, words)
    assert (1, b"", b"") == run(command, ALL_FULL, words)
    assert (1, b"", b"") == run(command, NO_READER, words)


@pytest.mark.parametrize("command", WORK)
def test_work_is_done_without_streams(command: str, words: dict[str, str]) -> None:
    """Work that needs no stream is done without any; an unwritable stdout is reported."""
    for streams in (ALL_CLOSED, CLOSED_IN, CLOSED_OUT, CLOSED_ERR):
        assert WORK[command] == run(command, streams, words)[0], streams
    status, _, err = run(command, FULL, words)
    assert status == 1
    assert err.endswith(b"can't write to stdout: No space left on device\n")
    assert run(command, ALL_FULL, words)[0] == 1


@pytest.mark.parametrize("command", FAIL)
def test_a_failure_has_its_status_without_streams(command: str, words: dict[str, str]) -> None:
    """A failure has the same status, even if its message can't be written."""
    for streams in ("", CLOSED_IN, CLOSED_OUT, FULL):
        status, out, err = run(command, streams, words)
        assert (FAIL[command], b"", True) == (status, out, bool(err)), streams
    for streams in (CLOSED_ERR, ALL_CLOSED, ALL_FULL):
        assert (FAIL[command], b"", b"") == run(command, streams, words), streams


def test_without_stdin_nothing_is_put(words: dict[str, str]) -> None:
    """`queue write` without a FILE and without a stdin is a mistake of usage, in one line."""
    status, out, err = run("queue write {name}", CLOSED_IN, words)
    assert (2, b"", b"there is no stdin to read from; give a FILE\n") == (status, out, err)


@pytest.mark.parametrize(("streams", "status"), [(CLOSED_OUT, 2), (ALL_CLOSED, 2), (FULL, 1), (ALL_FULL, 1)])
def test_no_event_is_lost_to_a_stream_that_takes_none(
    streams: str, status: int, words: dict[str, str]
) -> None:
    """`queue read` leaves the event where it is, or puts it back."""
    with MessageQueue(f"/events-{words['name']}", max_messages=5, max_message_size=1_024) as queue:
        queue.put(b"{}")
        assert status == run("queue read {name}", streams, words)[0]
        assert drain(queue) == [b"{}"]


def test_the_demo_ends_without_a_stdout(words: dict[str, str]) -> None:
    """The demo, which is useless without stdout, says so and cleans up."""
    status, _, err = run("demo", CLOSED_OUT, words)
    assert status == 1
    assert b"there is no stdout to write to" in err


def test_a_development_collector_without_a_stdout_asks_for_a_file(words: dict[str, str]) -> None:
    """`collect` without a stdout says what to give instead."""
    status, _, err = run("collect --key a=YWJj --bind 127.0.0.1:0", CLOSED_OUT, words)
    assert (2, True) == (status, b"--output" in err)


def test_what_stdout_cant_encode_is_escaped(tmp_path: Path) -> None:
    """A stdout in ASCII shows the name of a file that isn't, and one that isn't even UTF-8."""
    for name, shown in ((b"caf\xc3\xa9.ini", b"caf\\xe9.ini"), (b"caf\xe9.ini", b"caf\\udce9.ini")):
        config_file = os.fsencode(tmp_path) + b"/" + name
        with open(config_file, "w", encoding="utf-8") as file:  # noqa: PTH123  a name in bytes
            file.write(config_text("main", "http://c.test"))
        result = subprocess.run(
            [sys.executable, "-m", "baseplate_events", "publish", "--check", config_file],
            capture_output=True,
            timeout=PATIENCE,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
        )
        assert (0, b"") == (result.returncode, result.stderr)
        assert shown in result.stdout


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("action", ["list", "show --all"])
def test_a_long_output_that_cant_be_written_is_reported(action: str, buffered: bool, tmp_path: Path) -> None:
    """If writing fails in the middle, buffered or not, a full disk is reported and `| head` isn't."""
    fill(tmp_path, [b"e" * 1_000] * 100, reason="r" * 300)
    verb, *options = action.split()
    for streams, said in ((FULL, b"can't write to stdout: No space left on device\n"), (NO_READER, b"")):
        words = [sys.executable, "-m", "baseplate_events", "dead-letters", verb, str(tmp_path), *options]
        with stdout_for(streams) as stdout:
            result = subprocess.run(
                ["bash", "-c", f'"$@" {streams}', "bash", *words],
                stdout=stdout,
                stderr=subprocess.PIPE,
                timeout=PATIENCE,
                check=False,
                env={**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"},
            )
        assert (1, b"", said) == (result.returncode, result.stdout or b"", result.stderr)


@pytest.mark.parametrize("module", ["baseplate_events", "baseplate_events.event_publisher"])
def test_no_file_gets_the_number_of_a_closed_stream(module: str, words: dict[str, str]) -> None:
    """The descriptors 0 to 2 are /dev/null if they were closed, so that nothing is written into a queue."""
    check = ["--check", "--queue-name", words["name"], words["config"]]
    arguments = ["queue", "stat", words["name"]] if module == "baseplate_events" else check
    program = (
        "import os, runpy, sys\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit:\n"
        "    names = [os.readlink(f'/proc/self/fd/{number}') for number in range(3)]\n"
        f"    open({words['letters'] + '/found'!r}, 'w').write(' '.join(names))\n"
    )
    script = f'"$1" -c "$2" {ALL_CLOSED}'
    subprocess.run(["sh", "-c", script, "sh", sys.executable, program], timeout=PATIENCE, check=True)
    assert Path(f"{words['letters']}/found").read_text() == "/dev/null /dev/null /dev/null"


@pytest.mark.parametrize("problem", ["there is no stdout to write to", None])
def test_a_closed_stream_can_be_asked_for_its_descriptor(problem: str | None) -> None:
    """A missing stdout has no descriptor, and asking for it is no usage error: argparse does."""
    with pytest.raises(io.UnsupportedOperation):
        ClosedStream(problem).fileno()


def test_no_library_opens_a_file_before_the_closed_streams_are_replaced() -> None:
    """Debian's libffi keeps a file open, with the lowest number that is free when `ctypes` is imported."""
    program = "import sys; import baseplate_events.event_publisher.__main__; print('ctypes' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
