from __future__ import annotations

import itertools
import logging
import os
import re
import resource
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from baseplate_events.errors import EventQueueLimitError
from baseplate_events.transport import limits as limits_module
from baseplate_events.transport.descriptor import Descriptor, make_queue
from baseplate_events.transport.limits import (
    SMALLEST_MESSAGE_SIZE,
    HostLimits,
    Negotiation,
    QueueSize,
    Refusal,
    queue_status,
    queues_of_user,
    read_limits,
    reductions,
)
from baseplate_events.transport.posix import MessageQueue, unlink_queue
from tests.support.queues import bytes_of_queues, drain, fresh_name, needs_root, open_files, producer, reader
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
        """Make a queue as `MessageQueue` does; give the negotiation, what was got and all that was tried."""
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


#: Kernels of which other queues of the user have taken a share.
kernels = st.builds(_kernel, host_limits, st.booleans(), st.one_of(st.just(0.0), st.floats(0, 1)))


@given(queue_sizes)
def test_charge_is_that_of_the_kernel(size: QueueSize) -> None:
    """A queue is charged its bytes, a header for each message and a node for each up to 32,768 priorities."""
    messages, bytes_each = size
    assert messages * bytes_each + messages * 48 + min(messages, 32_768) * 48 == size.bytes_charged


@needs_root
@settings(max_examples=25)
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


@given(queue_sizes, st.none() | st.integers(0, 10_000_000))
def test_reductions_go_down_to_the_smallest_and_end(refused: QueueSize, rlimit: int | None) -> None:
    """Each size is smaller than the one before, depth first, down to one small message within few tries."""
    sizes = list(reductions(refused, rlimit))
    assert len(sizes) < 200
    for larger, smaller in itertools.pairwise([refused, *sizes]):
        assert larger.covers(smaller)
        assert larger.bytes_charged > smaller.bytes_charged
        assert smaller.max_messages == 1 or smaller.max_message_size == refused.max_message_size
    smallest = QueueSize(1, min(refused.max_message_size, SMALLEST_MESSAGE_SIZE))
    assert smallest == [refused, *sizes][-1]


@given(queue_sizes, st.integers(0, 10_000_000))
def test_first_reduction_leaves_half_of_the_limit(refused: QueueSize, rlimit: int) -> None:
    """The first size takes at most half of the limit, and as much of it as messages of this size can."""
    assume(refused.max_messages > 1)
    first = next(reductions(refused, rlimit))
    assert first.bytes_charged <= rlimit // 2 or first.max_messages == 1
    deeper = QueueSize(first.max_messages + 1, first.max_message_size)
    assert deeper.bytes_charged > rlimit // 2 or first.max_messages >= refused.max_messages * 7 // 8


@given(kernels, queue_sizes)
def test_negotiation_gets_what_the_host_allows(kernel: Kernel, asked: QueueSize) -> None:
    """What is got is allowed and no larger than asked; and nothing only where the smallest isn't."""
    _, got, tried = kernel.negotiate(asked)
    smallest = QueueSize(1, min(asked.max_message_size, SMALLEST_MESSAGE_SIZE))
    if got is None:
        assert kernel.refuse(smallest) is not None
    else:
        assert kernel.refuse(got) is None
        assert asked.covers(got)
    assert len(set(tried)) == len(tried)


@given(kernels, queue_sizes)
def test_negotiation_keeps_the_size_of_a_message_before_the_depth(kernel: Kernel, asked: QueueSize) -> None:
    """Where one message of the size asked for is allowed, the queue takes messages of that size."""
    _, got, _ = kernel.negotiate(asked)
    if kernel.refuse(QueueSize(1, asked.max_message_size)) is None:
        assert got is not None
        assert asked.max_message_size == got.max_message_size


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
    """After a queue that had to be made smaller, a second one finds room for an event of its full size."""
    host = Kernel(HostLimits(10, 8_192, rlimit), privileged=True)
    _, got, tried = host.negotiate(first)
    if got is not None and got.max_messages > 1 and len(tried) > 1:
        second = QueueSize(10_000, message_size)
        _, other, _ = host._replace(used=got.bytes_charged).negotiate(second)
        assert other is not None
        assert message_size == other.max_message_size


@given(kernels, queue_sizes)
def test_crowded_means_that_others_took_the_bytes(kernel: Kernel, asked: QueueSize) -> None:
    """Other queues are blamed exactly where a size was refused that the user could have without them."""
    negotiation, _, tried = kernel.negotiate(asked)
    alone = kernel._replace(used=0)
    refused = [size for size in tried if kernel.refuse(size) is Refusal.BYTES]
    assert any(alone.refuse(size) is None for size in refused) == negotiation.crowded


def lifted(kernel: Kernel, text: str, form: str) -> Kernel:
    """Give the kernel after the commands of an explanation, in the form for the host or for docker."""
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
    """After the commands that an explanation gives, the full size is allowed; before, it wasn't."""
    negotiation, got, tried = kernel.negotiate(asked)
    assume(len(tried) > 1 or got is None)
    assume(negotiation.crowded or kernel.used == 0)  # other queues can't be told from their absence otherwise
    text = negotiation.explain("/events-v2", got, found=False)
    assert kernel.refuse(asked) is not None
    assert lifted(kernel, text, form).refuse(asked) is None


