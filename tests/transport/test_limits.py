from __future__ import annotations

import itertools
import logging
import os
import re
import resource
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from baseplate_events.errors import EventQueueLimitError
from baseplate_events.transport import limits as limits_module
from baseplate_events.transport.descriptor import Descriptor, make_queue
from baseplate_events.transport.limits import (
    DEFAULT_MSG_MAX,
    DEFAULT_MSGSIZE_MAX,
    PREFERRED_MESSAGES,
    SMALLEST_MESSAGE_SIZE,
    SPOOL_REMEDY,
    HostLimits,
    Negotiation,
    QueueSize,
    Refusal,
    queue_status,
    queues_of_user,
    read_limits,
    reductions,
    unlink_command,
)
from baseplate_events.transport.posix import MessageQueue, unlink_queue
from tests.support.commands import run
from tests.support.examples import examples
from tests.support.queues import (
    bytes_of_queues,
    drain,
    fresh_name,
    lasting_files,
    needs_root,
    open_files,
    producer,
    reader,
)
from tests.support.strategies import host_limits, queue_sizes


class Kernel(NamedTuple):
    """What the kernel does when a process makes a queue."""

    limits: HostLimits
    privileged: bool = False
    used: int = 0

    def refuse(self, size: QueueSize) -> Refusal | None:
        bounds = QueueSize(self.limits.msg_max, self.limits.msgsize_max)
        if not self.privileged and not bounds.covers(size):
            return Refusal.BOUNDS
        if self.limits.rlimit is not None and self.used + size.bytes_charged > self.limits.rlimit:
            return Refusal.BYTES
        return None

    def negotiate(self, asked: QueueSize) -> tuple[Negotiation, QueueSize | None, list[QueueSize]]:
        """Create a queue as `MessageQueue` does; return the negotiation, the size, and all sizes tried."""
        negotiation = Negotiation(asked, self.limits)
        tried = [asked]
        while (refusal := self.refuse(tried[-1])) is not None:
            smaller = negotiation.refused(refusal)
            if smaller is None:
                return negotiation, None, tried
            tried.append(smaller)
        return negotiation, tried[-1], tried


def _kernel(limits: HostLimits, privileged: bool, share: float) -> Kernel:
    return Kernel(limits, privileged, int((limits.rlimit or 0) * share))


#: The size that services and publishers ask for unless they are configured otherwise.
DEFAULT = QueueSize(10_000, 102_400)

#: A command that explanations quote; the tests of `unlink_command` are about the real one.
UNLINK = "queue unlink /x"

#: Kernels of which other queues of the user have taken a share.
kernels = st.builds(_kernel, host_limits, st.booleans(), st.one_of(st.just(0.0), st.floats(0, 1)))


@given(queue_sizes)
def test_charge_is_that_of_the_kernel(size: QueueSize) -> None:
    """A queue is charged its bytes, a header for each message and a node for each up to 32,768 priorities."""
    messages, bytes_each = size
    assert messages * bytes_each + messages * 48 + min(messages, 32_768) * 48 == size.bytes_charged


@needs_root
@examples(25)
@given(st.integers(1, 10), st.integers(1, 8_192))
def test_charge_is_what_this_kernel_takes(messages: int, message_size: int) -> None:
    """A queue can be made with exactly its charge as the limit, and not with one byte less."""
    size = QueueSize(messages, message_size)
    with fresh_name() as name:
        with bytes_of_queues(size.bytes_charged - 1):
            assert Refusal.BYTES is make_queue(name, size, mode=0o600, read=True)
        with bytes_of_queues(size.bytes_charged):
            made = make_queue(name, size, mode=0o600, read=True)
        assert isinstance(made, Descriptor)
        assert size == made.size


