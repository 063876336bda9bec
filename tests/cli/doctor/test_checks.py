from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from hypothesis import example, given
from hypothesis import strategies as st

from baseplate_events.cli.common import command_line
from baseplate_events.cli.doctor.checks import (
    FEW_INODES,
    expected_size,
    judge_absence,
    judge_file,
    judge_inodes,
    judge_queue_access,
    judge_queue_depth,
    judge_queue_owner,
    judge_queue_size,
    judge_rlimit,
    judge_secret,
    judge_space,
    judge_sysctls,
)
from baseplate_events.cli.doctor.findings import Code, Verdict
from baseplate_events.cli.queue.info import MOUNT_COMMAND, QueueInfo
from baseplate_events.event_publisher.access import FileAccess, QueueAccess
from baseplate_events.transport.limits import HostLimits, QueueSize
from tests.support.doctors import check_words, sound
from tests.support.strategies import host_limits, queue_sizes

if TYPE_CHECKING:
    from collections.abc import Collection

#: A user id without a name.
UID = 4_000_000_123

SIZE = QueueSize(10, 1_024)
LIMITS = HostLimits(msg_max=10, msgsize_max=8_192, rlimit=819_200)

#: Limits by which a queue of `SIZE` is made smaller, and by which none is made.
TIGHT = LIMITS._replace(rlimit=SIZE.bytes_charged - 1)
TOO_TIGHT = LIMITS._replace(rlimit=100)


def queue(depth: int = 0, *, size: QueueSize = SIZE, mode: int = 0o600, shown: bool = True) -> QueueInfo:
    """Return a queue `/events-v2`."""
    return QueueInfo("/events-v2", size, depth, UID, UID, mode, shown)


# --- limits ---


@given(queue_sizes, host_limits)
def test_sysctls_are_ok_just_if_they_cover_the_need(wanted: QueueSize, limits: HostLimits) -> None:
    """Sysctls that are too low are a warning whose commands set those, and only those, to the need."""
    check = sound(judge_sysctls(wanted, limits))
    short = limits.msg_max < wanted.max_messages, limits.msgsize_max < wanted.max_message_size
    assert (Code.SYSCTLS_TOO_LOW if any(short) else Code.SYSCTLS_SUFFICIENT) is check.code
    assert (2 if any(short) else 0) == len(check.commands)
    for command in check.commands:
        assert short[0] == (f"fs.mqueue.msg_max={wanted.max_messages}" in command.split())
        assert short[1] == (f"fs.mqueue.msgsize_max={wanted.max_message_size}" in command.split())
    assert check.fields == {
        "msg_max": limits.msg_max,
        "msg_max_needed": wanted.max_messages,
        "msgsize_max": limits.msgsize_max,
        "msgsize_max_needed": wanted.max_message_size,
    }


@given(
    queue_sizes,
    host_limits,
    st.dictionaries(st.sampled_from(["/a", "/b"]), st.integers(0, 2**30), max_size=2),
)
def test_an_rlimit_is_ok_just_if_it_covers_the_need(
    wanted: QueueSize, limits: HostLimits, neighbours: dict[str, int]
) -> None:
    """A limit that is too low is a warning with a sufficient one; the user's other queues are named."""
    check = sound(judge_rlimit(wanted, limits, neighbours))
    need = wanted.bytes_charged + sum(neighbours.values())
    if limits.rlimit is None:
        assert check.code is Code.RLIMIT_NONE
    elif limits.rlimit >= need:
        assert check.code is Code.RLIMIT_SUFFICIENT
    else:
        assert check.code is Code.RLIMIT_TOO_LOW
        advised = check.fields["advised"]
        assert isinstance(advised, int)
        # Others that are seen took no more than the limit allowed.
        assert advised >= min(need, wanted.bytes_charged + limits.rlimit)
        assert [f"ulimit -q {advised}"] == list(check.commands)
    assert (limits.rlimit, wanted.bytes_charged) == (check.fields["rlimit"], check.fields["needed"])
    assert neighbours == check.fields["neighbours"]
    assert limits.rlimit is None or all(name in check.found for name in neighbours)


