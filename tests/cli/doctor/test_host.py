from __future__ import annotations

import contextlib
import importlib
import os
import platform
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.cli.doctor.checks import expected_size
from baseplate_events.cli.doctor.findings import Code, Verdict
from baseplate_events.cli.doctor.host import check_process, check_queue
from baseplate_events.cli.doctor.memory import message_memory
from baseplate_events.cli.queue.info import MOUNT_COMMAND, group_name, inspect_queue, user_name
from baseplate_events.errors import (
    EventQueueLimitError,
    EventQueuePermissionError,
    EventQueueUnavailableError,
)
from baseplate_events.transport.descriptor import load
from baseplate_events.transport.limits import QueueSize, read_limits
from baseplate_events.transport.posix import MessageQueue
from tests.support.commands import run
from tests.support.doctors import Table, check_words, configured, diagnose, doctor, sound
from tests.support.examples import examples
from tests.support.queues import OTHER_UID, as_user, bytes_of_queues, drain, fresh_name, needs_root

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

SIZE = QueueSize(2, 32)


# --- this process ---


def doctor_with(folder: Path, packages: Iterable[str], *arguments: str) -> Table:
    """Run the doctor in a Python with only the standard library, this package and these other modules."""
    for package in packages:
        origin = importlib.import_module(package).__file__
        assert origin is not None
        found = Path(origin)
        source = found.parent if found.name == "__init__.py" else found
        (folder / source.name).symlink_to(source)
    command = [sys.executable, "-S", "-m", "baseplate_events", "doctor", "--json", *arguments]
    return Table(run(*command, cwd=folder, environ={"PYTHONPATH": str(folder)}))


def test_missing_packages_are_named(tmp_path: Path) -> None:
    """Missing posix_ipc is a problem, missing thrift a warning, each with the command that installs it."""
    table = doctor_with(tmp_path, ["baseplate_events"], "--queue-name", "v2")
    assert (table["posix_ipc"].code, table["thrift"].code) == (Code.POSIX_IPC_UNUSABLE, Code.THRIFT_MISSING)
    for package in ("posix_ipc", "thrift"):
        assert [f"{sys.executable} -m pip install {package}"] == list(table[package].commands)
        assert package in table[package].found
    assert table["queue"].code is Code.QUEUE_UNAVAILABLE
    assert {"queue": "/events-v2"} == table["queue"].fields
    assert table.status == 1


def test_a_publisher_of_a_spool_needs_no_posix_ipc(tmp_path: Path) -> None:
    """No POSIX queue is checked; the spool suits then."""
    keys = {"spool__directory": str(tmp_path / "spool"), "queue__transport": "spool"}
    (tmp_path / "packages").mkdir()
    with configured(tmp_path, **keys) as arguments:
        table = doctor_with(tmp_path / "packages", ["baseplate_events", "thrift"], *arguments, "--no-probe")
    assert table["posix_ipc"].code is Code.POSIX_IPC_UNNEEDED
    assert (table["queue"].code, table["transport"].code) == (Code.QUEUE_UNUSED, Code.TRANSPORT_SPOOL)
    check_words(table["queue"], "not used (queue.transport = spool)")


def test_a_package_without_metadata_is_there_all_the_same(tmp_path: Path) -> None:
    """A dependency that was copied somewhere has no version to report."""
    table = doctor_with(tmp_path, ["baseplate_events", "posix_ipc", "thrift"])
    assert (table["posix_ipc"].code, table["thrift"].code) == (Code.POSIX_IPC_PRESENT, Code.THRIFT_PRESENT)
    for package in ("posix_ipc", "thrift"):
        assert {"version": None} == table[package].fields
        check_words(table[package], "version unknown")


def test_the_words_on_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """User and versions are named, or why a package can't be used, with the command that installs it."""
    process, posix_ipc, thrift = map(sound, check_process())
    python, user = platform.python_version(), user_name(os.geteuid())
    assert process.code is Code.PROCESS_IDENTIFIED
    assert {"python": python, "user": user} == process.fields
    check_words(process, f"Python {python}, as user {user}")
    check_words(posix_ipc, f"version {posix_ipc.fields['version']}")
    check_words(thrift, f"version {thrift.fields['version']}")
    monkeypatch.setitem(sys.modules, "posix_ipc", None)
    monkeypatch.setitem(sys.modules, "thrift", None)
    _, posix_ipc, thrift = map(sound, check_process())
    check_words(
        posix_ipc,
        load()[1].partition("; ")[0],
        f"`{sys.executable} -m pip install posix_ipc`, on Linux",
    )
    check_words(
        thrift,
        "import failed (import of thrift halted; None in sys.modules), so services here can't send Thrift "
        "events",
        f"`{sys.executable} -m pip install thrift`",
    )


# --- limits and queues that aren't there ---


