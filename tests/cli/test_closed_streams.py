"""Every command with closed or unwritable standard streams: one line, never a traceback."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from baseplate_events.event_publisher.standard_streams import NO_STDOUT, ClosedStream
from baseplate_events.transport.posix import MessageQueue
from tests.support.commands import Result, run
from tests.support.ledgers import fill
from tests.support.publishers import config_text
from tests.support.queues import drain

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Each test starts a command, or more.
pytestmark = pytest.mark.slow

#: What each command writes to stderr if its disk is full.
NO_SPACE: Final = "can't write to stdout: No space left on device\n"

#: What a shell does to the streams of a command.
CLOSED_IN, CLOSED_OUT, CLOSED_ERR, ALL_CLOSED = "<&-", ">&-", "2>&-", "<&- >&- 2>&-"
FULL, ALL_FULL = ">/dev/full", ">/dev/full 2>/dev/full"

#: Its stdout is a pipe whose reader has closed it before the start. (That of `| true` may close it too late.)
NO_READER: Final = ">&1"
UNREAD: Final = """\
import os, sys
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 1)
os.execvp(sys.argv[1], sys.argv[1:])
"""

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
    "queue create {name} --max-queue-size 5 --max-event-size 100": 0,
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
    "status --health-bind {letters}/socket --interval '100 milliseconds'": 1,
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


def run_in_shell(script: str, streams: str, *words: str, environ: Mapping[str, str | None]) -> Result:
    """Run a script of bash with its streams redirected, and words as `$@`."""
    before = (sys.executable, "-c", UNREAD) if streams == NO_READER else ()
    return run(*before, "bash", "-c", f"{script} {streams}", "bash", *words, environ=environ)


def run_with(streams: str, command: str, words: dict[str, str]) -> Result:
    """Run a command as a shell does, with its streams redirected."""
    with MessageQueue(f"/events-{words['name']}", max_messages=5, max_message_size=1_024) as queue:
        if not queue.current_messages:
            queue.put(b"{}")
        script = f"{sys.executable} -m baseplate_events {command.format_map(words)}"
        # With a buffer, in which Python finds something to write once more at its end.
        result = run_in_shell(script, streams, environ={"PYTHONUNBUFFERED": None})
    assert "Traceback" not in result.err
    assert "Exception ignored" not in result.err
    return result


@pytest.mark.parametrize("command", SHOW)
def test_what_is_to_be_shown_needs_a_stdout(command: str, words: dict[str, str]) -> None:
    """Without stdout it is a usage error; a full disk is reported, and a reader that is gone isn't."""
    for streams in (CLOSED_IN, CLOSED_ERR):
        result = run_with(streams, command, words)
        assert (SHOW[command], True) == (result.status, bool(result.out))
    assert Result(2, "", "there is no stdout to write to\n") == run_with(CLOSED_OUT, command, words)
    assert Result(2, "", "") == run_with(ALL_CLOSED, command, words)
    assert Result(1, "", NO_SPACE) == run_with(FULL, command, words)
    assert Result(1, "", "") == run_with(ALL_FULL, command, words)
    assert Result(1, "", "") == run_with(NO_READER, command, words)


@pytest.mark.parametrize("command", WORK)
def test_work_is_done_without_streams(command: str, words: dict[str, str]) -> None:
    """Work that needs no stream is done without any; an unwritable stdout is reported."""
    for streams in (ALL_CLOSED, CLOSED_IN, CLOSED_OUT, CLOSED_ERR):
        assert WORK[command] == run_with(streams, command, words).status, streams
    result = run_with(FULL, command, words)
    assert (1, True) == (result.status, result.err.endswith(NO_SPACE))
    assert run_with(ALL_FULL, command, words).status == 1


@pytest.mark.parametrize("command", FAIL)
def test_a_failure_has_its_status_without_streams(command: str, words: dict[str, str]) -> None:
    """A failure has the same status, even if its message can't be written."""
    for streams in ("", CLOSED_IN, CLOSED_OUT, FULL):
        result = run_with(streams, command, words)
        assert (FAIL[command], "", True) == (result.status, result.out, bool(result.err)), streams
    for streams in (CLOSED_ERR, ALL_CLOSED, ALL_FULL):
        assert Result(FAIL[command], "", "") == run_with(streams, command, words), streams