@given(st.none() | st.just("/events-v2"), queue_sizes, host_limits, st.integers(0, 2**30))
@example(None, SIZE, LIMITS, 0)
@example(None, SIZE, TIGHT, 0)
@example(None, SIZE, TOO_TIGHT, 0)
@example("/events-v2", SIZE, LIMITS, 0)
@example("/events-v2", SIZE, TIGHT, 0)
@example("/events-v2", SIZE, TOO_TIGHT, 0)
def test_what_becomes_of_a_queue_follows_from_its_expected_size(
    name: str | None, wanted: QueueSize, limits: HostLimits, taken: int
) -> None:
    """It is a problem only if no queue can be created; otherwise both sizes are given."""
    check = sound(judge_absence(name, wanted, limits, taken))
    expected = expected_size(wanted, limits, taken)
    possible, smaller, impossible = (
        (Code.NEW_QUEUE_POSSIBLE, Code.NEW_QUEUE_SMALLER, Code.NEW_QUEUE_IMPOSSIBLE)
        if name is None
        else (Code.QUEUE_MISSING, Code.QUEUE_MISSING_SMALLER, Code.QUEUE_MISSING_IMPOSSIBLE)
    )
    fields = dict(check.fields)
    assert name == fields.pop("queue")
    assert {"capacity": wanted[0], "max_event_size": wanted[1]} == fields.pop("wanted")
    if expected is None:
        assert (impossible, {}) == (check.code, fields)
    else:
        assert (possible if expected == wanted else smaller) is check.code
        assert fields == {"expected": {"capacity": expected[0], "max_event_size": expected[1]}}


# --- the queue ---


@given(queue_sizes, queue_sizes)
def test_a_queue_is_too_small_just_if_it_doesnt_cover_what_is_wanted(
    size: QueueSize, wanted: QueueSize
) -> None:
    """The command removes it, so that it is recreated in the right size."""
    check = sound(judge_queue_size(queue(size=size), wanted))
    assert (Code.QUEUE_LARGE_ENOUGH if size.covers(wanted) else Code.QUEUE_TOO_SMALL) is check.code
    assert check.fields == {
        "queue": "/events-v2",
        "size": {"capacity": size[0], "max_event_size": size[1]},
        "wanted": {"capacity": wanted[0], "max_event_size": wanted[1]},
    }
    assert all(command.endswith("queue unlink /events-v2") for command in check.commands)
    assert size.covers(wanted) == (not check.commands)


@given(queue_sizes, st.data())
def test_a_queue_is_nearly_full_from_nine_tenths_on(size: QueueSize, data: st.DataObject) -> None:
    """Less than nine tenths, or fewer than two events, is no warning."""
    depth = data.draw(st.integers(0, size.max_messages))
    check = sound(judge_queue_depth(queue(depth, size=size)))
    full = depth >= 2 and depth >= 0.9 * size.max_messages
    assert (Code.QUEUE_NEARLY_FULL if full else Code.QUEUE_HAS_ROOM) is check.code
    assert (depth, size.max_messages) == (check.fields["depth"], check.fields["capacity"])


def access_to(info: QueueInfo, wanted: int, *, user: int = UID, groups: Collection[int] = ()) -> QueueAccess:
    """Return the access of a queue that should have this mode."""
    return QueueAccess(info.name, info.uid, info.gid, info.mode, wanted, user, groups)


@given(st.integers(0, 0o777), st.integers(0, 0o777), st.booleans())
def test_a_queue_that_others_get_at_is_a_warning(mode: int, wanted: int, shown: bool) -> None:
    """The commands fix that: they set the wanted mode, without the bits of others."""
    info = queue(mode=mode, shown=shown)
    access = access_to(info, wanted)
    check = sound(judge_queue_access(info, access))
    assert check.fields == {
        "queue": "/events-v2",
        "mode": f"{mode:04o}",
        "user": str(UID),
        "group": str(UID),
    }
    if mode & 0o004:
        assert check.code is Code.QUEUE_OPEN_TO_ALL
    elif mode & 0o002:
        assert check.code is Code.QUEUE_WRITABLE_BY_ALL
    elif mode & 0o060 & ~wanted:
        assert check.code is Code.QUEUE_OPEN_TO_GROUP
    else:
        assert check.code is Code.QUEUE_ACCESS_LIMITED
        return
    *mount, chmod = check.commands
    assert ([] if shown else [MOUNT_COMMAND]) == mount
    assert wanted & 0o770 == int(chmod.split()[1], 8)
    repaired = queue(mode=wanted & 0o770)
    assert judge_queue_access(repaired, access_to(repaired, wanted & 0o770)).verdict is Verdict.OK


