from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.__main__ import main
from baseplate_events.event_publisher.access import (
    FileAccess,
    QueueAccess,
    holds_secret,
    inspect_file,
    inspect_queue_access,
)
from baseplate_events.transport.posix import MessageQueue
from tests.support.publishers import config_text, publisher_process
from tests.support.queues import (
    EVENTS,
    FEW,
    OTHER_UID,
    SMALL,
    as_user,
    fresh_event_name,
    fresh_name,
    needs_root,
)
from tests.support.spool_directories import fresh_place

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

#: What the names of the publisher's loggers begin with.
MODULE = "baseplate_events.event_publisher"

modes = st.integers(0, 0o777)
users = st.sampled_from([0, 1_000, 1_001])

accesses = st.builds(
    QueueAccess, st.just("/events-v2"), users, users, modes, modes, users, st.frozensets(users)
)


# --- the queue ---


@given(accesses)
def test_a_queue_is_warned_about_just_if_others_get_at_it(access: QueueAccess) -> None:
    """A stranger is one reason, its mode the other; each has one line with its remedy."""
    lines = list(access.warnings())
    exposed = access.mode & 0o006 or access.mode & ~access.wanted_mode & 0o060
    assert access.foreign + bool(exposed) == len(lines)
    assert all(line.isprintable() for line in lines)
    assert bool(exposed) == any("`chmod " in line for line in lines)
    assert access.foreign == any(f"belongs to user {access.uid}" in line for line in lines)


@given(accesses)
def test_root_and_this_user_are_no_strangers(access: QueueAccess) -> None:
    """Nor is a member of a group that both have and that `queue.mode` lets in."""
    trusted_group = access.gid in access.groups and access.wanted_mode & 0o060
    assert access.foreign == (access.uid not in {0, access.user} and not trusted_group)


def test_the_words_of_the_warnings() -> None:
    """They name the queue, who gets at it, and what closes it."""
    stranger = QueueAccess("/events-v2", 1_001, 1_001, 0o666, 0o600, 1_000, {1_000})
    belongs, opened = stranger.warnings()
    assert belongs == (
        "/events-v2 belongs to user 1001, who can read all events and remove it; stop that user's process "
        "and remove the queue as root, then start the publisher first; or give both a common group and set "
        "queue.mode to 0660"
    )
    assert opened == (
        "all users of this host can take events away from and put events into /events-v2 (mode 0666); as its "
        "owner: `chmod 0600 /dev/mqueue/events-v2`"
    )
    (group,) = QueueAccess("/events-v2", 0, 1_001, 0o640, 0o600, 1_000, {1_000}).warnings()
    assert group == (
        "group 1001 can take events away from /events-v2 (mode 0640); as its owner: "
        "`chmod 0600 /dev/mqueue/events-v2`"
    )
    (chosen,) = QueueAccess("/events-v2", 0, 0, 0o622, 0o622, 0, {0}).warnings()
    assert chosen == (
        "all users of this host can put events into /events-v2 (mode 0622); as its owner: "
        "`chmod 0620 /dev/mqueue/events-v2`, and set queue.mode to 0620"
    )


@needs_root
def test_a_queue_of_a_stranger_is_seen() -> None:
    """Its owner, group and mode are those of the system."""
    with fresh_name() as name:
        with as_user(OTHER_UID):
            queue = MessageQueue(name, max_messages=FEW, max_message_size=SMALL, mode=0o644)
        with queue:
            access = inspect_queue_access(queue.fileno(), name, 0o600)
    assert (OTHER_UID, 0o644, True) == (access.uid, access.mode, access.foreign)
    assert os.getegid() in access.groups


# --- the configuration file ---


@given(modes, st.booleans(), st.booleans())
def test_a_file_is_warned_about_just_if_all_users_get_at_it(mode: int, reachable: bool, secret: bool) -> None:
    """A group may read it, and a folder that is closed closes the file."""
    file = FileAccess("/etc/v2.ini", mode, 0, 0, reachable, secret)
    read = bool(reachable and secret and mode & 0o004)
    write = bool(reachable and mode & 0o002)
    lines = list(file.warnings())
    assert [read, write] == ["can read key.secret" in "".join(lines), "can write to" in "".join(lines)]
    assert read + write == len(lines)
    assert all("`chmod o-rwx /etc/v2.ini`" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[event-publisher:v2]\nkey.secret = c2VjcmV0\n", True),
        ("[DEFAULT]\nKey.Secret = c2VjcmV0\n[event-publisher:v2]\n", True),
        ("[event-publisher:v2]\nkey.secret = c2Vj$REST\n", True),
        ("[event-publisher:v2]\nkey.secret = $SECRET\n", False),
        ("[event-publisher:v2]\nkey.secret = ${SECRET}\n", False),
        ("[event-publisher:v2]\nkey.secret =\n", False),
        ("[event-publisher:v2]\n", False),
        ("[event-publisher:other]\nkey.secret = c2VjcmV0\n", False),
        ("key.secret = c2VjcmV0\n", True),
    ],
)
def test_a_variable_is_no_secret(text: str, expected: bool) -> None:
    """What counts is whether the file has any of the secret's characters in it."""
    assert expected == holds_secret(text, "event-publisher:v2")


