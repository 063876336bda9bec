"""The doctor's check of the ledger, and of its dead letters."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.cli.common import command_line
from baseplate_events.cli.doctor.findings import Code
from baseplate_events.cli.doctor.letters import check_dead_letters, check_ledger
from baseplate_events.event_publisher.config.options import DeadLetterSettings
from baseplate_events.event_publisher.ledger.file import LETTERS_NAME, SPOOL_NAME
from baseplate_events.event_publisher.ledger.rows import OVERHEAD
from tests.support.doctors import check_words, diagnose, sound
from tests.support.examples import examples
from tests.support.ledgers import fill, letter_of, letters_in, opened
from tests.support.queues import OTHER_UID, needs_root, unprivileged
from tests.support.spool_directories import fresh_place

if TYPE_CHECKING:
    from pathlib import Path

    from baseplate_events.cli.doctor.findings import Check

#: Bytes that a letter of `fill` counts for besides its event: its reason and its excerpt.
REST = OVERHEAD + len("refused") + len("no")


def look(folder: Path, name: str = SPOOL_NAME) -> dict[str, Check]:
    """Look at the ledger of a folder, and give the checks by name."""
    return {check.name: sound(check) for check in check_ledger(str(folder / name))}


@examples(20)
@given(st.lists(st.binary(max_size=40), max_size=5))
def test_dead_letters_are_counted_and_left_alone(events: list[bytes]) -> None:
    """Number and bytes are those by which the publisher limits them."""
    with fresh_place() as place:
        fill(place, events)
        checks = look(place)
        assert [letter.event for letter in letters_in(place)] == events
    assert checks["ledger"].code is Code.LEDGER_READABLE
    check = checks["dead letters"]
    assert check.code is (Code.DEAD_LETTERS_KEPT if events else Code.DEAD_LETTERS_NONE)
    size = sum(map(len, events)) + REST * len(events)
    assert check.fields == {"path": str(place / SPOOL_NAME), "events": len(events), "bytes": size}


def test_a_publisher_may_use_the_ledger_meanwhile(tmp_path: Path) -> None:
    """The letters of a running publisher are seen, and it can write immediately."""
    with closing(opened(tmp_path)) as ledger:
        ledger.resolve((), [letter_of(b"a")])
        assert look(tmp_path)["dead letters"].fields["events"] == 1
        ledger.resolve((), [letter_of(b"b")])
        assert ledger.error is None
        assert look(tmp_path)["dead letters"].fields["events"] == 2


def test_dead_letters_are_a_warning_with_the_command_that_shows_them(tmp_path: Path) -> None:
    """Only their number and bytes are shown; without a spool the configuration names the folder."""
    folder = tmp_path / "letters"
    folder.mkdir()
    fill(folder, [b'{"private":1}'] * 2, name=LETTERS_NAME)
    table = diagnose(tmp_path, "http://127.0.0.1:9", "--no-probe", dead_letters__directory=str(folder))
    check = table["dead letters"]
    assert check.code is Code.DEAD_LETTERS_KEPT
    assert check.fields["events"] == 2
    assert [command_line("dead-letters", "list", str(folder / LETTERS_NAME))] == list(check.commands)
    assert "private" not in table.text


def test_without_a_folder_there_are_none() -> None:
    """The finding says what that costs."""
    [check] = map(sound, check_dead_letters(None))
    assert check.code is Code.DEAD_LETTERS_UNSET
    check_words(check, "dead_letters.directory isn't set: events that the collector refuses are dropped")


def test_a_ledger_to_come_is_ok(tmp_path: Path) -> None:
    """A missing ledger isn't created."""
    folder = tmp_path / "letters"
    folder.mkdir()
    checks = {each.name: each for each in check_dead_letters(DeadLetterSettings(str(folder), 10**6))}
    assert checks["ledger"].code is Code.LEDGER_NONE
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("content", [b"", bytes(8_192), b"something else"])
def test_a_damaged_ledger_is_a_warning(tmp_path: Path, content: bytes) -> None:
    """A damaged ledger is a warning, and the doctor leaves it in place."""
    (tmp_path / SPOOL_NAME).write_bytes(content)
    check = look(tmp_path)["ledger"]
    assert (check.code, check.fields["path"]) == (Code.LEDGER_DAMAGED, str(tmp_path / SPOOL_NAME))
    assert (tmp_path / SPOOL_NAME).read_bytes() == content
    assert "dead letters" not in look(tmp_path)


def test_a_ledger_of_a_later_release_is_a_problem(tmp_path: Path) -> None:
    """A newer ledger is a problem; the remedy names the release."""
    fill(tmp_path, [b"a"])
    with closing(sqlite3.connect(tmp_path / SPOOL_NAME)) as connection:
        connection.execute("UPDATE written_by SET version = 99, release = '9.0'")
        connection.execute("PRAGMA user_version = 99")
        connection.commit()
    check = look(tmp_path)["ledger"]
    assert check.code is Code.LEDGER_NEWER
    assert "9.0" in check.remedy


@needs_root
def test_a_ledger_of_another_user_is_a_problem(tmp_path: Path) -> None:
    """The command gives it to the user who asks."""
    fill(tmp_path, [b"a"])
    look(tmp_path)  # another user may not be able to read all modules
    with unprivileged(tmp_path):
        check = look(tmp_path)["ledger"]
    assert (check.code, check.fields["reason"]) == (Code.LEDGER_UNREADABLE, "Permission denied")
    assert [f"chown -R {OTHER_UID} {tmp_path}"] == list(check.commands)


def test_the_words_on_a_ledger(tmp_path: Path) -> None:
    """The text has the number of letters and the command that shows them, or why they can't be read."""
    path = tmp_path / SPOOL_NAME
    check_words(look(tmp_path)["ledger"], f"{path} doesn't exist; the publisher creates it")
    fill(tmp_path, [])
    check_words(look(tmp_path)["ledger"], f"{path} is readable")
    check_words(look(tmp_path)["dead letters"], "none")
    fill(tmp_path, [b"x"])
    check_words(
        look(tmp_path)["dead letters"],
        f"1 event that the collector refused, {REST + 1} bytes",
        f"show the reasons with `{command_line('dead-letters', 'list', str(path))}`; then replay or purge "
        "them",
    )
    path.write_bytes(b"")
    check_words(
        look(tmp_path)["ledger"],
        f"{path} is empty",
        "restart the publisher: it keeps the file aside and creates a new one; delivered events of the spool "
        "may be delivered again",
    )
