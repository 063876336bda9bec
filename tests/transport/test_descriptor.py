from __future__ import annotations

import errno
import gc
import os
import re
import resource
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.errors import (
    EventError,
    EventQueueLimitError,
    EventQueuePermissionError,
    EventQueueRemovedError,
    EventQueueUnavailableError,
    EventQueueUnsupportedError,
)
from baseplate_events.transport import descriptor as descriptor_module
from baseplate_events.transport import limits as limits_module
from baseplate_events.transport import posix as posix_module
from baseplate_events.transport.descriptor import Descriptor
from baseplate_events.transport.limits import SPOOL_REMEDY, QueueSize
from baseplate_events.transport.posix import MessageQueue, unlink_queue
from tests.support.commands import run
from tests.support.examples import examples
from tests.support.failing_steps import failing
from tests.support.queues import (
    FEW,
    OTHER_UID,
    as_user,
    drain,
    fresh_name,
    lasting_files,
    needs_root,
    open_files,
    outlast_trust,
    producer,
    reader,
    unprivileged,
)


def test_a_message_keeps_no_more_memory_than_its_bytes(name: str) -> None:
    """Many small messages, got from a queue of large ones, don't keep its large buffers allocated."""
    with reader(name, 2, 8_192) as queue:
        kept: list[bytes] = []
        before = _resident()
        for _ in range(3_000):
            queue.put(b"x" * 100)
            message = queue.get()
            assert message is not None
            kept.append(message)
        assert _resident() - before < 3_000 * 8_192 / 4


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def test_an_orphan_is_let_go(name: str) -> None:
    """A producer that moved holds one descriptor as before, and a closed or forgotten queue none."""
    before = lasting_files()
    with producer(name) as queue:
        for _ in range(5):
            unlink_queue(name)
            outlast_trust()
            queue.put(b"{x}")
            assert len(before) + 1 == len(open_files())
    assert open_files() <= before
    queue = producer(name)
    del queue
    gc.collect()
    assert open_files() <= before


def test_a_descriptor_that_became_another_file_is_left_alone(name: str) -> None:
    """If the descriptor was closed and its number reused, a producer reopens the queue."""
    with reader(name) as other, producer(name) as queue:
        number = queue.fileno()
        os.close(number)
        foreign = os.open(os.devnull, os.O_RDONLY)
        try:
            assert number == foreign
            outlast_trust()
            queue.put(b"{x}")
            assert queue.fileno() != foreign
            assert drain(other) == [b"{x}"]
            os.fstat(foreign)  # still open
            os.close(queue.fileno())
            outlast_trust()
            queue.put(b"{y}")
            os.close(queue.fileno())
            another = os.open(os.devnull, os.O_RDONLY)
            assert queue.fileno() == another
            queue.close()
            os.close(another)  # it was still open
            assert drain(other) == [b"{y}"]
        finally:
            os.close(foreign)


def test_a_reader_that_lost_its_descriptor_says_so(name: str) -> None:
    """A reader whose descriptor was closed by others raises an error, and so does its depth."""
    queue = reader(name)
    os.close(queue.fileno())
    with pytest.raises(EventQueueUnavailableError, match="descriptor can't be used"):
        queue.get()
    with pytest.raises(EventQueueUnavailableError, match="descriptor can't be used"):
        queue.current_messages  # noqa: B018 - a property
    with pytest.raises(EventQueueUnavailableError, match="descriptor can't be used"):
        queue.channel.try_send(b"x", 0)
    assert queue.removed
    with pytest.raises(EventQueueRemovedError):
        queue.put(b"{x}")