def test_limits_that_are_too_low_are_named_with_the_commands(tmp_path: Path) -> None:
    """What the configured queue needs is computed, compared, and put into the commands."""
    wanted = QueueSize(65_536, 16_777_216)
    table = diagnose(
        tmp_path,
        max_queue_size=str(wanted.max_messages),
        max_event_size=str(wanted.max_message_size),
        batch__max_size="17000000",
    )
    limits = read_limits()
    sysctls, rlimit = table["kernel limits"], table["RLIMIT_MSGQUEUE"]
    assert sysctls.code is Code.SYSCTLS_TOO_LOW
    assert (limits.msg_max, 65_536) == (sysctls.fields["msg_max"], sysctls.fields["msg_max_needed"])
    assert sysctls.commands[0] == "sysctl -w fs.mqueue.msg_max=65536 fs.mqueue.msgsize_max=16777216"
    if limits.rlimit is not None:
        assert rlimit.code is Code.RLIMIT_TOO_LOW
        assert (limits.rlimit, wanted.bytes_charged) == (rlimit.fields["rlimit"], rlimit.fields["needed"])
        assert table["queue"].code is Code.QUEUE_MISSING_SMALLER
        assert table["queue"].fields["wanted"] == {"capacity": 65_536, "max_event_size": 16_777_216}


@needs_root
def test_no_room_at_all_is_a_problem() -> None:
    """If the user's limit allows not even the smallest queue, none can be made."""
    doctor()  # another user may not be able to read the modules that this needs
    with bytes_of_queues(100):
        table = doctor()
    assert (1, Code.NEW_QUEUE_IMPOSSIBLE) == (table.status, table["queue"].code)


@needs_root
@given(
    st.sampled_from([0, 600, 5_000, 50_000, 300_000]),
    st.integers(1, 40),
    st.integers(1, 20_000),
    st.integers(0, 10),
)
@examples(25)
def test_the_expected_size_is_what_the_kernel_gives(
    limit: int, max_messages: int, max_message_size: int, other: int
) -> None:
    """An ordinary user gets exactly that size besides another queue, or none if none is expected."""
    asked = QueueSize(max_messages, max_message_size)
    read_limits()  # another user may not be able to read what Python needs for that
    with (
        bytes_of_queues(limit),
        fresh_name() as neighbour,
        fresh_name() as name,
        contextlib.ExitStack() as stack,
    ):
        taken = 0
        if other:
            with contextlib.suppress(EventQueueLimitError):
                queue = stack.enter_context(MessageQueue(neighbour, max_messages=other, max_message_size=512))
                taken = QueueSize(queue.max_messages, queue.max_message_size).bytes_charged
        expected = expected_size(asked, read_limits(), taken)
        try:
            with MessageQueue(name, max_messages=max_messages, max_message_size=max_message_size) as queue:
                got: QueueSize | None = QueueSize(queue.max_messages, queue.max_message_size)
                queue.unlink()
        except EventQueueLimitError:
            got = None
        assert expected == got


# --- queues that are there ---


def test_a_queue_is_shown_with_its_owner() -> None:
    """An empty queue that only its owner reads is ok."""
    with fresh_name("/events-test-") as name, MessageQueue(name, max_messages=2, max_message_size=32):
        table = doctor("--queue-name", name.removeprefix("/events-"))
    assert (table["queue depth"].code, table["queue owner"].code) == (Code.QUEUE_HAS_ROOM, Code.QUEUE_OWNER)
    assert {"queue": name, "depth": 0, "capacity": 2} == table["queue depth"].fields
    assert 2 * message_memory(32) == table["memory limit"].fields["needed"]
    user = user_name(os.geteuid())
    assert {"queue": name, "user": user} == table["queue owner"].fields
    check_words(table["queue owner"], f"user {user}")
    assert table.status == 0


@needs_root
def test_a_queue_of_a_stranger_is_named() -> None:
    """A queue that another user made first is a warning, however closed it is."""
    with fresh_name("/events-test-") as name:
        with as_user(OTHER_UID):
            queue = MessageQueue(name, max_messages=2, max_message_size=32)
        with queue:
            check = doctor("--queue-name", name.removeprefix("/events-"))["queue owner"]
    assert (Code.QUEUE_FOREIGN, user_name(OTHER_UID)) == (check.code, check.fields["user"])


def test_a_queue_that_is_too_small_is_named(tmp_path: Path) -> None:
    """A queue that was created smaller than configured is a warning with the command that removes it."""
    with configured(tmp_path, max_queue_size="10") as arguments:
        queue = MessageQueue(f"/events-{arguments[2]}", max_messages=2, max_message_size=32)
        table = doctor(*arguments, "--no-probe")
        queue.close()
    check = table["queue size"]
    assert check.code is Code.QUEUE_TOO_SMALL
    assert check.fields["size"] == {"capacity": 2, "max_event_size": 32}
    assert check.fields["wanted"] == {"capacity": 10, "max_event_size": 1_024}
    assert [command.rpartition(" -m ")[2] for command in check.commands] == [
        f"baseplate_events queue unlink /events-{arguments[2]}"
    ]
    assert {"kernel limits", "RLIMIT_MSGQUEUE"} < table.names  # of which one may be the reason