@given(
    st.sampled_from([0, UID, 1_000]),
    st.sampled_from([0, UID, 1_000]),
    st.integers(0, 0o777),
    st.sets(st.sampled_from([UID, 1_000])),
)
def test_a_queue_of_a_stranger_is_a_warning(owner: int, user: int, wanted: int, groups: set[int]) -> None:
    """Root, this user, and a member of an admitted group are no strangers."""
    info = replace(queue(), uid=owner)
    check = sound(judge_queue_owner(info, access_to(info, wanted, user=user, groups=groups)))
    friend = owner in {0, user} or (UID in groups and wanted & 0o060)
    assert (Code.QUEUE_OWNER if friend else Code.QUEUE_FOREIGN) is check.code
    assert all(command.endswith("queue unlink /events-v2") for command in check.commands)


@given(st.integers(0, 0o777), st.booleans(), st.booleans())
def test_a_configuration_file_that_others_get_at_is_a_warning(
    mode: int, reachable: bool, holds_secret: bool
) -> None:
    """Write access is worse than read access; a group may have both; a closed folder protects the file."""
    file = FileAccess("/etc/v2.ini", mode, UID, UID, reachable, holds_secret)
    check = sound(judge_file(file.path, file))
    if reachable and mode & 0o002:
        assert check.code is Code.CONFIGURATION_FILE_WRITABLE
    elif reachable and holds_secret and mode & 0o004:
        assert check.code is Code.CONFIGURATION_FILE_READABLE
    else:
        assert (Code.CONFIGURATION_FILE_CLOSED, ()) == (check.code, check.commands)
        return
    assert ["chmod o-rwx /etc/v2.ini"] == list(check.commands)


# --- key and disk ---


@given(st.integers(1, 100))
def test_the_length_of_a_secret_decides(size: int) -> None:
    """From 16 bytes on it is good."""
    check = sound(judge_secret(size))
    assert (Code.SECRET_LONG_ENOUGH if size >= 16 else Code.SECRET_SHORT) is check.code
    assert {"size": size} == check.fields


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12))
def test_what_is_in_use_counts_as_room(free: int, used: int, max_size: int) -> None:
    """The disk must hold the rest of the spool, and the advised size would fit."""
    check = sound(judge_space("spool space", "spool.max_size", free=free, used=used, max_size=max_size))
    fields = dict(check.fields)
    if check.verdict is Verdict.WARNING:
        advised = fields.pop("advised")
        assert isinstance(advised, int)
        assert advised <= free + used
    assert (Code.SPACE_SUFFICIENT if free + used >= max_size else Code.SPACE_TOO_SMALL) is check.code
    assert {"key": "spool.max_size", "free": free, "used": used, "max_size": max_size} == fields


@given(st.none() | st.integers(0, 2 * FEW_INODES))
def test_few_files_that_can_still_be_made_are_a_warning(free: int | None) -> None:
    """A disk that doesn't limit them is ok."""
    check = sound(judge_inodes("spool inodes", "/x", free))
    assert check.code is (
        Code.INODES_FEW if free is not None and free < FEW_INODES else Code.INODES_SUFFICIENT
    )
    assert check.fields == {"path": "/x", "free": free}


# --- the words, by an example of each ---


