"""The command lines, as a user types them: real processes, their words and exit statuses."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import call
from tests.support.publishers import PATIENCE, config_text

if TYPE_CHECKING:
    from pathlib import Path

PUBLISHER = ["-m", "baseplate_events.event_publisher"]
PUBLISH = ["-m", "baseplate_events", "publish"]


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these words and return what it said."""
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, **environ},
    )


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
    assert (0, "") == (result.returncode, result.stderr)
    [line] = result.stdout.splitlines()
    assert str(config_file) in line
    assert "[event-publisher:main]" in line


def test_the_words_on_a_good_configuration(config_file: Path) -> None:
    """Its file and section are good, in a line of its own."""
    result = call("publish", "--check", str(config_file))
    assert result.out == f"{config_file}: [event-publisher:main] is good\n"


@pytest.mark.parametrize("command", [PUBLISHER, PUBLISH])
@pytest.mark.parametrize("check", [[], ["--check"]])
def test_every_mistake_is_told_at_the_start(command: list[str], check: list[str], tmp_path: Path) -> None:
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
    lines = result.stderr.splitlines()
    assert result.returncode == 2
    assert result.stdout == ""
    for words in (
        "collector.hostname",
        "collector.version",
        "NO_SUCH_VARIABLE",
        "key.secret",
        "batch.max_age",
    ):
        assert any(words in line for line in lines), words
    assert all("[event-publisher:main]" in line for line in lines)
    assert "private" not in result.stderr


def test_a_missing_section_names_those_that_are_there(config_file: Path) -> None:
    """A queue name without a section is told with the sections that there are."""
    result = run(*PUBLISHER, "--queue-name", "mian", str(config_file))
    assert result.returncode == 2
    assert "event-publisher:mian" in result.stderr
    assert "event-publisher:main" in result.stderr


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    """A file that isn't there is a mistake of usage, in one line."""
    result = run(*PUBLISHER, str(tmp_path / "nothing.ini"))
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "nothing.ini" in result.stderr


def test_the_environment_fills_in_values(tmp_path: Path) -> None:
    """`$NAME` in a value is the environment variable."""
    path = tmp_path / "config.ini"
    path.write_text(config_text("main", "https://collector.example.com", key__secret="${A_SECRET}"))
    assert run(*PUBLISHER, "--check", str(path), A_SECRET="c2VjcmV0").returncode == 0
    assert run(*PUBLISHER, "--check", str(path), A_SECRET="not base64").returncode == 2


def test_no_posix_queues_is_said_clearly(config_file: Path) -> None:
    """Where `posix_ipc` isn't there, the publisher says so in a line and ends with 1."""
    program = (
        "import runpy, sys\n"
        "sys.modules['posix_ipc'] = None\n"
        f"sys.argv[1:] = [{str(config_file)!r}]\n"
        "runpy.run_module('baseplate_events.event_publisher', run_name='__main__', alter_sys=True)\n"
    )
    result = run("-c", program)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "pip install posix_ipc" in result.stderr


def test_the_demo_delivers_everything() -> None:
    """The demo ends with 0 and a count, and leaves nothing behind."""
    result = run("-m", "baseplate_events", "demo")
    assert result.returncode == 0, result.stderr
    assert "put 400 events (200 Thrift, 200 JSON), delivered 400" in result.stdout
    assert "every event that was put arrived, once" in result.stdout


@pytest.mark.parametrize(
    "command", ["publish", "collect", "dead-letters", "queue", "doctor", "status", "demo"]
)
def test_every_command_has_a_help_page(command: str) -> None:
    """`--help` of each command describes it; the collector's says that it is for development."""
    result = run("-m", "baseplate_events", command, "--help")
    assert result.returncode == 0
    assert f"baseplate_events {command}" in result.stdout
    if command == "collect":
        assert "development" in result.stdout


def test_help_lists_the_commands_and_a_wrong_one_is_told() -> None:
    """The help lists every command; an unknown one is a mistake of usage."""
    result = run("-m", "baseplate_events", "--help")
    assert result.returncode == 0
    assert all(command in result.stdout for command in ("publish", "collect", "demo"))
    unknown = run("-m", "baseplate_events", uuid.uuid4().hex)
    assert unknown.returncode == 2
    assert "publish" in unknown.stderr
