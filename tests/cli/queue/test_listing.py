"""The action `list`: all event queues and all spools, with what is known of each."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.cli.queue import listing
from baseplate_events.cli.queue.info import MOUNT_COMMAND
from tests.support.commands import call
from tests.support.examples import examples
from tests.support.queues import as_user, fresh_name, needs_root, producer
from tests.support.spool_directories import USER, fresh_place, unusable
from tests.support.spool_reader import SpoolFileReader
from tests.support.spool_segments import write_segment

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@pytest.fixture(autouse=True)
def queues(monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """Let another folder stand in for the one with this host's POSIX queues, empty at first."""
    with fresh_place() as shown:
        (shown / "mqueue").mkdir(mode=0o755)
        monkeypatch.setattr(listing, "QUEUES", str(shown / "mqueue"))
        yield shown / "mqueue"


@given(st.dictionaries(st.text("abé. ", min_size=1, max_size=5), st.integers(0, 3), max_size=4))
@examples(25)
def test_all_spools_are_listed_with_what_is_in_them(spools: dict[str, int]) -> None:
    """Each has its name, its bytes and its age, and other files are left out."""
    with fresh_place() as place:
        (place / "other").mkdir()
        for name, segments in spools.items():
            call("queue", "create", name, "--spool-directory", str(place)).check()
            for _ in range(segments):
                write_segment(place / f"events-{name}", [b"{}"])
        found = json.loads(call("queue", "list", "--spool-directory", str(place), "--json").check())
        assert found["warnings"] == []
        assert [row["name"] for row in found["queues"]] == sorted(spools)
        for row in found["queues"]:
            folder = place / f"events-{row['name']}"
            assert row["backlog_bytes"] == sum(file.stat().st_size for file in folder.iterdir())
            assert (row["oldest_seconds"] is None) == (spools[row["name"]] == 0)
            assert (row["transport"], row["path"], row["publisher"]) == ("spool", str(folder), False)
            assert row["depth"] is row["capacity"] is row["problem"] is None


def test_posix_queues_are_listed_with_their_depth(queues: Path) -> None:
    """Each queue that the kernel shows has its depth; one removed in the meantime is reported as such."""
    with fresh_name("/events-test-") as name, producer(name, max_messages=4) as queue:
        queue.put(b"{}")
        (queues / name[1:]).touch()
        (queues / f"{name[1:]}-gone").touch()
        (queues / "another").touch()
        first, gone = json.loads(call("queue", "list", "--json").check())["queues"]
        table = call("queue", "list").check().splitlines()
    assert first == {
        "name": name.removeprefix("/events-"),
        "transport": "posix",
        "path": name,
        "depth": 1,
        "capacity": 4,
        "backlog_bytes": None,
        "oldest_seconds": None,
        "publisher": None,
        "problem": None,
    }
    assert "there is no such queue" in gone["problem"]
    assert table[1].split()[1:] == ["posix", "1", "of", "4", "events"]


@needs_root
def test_what_is_of_another_user_is_listed_with_the_reason(queues: Path) -> None:
    """A queue or spool of another user doesn't keep the others from being listed."""
    with fresh_place() as place, fresh_name("/events-test-") as name, producer(name):
        call("queue", "create", "v2", "--spool-directory", str(place)).check()
        (queues / name[1:]).touch()
        with as_user(USER):
            result = call("queue", "list", "--spool-directory", str(place), "--json")
    problems = [row["problem"] for row in json.loads(result.check())["queues"]]
    assert len(problems) == 2
    assert all(f"of user {USER}" in problem for problem in problems)


def test_a_publisher_and_an_odd_name_show_in_the_table(tmp_path: Path) -> None:
    """A name can't forge a row or move the cursor."""
    words = ["--spool-directory", str(tmp_path)]
    call("queue", "create", "a\x1b\n", *words).check()
    with SpoolFileReader(tmp_path / "events-a\x1b\n"):
        head, row = call("queue", "list", *words).check().splitlines()
    assert head.split() == ["NAME", "TRANSPORT", "BACKLOG", "OLDEST", "PUBLISHER"]
    assert row.split() == [r"a\x1b\n", "spool", "0", "bytes", "yes"]


def test_what_cant_be_listed_is_said(queues: Path, tmp_path: Path) -> None:
    """Without /dev/mqueue there is a warning with the remedy; without the directory, an error."""
    queues.rmdir()
    result = call("queue", "list")
    assert result.status == 0
    assert MOUNT_COMMAND in result.err
    assert "no event queue" in result.err
    nothing = tmp_path / "nothing"
    missing = call("queue", "list", "--spool-directory", str(nothing))
    assert missing.status == 1
    assert f"{nothing}: {unusable(nothing / 'events-', errno.ENOENT)}\n" in missing.err
