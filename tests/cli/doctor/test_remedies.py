"""The remedies of `doctor` that can be pasted: each problem is provoked, and fixed by the remedy.

Left out are those that would change this host or need others: its clock, packages, docker and systemd.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from baseplate_events.cli.doctor.findings import Code, Verdict
from baseplate_events.cli.queue.info import group_name
from baseplate_events.event_publisher.ledger.file import LETTERS_NAME
from baseplate_events.transport.limits import QueueSize
from baseplate_events.transport.posix import MessageQueue
from tests.support.commands import Result, run
from tests.support.doctors import configured, diagnose, doctor, doctor_in
from tests.support.ledgers import fill
from tests.support.publishers import MAX_MESSAGE_SIZE, MAX_MESSAGES
from tests.support.queues import OTHER_UID, as_user, fresh_name, needs_root, unprivileged
from tests.support.sandbox import sandbox, with_python
from tests.support.spool_segments import write_segment

if TYPE_CHECKING:
    from collections.abc import Callable

#: Each remedy is tried, in processes and mounts of its own.
pytestmark = pytest.mark.slow

#: A folder whose name a shell would take apart.
ODD_NAME = "the spool's (only) folder"


def shell(command: str) -> Result:
    """Run a command as pasted into a shell."""
    return run("bash", "-c", command, environ=with_python())


def paste(command: str) -> str:
    """Run a command that succeeds as pasted into a shell, and return what it wrote to stdout."""
    return shell(command).check()


# --- limits and queues ---


def test_limits_are_lifted(tmp_path: Path) -> None:
    """With the sysctls and the rlimit of the remedies an ordinary user gets the wanted queue."""
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
    """If the user's other queues leave too little, they are named, and the advised limit is enough."""
    charge = QueueSize(MAX_MESSAGES, MAX_MESSAGE_SIZE).bytes_charged
    taken = QueueSize(4, 64).bytes_charged
    with sandbox(tmp_path) as place, configured(tmp_path) as arguments:
        arguments += ["--no-probe"]
        place.show_queues()
        create = ("python", "-m", "baseplate_events", "queue", "create", "other", "--strict")
        place.set_up(*create, "--max-queue-size", "4", "--max-event-size", "64")
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


def test_a_queue_that_is_too_small_is_recreated(tmp_path: Path) -> None:
    """The command removes it, once it is empty, and the next user creates it as configured."""
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
    """Its owner closes it with the command, after a mount if queues aren't visible in the file system."""
    with sandbox(tmp_path) as place, configured(tmp_path) as arguments:
        arguments += ["--no-probe"]
        place.hide_queues()
        create = ("python", "-m", "baseplate_events", "queue", "create", arguments[2], "--queue-mode", "0644")
        place.set_up(*create, "--max-queue-size", "10", "--max-event-size", "1024")
        before = doctor_in(place, *arguments)
        mount, chmod = before["queue access"].commands
        place.set_up("bash", "-c", mount)
        place.set_up("bash", "-c", chmod)
        after = doctor_in(place, *arguments)
    assert before["queue access"].code is Code.QUEUE_OPEN_TO_ALL
    assert after["queue access"].code is Code.QUEUE_ACCESS_LIMITED


@needs_root
def test_a_queue_of_another_user_lets_a_group_in(tmp_path: Path) -> None:
    """If this user may not open the queue, the remedy opens it for a group."""
    doctor()  # another user may not be able to read the modules that this needs
    group_name(0)
    with (
        sandbox(tmp_path, own_queues=False) as place,
        fresh_name("/events-test-") as name,
        MessageQueue(name, max_messages=2, max_message_size=32),
    ):
        arguments = ["--queue-name", name.removeprefix("/events-")]
        with as_user(OTHER_UID):
            before = doctor(*arguments)
        *mount, let_in = before["queue"].commands
        if mount:  # they don't show on this host
            place.hide_queues()
            place.set_up("bash", "-c", *mount)
        place.set_up("bash", "-c", let_in.replace("GROUP", str(os.getegid())))
        with as_user(OTHER_UID):
            after = doctor(*arguments)
    assert (before.status, before["queue"].code) == (1, Code.QUEUE_FORBIDDEN)
    assert (after.status, after["queue access"].code) == (0, Code.QUEUE_ACCESS_LIMITED)
    assert ("0660", group_name(os.getegid())) == tuple(
        after["queue access"].fields[field] for field in ("mode", "group")
    )