def test_too_many_open_files_are_distinguished(name: str) -> None:
    """Without a free descriptor, creating, opening and reopening fail with an error that says so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with fresh_name() as other_name, producer(name), producer(other_name) as moving:
        unlink_queue(other_name)
        outlast_trust()
        files = [os.open(os.devnull, os.O_RDONLY)]
        caught: list[EventError] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (files[0] + 1, hard))
        try:
            for action in (
                lambda: producer(name),
                lambda: reader(other_name),
                lambda: moving.put(b"{x}"),
            ):
                try:
                    action()
                except EventError as exc:
                    caught.append(exc)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            os.close(files[0])
        kinds = [EventQueueUnavailableError, EventQueueUnavailableError, EventQueueRemovedError]
        assert kinds == [type(error) for error in caught]
        for error in caught:
            assert "too many files open" in str(error)
        moving.put(b"{x}")


@examples(40)
@given(st.integers(0, 0o777), st.integers(0, 0o777))
def test_the_umask_does_not_weaken_the_mode(mode: int, umask: int) -> None:
    """A queue has exactly the permission bits asked for, whatever the umask."""
    with fresh_name() as name:
        previous = os.umask(umask)
        try:
            queue = MessageQueue(name, max_messages=1, max_message_size=1, mode=mode)
        finally:
            os.umask(previous)
        with queue:
            assert mode == stat.S_IMODE(os.fstat(queue.fileno()).st_mode)


@needs_root
def test_a_queue_of_another_user_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another user's queue raises an error with its owner, if known, and the remedy."""
    monkeypatch.setattr(limits_module, "_QUEUE_DIRECTORY", str(tmp_path))
    with producer(name) as queue:
        with as_user(OTHER_UID):
            for attempt in (producer, reader):
                with pytest.raises(EventQueuePermissionError) as caught:
                    attempt(name)
                assert "another user" in str(caught.value)
                assert f"this process of user {OTHER_UID}" in str(caught.value)
                assert "mode=0o660" in str(caught.value)
            with pytest.raises(EventQueuePermissionError):
                unlink_queue(name)
        tmp_path.chmod(0o755)
        (tmp_path / name[1:]).touch(mode=0o600)
        monkeypatch.setattr(limits_module, "_QUEUE_DIRECTORY", str(tmp_path))
        with unprivileged(tmp_path), pytest.raises(EventQueuePermissionError) as caught:
            producer(name)
        assert "it belongs to user 0 and has mode 0o600" in str(caught.value)
        queue.put(b"still there")


@needs_root
def test_a_common_group_is_let_in(name: str) -> None:
    """A queue of mode 0o660 is open to the group, to put and to get."""
    with (
        MessageQueue(name, max_messages=1, max_message_size=8, mode=0o660) as queue,
        as_user(OTHER_UID),
        producer(name, 1, 8) as other,
    ):
        other.put(b"x")
        assert queue.get() == b"x"


@needs_root
def test_a_queue_that_another_user_recreated_is_refused(name: str) -> None:
    """A producer whose queue another user recreated gets a permission error, again and again."""
    with as_user(OTHER_UID):
        queue = producer(name)
        unlink_queue(name)
        outlast_trust()
    with reader(name), queue:
        for _ in range(2):
            with as_user(OTHER_UID), pytest.raises(EventQueuePermissionError):
                queue.put(b"{x}")


class BrokenIpc:
    """A `posix_ipc` that fails in a given way."""

    def __init__(self, on_make: Exception, on_find: Exception) -> None:
        real, _ = descriptor_module.load()
        assert real is not None
        self.MESSAGE_QUEUES_SUPPORTED = True
        self.O_CREX, self.O_NONBLOCK = real.O_CREX, real.O_NONBLOCK
        self.Error, self.BusyError, self.SignalError = real.Error, real.BusyError, real.SignalError
        self.ExistentialError, self.PermissionsError = real.ExistentialError, real.PermissionsError
        self.on_make, self.on_find = on_make, on_find

    def MessageQueue(  # noqa: N802 - as in posix_ipc
        self,
        name: str,  # noqa: ARG002
        flags: int,
        *,
        mode: int,  # noqa: ARG002
        max_messages: int,  # noqa: ARG002
        max_message_size: int,  # noqa: ARG002
        read: bool,  # noqa: ARG002
    ) -> descriptor_module.PosixQueue:
        raise self.on_make if flags & self.O_CREX else self.on_find

    def unlink_message_queue(self, name: str, /) -> None:  # noqa: ARG002
        raise self.on_find


