"""The remedies of the command `doctor` that can be pasted: what they are to mend is provoked, and mended.

Left out are those that would change this host or need others: its clock, packages, docker and systemd.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from baseplate_events.cli.doctor.findings import Code
from baseplate_events.cli.queue.info import group_name
from baseplate_events.event_publisher.config.settings import Sync
from baseplate_events.event_publisher.dead_letters.store import DeadLetters
from baseplate_events.event_publisher.spool.spool import Spool
from baseplate_events.event_publisher.storage import Folder
from baseplate_events.transport.limits import QueueSize
from baseplate_events.transport.posix import MessageQueue
from tests.support.commands import Result
from tests.support.doctors import configured, diagnose, doctor, doctor_in, folders_of
from tests.support.publishers import MAX_MESSAGE_SIZE, MAX_MESSAGES
from tests.support.queues import NOBODY, as_user, fresh_name, needs_root, unprivileged
from tests.support.sandbox import sandbox, with_python
from tests.support.spools import append_all, spool_on
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

#: Each remedy is tried, in processes and mounts of its own.
pytestmark = pytest.mark.slow

#: A folder whose name a shell would take apart.
ODD_NAME = "the spool's (only) folder"


def paste(command: str) -> str:
    """Run a command as pasted into a shell, and return what it wrote to stdout."""
    result = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        check=True,
        env=with_python(),
        timeout=PATIENCE,
    )
    return result.stdout


# --- limits and queues ---


def test_limits_are_lifted(tmp_path: Path) -> None:
    """With the sysctls and the rlimit of the remedies an ordinary user gets the queue that is wanted."""
    wanted = {"max_queue_size": "20", "max_event_size": "10000"}
    with sandbox(tmp_path) as place, configured(tmp_path, **wanted) as arguments:
        arguments += ["--no-probe"]
        place.set_up("sysctl", "-q", "-w", "fs.mqueue.msg_max=10", "fs.mqueue.msgsize_max=8192")
        before = doctor_in(place, *arguments, after="ulimit -S -q 50000")
        sysctl, keep = before["kernel limits"].commands
        [ulimit] = before["RLIMIT_MSGQUEUE"].commands
        place.set_up("bash", "-c", sysctl)
        after = doctor_in(place, *arguments, after=f"ulimit -S -q 50000 && {ulimit}")
        place.set_up("mount", "-t", "tmpfs", "none", "/etc/sysctl.d")
        place.set_up("bash", "-c", keep)
        kept = place.run("sh", "-c", "sysctl -p /etc/sysctl.d/*.conf")
    assert before["kernel limits"].code is Code.SYSCTLS_TOO_LOW
    assert before["RLIMIT_MSGQUEUE"].code is Code.RLIMIT_TOO_LOW
    assert kept == Result(0, "fs.mqueue.msg_max = 20\nfs.mqueue.msgsize_max = 10000\n", "")
    assert before["queue"].code is Code.QUEUE_MISSING_SMALLER
    assert before["queue"].fields["wanted"] == {"capacity": 20, "max_event_size": 10_000}
    assert after["kernel limits"].code is Code.SYSCTLS_SUFFICIENT
    assert after["RLIMIT_MSGQUEUE"].code is Code.RLIMIT_SUFFICIENT
    assert after["queue"].code is Code.QUEUE_MISSING
    assert after["queue"].fields["expected"] == {"capacity": 20, "max_event_size": 10_000}


def test_room_is_made_beside_other_queues(tmp_path: Path) -> None:
    """Where others of the user leave too little they are named, and the limit of the remedy is enough."""
    charge = QueueSize(MAX_MESSAGES, MAX_MESSAGE_SIZE).bytes_charged
    taken = QueueSize(4, 64).bytes_charged
    with sandbox(tmp_path) as place, configured(tmp_path) as arguments:
        arguments += ["--no-probe"]
        place.show_queues()
        create = ("python", "-m", "baseplate_events", "queue", "create", "other", "--strict")
        place.set_up(*create, "--max-messages", "4", "--max-event-size", "64")
        before = doctor_in(place, *arguments, after=f"ulimit -S -q {charge + taken - 1}")
        [ulimit] = before["RLIMIT_MSGQUEUE"].commands
        after = doctor_in(place, *arguments, after=ulimit)
    assert before["RLIMIT_MSGQUEUE"].code is Code.RLIMIT_TOO_LOW
    assert before["RLIMIT_MSGQUEUE"].fields["neighbours"] == {"/events-other": taken}
    assert before["queue"].code is Code.QUEUE_MISSING_SMALLER
    assert after["RLIMIT_MSGQUEUE"].code is Code.RLIMIT_SUFFICIENT
    assert after["queue"].code is Code.QUEUE_MISSING
    assert after["queue"].fields["expected"] == {
        "capacity": MAX_MESSAGES,
        "max_event_size": MAX_MESSAGE_SIZE,
    }


def test_a_queue_that_is_too_small_is_made_anew(tmp_path: Path) -> None:
    """The command removes it, once it is empty, and whoever comes next makes it as configured."""
    with configured(tmp_path) as arguments:
        arguments += ["--no-probe"]
        name = f"/events-{arguments[2]}"
        MessageQueue(name, max_messages=2, max_message_size=32).close()
        before = doctor(*arguments)
        [unlink] = before["queue size"].commands
        paste(unlink)
        assert doctor(*arguments)["queue"].code is Code.QUEUE_MISSING
        MessageQueue(name, max_messages=MAX_MESSAGES, max_message_size=MAX_MESSAGE_SIZE).close()
        after = doctor(*arguments)
    assert before["queue size"].code is Code.QUEUE_TOO_SMALL
    assert after["queue size"].code is Code.QUEUE_LARGE_ENOUGH


def test_a_queue_that_is_open_to_all_is_closed(tmp_path: Path) -> None:
    """Its owner closes it with the command, where queues don't show in the file system after another one."""
    with sandbox(tmp_path) as place, configured(tmp_path) as arguments:
        arguments += ["--no-probe"]
        place.hide_queues()
        create = ("python", "-m", "baseplate_events", "queue", "create", arguments[2], "--mode", "0644")
        place.set_up(*create, "--max-messages", "10", "--max-event-size", "1024")
        before = doctor_in(place, *arguments)
        mount, chmod = before["queue access"].commands
        place.set_up("bash", "-c", mount)
        place.set_up("bash", "-c", chmod)
        after = doctor_in(place, *arguments)
    assert before["queue access"].code is Code.QUEUE_OPEN_TO_ALL
    assert after["queue access"].code is Code.QUEUE_ACCESS_LIMITED


