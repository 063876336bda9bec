"""The command lines, as a user types them: real processes, their words and exit statuses."""

from __future__ import annotations

import sys
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import call, run
from tests.support.publishers import config_text

if TYPE_CHECKING:
    from pathlib import Path

PUBLISHER = [sys.executable, "-m", "baseplate_events.event_publisher"]
COMMANDS = [sys.executable, "-m", "baseplate_events"]
PUBLISH = [*COMMANDS, "publish"]


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A good configuration of the queue `main`."""
    path = tmp_path / "config.ini"
    path.write_text(config_text("main", "https://collector.example.com"))
    return path


@pytest.mark.parametrize("command", [PUBLISHER, PUBLISH])
def test_check_finds_a_good_configuration_good(command: list[str], config_file: Path) -> None:
    """`--check` ends with 0, says what is good, and starts nothing; the queue's name defaults to main."""
    result = run(*command, "--check", str(config_file))
    assert (0, "") == (result.status, result.err)
    [line] = result.out.splitlines()
    assert str(config_file) in line
    assert "[event-publisher:main]" in line


def test_the_words_on_a_good_configuration(config_file: Path) -> None:
    """One line says that the file and section are valid."""
    result = call("publish", "--check", str(config_file))
    assert result.out == f"{config_file}: [event-publisher:main] is valid\n"


@pytest.mark.parametrize("command", [PUBLISHER, PUBLISH])
@pytest.mark.parametrize("check", [[], ["--check"]])
def test_every_mistake_is_reported_at_the_start(command: list[str], check: list[str], tmp_path: Path) -> None:
    """Mistakes end the publisher with 2 and one line each, all at once, without the secret."""
    path = tmp_path / "config.ini"
    path.write_text(
        "[event-publisher:main]\n"
        "collector.hostnam = collector.example.com\n"
        "collector.version = 3\n"
        "key.name = $NO_SUCH_VARIABLE\n"
        "key.secret = private!!!!\n"
        "batch.max_age = soon\n"
    )
    result = run(*command, *check, str(path))
    lines = result.err.splitlines()
    assert result.status == 2
    assert result.out == ""
    for words in (
        "collector.hostname",
        "collector.version",
        "NO_SUCH_VARIABLE",
        "key.secret",
        "batch.max_age",
    ):
        assert any(words in line for line in lines), words
    assert all("[event-publisher:main]" in line for line in lines)
    assert "private" not in result.err


def test_a_missing_section_names_those_that_are_there(config_file: Path) -> None:
    """A queue name without a section is reported with the existing sections."""
    result = run(*PUBLISHER, "--queue-name", "mian", str(config_file))
    assert result.status == 2
    assert "event-publisher:mian" in result.err
    assert "event-publisher:main" in result.err


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    """A missing file is a usage error, in one line."""
    result = run(*PUBLISHER, str(tmp_path / "nothing.ini"))
    assert result.status == 2
    assert len(result.err.splitlines()) == 1
    assert "nothing.ini" in result.err


def test_the_environment_fills_in_values(tmp_path: Path) -> None:
    """`$NAME` in a value is the environment variable."""
    path = tmp_path / "config.ini"
    path.write_text(config_text("main", "https://collector.example.com", key__secret="${A_SECRET}"))
    assert run(*PUBLISHER, "--check", str(path), environ={"A_SECRET": "c2VjcmV0"}).status == 0
    assert run(*PUBLISHER, "--check", str(path), environ={"A_SECRET": "not base64"}).status == 2


def test_no_posix_queues_is_said_clearly(config_file: Path) -> None:
    """Without `posix_ipc` the publisher says so in one line and exits with 1."""
    program = (
        "import runpy, sys\n"
        "sys.modules['posix_ipc'] = None\n"
        f"sys.argv[1:] = [{str(config_file)!r}]\n"
        "runpy.run_module('baseplate_events.event_publisher', run_name='__main__', alter_sys=True)\n"
    )
    result = run(sys.executable, "-c", program)
    assert result.status == 1
    assert len(result.err.splitlines()) == 1
    assert "pip install posix_ipc" in result.err


def test_the_demo_delivers_everything() -> None:
    """The demo ends with 0 and a count, and leaves nothing behind."""
    result = run(*COMMANDS, "demo")
    assert result.status == 0, result.err
    assert "put 400 events (200 Thrift, 200 JSON), delivered 400" in result.out
    assert "every event that was put arrived, once" in result.out


@pytest.mark.parametrize(
    "command", ["publish", "collect", "dead-letters", "queue", "doctor", "status", "demo", "thrift-stubs"]
)
def test_every_command_has_a_help_page(command: str) -> None:
    """`--help` of each command describes it; the collector's says that it is for development."""
    result = run(*COMMANDS, command, "--help")
    assert result.status == 0
    assert f"baseplate_events {command}" in result.out
    if command == "collect":
        assert "development" in result.out


def test_help_lists_the_commands_and_a_wrong_one_is_reported() -> None:
    """The help lists every command; an unknown one is a mistake of usage."""
    result = run(*COMMANDS, "--help")
    assert result.status == 0
    assert all(command in result.out for command in ("publish", "collect", "demo"))
    unknown = run(*COMMANDS, uuid.uuid4().hex)
    assert unknown.status == 2
    assert "publish" in unknown.err