# --- configuration and key ---


def test_the_configuration_can_be_checked_alone(tmp_path: Path) -> None:
    """The command reports the same mistake, and exits with 0 once it is fixed."""
    with configured(tmp_path, batch__max_age="soon") as arguments:
        before = doctor(*arguments)["configuration"]
        [check] = before.commands
        refused = shell(check)
        Path(arguments[0]).write_text(Path(arguments[0]).read_text().replace("soon", "1 second"))
        paste(check)
    assert before.code is Code.CONFIGURATION_MISTAKE
    assert refused.status != 0
    assert before.found in refused.err


def test_a_new_secret_is_long_enough(tmp_path: Path) -> None:
    """What the command makes is a secret of more than 16 bytes."""
    short = diagnose(tmp_path, "http://127.0.0.1:9", "--no-probe", key__secret="c2hvcnQ=")["key"]
    [make] = short.commands
    key = diagnose(tmp_path, "http://127.0.0.1:9", "--no-probe", key__secret=paste(make).strip())["key"]
    assert (Code.SECRET_LONG_ENOUGH, {"size": 32}) == (key.code, key.fields)


def test_a_name_can_be_asked_for_as_the_publisher_does(tmp_path: Path) -> None:
    """The command fails for a name that doesn't exist, and prints the address of one that does."""
    table = diagnose(tmp_path, "http://collector.invalid", metrics__endpoint="statsd.invalid:8125")
    for check in ("collector name", "metrics"):
        [ask] = table[check].commands
        assert shell(ask).status != 0
        assert "localhost" in paste(re.sub(r"\S+\.invalid", "localhost", ask))


# --- folders ---


def make_nothing(_: Path) -> None:
    """Leave the spool to be made in a directory of root's."""


def make_spool(folder: Path) -> None:
    """Make a spool of the user without privileges."""
    folder.mkdir(mode=0o700)
    os.chown(folder, OTHER_UID, OTHER_UID)


def make_letters_of_root(folder: Path) -> None:
    """Make a spool of the user without privileges, where root's publisher has left dead letters."""
    make_spool(folder)
    fill(folder, [b"a"])


def make_segments_of_root(folder: Path) -> None:
    """Make a spool of the user without privileges, where root's service has left a segment."""
    make_spool(folder)
    write_segment(folder, [b"a"]).chmod(0o600)


@needs_root
@pytest.mark.parametrize(
    ("make", "name", "code"),
    [
        (make_nothing, "spool folder", Code.FOLDER_UNMAKABLE),
        (make_segments_of_root, "set aside", Code.SEGMENTS_UNREADABLE),
        (make_letters_of_root, "ledger", Code.LEDGER_UNREADABLE),
    ],
)
def test_a_spool_is_given_to_the_user(
    tmp_path: Path, make: Callable[[Path], None], name: str, code: Code
) -> None:
    """Root's command lets the user of the publisher use it, whatever a shell would make of its name."""
    place = tmp_path / ODD_NAME
    with configured(tmp_path, spool__directory=str(place), collector__version="2") as arguments:
        arguments += ["--no-probe"]
        doctor(*arguments)  # another user may not be able to read all modules
        place.chmod(0o755)
        make(place / f"events-{arguments[2]}")
        Path(arguments[0]).chmod(0o644)
        with unprivileged(tmp_path):
            before = doctor(*arguments)[name]
        [command] = before.commands
        paste(command)
        with unprivileged(tmp_path):
            after = doctor(*arguments)
    assert before.code is code
    assert before.fields.get("reason", "Permission denied") == "Permission denied"
    assert after["spool folder"].code is Code.FOLDER_USABLE
    assert {check.verdict for check in after.checks if check.name in {"ledger", "set aside"}} <= {Verdict.OK}