@given(queue_sizes, st.none() | st.integers(0, 10_000_000) | st.integers(0, 2**40))
@example(QueueSize(65_536, 16 * 1024 * 1024), None)
def test_reductions_go_down_to_the_smallest_and_end(refused: QueueSize, rlimit: int | None) -> None:
    """Each size is smaller than the one before in one way, down to one small message within few tries."""
    sizes = list(reductions(refused, rlimit))
    assert len(sizes) < 170
    for larger, smaller in itertools.pairwise([refused, *sizes]):
        assert larger.covers(smaller)
        assert larger.bytes_charged > smaller.bytes_charged
    for larger, smaller in itertools.pairwise(sizes):
        assert (larger.max_messages == smaller.max_messages) != (
            larger.max_message_size == smaller.max_message_size
        )
    smallest = QueueSize(1, min(refused.max_message_size, SMALLEST_MESSAGE_SIZE))
    assert smallest == [refused, *sizes][-1]


@given(queue_sizes, st.none() | st.integers(0, 10_000_000))
def test_several_dozen_messages_come_before_large_ones(refused: QueueSize, rlimit: int | None) -> None:
    """Depth goes to 48, then message size to 8,192, then both to 10 and 512, or to a smaller request."""
    for depth, message_size in reductions(refused, rlimit):
        if depth > min(refused.max_messages, PREFERRED_MESSAGES):
            assert message_size == refused.max_message_size
        if depth < min(refused.max_messages, PREFERRED_MESSAGES):
            assert message_size <= DEFAULT_MSGSIZE_MAX
        if message_size < min(refused.max_message_size, DEFAULT_MSGSIZE_MAX):
            assert depth <= DEFAULT_MSG_MAX
        if depth < min(refused.max_messages, DEFAULT_MSG_MAX):
            assert message_size <= SMALLEST_MESSAGE_SIZE


def _waypoints(asked: QueueSize) -> list[QueueSize]:
    """Return sizes below which a queue must not be reduced if they are allowed."""
    return [
        QueueSize(min(asked.max_messages, depth), min(asked.max_message_size, message_size))
        for depth, message_size in (
            (PREFERRED_MESSAGES, DEFAULT_MSGSIZE_MAX),
            (DEFAULT_MSG_MAX, DEFAULT_MSGSIZE_MAX),
            (DEFAULT_MSG_MAX, SMALLEST_MESSAGE_SIZE),
            (1, SMALLEST_MESSAGE_SIZE),
        )
    ]


