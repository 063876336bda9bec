from __future__ import annotations

from functools import partial

from hypothesis import example, given
from hypothesis import strategies as st

from baseplate_events.cli.common import command_line
from baseplate_events.cli.doctor.checks import (
    expected_size,
    judge_absence,
    judge_queue_access,
    judge_queue_depth,
    judge_queue_size,
    judge_rlimit,
    judge_secret,
    judge_space,
    judge_sysctls,
)
from baseplate_events.cli.doctor.findings import Code, Verdict
from baseplate_events.cli.queue.info import MOUNT_COMMAND, QueueInfo
from baseplate_events.transport.limits import HostLimits, QueueSize
from tests.support.doctors import check_words, sound
from tests.support.strategies import host_limits, queue_sizes

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
    """A limit that is too low is a warning with the one that is enough; others are named."""
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
    """Only where none can be made is that a problem; otherwise the size is given beside the one wanted."""
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
    """Then the command removes it, for the next one to make it as it should be."""
    check = sound(judge_queue_size(queue(size=size), wanted))
    assert (Code.QUEUE_LARGE_ENOUGH if size.covers(wanted) else Code.QUEUE_TOO_SMALL) is check.code
    assert check.fields == {
        "queue": "/events-v2",
        "size": {"capacity": size[0], "max_event_size": size[1]},
        "wanted": {"capacity": wanted[0], "max_event_size": wanted[1]},
    }
    assert all(command.endswith("queue unlink v2") for command in check.commands)
    assert size.covers(wanted) == (not check.commands)


@given(queue_sizes, st.data())
def test_a_queue_is_nearly_full_from_nine_tenths_on(size: QueueSize, data: st.DataObject) -> None:
    """Fewer than nine tenths, or than two events, are no reason for a warning."""
    depth = data.draw(st.integers(0, size.max_messages))
    check = sound(judge_queue_depth(queue(depth, size=size)))
    full = depth >= 2 and depth >= 0.9 * size.max_messages
    assert (Code.QUEUE_NEARLY_FULL if full else Code.QUEUE_HAS_ROOM) is check.code
    assert (depth, size.max_messages) == (check.fields["depth"], check.fields["capacity"])


@given(st.integers(0, 0o777), st.integers(0, 0o777), st.booleans())
def test_a_queue_that_every_user_can_read_is_a_warning(mode: int, wanted: int, shown: bool) -> None:
    """The commands end that: with the mode that is wanted, or without the bits of others in that one."""
    check = sound(judge_queue_access(queue(mode=mode, shown=shown), wanted))
    assert check.fields == {
        "queue": "/events-v2",
        "mode": f"{mode:04o}",
        "user": str(UID),
        "group": str(UID),
    }
    if not mode & 0o004:
        assert check.code is Code.QUEUE_ACCESS_LIMITED
        return
    assert (Code.QUEUE_MODE_OPEN_TO_ALL if wanted & 0o004 else Code.QUEUE_OPEN_TO_ALL) is check.code
    *mount, chmod = check.commands
    assert ([] if shown else [MOUNT_COMMAND]) == mount
    given_mode = int(chmod.split()[1], 8)
    assert not given_mode & 0o004
    assert given_mode == (wanted & 0o770 if wanted & 0o004 else wanted)


# --- key and disk ---


@given(st.integers(1, 100))
def test_the_length_of_a_secret_decides(size: int) -> None:
    """From 16 bytes on it is good."""
    check = sound(judge_secret(size))
    assert (Code.SECRET_LONG_ENOUGH if size >= 16 else Code.SECRET_SHORT) is check.code
    assert {"size": size} == check.fields


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12))
def test_what_is_in_use_counts_as_room(free: int, used: int, max_size: int) -> None:
    """The disk must hold what is still to come, and the size that is advised would fit."""
    check = sound(judge_space("spool space", "spool.max_size", free=free, used=used, max_size=max_size))
    fields = dict(check.fields)
    if check.verdict is Verdict.WARNING:
        advised = fields.pop("advised")
        assert isinstance(advised, int)
        assert advised <= free + used
    assert (Code.SPACE_SUFFICIENT if free + used >= max_size else Code.SPACE_TOO_SMALL) is check.code
    assert {"key": "spool.max_size", "free": free, "used": used, "max_size": max_size} == fields


# --- the words, by an example of each ---