@pytest.mark.parametrize(
    ("mode", "wanted", "code", "command"),
    [
        (0o600, "0600", Code.QUEUE_ACCESS_LIMITED, None),
        (0o660, "0660", Code.QUEUE_ACCESS_LIMITED, None),
        (0o644, "0600", Code.QUEUE_OPEN_TO_ALL, "chmod 0600"),
        (0o666, "0666", Code.QUEUE_OPEN_TO_ALL, "chmod 0660"),
    ],
)
def test_who_can_steal_is_named(
    tmp_path: Path, mode: int, wanted: str, code: Code, command: str | None
) -> None:
    """A queue that every user can read is a warning with the command that closes it."""
    with configured(tmp_path, queue__mode=wanted) as arguments:
        name = f"/events-{arguments[2]}"
        with MessageQueue(name, max_messages=10, max_message_size=1_024, mode=mode) as queue:
            table = doctor(*arguments, "--no-probe")
            queue.unlink()
    assert "kernel limits" not in table.names  # the queue is there in full size
    assert table["queue size"].code is Code.QUEUE_LARGE_ENOUGH
    check = table["queue access"]
    assert (code, f"{mode:04o}") == (check.code, check.fields["mode"])
    assert [f"{command} /dev/mqueue{name}"] * (command is not None) == list(check.commands[-1:])


def test_a_queue_that_is_nearly_full_is_named() -> None:
    """A queue without room is a warning."""
    with (
        fresh_name("/events-test-") as name,
        MessageQueue(name, max_messages=3, max_message_size=32) as queue,
    ):
        for _ in range(3):
            queue.put(b"{}")
        check = doctor("--queue-name", name.removeprefix("/events-"))["queue depth"]
        assert len(drain(queue)) == 3
    assert check.code is Code.QUEUE_NEARLY_FULL
    assert {"queue": name, "depth": 3, "capacity": 3} == check.fields


@contextlib.contextmanager
def no_files_to_open() -> Generator[None]:
    """Let this process open no more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Path(os.devnull).open("rb") as file:
        lowest = file.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_queue_that_cant_be_opened_is_a_problem() -> None:
    """Any other problem of a queue is reported in the words of the error, after the limits."""
    with (
        fresh_name("/events-test-") as name,
        MessageQueue(name, max_messages=2, max_message_size=32),
        no_files_to_open(),
    ):
        with pytest.raises(EventQueueUnavailableError) as caught:
            inspect_queue(name)
        *limits, check = map(sound, check_queue(name, SIZE, 0o600))
    assert ["kernel limits", "RLIMIT_MSGQUEUE"] == [limit.name for limit in limits]
    assert (Code.QUEUE_UNAVAILABLE, {"queue": name}) == (check.code, check.fields)
    assert f"{name}: {caught.value.problem}" == f"{check.found}; {check.remedy}"


def test_a_queue_without_a_known_remedy_has_one_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the error has no remedy, the remedy is to check the kernel."""

    def fail(name: str) -> None:
        raise EventQueueUnavailableError(name, "it can't be used")

    monkeypatch.setattr("baseplate_events.cli.doctor.host.inspect_queue", fail)
    *_, check = map(sound, check_queue("/events-v2", SIZE, 0o600))
    assert check.code is Code.QUEUE_UNAVAILABLE
    check_words(
        check,
        "/events-v2: it can't be used",
        "check that this kernel has POSIX message queues, and that this process may use them",
    )


@needs_root
def test_a_queue_of_another_user_comes_with_what_lets_a_group_in() -> None:
    """Root's command gives the queue to a group, after a mount if queues aren't visible."""
    list(check_queue(None, SIZE, 0o600))  # another user may not be able to read the modules that this needs
    group_name(0)
    with fresh_name("/events-test-") as name, MessageQueue(name, max_messages=2, max_message_size=32):
        with as_user(OTHER_UID), pytest.raises(EventQueuePermissionError) as caught:
            inspect_queue(name)
        with as_user(OTHER_UID):
            *_, check = map(sound, check_queue(name, SIZE, 0o600))
        shown = Path(f"/dev/mqueue{name}").exists()
    assert (Code.QUEUE_FORBIDDEN, {"queue": name}) == (check.code, check.fields)
    let_in = f"chgrp GROUP /dev/mqueue{name} && chmod 0660 /dev/mqueue{name}"
    assert ([let_in] if shown else [MOUNT_COMMAND, let_in]) == check.commands
    check_words(
        check,
        f"{name}: {caught.value.problem.partition('; ')[0]}",
        "run services, publisher and doctor as the same user; or give them a common group, set queue.mode to "
        f"0660, and as root: `{let_in}`{'' if shown else f', after `{MOUNT_COMMAND}`'}",
    )
    assert check.verdict is Verdict.PROBLEM