@given(queue_sizes, st.integers(0, 10_000_000) | st.integers(0, 2**40))
def test_first_reduction_leaves_half_of_the_limit(refused: QueueSize, rlimit: int) -> None:
    """The first size takes at most half of the limit, and isn't smaller than necessary."""
    *waypoints, smallest = _waypoints(refused)
    assume(refused != smallest)
    first = next(reductions(refused, rlimit))
    assert first.bytes_charged <= max(rlimit // 2, smallest.bytes_charged)
    for waypoint in waypoints:
        assert waypoint == refused or waypoint.bytes_charged > rlimit // 2 or first.covers(waypoint)
    if first != smallest and first.max_message_size == refused.max_message_size:
        deeper = first.max_messages + 1
        assert (
            QueueSize(deeper, first.max_message_size).bytes_charged > rlimit // 2
            or refused.bytes_charged <= rlimit // 2
        )


@pytest.mark.parametrize(
    ("limits", "privileged", "size"),
    [
        # Stock, as in a container; then root on a laptop.
        (HostLimits(10, 8_192, 819_200), False, QueueSize(10, 8_192)),
        (HostLimits(10, 8_192, 819_200), True, QueueSize(48, 8_192)),
        (HostLimits(30, 8_192, 819_200), False, QueueSize(30, 8_192)),
        (HostLimits(10_000, 102_400, 819_200), False, QueueSize(48, 8_192)),
        (HostLimits(10_000, 102_400, 8_192_000), False, QueueSize(48, 78_400)),
        (HostLimits(10_000, 102_400, 81_920_000), False, QueueSize(399, 102_400)),
        (HostLimits(10_000, 8_192, 819_200), False, QueueSize(49, 8_192)),
        (HostLimits(10, 102_400, 819_200), False, QueueSize(10, 40_213)),
        (HostLimits(10, 8_192, 20_000), False, QueueSize(10, 849)),
        (HostLimits(10, 8_192, 5_000), False, QueueSize(4, 512)),
        (HostLimits(10, 8_192, 700), False, QueueSize(1, 512)),
        (HostLimits(10_000, 102_400, None), False, DEFAULT),
    ],
)
def test_sizes_of_a_queue_of_the_default_size(limits: HostLimits, privileged: bool, size: QueueSize) -> None:
    """These are the sizes that hosts allow where the default size is asked for."""
    assert size == Kernel(limits, privileged).negotiate(DEFAULT)[1]


@given(kernels, queue_sizes)
def test_negotiation_gets_what_the_host_allows(kernel: Kernel, asked: QueueSize) -> None:
    """The result is allowed and no larger than requested; none only if the smallest size isn't allowed."""
    _, got, tried = kernel.negotiate(asked)
    smallest = QueueSize(1, min(asked.max_message_size, SMALLEST_MESSAGE_SIZE))
    if got is None:
        assert kernel.refuse(smallest) is not None
    else:
        assert kernel.refuse(got) is None
        assert asked.covers(got)
    assert len(set(tried)) == len(tried)


@given(kernels, queue_sizes)
def test_negotiation_gets_several_dozen_messages_first(kernel: Kernel, asked: QueueSize) -> None:
    """It gets 48 messages of 8,192 bytes, or 10, or 10 of 512, if that is allowed and requested."""
    _, got, _ = kernel.negotiate(asked)
    allowed = asked if kernel.privileged else kernel.limits.clamp(asked)
    for waypoint in _waypoints(allowed):
        leaves_half = kernel.limits.rlimit is None or waypoint.bytes_charged <= kernel.limits.rlimit // 2
        if kernel.refuse(waypoint) is None and leaves_half:
            assert got is not None
            assert got.covers(waypoint)


@given(host_limits, queue_sizes, st.none() | st.integers(0, 200_000))
def test_all_messages_that_the_sysctl_allows_are_taken(
    limits: HostLimits, asked: QueueSize, rest: int | None
) -> None:
    """The ten messages of an ordinary user aren't reduced while 512 bytes each fit."""
    limits = limits._replace(msg_max=DEFAULT_MSG_MAX)
    depth = min(asked.max_messages, DEFAULT_MSG_MAX)
    small = limits.clamp(QueueSize(depth, min(asked.max_message_size, SMALLEST_MESSAGE_SIZE)))
    limits = limits._replace(rlimit=None if rest is None else 2 * small.bytes_charged + rest)
    _, got, _ = Kernel(limits).negotiate(asked)
    assert got is not None
    assert depth == got.max_messages


@given(kernels, queue_sizes)
def test_negotiation_wastes_little(kernel: Kernel, asked: QueueSize) -> None:
    """A queue that is smaller than asked takes over three quarters of what was free, or half the limit."""
    _, got, tried = kernel.negotiate(asked)
    rlimit = kernel.limits.rlimit
    assume(got is not None and rlimit is not None and kernel.refuse(tried[-2] if len(tried) > 1 else asked))
    assert got is not None
    assert rlimit is not None
    if kernel.refuse(tried[-2]) is Refusal.BYTES and got.max_messages >= 8:
        assert got.bytes_charged > min(rlimit // 2, rlimit - kernel.used) * 3 / 4


@given(st.integers(100_000, 10_000_000), st.integers(1, 40_000), queue_sizes)
def test_two_queues_of_a_user_find_room(rlimit: int, message_size: int, first: QueueSize) -> None:
    """After a reduced queue, a second one finds room for at least ten events."""
    host = Kernel(HostLimits(10, 8_192, rlimit), privileged=True)
    _, got, tried = host.negotiate(first)
    if got is not None and len(tried) > 1:
        second = QueueSize(10_000, message_size)
        _, other, _ = host._replace(used=got.bytes_charged).negotiate(second)
        assert other is not None
        assert other.covers(QueueSize(10, min(message_size, SMALLEST_MESSAGE_SIZE)))


def test_three_queues_of_root_find_room_on_a_stock_host() -> None:
    """Two queues of a laptop's root get 48 events each, and leave ten for a third."""
    host = Kernel(HostLimits(10, 8_192, 819_200), privileged=True)
    depths: list[int] = []
    for _ in range(3):
        _, got, _ = host.negotiate(DEFAULT)
        assert got is not None
        depths.append(got.max_messages)
        host = host._replace(used=host.used + got.bytes_charged)
    assert depths == [48, 48, 10]


@given(kernels, queue_sizes)
def test_crowded_means_that_others_took_the_bytes(kernel: Kernel, asked: QueueSize) -> None:
    """Other queues are blamed exactly if a size was refused that the user could have without them."""
    negotiation, _, tried = kernel.negotiate(asked)
    alone = kernel._replace(used=0)
    refused = [size for size in tried if kernel.refuse(size) is Refusal.BYTES]
    assert any(alone.refuse(size) is None for size in refused) == negotiation.crowded


def lifted(kernel: Kernel, text: str, form: str) -> Kernel:
    """Return the kernel after the commands of an explanation, in the form for the host or for docker."""
    commands = "".join(re.findall(r"`[^`]*`", text.split("with docker")[form == "docker"]))
    values = {key: int(value) for key, value in re.findall(r"([\w.]+)[= ](\d+)", commands)}
    before = kernel.limits
    after = HostLimits(
        values.get("fs.mqueue.msg_max", before.msg_max),
        values.get("fs.mqueue.msgsize_max", before.msgsize_max),
        values.get("q" if form == "host" else "msgqueue", before.rlimit),
    )
    return kernel._replace(limits=after)


@given(kernels, queue_sizes, st.sampled_from(["host", "docker"]))
def test_commands_of_an_explanation_lift_the_limits(kernel: Kernel, asked: QueueSize, form: str) -> None:
    """After the commands of an explanation, the full size is allowed; before, it wasn't."""
    negotiation, got, tried = kernel.negotiate(asked)
    assume(len(tried) > 1 or got is None)
    assume(negotiation.crowded or kernel.used == 0)  # otherwise other queues are indistinguishable from none
    text = negotiation.explain(got, found=False, unlink=UNLINK)
    assert kernel.refuse(asked) is not None
    assert lifted(kernel, text, form).refuse(asked) is None


@given(kernels, queue_sizes)
def test_only_needed_commands_are_given(kernel: Kernel, asked: QueueSize) -> None:
    """Without any one of the settings that an explanation changes, the full size isn't allowed."""
    negotiation, got, tried = kernel._replace(used=0).negotiate(asked)
    assume(len(tried) > 1 or got is None)
    before = kernel.limits
    after = lifted(kernel._replace(used=0), negotiation.explain(got, found=False, unlink=UNLINK), "host")
    for field in ("msg_max", "msgsize_max", "rlimit"):
        if getattr(before, field) != getattr(after.limits, field):
            without = after.limits._replace(**{field: getattr(before, field)})
            assert after._replace(limits=without).refuse(asked) is not None


#: What an explanation says where configuration is the cause, and where limits are.
CONFIGURE = "same max_queue_size and max_event_size"
LIMITS = "because"


@given(queue_sizes, queue_sizes, st.integers(0, 100), st.integers(0, 100), st.none() | st.integers(0, 10**9))
def test_a_queue_that_was_configured_smaller_is_no_limit_of_the_host(
    asked: QueueSize, got: QueueSize, messages: int, message_size: int, rest: int | None
) -> None:
    """If the host allows the full size now, the text names only the configuration, and no command."""
    assume(not got.covers(asked))
    rlimit = None if rest is None else asked.bytes_charged + rest
    limits = HostLimits(asked.max_messages + messages, asked.max_message_size + message_size, rlimit)
    text = Negotiation(asked, limits).explain(got, found=True, unlink=UNLINK)
    assert text.startswith(f"it was created with room for {got} instead of {asked}. ")
    assert CONFIGURE in text
    for word in ("because", "fs.mqueue", "RLIMIT", "ulimit", "docker"):
        assert word not in text


@given(kernels, queue_sizes)
def test_a_queue_that_limits_made_smaller_is_explained_by_them(kernel: Kernel, asked: QueueSize) -> None:
    """The finder of a reduced queue reads the same causes as its creator, except for other queues."""
    negotiation, got, _ = kernel.negotiate(asked)
    assume(got is not None and got != asked and not negotiation.crowded)
    assert got is not None
    made = negotiation.explain(got, found=False, unlink=UNLINK)
    found = Negotiation(asked, kernel.limits).explain(got, found=True, unlink=UNLINK)
    assert CONFIGURE not in found
    if not kernel.privileged or "fs.mqueue" not in found:  # else the maker's privilege doesn't show
        assert made.partition(", instead")[2] == found.partition(", instead")[2]


@given(host_limits, queue_sizes, queue_sizes)
def test_a_found_queue_is_given_the_commands_for_the_full_size(
    limits: HostLimits, asked: QueueSize, got: QueueSize
) -> None:
    """After the commands, any possible creator gets the full size, or the configuration is named."""
    got = limits.clamp(got)
    assume(not got.covers(asked))
    text = Negotiation(asked, limits).explain(got, found=True, unlink=UNLINK)
    assert str(got) in text
    assert str(asked) in text
    assert (LIMITS in text) != (CONFIGURE in text)
    by_privilege = LIMITS in text and "fs.mqueue" not in text
    assert lifted(Kernel(limits, by_privilege), text, "host").refuse(asked) is None


@given(host_limits, queue_sizes, queue_sizes)
def test_sysctls_are_no_cause_where_a_queue_exceeds_them(
    limits: HostLimits, asked: QueueSize, got: QueueSize
) -> None:
    """A queue beyond a sysctl was made by a process that the sysctls don't bind."""
    assume(not got.covers(asked) and limits.clamp(got) != got)
    assert "fs.mqueue" not in Negotiation(asked, limits).explain(got, found=True, unlink=UNLINK)


@given(kernels, queue_sizes, st.booleans(), st.integers(0, 20))
def test_no_queue_that_holds_events_is_to_be_removed(
    kernel: Kernel, asked: QueueSize, found: bool, depth: int
) -> None:
    """Events in the queue are to be delivered first; a missing queue isn't to be removed."""
    negotiation, got, _ = kernel.negotiate(asked)
    text = negotiation.explain(got, found=found and got is not None, unlink=UNLINK, depth=depth)
    before, command, after = text.partition(f" it is empty, run `{UNLINK}`")
    assert (got is not None) == bool(command)
    assert "unlink" not in before + after
    assert (bool(command) and depth > 0) == (f" {depth} event{'s'[: depth > 1]}:" in before)


@given(kernels, queue_sizes, st.booleans(), st.booleans())
def test_an_explanation_is_one_line(kernel: Kernel, asked: QueueSize, listed: bool, found: bool) -> None:
    """The explanation is one line, names the spool, and lists other queues only if they use the bytes."""
    negotiation, got, _ = kernel.negotiate(asked)
    neighbours = ("/other",) if listed else ()
    text = negotiation.explain(got, found=found and got is not None, unlink=UNLINK, neighbours=neighbours)
    assert "\n" not in text
    assert SPOOL_REMEDY in text
    assert "spool_directory" in SPOOL_REMEDY
    assert "EVENT_SPOOL_DIRECTORY" in SPOOL_REMEDY
    assert (listed and negotiation.crowded) == ("(/other)" in text)


def test_the_words_of_an_explanation() -> None:
    """A queue that limits made smaller, one that was configured so, and one of both."""
    spool = f". A spool has no such limit: {SPOOL_REMEDY}. "
    stock = HostLimits(10, 8_192, 819_200)
    negotiation, got, _ = Kernel(stock).negotiate(DEFAULT)
    needed = DEFAULT.bytes_charged
    commands = (
        f"`sysctl -w fs.mqueue.msg_max=10000 fs.mqueue.msgsize_max=102400` and `ulimit -q {needed}` "
        f"(systemd: `LimitMSGQUEUE={needed}`); with docker: `--sysctl fs.mqueue.msg_max=10000 "
        f"--sysctl fs.mqueue.msgsize_max=102400 --ulimit msgqueue={needed}`"
    )
    assert negotiation.explain(got, found=False, unlink=UNLINK) == (
        "it has room for 10 events of at most 8,192 bytes instead of 10,000 events of at most 102,400 "
        "bytes, because fs.mqueue.msg_max is 10, fs.mqueue.msgsize_max is 8192 and RLIMIT_MSGQUEUE is "
        f"819,200 bytes and the full size needs {needed:,}. To raise the limits: {commands}{spool}The queue "
        "keeps its size until it is removed: once it is empty, run `queue unlink /x`; services and publisher "
        "then recreate it"
    )
    few, smaller = QueueSize(5, 1_000), QueueSize(3, 1_000)
    assert Negotiation(few, stock).explain(smaller, found=True, unlink=UNLINK, depth=2) == (
        "it was created with room for 3 events of at most 1,000 bytes instead of 5 events of at most 1,000 "
        f"bytes. Give services and publisher the same max_queue_size and max_event_size{spool}"
        "The queue keeps its size until it is removed, but it holds 2 events: let the publisher drain it "
        "first. Once it is empty, run `queue unlink /x`; services and publisher then recreate it"
    )
    assert (
        Negotiation(DEFAULT, stock)
        .explain(smaller, found=True, unlink=UNLINK)
        .startswith(
            "it was created with room for 3 events of at most 1,000 bytes instead of 10,000 events of at "
            "most 102,400 bytes. Give services and publisher the same max_queue_size and max_event_size. "
            f"The requested size also needs {commands}{spool}"
        )
    )


def test_a_queue_that_only_a_crowded_root_could_have_made_counts_as_configured() -> None:
    """Root is given the commands for the full size, which an ordinary user needs."""
    asked, limits, got = QueueSize(5, 10_000), HostLimits(10, 9_000, 819_200), QueueSize(5, 8_750)
    assert got in list(reductions(asked, limits.rlimit))
    assert got not in list(reductions(limits.clamp(asked), limits.rlimit))
    text = Negotiation(asked, limits).explain(got, found=True, unlink=UNLINK)
    assert CONFIGURE in text
    assert "`sysctl -w fs.mqueue.msgsize_max=10000`" in text


def test_the_command_that_removes_a_queue_is_this_package() -> None:
    """The command runs as it is, refuses while the queue holds events, and removes an empty queue."""
    with fresh_name("/test it's-") as name, reader(name) as queue:
        command = unlink_command(name)
        assert command.startswith("python -m baseplate_events queue unlink '/test it")
        program = f"{sys.executable}{command.removeprefix('python')}"
        queue.put(b"x")
        refused = run("sh", "-c", program)
        assert (1, False) == (refused.status, queue.removed)
        assert drain(queue) == [b"x"]
        run("sh", "-c", program).check()
        assert queue.removed


@pytest.mark.parametrize("commands", [True, False])
def test_the_command_has_the_name_of_a_copy(tmp_path: Path, commands: bool) -> None:
    """A vendored copy names itself; a copy of the library alone, which has no commands, leaves a blank."""
    package = tmp_path / "acme" / "events"
    source = Path(limits_module.__file__).parents[1]
    (package / "transport").mkdir(parents=True)
    for part in ("_compat.py", "_words.py", "transport/limits.py", *(["__main__.py"] if commands else [])):
        shutil.copy(source / part, package / part)
    code = "from acme.events.transport.limits import unlink_command; print(unlink_command('/events-v2'))"
    named = "acme.events" if commands else "PACKAGE"
    shown = run(sys.executable, "-c", code, cwd=tmp_path).check()
    assert f"python -m {named} queue unlink /events-v2\n" == shown


def test_limits_of_this_host_are_read() -> None:
    """The limits are those that the kernel shows."""
    limits = read_limits()
    sysctls = Path("/proc/sys/fs/mqueue")
    assert int((sysctls / "msg_max").read_text()) == limits.msg_max
    assert int((sysctls / "msgsize_max").read_text()) == limits.msgsize_max


def test_limits_that_cannot_be_read_are_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without /proc, the kernel's defaults are assumed."""
    monkeypatch.setattr(limits_module, "_SYSCTL_DIRECTORY", str(tmp_path))
    limits = read_limits()
    assert (limits.msg_max, limits.msgsize_max) == (10, 8_192)


@needs_root
def test_the_rlimit_is_read() -> None:
    """RLIMIT_MSGQUEUE is read, and an infinite one is no limit."""
    with bytes_of_queues(12_345):
        assert read_limits().rlimit == 12_345


def test_no_rlimit_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """An infinite RLIMIT_MSGQUEUE is no limit, and neither is one of a system that has none."""

    def unlimited(_kind: int) -> tuple[int, int]:
        return resource.RLIM_INFINITY, resource.RLIM_INFINITY

    monkeypatch.setattr(resource, "getrlimit", unlimited)
    assert read_limits().rlimit is None
    monkeypatch.setattr(sys, "platform", "darwin")
    assert read_limits().rlimit is None


@given(st.lists(st.sampled_from(["b", "a", "events-x", "c", "d", "e", "f"]), unique=True))
def test_queues_of_the_user_are_listed(names: list[str]) -> None:
    """Up to five other queues of the user are named, in order; the queue itself isn't."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        patch.setattr(limits_module, "_QUEUE_DIRECTORY", str(directory))
        for name in names:
            (directory / name).touch()
        expected = tuple(f"/{name}" for name in sorted(names) if name != "a")[:5]
        assert expected == queues_of_user(other_than="/a")
        status = queue_status("/a")
        assert ("a" in names) == (status is not None and status.st_uid == os.geteuid())


def test_queues_of_the_user_may_be_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If the kernel's queues don't show, there is nothing to list."""
    monkeypatch.setattr(limits_module, "_QUEUE_DIRECTORY", str(tmp_path / "nothing"))
    assert queues_of_user(other_than="/a") == ()
    assert queue_status("/a") is None


def test_a_smaller_queue_that_exists_is_warned_about_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A queue found smaller than requested is a warning, once for each size; a larger one is fine."""
    with reader(name, 2, 16), reader(name, 1, 16), reader(name, 2, 15):
        assert caplog.records == []
        for _ in range(3):
            producer(name, 3, 16).close()
            producer(name, 2, 17).close()
        (record,) = caplog.records
        assert (record.levelno, record.name) == (logging.WARNING, "baseplate_events.transport.posix")
        assert f"Event queue {name}: " in record.getMessage()
        assert " 2 events " in record.getMessage()
        assert " 16 bytes" in record.getMessage()
        assert CONFIGURE in record.getMessage()
        assert "fs.mqueue" not in record.getMessage()
        assert f"`{unlink_command(name)}`" in record.getMessage()
        unlink_queue(name)
        with reader(name, 2, 8):
            producer(name, 3, 16).close()
        assert len(caplog.records) == 2


def test_a_warning_says_that_events_are_to_be_delivered_first(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning for a smaller queue with events gives their number, before the command that removes it."""
    with reader(name, 2, 16) as queue:
        queue.put(b"x")
        producer(name, 3, 16).close()
        (record,) = caplog.records
        assert " 1 event: " in record.getMessage()
        with pytest.raises(EventQueueLimitError, match=" 1 event: "):
            MessageQueue(name, max_messages=3, max_message_size=16, strict_size=True)


def test_a_smaller_queue_that_exists_can_be_an_error(name: str) -> None:
    """With `strict_size`, a queue that is smaller in any way is refused and left as it is."""
    before = lasting_files()
    with reader(name, 2, 16) as queue:
        queue.put(b"x")
        for messages, size in ((3, 16), (2, 17), (3, 15)):
            with pytest.raises(EventQueueLimitError) as caught:
                MessageQueue(name, max_messages=messages, max_message_size=size, strict_size=True)
            assert re.search(r" 2 events .* 16 bytes ", str(caught.value))
            assert len(before) + 1 == len(
                open_files()
            )  # although the error holds what was alive when it was raised
        MessageQueue(name, max_messages=2, max_message_size=16, strict_size=True).close()
        assert drain(queue) == [b"x"]
    assert open_files() <= before


@needs_root
def test_the_sysctls_are_obeyed_by_an_ordinary_user(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """An ordinary user gets a queue within the sysctls, and a warning with the command that raises them."""
    limits = limits_module.read_limits()
    if limits.msg_max >= 5_000:
        pytest.skip("the host allows what is asked")
    with bytes_of_queues(QueueSize(5_000, 16).bytes_charged), reader(name, 5_000, 16) as queue:
        assert (limits.msg_max, 16) == (queue.max_messages, queue.max_message_size)
    (record,) = caplog.records
    assert "`sysctl -w fs.mqueue.msg_max=5000`" in record.getMessage()
    assert "msgsize_max" not in record.getMessage()
    assert "ulimit" not in record.getMessage()


class Warnings(logging.Handler):
    """Collect log records, also those of the examples of a property."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def __enter__(self) -> Warnings:  # noqa: PYI034 - typing has Self from Python 3.11 on
        logging.getLogger("baseplate_events.transport.posix").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("baseplate_events.transport.posix").removeHandler(self)


@needs_root
@examples(30)
@given(st.integers(2_000, 30_000), st.integers(2, 10), st.integers(1, 8_192))
def test_two_queues_share_the_limit_of_a_user(limit: int, messages: int, message_size: int) -> None:
    """Two queues within a limit that is too small for both find room, and the second blames the first."""
    asked = QueueSize(messages, message_size)
    with fresh_name() as one, fresh_name() as two, bytes_of_queues(limit), reader(one, *asked) as first:
        first_size = QueueSize(first.max_messages, first.max_message_size)
        assert first_size == asked or first_size.bytes_charged <= limit // 2
        smallest = QueueSize(1, min(message_size, SMALLEST_MESSAGE_SIZE))
        if smallest.bytes_charged <= limit - first_size.bytes_charged:
            with Warnings() as warnings, reader(two, *asked) as second:
                second_size = QueueSize(second.max_messages, second.max_message_size)
                if first_size != asked and limit >= 2 * QueueSize(10, SMALLEST_MESSAGE_SIZE).bytes_charged:
                    assert messages == second_size.max_messages
                assert first_size.bytes_charged + second_size.bytes_charged <= limit
            if asked.bytes_charged <= limit and second_size != asked:
                needed = asked.bytes_charged + limit
                assert "other queues of this user" in warnings.texts[0]
                assert f"`ulimit -q {needed}` (systemd: `LimitMSGQUEUE={needed}`)" in warnings.texts[0]
                assert f"`--ulimit msgqueue={needed}`" in warnings.texts[0]


@needs_root
def test_strict_size_negotiates_nothing(name: str) -> None:
    """With `strict_size`, a size beyond the limits is an error with the commands, and nothing is made."""
    with bytes_of_queues(1_000):
        with pytest.raises(EventQueueLimitError) as caught:
            MessageQueue(name, max_messages=2, max_message_size=1_000, strict_size=True)
        needed = QueueSize(2, 1_000).bytes_charged
        assert re.search(rf"RLIMIT_MSGQUEUE .*\b1,000 bytes .*\b{needed:,}\b", str(caught.value))
        assert f"`ulimit -q {needed}`" in str(caught.value)
        assert "unlink" not in str(caught.value)
        assert not unlink_queue(name)


@needs_root
def test_no_room_at_all_is_an_error(name: str) -> None:
    """If not even one message of 512 bytes fits, that is an error with the command that helps."""
    with bytes_of_queues(500):
        with pytest.raises(EventQueueLimitError, match=r"no room for .*ulimit -q"):
            reader(name, 2, 1_000)
        assert not unlink_queue(name)