@needs_root
def test_a_queue_of_somebody_else_lets_a_group_in(tmp_path: Path) -> None:
    """Where the queue doesn't let this user in, that is said with what lets in its group."""
    doctor()  # another user may not be able to read the modules that this needs
    group_name(0)
    with (
        sandbox(tmp_path, own_queues=False) as place,
        fresh_name("/events-test-") as name,
        MessageQueue(name, max_messages=2, max_message_size=32),
    ):
        arguments = ["--queue-name", name.removeprefix("/events-")]
        with as_user(NOBODY):
            before = doctor(*arguments)
        *mount, let_in = before["queue"].commands
        if mount:  # they don't show on this host
            place.hide_queues()
            place.set_up("bash", "-c", *mount)
        place.set_up("bash", "-c", let_in.replace("GROUP", str(os.getegid())))
        with as_user(NOBODY):
            after = doctor(*arguments)
    assert (before.status, before["queue"].code) == (1, Code.QUEUE_FORBIDDEN)
    assert (after.status, after["queue access"].code) == (0, Code.QUEUE_ACCESS_LIMITED)
    assert ("0660", group_name(os.getegid())) == tuple(
        after["queue access"].fields[field] for field in ("mode", "group")
    )


# --- configuration and key ---


def test_the_configuration_can_be_looked_at_alone(tmp_path: Path) -> None:
    """The command tells the same mistake, and ends with 0 once it is mended."""
    with configured(tmp_path, batch__max_age="soon") as arguments:
        before = doctor(*arguments)["configuration"]
        [check] = before.commands
        with pytest.raises(subprocess.CalledProcessError) as caught:
            paste(check)
        Path(arguments[0]).write_text(Path(arguments[0]).read_text().replace("soon", "1 second"))
        paste(check)
    assert before.code is Code.CONFIGURATION_MISTAKE
    assert before.found in caught.value.stderr


def test_a_new_secret_is_long_enough(tmp_path: Path) -> None:
    """What the command makes is a secret of more than 16 bytes."""
    short = diagnose(tmp_path, "http://127.0.0.1:9", "--no-probe", key__secret="c2hvcnQ=")["key"]
    [make] = short.commands
    key = diagnose(tmp_path, "http://127.0.0.1:9", "--no-probe", key__secret=paste(make).strip())["key"]
    assert (Code.SECRET_LONG_ENOUGH, {"size": 32}) == (key.code, key.fields)


def test_a_name_can_be_asked_for_as_the_publisher_does(tmp_path: Path) -> None:
    """The command fails for a name that doesn't exist, and tells the address of one that does."""
    table = diagnose(tmp_path, "http://collector.invalid", metrics__endpoint="statsd.invalid:8125")
    for check in ("collector name", "metrics"):
        [ask] = table[check].commands
        with pytest.raises(subprocess.CalledProcessError):
            paste(ask)
        assert "localhost" in paste(re.sub(r"\S+\.invalid", "localhost", ask))


# --- folders ---


def make_nothing(_: Path) -> None:
    """Leave the folder to be made."""


def make_open(path: Path) -> None:
    """Make a folder that others can enter, with something in it."""
    path.mkdir()
    (path / "somebody's").write_text("")
    path.chmod(0o755)


def make_unwritable(path: Path) -> None:
    """Make a folder of the user without privileges to which it may not write."""
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)
    path.chmod(0o500)


def make_spool_of_root(path: Path) -> None:
    """Make a spool that root's publisher has left behind, with a segment."""
    folder = Folder(str(path))
    append_all(spool_on(folder, version="2j"), [b'{"a":1}'])
    folder.release()