@given(st.text(), st.text())
def test_no_text_of_a_file_breaks_the_look_at_it(text: str, section: str) -> None:
    """What can't be parsed is the configuration's business."""
    assert holds_secret(text, section) in {True, False}


@pytest.fixture
def folder() -> Generator[Path]:
    """Yield a folder that all users can get to, as far as the folders above are concerned."""
    # Another pytest of this user closes the folders above `tmp_path`, when it starts.
    with fresh_place() as place:
        inner = place / "inner"
        inner.mkdir()
        inner.chmod(0o755)
        yield inner


def test_a_file_behind_a_closed_folder_or_a_link_is_judged_where_it_is(folder: Path) -> None:
    """Its own mode counts, and the folders of the file itself, not those of a link to it."""
    (folder / "v2.ini").write_text(config_text("v2", "http://127.0.0.1:9"))
    (folder / "v2.ini").chmod(0o644)
    link = folder.parent / "link.ini"
    link.symlink_to(folder / "v2.ini")
    for path in (folder / "v2.ini", link):
        for mode, reachable in ((0o755, True), (0o700, False)):
            folder.chmod(mode)
            file = inspect_file(path, "event-publisher:v2")
            assert file is not None
            assert (0o644, reachable, True) == (file.mode, file.reachable, file.holds_secret)


def test_what_is_no_file_isnt_looked_at(folder: Path) -> None:
    """A pipe is read once, by the configuration; what isn't there is its mistake."""
    os.mkfifo(folder / "pipe")
    assert inspect_file(folder / "pipe", "event-publisher:v2") is None
    assert inspect_file(folder / "missing", "event-publisher:v2") is None
    assert inspect_file(folder / "nul\0", "event-publisher:v2") is None


# --- a publisher ---


def test_a_publisher_warns_at_its_start(tmp_path: Path) -> None:
    """Of a queue that is open to all, with the remedy, and goes on; of its own queue it says nothing."""
    with fresh_event_name() as name:
        with MessageQueue(f"{EVENTS}{name}", max_messages=FEW, max_message_size=SMALL, mode=0o644):
            pass
        with publisher_process(tmp_path, name, "http://127.0.0.1:9") as publisher:
            assert publisher.stop() == 0
        (warning,) = (line for line in publisher.log.splitlines() if f"WARNING {MODULE}.assembly: " in line)
        assert f"chmod 0600 /dev/mqueue/events-{name}" in warning
    with fresh_event_name() as name:
        with publisher_process(tmp_path, name, "http://127.0.0.1:9") as publisher:
            assert publisher.stop() == 0
        assert f"WARNING {MODULE}.assembly: " not in publisher.log


def test_the_check_of_a_configuration_warns_of_its_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`--check` finds it good, and logs that others may read the secret; a variable is no secret."""
    monkeypatch.setenv("TEST_SECRET", "c2VjcmV0")
    for secret, expected in (("c2VjcmV0", 1), ("$TEST_SECRET", 0)):
        config = folder / "v2.ini"
        config.write_text(config_text("v2", "http://127.0.0.1:9", key__secret=secret))
        config.chmod(0o644)
        caplog.clear()
        assert main([str(config), "--queue-name", "v2", "--check"]) == 0
        access = inspect_file(config, "event-publisher:v2")
        assert access is not None
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert warnings == list(access.warnings())
        assert expected == len(warnings)
        assert "c2VjcmV0" not in caplog.text


def test_a_publisher_warns_of_its_file(folder: Path) -> None:
    """Once, at its start."""
    with fresh_event_name() as name, publisher_process(folder, name, "http://127.0.0.1:9") as publisher:
        publisher.config_file.chmod(0o644)
        assert publisher.stop() == 0
    (warning,) = (line for line in publisher.log.splitlines() if "WARNING" in line)
    assert " key.secret " in warning