def test_the_words_on_sysctls() -> None:
    """The values and the needs are given, with commands in plain numbers."""
    check_words(
        judge_sysctls(QueueSize(1, 16_384), HostLimits(4_096, 65_536, None)),
        "fs.mqueue.msg_max is 4,096 (1 needed), fs.mqueue.msgsize_max is 65,536 (16,384 needed)",
    )
    check_words(
        judge_sysctls(QueueSize(65_536, 16_384), LIMITS),
        "fs.mqueue.msg_max is 10 (65,536 needed), fs.mqueue.msgsize_max is 8,192 (16,384 needed)",
        "`sysctl -w fs.mqueue.msg_max=65536 fs.mqueue.msgsize_max=16384`, and for the next boot "
        "`printf '%s\\n' fs.mqueue.msg_max=65536 fs.mqueue.msgsize_max=16384 >> "
        "/etc/sysctl.d/60-event-queues.conf`; with docker "
        "`--sysctl fs.mqueue.msg_max=65536 --sysctl fs.mqueue.msgsize_max=16384`",
    )


def test_the_words_on_an_rlimit() -> None:
    """Other queues of the user are named, and the limit is given for each way to set it."""
    check_words(judge_rlimit(SIZE, LIMITS._replace(rlimit=None), {}), "no limit (11,200 bytes needed)")
    check_words(
        judge_rlimit(SIZE, LIMITS, {"/a": 1_000, "/b": 200}),
        "819,200 bytes for all queues of a user (11,200 needed); other queues of this user use 1,200 of "
        "them: /a, /b",
    )
    check_words(
        judge_rlimit(SIZE, TIGHT, {}),
        "11,199 bytes for all queues of a user (11,200 needed)",
        "for the services and the publisher: `ulimit -q 11200` as root in the bash that starts them, "
        "`LimitMSGQUEUE=11200` with systemd, `--ulimit msgqueue=11200` with docker",
    )


def test_the_words_on_a_queue_that_isnt_there() -> None:
    """With and without a queue name, the text says who gets which size, and which is wanted."""
    small = expected_size(SIZE, TIGHT)
    for name, who in (
        (None, "an ordinary user"),
        ("/events-v2", "/events-v2 doesn't exist; an ordinary user who creates it"),
    ):
        check_words(judge_absence(name, SIZE, LIMITS, 0), f"{who} gets one of {SIZE}")
        check_words(judge_absence(name, SIZE, TIGHT, 0), f"{who} gets one of {small} instead of {SIZE}")
        check_words(judge_absence(name, SIZE, TOO_TIGHT, 0), f"{who} can't get one", "raise the limits above")


def test_the_words_on_the_size_of_a_queue() -> None:
    """Both sizes are named, and what to do about one that is too small."""
    unlink = command_line("queue", "unlink", "/events-v2")
    less, more = QueueSize(2, 32), QueueSize(20, 32)
    check_words(judge_queue_size(queue(), less), f"/events-v2 has room for {SIZE} ({less} wanted)")
    check_words(
        judge_queue_size(queue(), more),
        f"/events-v2 has room for {SIZE}, instead of {more}; a queue keeps the size that it was created with",
        "raise the limits above if they are too low; then, once the queue is empty, remove it: "
        f"`{unlink}`. The next service or publisher recreates it",
    )


def test_the_words_on_the_depth_of_a_queue() -> None:
    """Depth and capacity are given, and the error that services get."""
    check_words(judge_queue_depth(queue(3)), "3 of 10 events")
    check_words(
        judge_queue_depth(queue(9)),
        "9 of 10 events: nearly full, so services get EventQueueFullError",
        "check that a publisher of this queue runs, and that its log shows deliveries to the collector",
    )


def test_the_words_on_who_gets_at_a_queue() -> None:
    """The mode and the readers are named, and the command that keeps others out."""

    def words(mode: int, wanted: int, found: str, remedy: str = "") -> None:
        info = queue(mode=mode)
        check = judge_queue_access(info, access_to(info, wanted))
        check_words(check, f"mode {mode:04o}: {info.readers} may remove events{found}", remedy)

    opened = queue(mode=0o666)
    words(0o660, 0o660, "")
    words(0o666, 0o600, "", opened.chmod_command(0o600))
    words(0o666, 0o666, "", f"set queue.mode to 0660, and {opened.chmod_command(0o660)}")
    words(0o602, 0o600, ", and every user of this host may put events", opened.chmod_command(0o600))
    words(
        0o602,
        0o602,
        ", and every user of this host may put events",
        f"set queue.mode to 0600, and {opened.chmod_command(0o600)}",
    )
    words(0o660, 0o600, f"; queue.mode (0600) gives group {UID} less access", opened.chmod_command(0o600))