def test_the_words_on_sysctls() -> None:
    """The values are there beside the need, and the commands to lift them, in numbers that a shell reads."""
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
    """Other queues of the user are named, and the limit is written for each way to set it."""
    check_words(judge_rlimit(SIZE, LIMITS._replace(rlimit=None), {}), "no limit (11,200 bytes needed)")
    check_words(
        judge_rlimit(SIZE, LIMITS, {"/a": 1_000, "/b": 200}),
        "819,200 bytes for all queues of a user (11,200 needed); "
        "other queues of this user take 1,200 of them: /a, /b",
    )
    check_words(
        judge_rlimit(SIZE, TIGHT, {}),
        "11,199 bytes for all queues of a user (11,200 needed)",
        "for services and publisher alike: `ulimit -q 11200` as root in the bash that starts them, "
        "`LimitMSGQUEUE=11200` with systemd, `--ulimit msgqueue=11200` with docker",
    )


def test_the_words_on_a_queue_that_isnt_there() -> None:
    """It is said with and without a name who gets what; a size is named beside the one that is wanted."""
    small = expected_size(SIZE, TIGHT)
    for name, who in (
        (None, "an ordinary user"),
        ("/events-v2", "/events-v2 isn't there; whoever makes it, as an ordinary user,"),
    ):
        check_words(judge_absence(name, SIZE, LIMITS, 0), f"{who} gets room for {SIZE}")
        check_words(judge_absence(name, SIZE, TIGHT, 0), f"{who} gets room for {small}, instead of {SIZE}")
        check_words(
            judge_absence(name, SIZE, TOO_TIGHT, 0), f"{who} gets none at all", "lift the limits above"
        )


def test_the_words_on_the_size_of_a_queue() -> None:
    """Both sizes are named, and what to do about one that is too small."""
    unlink = command_line("queue", "unlink", "v2")
    less, more = QueueSize(2, 32), QueueSize(20, 32)
    check_words(judge_queue_size(queue(), less), f"/events-v2 has room for {SIZE} ({less} wanted)")
    check_words(
        judge_queue_size(queue(), more),
        f"/events-v2 has room for {SIZE}, instead of {more}; a queue keeps the size that it was made with",
        "lift the limits above if they are too low, then remove it at a moment when it is empty: "
        f"`{unlink}`. Whoever comes next makes it anew",
    )


def test_the_words_on_the_depth_of_a_queue() -> None:
    """It is named beside the capacity, and the error that services get."""
    check_words(judge_queue_depth(queue(3)), "3 of 10 events")
    check_words(
        judge_queue_depth(queue(9)),
        "9 of 10 events: nearly full, so services get EventQueueFullError",
        "see that a publisher of this queue runs and gets through to the collector; its log tells",
    )


def test_the_words_on_who_gets_at_a_queue() -> None:
    """Mode and takers are named, and the command that keeps others out."""
    closed, opened = queue(mode=0o660), queue(mode=0o666)
    check_words(judge_queue_access(closed, 0o600), f"mode 0660: {closed.takers} may take events away")
    found = f"mode 0666: {opened.takers} may take events away"
    check_words(judge_queue_access(opened, 0o600), found, opened.chmod_command(0o600))
    check_words(
        judge_queue_access(opened, 0o666),
        found,
        f"set queue.mode to 0600, or to 0660 with a common group, and {opened.chmod_command(0o660)}",
    )


def test_the_words_on_a_secret() -> None:
    """Its bytes are counted, and nothing else of it is there."""
    check_words(judge_secret(16), "key.secret decodes to 16 bytes")
    check_words(
        judge_secret(5),
        "key.secret decodes to only 5 bytes; it can be guessed, or a part of it is missing",
        "see that all of it is there, or have a new one made with `openssl rand -base64 32`",
    )


def test_the_words_on_the_room_on_a_disk() -> None:
    """What is free and in use is named, and a size that would fit."""
    room = partial(judge_space, "spool space", "spool.max_size", free=3_000, used=1_000)
    check_words(room(max_size=4_000), "3,000 bytes free, 1,000 of 4,000 (spool.max_size) in use")
    check_words(
        room(max_size=4_001),
        "3,000 bytes free, 1,000 of 4,001 (spool.max_size) in use: the disk is full before "
        "spool.max_size is reached",
        "make room on that disk, or set spool.max_size to 2000 or less",
    )
