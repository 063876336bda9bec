"""Dead letters and spools of several sections of a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.errors import ConfigurationError
from baseplate_events.event_publisher.config.neighbours import check_neighbours
from tests.support.commands import call
from tests.support.processes import PIPE, finish, started
from tests.support.publishers import config_text, publisher_process
from tests.support.queues import fresh_event_name

URL: Final = "https://collector.example.com"

#: Ways to name folders that are the same, in each other, or apart.
PATHS: Final = (
    "/x-events",
    "/x-events/",
    "/x-events/../x-events",
    "/x-events/letters",
    "/x-eventses",
    "/y",
    "/y/..",
)


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An INI file."""
    return tmp_path_factory.mktemp("neighbours") / "events.ini"


def write(file: Path, letters: str, spool: str) -> None:
    """Write a file of a queue with dead letters, one with a spool, and one with mistakes."""
    text = config_text("letters", URL, dead_letters__directory=letters)
    text += config_text("spool", URL) + f"spool.directory = {spool}\n"
    file.write_text(f"{text}[event-publisher:bad]\nspool.directory = relative\n")


@given(letters=st.sampled_from(PATHS), spool=st.sampled_from(PATHS))
def test_dead_letters_are_apart_from_spools(file: Path, letters: str, spool: str) -> None:
    """`--check` of either section fails exactly if one folder is the other or in it, and names both."""
    write(file, letters, spool)
    one, other = Path(os.path.normpath(letters)), Path(os.path.normpath(spool))
    overlap = one == other or one in other.parents or other in one.parents
    for name, neighbour in (("letters", "spool"), ("spool", "letters")):
        result = call("publish", "--check", "--queue-name", name, str(file))
        if overlap:
            assert result.status == 2
            assert f"[event-publisher:{name}]" in result.err
            assert f"of [event-publisher:{neighbour}]" in result.err
        else:
            assert (result.status, result.out) == (0, f"{file}: [event-publisher:{name}] is valid\n")


def test_links_are_followed(file: Path, tmp_path: Path) -> None:
    """A link to the directory of spools is that directory."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write(file, str(tmp_path / "link"), str(tmp_path / "real"))
    with pytest.raises(ConfigurationError, match=r"overlaps the spool\.directory of"):
        check_neighbours(file, "letters", {})


def test_spools_share_a_directory(file: Path) -> None:
    """The spools of several queues are in the same directory, as they usually are."""
    lines = "spool.directory = /x-events\n"
    file.write_text("".join(config_text(name, URL) + lines for name in ("a", "b")))
    assert call("publish", "--check", "--queue-name", "a", str(file)).status == 0


def test_a_start_warns(tmp_path: Path) -> None:
    """A publisher starts all the same, and logs what `--check` would refuse, once."""
    for spool, warnings in ((tmp_path, 1), (tmp_path / "spool", 0)):
        letters = f"{tmp_path / 'letters'}\n[event-publisher:other]\nspool.directory = {spool}"
        with (
            fresh_event_name() as name,
            publisher_process(tmp_path, name, URL, dead_letters__directory=letters) as publisher,
        ):
            assert publisher.stop() == 0
        assert warnings == publisher.log.count("WARNING")
        assert warnings == publisher.log.count("overlaps the spool.directory of [event-publisher:other]")


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    """`--check` of a pipe ends, although it has nothing to compare the section with."""
    pipe = tmp_path / "events.ini"
    os.mkfifo(pipe)
    command = (sys.executable, "-m", "baseplate_events", "publish", "--check", pipe)
    with started(*command, stdout=PIPE) as process:
        pipe.write_text(config_text("v2", URL))
        finish(process).check()


def test_within_a_section_both_are_a_mistake(file: Path) -> None:
    """A publisher with a spool has its dead letters in the ledger, so the other folder is a mistake."""
    text = config_text("v2", URL, dead_letters__directory="/x-events")
    file.write_text(f"{text}spool.directory = /x-events\n")
    result = call("publish", "--check", str(file))
    assert result.status == 2
    assert " dead_letters.directory: " in result.err