def make_segments_of_root(path: Path) -> None:
    """Make a spool of the user without privileges, where root's publisher has left a segment."""
    make_spool_of_root(path)
    os.chown(path, NOBODY, NOBODY)


def make_journal_of_root(path: Path) -> None:
    """Make a spool of the user without privileges, where root's publisher has left a journal."""
    folder = Folder(str(path))
    spool = Spool(folder, str(path), version="2j", max_size=2**30, sync=Sync.NEVER)
    spool.append(b'{"a":1}')
    spool.close()
    folder.release()
    os.chown(path, NOBODY, NOBODY)


def make_letters_of_root(path: Path) -> None:
    """Make a spool of the user without privileges, where root's publisher has left dead letters."""
    make_unwritable(path)
    path.chmod(0o700)
    letters = DeadLetters(str(path / "rejected"), max_size=10**6)
    letters.write(b'{"a":1}', status=400, reason="no")
    letters.close()
    os.chown(path / "rejected", NOBODY, NOBODY)


@needs_root
@pytest.mark.parametrize(
    ("make", "name", "code"),
    [
        (make_nothing, "spool folder", Code.FOLDER_UNMAKABLE),
        (make_unwritable, "spool folder", Code.FOLDER_NOT_WRITABLE),
        (make_spool_of_root, "spool folder", Code.FOLDER_FOREIGN),
        (make_segments_of_root, "spool segments", Code.SEGMENT_UNREADABLE),
        (make_journal_of_root, "spool segments", Code.SEGMENT_UNREADABLE),
        (make_letters_of_root, "dead letters", Code.DEAD_LETTERS_UNREADABLE),
    ],
)
def test_a_folder_is_given_to_the_user(
    tmp_path: Path, make: Callable[[Path], None], name: str, code: Code
) -> None:
    """Root's command lets the user of the publisher use it, whatever a shell would make of its name."""
    folders_of(tmp_path, tmp_path / "none")  # another user may not be able to read all modules
    path = tmp_path / ODD_NAME
    make(path)
    with configured(tmp_path, spool__directory=str(path)) as arguments:
        arguments += ["--no-probe"]
        Path(arguments[0]).chmod(0o644)
        with unprivileged(tmp_path):
            before = doctor(*arguments)[name]
        [command] = before.commands
        paste(command)
        with unprivileged(tmp_path):
            after = doctor(*arguments)
    assert before.code is code
    if "reason" in before.fields:
        assert str(before.fields["reason"]).endswith("Permission denied")
    assert after["spool folder"].code is Code.FOLDER_USABLE
    assert name not in {check.name for check in after.problems}


def test_a_folder_that_is_open_is_closed(tmp_path: Path) -> None:
    """The command closes it, whatever a shell would make of its name."""
    path = tmp_path / ODD_NAME
    make_open(path)
    before = folders_of(tmp_path, path)["spool folder"]
    assert before.code is Code.FOLDER_OPEN_TO_OTHERS
    [close] = before.commands
    paste(close)
    assert folders_of(tmp_path, path)["spool folder"].code is Code.FOLDER_USABLE


def test_a_disk_that_is_read_only_is_mounted_anew(tmp_path: Path) -> None:
    """A disk that can't be written to is told as that, be the folder there or still to come."""
    disk = tmp_path / ODD_NAME
    disk.mkdir()
    keys = {"spool__directory": str(disk / "spool"), "dead_letters__directory": str(disk)}
    with sandbox(tmp_path) as place, configured(tmp_path, **keys) as arguments:
        arguments += ["--no-probe"]
        place.set_up("mount", "-t", "tmpfs", "-o", "ro,mode=0700", "none", str(disk))
        before = doctor_in(place, *arguments)
        _, remount = before["spool folder"].commands
        assert before["spool folder"].commands == before["dead letters folder"].commands
        place.set_up("bash", "-c", remount)
        after = doctor_in(place, *arguments)
    assert before["spool folder"].code is Code.FOLDER_UNMAKABLE_READ_ONLY
    assert before["dead letters folder"].code is Code.FOLDER_READ_ONLY
    assert after["spool folder"].code is Code.FOLDER_TO_COME
    assert after["dead letters folder"].code is Code.FOLDER_USABLE


def test_dead_letters_are_shown_and_purged(tmp_path: Path) -> None:
    """The command shows them, and once they are purged all is well."""
    path = tmp_path / ODD_NAME
    letters = DeadLetters(str(path), max_size=10**6)
    letters.write(b'{"private":1}', status=400, reason="no such field")
    letters.close()
    arguments = ("http://127.0.0.1:9", "--no-probe")
    [show] = diagnose(tmp_path, *arguments, dead_letters__directory=str(path))["dead letters"].commands
    assert "no such field" in paste(show)
    paste(show.replace(" list ", " purge --yes "))
    after = diagnose(tmp_path, *arguments, dead_letters__directory=str(path))["dead letters"]
    assert after.code is Code.DEAD_LETTERS_NONE