@needs_root
def test_a_spool_is_shared_with_a_group(tmp_path: Path) -> None:
    """The command gives it to the group that services and publisher share."""
    place = tmp_path / ODD_NAME
    with configured(tmp_path, spool__directory=str(place), queue__mode="0660") as arguments:
        arguments += ["--no-probe"]
        doctor(*arguments)  # another user may not be able to read all modules
        place.chmod(0o755)
        folder = place / f"events-{arguments[2]}"
        folder.mkdir(mode=0o700)
        os.chown(folder, 0, OTHER_UID)
        Path(arguments[0]).chmod(0o644)
        with unprivileged(tmp_path):
            before = doctor(*arguments)["spool folder"]
        [command] = before.commands
        paste(command.replace("GROUP", str(os.getegid())))
        with unprivileged(tmp_path):
            after = doctor(*arguments)["spool folder"]
    assert (before.code, before.fields["fault"]) == (Code.SPOOL_FOLDER_FORBIDDEN, "group")
    assert after.code is Code.FOLDER_USABLE


def test_a_directory_of_a_spool_is_made(tmp_path: Path) -> None:
    """The command makes it, whatever a shell would make of its name."""
    place = tmp_path / ODD_NAME
    with configured(tmp_path, spool__directory=str(place)) as arguments:
        arguments += ["--no-probe"]
        place.rmdir()
        before = doctor(*arguments)["spool folder"]
        [make] = before.commands
        paste(make)
        after = doctor(*arguments)["spool folder"]
    assert before.code is Code.SPOOL_DIRECTORY_MISSING
    assert after.code is Code.FOLDER_TO_COME


@needs_root
@pytest.mark.parametrize(
    ("is_there", "code"), [(False, Code.FOLDER_UNMAKABLE), (True, Code.FOLDER_NOT_WRITABLE)]
)
def test_a_folder_is_given_to_the_user(tmp_path: Path, code: Code, *, is_there: bool) -> None:
    """Root's command makes the folder for dead letters, or gives it to the user."""
    path = tmp_path / ODD_NAME
    with configured(tmp_path, dead_letters__directory=str(path)) as arguments:
        arguments += ["--no-probe"]
        doctor(*arguments)  # another user may not be able to read all modules
        if is_there:
            path.mkdir(0o700)
        Path(arguments[0]).chmod(0o644)
        with unprivileged(tmp_path):
            before = doctor(*arguments)["dead letters folder"]
        [command] = before.commands
        paste(command)
        with unprivileged(tmp_path):
            after = doctor(*arguments)["dead letters folder"]
    assert before.code is code
    assert after.code is Code.FOLDER_USABLE


def test_a_disk_that_is_read_only_is_remounted(tmp_path: Path) -> None:
    """A read-only disk is reported as such, whether the folder exists or not."""
    disk = tmp_path / ODD_NAME
    disk.mkdir()
    with sandbox(tmp_path) as place, configured(tmp_path, spool__directory=str(disk)) as arguments:
        arguments += ["--no-probe"]
        folder = f"{disk}/events-{arguments[2]}"
        place.set_up("mount", "-t", "tmpfs", "-o", "ro,mode=0700", "none", str(disk))
        before = doctor_in(place, *arguments)["spool folder"]
        _, remount = before.commands
        place.set_up("bash", "-c", remount)
        after = doctor_in(place, *arguments)["spool folder"]
        place.set_up("mkdir", "-m", "0700", folder)
        place.set_up("bash", "-c", remount.replace("remount,rw", "remount,ro"))
        there = doctor_in(place, *arguments)["spool folder"]
        _, remount = there.commands
        place.set_up("bash", "-c", remount)
        again = doctor_in(place, *arguments)["spool folder"]
    assert before.code is Code.FOLDER_UNMAKABLE_READ_ONLY
    assert after.code is Code.FOLDER_TO_COME
    assert there.code is Code.FOLDER_READ_ONLY
    assert again.code is Code.FOLDER_USABLE


def test_dead_letters_are_shown_and_purged(tmp_path: Path) -> None:
    """The command shows them, and once they are purged all is well."""
    path = tmp_path / ODD_NAME
    path.mkdir()
    fill(path, [b'{"private":1}'], name=LETTERS_NAME, reason="no such field")
    arguments = ("http://127.0.0.1:9", "--no-probe")
    [show] = diagnose(tmp_path, *arguments, dead_letters__directory=str(path))["dead letters"].commands
    assert "no such field" in paste(show)
    paste(show.replace(" list ", " purge --yes "))
    after = diagnose(tmp_path, *arguments, dead_letters__directory=str(path))["dead letters"]
    assert after.code is Code.DEAD_LETTERS_NONE