def test_without_stdin_nothing_is_put(words: dict[str, str]) -> None:
    """`queue write` without a FILE and without a stdin is a mistake of usage, in one line."""
    result = run_with(CLOSED_IN, "queue write {name}", words)
    assert Result(2, "", "there is no stdin to read from; give a FILE\n") == result


@pytest.mark.parametrize(("streams", "status"), [(CLOSED_OUT, 2), (ALL_CLOSED, 2), (FULL, 1), (ALL_FULL, 1)])
def test_no_event_is_lost_to_a_stream_that_takes_none(
    streams: str, status: int, words: dict[str, str]
) -> None:
    """`queue read` leaves the event where it is, or puts it back."""
    with MessageQueue(f"/events-{words['name']}", max_messages=5, max_message_size=1_024) as queue:
        queue.put(b"{}")
        assert status == run_with(streams, "queue read {name}", words).status
        assert drain(queue) == [b"{}"]


def test_the_demo_ends_without_a_stdout(words: dict[str, str]) -> None:
    """The demo, which is useless without stdout, says so and cleans up."""
    result = run_with(CLOSED_OUT, "demo", words)
    assert (1, True) == (result.status, NO_STDOUT in result.err)


def test_a_development_collector_without_a_stdout_asks_for_a_file(words: dict[str, str]) -> None:
    """`collect` without a stdout says what to give instead."""
    result = run_with(CLOSED_OUT, "collect --key a=YWJj --bind 127.0.0.1:0", words)
    assert (2, True) == (result.status, "--output" in result.err)


def test_what_stdout_cant_encode_is_escaped(tmp_path: Path) -> None:
    """A stdout in ASCII shows the name of a file that isn't, and one that isn't even UTF-8."""
    for name, shown in ((b"caf\xc3\xa9.ini", "caf\\xe9.ini"), (b"caf\xe9.ini", "caf\\udce9.ini")):
        config_file = os.fsencode(tmp_path) + b"/" + name
        with open(config_file, "w", encoding="utf-8") as file:  # noqa: PTH123  a name in bytes
            file.write(config_text("main", "http://c.test"))
        result = run(
            *(sys.executable, "-m", "baseplate_events", "publish", "--check"),
            config_file,
            environ={"PYTHONIOENCODING": "ascii:strict"},
        )
        assert (0, "") == (result.status, result.err)
        assert shown in result.out


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("action", ["list", "show --all"])
def test_a_long_output_that_cant_be_written_is_reported(action: str, buffered: bool, tmp_path: Path) -> None:
    """If writing fails in the middle, buffered or not, a full disk is reported and `| head` isn't."""
    fill(tmp_path, [b"e" * 1_000] * 100, reason="r" * 300)
    verb, *options = action.split()
    for streams, said in ((FULL, NO_SPACE), (NO_READER, "")):
        words = [sys.executable, "-m", "baseplate_events", "dead-letters", verb, str(tmp_path), *options]
        environ = {"PYTHONUNBUFFERED": "" if buffered else "1"}
        assert Result(1, "", said) == run_in_shell('"$@"', streams, *words, environ=environ)


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
    run("sh", "-c", script, "sh", sys.executable, program).check()
    assert Path(f"{words['letters']}/found").read_text() == "/dev/null /dev/null /dev/null"


@pytest.mark.parametrize("problem", ["a problem", None])
def test_a_closed_stream_can_be_asked_for_its_descriptor(problem: str | None) -> None:
    """A missing stdout has no descriptor, and asking for it is no usage error: argparse does."""
    with pytest.raises(io.UnsupportedOperation):
        ClosedStream(problem).fileno()


def test_no_library_opens_a_file_before_the_closed_streams_are_replaced() -> None:
    """Debian's libffi keeps a file open, with the lowest number that is free when `ctypes` is imported."""
    program = "import sys; import baseplate_events.event_publisher.__main__; print('ctypes' in sys.modules)"
    assert run(sys.executable, "-c", program).check() == "False\n"