def _exists() -> Exception:
    ipc, _ = descriptor_module.load()
    assert ipc is not None
    return ipc.ExistentialError("A queue with the specified name already exists")


def _vague() -> Exception:
    ipc, _ = descriptor_module.load()
    assert ipc is not None
    return ipc.Error("Unable to initialize object")


FAILURES: list[tuple[Exception, type[EventError], str]] = [
    (OSError("Insufficient space for a new queue"), EventQueueLimitError, SPOOL_REMEDY),
    (
        OSError("The system limit on the total number of open files has been reached"),
        EventQueueUnavailableError,
        "fs.file-max",
    ),
    (
        OSError(errno.ENOSYS, "Function not implemented"),
        EventQueueUnsupportedError,
        f"the kernel of this host has no POSIX message queues; use a spool instead: {SPOOL_REMEDY}",
    ),
    (MemoryError("Not enough memory"), EventQueueUnavailableError, "Not enough memory"),
    (OSError(errno.EIO, "Input/output error"), EventQueueUnavailableError, "Input/output error"),
    (PermissionError(errno.EPERM, "Operation not permitted"), EventQueuePermissionError, "same user"),
    (_vague(), EventQueueUnavailableError, "Unable to initialize"),
    (_exists(), EventQueueUnavailableError, "keep removing it"),
]


@pytest.mark.parametrize(("failure", "expected", "words"), FAILURES)
def test_every_failure_to_open_is_ours(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, expected: type[EventError], words: str
) -> None:
    """However making or opening a queue fails, the error is ours and says what is wrong."""
    for on_make, on_find in ((failure, failure), (_exists(), failure)):
        monkeypatch.setattr(descriptor_module, "posix_ipc", BrokenIpc(on_make, on_find))
        with pytest.raises(EventError, match=re.escape(words)) as caught:
            producer("/x")
        assert expected is type(caught.value)


@pytest.mark.parametrize(
    ("owner", "step"), [(Descriptor, "__init__"), (Descriptor, "set_mode"), (posix_module, "read_limits")]
)
def test_a_step_that_fails_leaves_nothing_open(owner: object, step: str, name: str) -> None:
    """Whatever fails once a queue is open, its descriptor is closed."""
    if owner is posix_module:
        reader(name).close()  # a queue that is smaller than requested, which is explained
    with failing(owner, step):
        producer(name, FEW + 1)


@pytest.mark.parametrize(("failure", "expected", "words"), FAILURES[4:7])
def test_every_failure_to_remove_is_ours(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, expected: type[EventError], words: str
) -> None:
    """However removing a queue fails, the error is ours and says what is wrong."""
    monkeypatch.setattr(descriptor_module, "posix_ipc", BrokenIpc(failure, failure))
    with pytest.raises(EventError, match=re.escape(words)) as caught:
        unlink_queue("/x")
    assert expected is type(caught.value)