def test_the_words_on_whose_a_queue_is() -> None:
    """The foreign owner is named, with what that user can do."""
    info = queue()
    unlink = command_line("queue", "unlink", "/events-v2")
    check_words(judge_queue_owner(info, access_to(info, 0o600)), f"user {UID}")
    check_words(
        judge_queue_owner(info, access_to(info, 0o600, user=1)),
        f"user {UID}, neither this user nor root, can read all events and remove the queue",
        f"if that isn't intended, end that user's process, run `{unlink}` as root, and start the publisher "
        "first; otherwise run services and publisher as the same user, or with a common group and queue.mode "
        "= 0660",
    )


def test_the_words_on_a_configuration_file() -> None:
    """The text says who may read the file, or why that is harmless."""
    path, close = "/etc/v2.ini", "as its owner: `chmod o-rwx /etc/v2.ini`"

    def words(
        mode: int, found: str, remedy: str = "", *, reachable: bool = True, holds_secret: bool = True
    ) -> None:
        check_words(
            judge_file(path, FileAccess(path, mode, UID, UID, reachable, holds_secret)), found, remedy
        )

    words(0o400, f"mode 0400: user {UID} may read it")
    words(0o640, f"mode 0640: user {UID} and group {UID} may read it")
    found = "mode 0644: the secret isn't in the file, but in an environment variable"
    words(0o644, found, holds_secret=False)
    words(0o644, "mode 0644, in a folder that other users can't enter", reachable=False)
    words(
        0o644,
        f"mode 0644: every user of this host may read key.secret in {path}",
        f"{close}, or put the secret in an environment variable ($VARIABLE); replace the key if others use "
        "this host",
    )
    words(0o646, f"mode 0646: every user of this host may write to {path}, and redirect the events", close)
    unknown = sound(judge_file("/dev/stdin", None))
    assert unknown.code is Code.CONFIGURATION_FILE_UNKNOWN
    check_words(unknown, "/dev/stdin isn't a file that can be inspected")


def test_the_words_on_a_secret() -> None:
    """Only the length of the secret is shown."""
    check_words(judge_secret(16), "key.secret decodes to 16 bytes")
    check_words(
        judge_secret(5),
        "key.secret decodes to only 5 bytes; it can be guessed, or is incomplete",
        "check that it is complete, or create a new one with `openssl rand -base64 32`",
    )


def test_the_words_on_the_room_on_a_disk() -> None:
    """Free and used space are given, and a size that would fit."""
    room = partial(judge_space, "spool space", "spool.max_size", free=3_000, used=1_000)
    check_words(room(max_size=4_000), "3,000 bytes free, 1,000 of 4,000 (spool.max_size) in use")
    check_words(
        room(max_size=4_001),
        "3,000 bytes free, 1,000 of 4,001 (spool.max_size) in use: the disk will be full before "
        "spool.max_size is reached",
        "free space on that disk, or set spool.max_size to 2000 or less",
    )


def test_the_words_on_inodes() -> None:
    """The free inodes are given, and the disk."""
    check_words(judge_inodes("spool inodes", "/x", None), "not limited")
    check_words(judge_inodes("spool inodes", "/x", 65_536), "65,536 free")
    check_words(
        judge_inodes("spool inodes", "/x", 7),
        "the disk of /x can hold only 7 more files, and each service has at least one segment",
        "delete files there, or use a disk with more inodes",
    )


def test_the_words_on_a_queue_beside_a_spool() -> None:
    """The publisher can do without that queue."""
    limits = HostLimits(10, 8_192, 100)
    check = sound(judge_absence("/events-v2", QueueSize(10, 8_192), limits, 0, optional=True))
    assert check.code is Code.QUEUE_MISSING_BESIDE_SPOOL
    check_words(
        check,
        "/events-v2 doesn't exist; an ordinary user who creates it can't get one; the publisher delivers the "
        "spool, and retries",
        "set queue.transport = spool if no service needs the queue; otherwise raise the limits above",
    )
