"""Names of options: those of the INI file, and the queue that is meant if none is named."""

from __future__ import annotations

import argparse
import importlib
import re
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baseplate_events import __version__
from baseplate_events.errors import ConfigurationError
from baseplate_events.event_publisher.__main__ import Loader
from baseplate_events.event_publisher.config.options import OPTION_BY_NAME
from baseplate_events.event_publisher.config.settings import find_queue_name, load_settings
from baseplate_events.event_publisher.ledger.file import LETTERS_NAME, SPOOL_NAME
from tests.support.commands import call
from tests.support.ledgers import fill
from tests.support.publishers import config_text
from tests.support.queues import fresh_event_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULES: Final = {
    "publish": "event_publisher.__main__",
    "collect": "cli.collect",
    "dead-letters": "cli.dead_letters.command",
    "queue": "cli.queue.command",
    "doctor": "cli.doctor.command",
    "status": "cli.status.command",
}

#: Options that nothing in the INI file stands for.
OWN: Final = {
    *("--all", "--check", "--count", "--debug", "--follow", "--force", "--help", "--interval", "--json"),
    *(
        "--log-format",
        "--no-probe",
        "--older-than",
        "--once",
        "--output",
        "--queue-name",
        "--strict",
    ),
    *("--version", "--yes"),
    "--bind",  # of the development collector, which has no INI file
    "--key",  # name and secret together
    "--timeout",  # how long the command waits, not the publisher
}

#: Options that are in the INI file under the same name.
SHARED: Final = {"--batch-max-size", "--health-bind", "--max-queue-size", "--queue-mode", "--spool-max-size"}


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and those of its actions."""
    yield parser
    for action in parser._actions:
        for other in getattr(action.choices, "values", tuple[argparse.ArgumentParser, ...])():
            yield from parsers(other)


def parser_of(command: str) -> argparse.ArgumentParser:
    """Return the parser of a command."""
    parser = argparse.ArgumentParser()
    importlib.import_module(f"baseplate_events.{MODULES[command]}").add_arguments(parser)
    return parser


def test_an_option_has_the_name_that_the_ini_file_has() -> None:
    """With dots and underscores as hyphens, each is a key of the INI file, or stands for none."""
    keys = {"--" + re.sub(r"[._]", "-", name) for name in OPTION_BY_NAME}
    shown = {
        name
        for command in MODULES
        for parser in parsers(parser_of(command))
        for action in parser._actions
        for name in action.option_strings
        if name.startswith("--")
    }
    assert shown - keys - OWN == set()
    assert shown - OWN == {*SHARED, "--spool-directory", "--max-event-size"}


@pytest.mark.parametrize("words", [("--version",), ("publish", "--version")])
def test_the_version_is_one_line(words: tuple[str, ...]) -> None:
    """It is the package and its release, on stdout."""
    result = call(*words)
    assert (0, f"baseplate_events {__version__}\n", "") == (result.status, result.out, result.err)


queue_names = st.sampled_from(["main", "v2", "v2j", "other"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(queue_names, unique=True), strangers=st.sets(st.sampled_from(["app", "DEFAULT", "main"]))
)
def test_the_only_queue_or_main_is_meant(tmp_path: Path, names: list[str], strangers: set[str]) -> None:
    """Without a name it is the only section of a publisher, `main` as with baseplate.py, or an error."""
    path = tmp_path / "events.ini"
    sections = [config_text(name, "https://collector.test") for name in names]
    path.write_text("".join([*(f"[{name}]\n" for name in strangers), *sections]))
    if len(names) == 1 or "main" in names:
        expected = names[0] if len(names) == 1 else "main"
        assert expected == find_queue_name(path) == load_settings(path, None, {}).queue.name
        assert f"[event-publisher:{expected}] is valid" in call("publish", "--check", str(path)).check()
    else:
        with pytest.raises(ConfigurationError) as caught:
            find_queue_name(path)
        [problem] = caught.value.problems
        assert all(name in problem for name in names)
        # An empty file may have been a ledger.
        letters = [["dead-letters", "list"]] if path.stat().st_size else []
        for command in (["publish", "--check"], ["status"], *letters):
            result = call(*command, str(path))
            assert (2, [problem]) == (result.status, result.err.splitlines()), command
            if names:
                assert "--queue-name: " + ", ".join(names) in problem


def test_a_queue_is_chosen_once(tmp_path: Path) -> None:
    """A publisher whose file gets a second section goes on with the queue that it has."""
    path = tmp_path / "events.ini"
    path.write_text(config_text("v2", "https://collector.test"))
    load = Loader(str(path), None)
    assert load().queue.name == "v2"
    path.write_text(path.read_text() + config_text("main", "https://collector.test"))
    assert load().queue.name == "v2"


def test_dead_letters_are_found_by_the_configuration(tmp_path: Path) -> None:
    """With a spool or without, `dead-letters` takes the publisher's INI file for the place of its letters."""
    with_spool, without = tmp_path / "spool.ini", tmp_path / "letters.ini"
    spool, letters = tmp_path / "spool", tmp_path / "letters"
    with fresh_event_name() as name:
        with_spool.write_text(config_text(name, "https://c.test", spool__directory=str(spool)))
        without.write_text(
            config_text(name, "https://c.test", dead_letters__directory=str(letters), key__secret="$NOT_SET")
        )
        neither = tmp_path / "neither.ini"
        neither.write_text(config_text(name, "https://c.test"))
        for config in (with_spool, without):
            result = call("dead-letters", "list", str(config))
            assert result.status == 2
            assert "doesn't exist: no publisher with this configuration has run yet" in result.err
        assert "neither spool.directory nor" in call("dead-letters", "list", str(neither)).err
        (spool / f"events-{name}").mkdir(mode=0o700)
        letters.mkdir()
        fill(spool / f"events-{name}", [b'"spooled"'])
        fill(letters, [b'"alone"'])
        (letters / SPOOL_NAME).rename(letters / LETTERS_NAME)
        assert call("dead-letters", "show", str(with_spool), "--all").check() == '"spooled"\n'
        assert call("dead-letters", "show", str(without), "1", "--queue-name", name).check() == '"alone"\n'
        call("dead-letters", "replay", str(with_spool)).check()
        assert call("queue", "read", name, "--spool-directory", str(spool)).check() == '"spooled"\n'
        call("dead-letters", "replay", str(without)).check()
        assert call("queue", "read", name).check() == '"alone"\n'
        assert call("queue", "unlink", name).status == 0


def test_a_replay_without_a_queue_is_a_mistake(tmp_path: Path) -> None:
    """A folder alone doesn't say where its events go."""
    fill(tmp_path, [b"1"])
    result = call("dead-letters", "replay", str(tmp_path))
    assert (result.status, result.out) == (2, "")
    assert "--queue-name" in result.err