@pytest.mark.parametrize(
    "failure",
    [
        ValueError("Invalid parameter(s)"),
        OSError("This process already has the maximum number of files open"),
        OSError(errno.EOVERFLOW, "Value too large"),
    ],
)
def test_a_host_without_room_for_anything_is_reported(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """If not even the smallest queue is allowed, the error says what was requested."""
    monkeypatch.setattr(descriptor_module, "posix_ipc", BrokenIpc(failure, failure))
    with pytest.raises(EventQueueLimitError, match="no room for 4 events of at most 32 bytes"):
        producer("/x")


def test_a_producer_that_cannot_move_says_so_and_tries_again(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a removed queue can't be recreated, each put says so, until it can."""
    with producer(name) as queue:
        unlink_queue(name)
        outlast_trust()
        with monkeypatch.context() as patch:
            failure = MemoryError("Not enough memory")
            patch.setattr(descriptor_module, "posix_ipc", BrokenIpc(failure, failure))
            for _ in range(2):
                with pytest.raises(EventQueueRemovedError, match=r"can't be recreated: .*Not enough memory"):
                    queue.put(b"{x}")
        queue.put(b"{x}")
        assert queue.current_messages == 1


def test_a_host_without_queues_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `posix_ipc`, or without message queues, creating or removing a queue says so."""

    class NoQueues:
        MESSAGE_QUEUES_SUPPORTED = False

    spool = f", or use a spool instead: {SPOOL_REMEDY}"
    for module, words in (
        (None, f"; install it with `pip install posix_ipc`{spool}"),
        (NoQueues(), f"no POSIX message queues; run on Linux or in a Linux container{spool}"),
    ):
        monkeypatch.setitem(sys.modules, "posix_ipc", module)
        monkeypatch.setattr(descriptor_module, "posix_ipc", None)
        for attempt in (reader, unlink_queue):
            with pytest.raises(EventQueueUnsupportedError, match=re.escape(words)):
                attempt("/x")


def test_it_is_silent_when_the_interpreter_ends(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At interpreter shutdown module names are None; pytest would report an error of `__del__`."""
    descriptor = descriptor_module.make_queue(name, QueueSize(1, 1), mode=0o600, read=True)
    assert isinstance(descriptor, descriptor_module.Descriptor)
    fd = descriptor.fd
    for each in [each for each in vars(descriptor_module) if not each.startswith("__")]:
        monkeypatch.setattr(descriptor_module, each, None)
    with monkeypatch.context() as patch:
        raised: list[object] = []
        patch.setattr(sys, "unraisablehook", raised.append)
        del descriptor
        assert raised == []
    os.close(fd)


def test_a_warning_at_the_import_of_posix_ipc_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Free-threaded Python warns there, once; here and in many programs warnings are errors."""
    (tmp_path / "posix_ipc.py").write_text(
        "import os, warnings\n"
        f"fd = os.open({str(tmp_path / 'warned')!r}, os.O_CREAT | os.O_WRONLY | os.O_APPEND)\n"
        "first = not os.fstat(fd).st_size\n"
        "os.write(fd, b'.')\n"
        "os.close(fd)\n"
        "if first:\n"
        "    warnings.warn('the GIL has been enabled to load module posix_ipc', RuntimeWarning)\n"
        "MESSAGE_QUEUES_SUPPORTED = True\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "posix_ipc", raising=False)
    ipc, why_not = descriptor_module.load()
    monkeypatch.delitem(sys.modules, "posix_ipc")
    assert (ipc is not None, why_not) == (True, "")
    assert (tmp_path / "warned").read_text() == ".."


def test_posix_ipc_is_imported_for_a_queue_only(tmp_path: Path) -> None:
    """A service with a spool doesn't import it: free-threaded Python would switch its GIL on."""
    code = """
import sys
import baseplate_events
baseplate_events.EventQueue("x", bytes, strict_size=True, spool_directory=sys.argv[1]).put(b"{x}")
print("posix_ipc" in sys.modules)
"""
    assert run(sys.executable, "-c", code, tmp_path).check() == "False\n"


def test_import_works_without_posix_ipc() -> None:
    """The package imports where `posix_ipc` doesn't, and says so when a queue is made."""
    code = """
import sys
sys.modules["posix_ipc"] = None
import baseplate_events
try:
    baseplate_events.EventQueue("x", bytes, strict_size=True)
except baseplate_events.EventQueueUnsupportedError as error:
    print(error)
"""
    assert "posix_ipc" in run(sys.executable, "-c", code).check()