@given(kernels, queue_sizes)
def test_only_needed_commands_are_given(kernel: Kernel, asked: QueueSize) -> None:
    """Without any one of the settings that an explanation changes, the full size isn't allowed."""
    negotiation, got, tried = kernel._replace(used=0).negotiate(asked)
    assume(len(tried) > 1 or got is None)
    before = kernel.limits
    after = lifted(kernel._replace(used=0), negotiation.explain("/events-v2", got, found=False), "host")
    for field in ("msg_max", "msgsize_max", "rlimit"):
        if getattr(before, field) != getattr(after.limits, field):
            without = after.limits._replace(**{field: getattr(before, field)})
            assert after._replace(limits=without).refuse(asked) is not None


@given(host_limits, queue_sizes, queue_sizes)
def test_an_existing_queue_is_to_be_removed_after_the_commands(
    limits: HostLimits, asked: QueueSize, got: QueueSize
) -> None:
    """Of a queue that was there, the explanation says what it has, and that it must be removed to change."""
    text = Negotiation(asked, limits).explain("/events-v2", got, found=True)
    assert str(got) in text
    assert str(asked) in text
    assert text.endswith(
        """`python3 -c "import posix_ipc; posix_ipc.unlink_message_queue('/events-v2')"` once"""
    )
    assert lifted(Kernel(limits), text, "host").refuse(asked) is None


@given(kernels, queue_sizes, st.booleans())
def test_an_explanation_is_one_line(kernel: Kernel, asked: QueueSize, listed: bool) -> None:
    """An explanation has no line breaks, and lists neighbours only where others took the bytes."""
    negotiation, got, _ = kernel.negotiate(asked)
    text = negotiation.explain("/events-v2", got, found=False, neighbours=("/other",) if listed else ())
    assert "\n" not in text
    assert (listed and negotiation.crowded) == ("(/other)" in text)


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
    """Where the kernel's queues don't show, there is nothing to list."""
    monkeypatch.setattr(limits_module, "_QUEUE_DIRECTORY", str(tmp_path / "nothing"))
    assert queues_of_user(other_than="/a") == ()
    assert queue_status("/a") is None


def test_a_smaller_queue_that_exists_is_warned_about_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever finds a queue smaller than asked warns once for each size; a larger one is fine."""
    with reader(name, 2, 16), reader(name, 1, 16), reader(name, 2, 15):
        assert caplog.records == []
        for _ in range(3):
            producer(name, 3, 16).close()
            producer(name, 2, 17).close()
        (record,) = caplog.records
        assert (record.levelno, record.name) == (logging.WARNING, "baseplate_events.transport.posix")
        assert f"Event queue {name}: " in record.getMessage()
        assert "2 events of at most 16 bytes" in record.getMessage()
        assert "unlink_message_queue" in record.getMessage()
        unlink_queue(name)
        with reader(name, 2, 8):
            producer(name, 3, 16).close()
        assert len(caplog.records) == 2


def test_a_smaller_queue_that_exists_can_be_an_error(name: str) -> None:
    """With `strict_size`, a queue that is smaller in any way is refused and left as it is."""
    before = open_files()
    with reader(name, 2, 16) as queue:
        queue.put(b"x")
        for messages, size in ((3, 16), (2, 17), (3, 15)):
            with pytest.raises(EventQueueLimitError) as caught:
                MessageQueue(name, max_messages=messages, max_message_size=size, strict_size=True)
            assert "room for 2 events of at most 16 bytes, instead of" in str(caught.value)
            assert len(before) + 1 == len(
                open_files()
            )  # although the error holds what was alive when it was raised
        MessageQueue(name, max_messages=2, max_message_size=16, strict_size=True).close()
        assert drain(queue) == [b"x"]
    assert before == open_files()


@needs_root
def test_the_sysctls_are_obeyed_by_an_ordinary_user(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """An ordinary user gets a queue within the sysctls, and a warning with the command that lifts them."""
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
    """Keep what is logged, also by the examples of a property."""

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
@settings(max_examples=30)
@given(st.integers(2_000, 30_000), st.integers(2, 10), st.integers(1, 8_192))
def test_two_queues_share_the_limit_of_a_user(limit: int, messages: int, message_size: int) -> None:
    """Two queues within a limit that is too small for both find room, and the second blames the first."""
    asked = QueueSize(messages, message_size)
    with fresh_name() as one, fresh_name() as two, bytes_of_queues(limit), reader(one, *asked) as first:
        first_size = QueueSize(first.max_messages, first.max_message_size)
        assert first_size == asked or first_size.max_messages == 1 or first_size.bytes_charged <= limit // 2
        if QueueSize(1, message_size).bytes_charged <= limit - first_size.bytes_charged:
            with Warnings() as warnings, reader(two, *asked) as second:
                second_size = QueueSize(second.max_messages, second.max_message_size)
                assert message_size == second_size.max_message_size
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
        assert f"RLIMIT_MSGQUEUE is 1000 bytes and the full size takes {needed}" in str(caught.value)
        assert f"`ulimit -q {needed}`" in str(caught.value)
        assert "unlink" not in str(caught.value)
        assert not unlink_queue(name)


@needs_root
def test_no_room_at_all_is_an_error(name: str) -> None:
    """Where not even one message of 512 bytes fits, that is an error with the command that helps."""
    with bytes_of_queues(500):
        with pytest.raises(EventQueueLimitError, match=r"no room for .*ulimit -q"):
            reader(name, 2, 1_000)
        assert not unlink_queue(name)
