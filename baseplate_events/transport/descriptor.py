"""One open descriptor of a POSIX message queue: the only module that uses `posix_ipc`.

Rules:

1. Nothing of `posix_ipc` leaks: every failure is an `EventError` or a return value.
2. Descriptors never block. (A blocking send of `posix_ipc` may swallow an exception of a signal handler.)
3. A descriptor is closed when its last reference goes, or immediately by `close`. A thread keeps a reference
   while it uses one, so that its number can't become another file's in the meantime.
4. If the number becomes another file's nevertheless, because a program closed a descriptor that it doesn't
   own, it is neither used for long nor closed.
5. `posix_ipc` is imported when the first queue is opened: that import switches the GIL of free-threaded
   Python back on, which a service with a spool avoids.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import stat
from typing import TYPE_CHECKING, Protocol, cast

from ..errors import (
    TOO_MANY_FILES,
    EventQueueLimitError,
    EventQueuePermissionError,
    EventQueueUnavailableError,
    EventQueueUnsupportedError,
)
from .limits import SPOOL_REMEDY, QueueSize, Refusal, queue_status

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

#: Texts that `posix_ipc` uses instead of an error number, the same in all its releases.
_ERROR_NUMBERS = (
    ("maximum number of files open", errno.EMFILE),
    ("total number of open files", errno.ENFILE),
    ("Insufficient space", errno.ENOSPC),
)

#: The alternative to POSIX queues, for error messages.
_SPOOL_INSTEAD = f"a spool instead: {SPOOL_REMEDY}"

#: Largest message size of a queue for which received messages are kept as they are. Some releases of
#: `posix_ipc` keep the whole receive buffer allocated with each message, so larger ones are copied.
_LEAN_MESSAGE_SIZE = 1_024


class PosixQueue(Protocol):
    """The part of `posix_ipc.MessageQueue` that is used here."""

    mqd: int
    max_messages: int
    max_message_size: int
    current_messages: int

    def send(self, message: bytes, timeout: float | None = None, priority: int = 0, /) -> None:
        """Add a message."""

    def receive(self) -> tuple[bytes, int]:
        """Receive a message and its priority."""
        ...

    def close(self) -> None:
        """Close the descriptor."""


class _Send(Protocol):
    """`PosixQueue.send`."""

    def __call__(self, message: bytes, timeout: float | None = None, priority: int = 0, /) -> None: ...


class PosixIpc(Protocol):
    """The part of `posix_ipc` that is used here."""

    MESSAGE_QUEUES_SUPPORTED: bool
    O_CREX: int
    O_NONBLOCK: int
    Error: type[Exception]
    BusyError: type[Exception]
    ExistentialError: type[Exception]
    PermissionsError: type[Exception]
    SignalError: type[Exception]

    def MessageQueue(  # noqa: N802 - posix_ipc's name
        self, name: str, flags: int, *, mode: int, max_messages: int, max_message_size: int, read: bool
    ) -> PosixQueue:
        """Open or create a queue."""
        ...

    def unlink_message_queue(self, name: str, /) -> None:
        """Remove a queue."""


def load() -> tuple[PosixIpc | None, str]:
    """Import `posix_ipc`; return it, or None and the reason.

    It is imported by name: the package is untyped, and a project that vendors this one needs neither stubs
    nor an ignore that its type checker might report as unused.
    """
    try:
        try:
            module = importlib.import_module("posix_ipc")
        except RuntimeWarning:
            # Free-threaded Python warns once when the import switches its GIL on, and warnings may be errors.
            # The package works nevertheless.
            module = importlib.import_module("posix_ipc")
    except ImportError as exc:
        return None, (
            f"the posix_ipc package can't be imported ({exc}); install it with `pip install posix_ipc`, "
            f"or use {_SPOOL_INSTEAD}"
        )
    ipc = cast("PosixIpc", module)
    if not ipc.MESSAGE_QUEUES_SUPPORTED:
        return None, (
            "this operating system has no POSIX message queues; run on Linux or in a Linux container, "
            f"or use {_SPOOL_INSTEAD}"
        )
    return ipc, ""


#: The package, once it is imported.
posix_ipc: PosixIpc | None = None


def _require_posix_ipc(name: str) -> PosixIpc:
    global posix_ipc  # noqa: PLW0603 - it is imported once
    ipc = posix_ipc
    if ipc is None:
        ipc, why_not = load()
        if ipc is None:
            if not _can_open_a_file():
                raise EventQueueUnavailableError(name, TOO_MANY_FILES[errno.EMFILE])
            raise EventQueueUnsupportedError(name, why_not)
        posix_ipc = ipc
    return ipc


class Descriptor:
    """An open descriptor of one queue.

    Attributes:
        fd: Its number, even after it is closed.
        size: The size of the queue, which never changes.
        send: Add a message without waiting. Takes the message (bytes, or `posix_ipc` crashes), and None and
            the priority unless that is 0. For speed, it raises what `posix_ipc` raises; if `refused`
            recognises that, call `try_send`, which returns or raises the right thing.
        receive: Receive a message and its priority without waiting; likewise, see `try_receive`.
    """

    __slots__ = ("_closed", "_device", "_inode", "_ipc", "_name", "_queue", "fd", "receive", "send", "size")

    def __init__(self, ipc: PosixIpc, name: str, queue: PosixQueue) -> None:
        self._closed = False
        self._ipc = ipc
        self._name = name
        self._queue = queue
        self.fd: int = queue.mqd
        self.size: QueueSize = QueueSize(queue.max_messages, queue.max_message_size)
        self.send: _Send = queue.send
        self.receive: Callable[[], tuple[bytes, int]] = queue.receive
        status = os.fstat(self.fd)
        self._device, self._inode = status.st_dev, status.st_ino

    @property
    def depth(self) -> int:
        """Messages in the queue now."""
        try:
            return self._queue.current_messages
        except (self._ipc.Error, OSError) as exc:
            raise self._unusable(exc) from exc

    def refused(self, exc: Exception) -> bool:
        """Return whether an exception comes from `send` or `receive` itself, so that they did nothing.

        It may come from a signal handler instead, after the call was done; then the caller re-raises it.
        """
        return isinstance(exc, self._ipc.Error) or type(exc) in {ValueError, OverflowError, OSError}

    def is_full(self, exc: Exception) -> bool:
        """Return whether an exception of `send` means that the queue is full, and nothing else."""
        return isinstance(exc, self._ipc.BusyError)

    def try_send(self, message: bytes, priority: int) -> bool:
        """Add a message to the queue without waiting.

        Args:
            message: At most as many bytes as `size` allows.
            priority: From 0 to 32,767.

        Returns:
            True if it was added; False if the queue is full (or, never observed, a signal came first).

        Raises:
            EventQueueUnavailableError: The descriptor can't be used.
        """
        try:
            self.send(message, None, priority)
        except (self._ipc.BusyError, self._ipc.SignalError):
            return False
        except Exception as exc:
            if not self.refused(exc):
                raise
            raise self._unusable(exc) from exc
        return True

    def try_receive(self) -> bytes | None:
        """Receive a message without waiting; None if there is none.

        Raises:
            EventQueuePermissionError: The descriptor was opened only for sending.
            EventQueueUnavailableError: The descriptor can't be used.
        """
        return next(self.receive_all(), None)

    def receive_all(self) -> Generator[bytes]:
        """Receive messages lazily, without waiting, until there are none.

        Raises:
            EventQueuePermissionError: The descriptor was opened only for sending.
            EventQueueUnavailableError: The descriptor can't be used, and nothing was received. If something
                was, the generator ends instead, so that the caller keeps it.
        """
        receive = self.receive
        is_lean = self.size.max_message_size <= _LEAN_MESSAGE_SIZE
        is_first = True
        try:
            while True:
                message = receive()[0]
                yield message if is_lean else b"".join((message, b""))
                is_first = False
        except (self._ipc.BusyError, self._ipc.SignalError):
            pass
        except self._ipc.PermissionsError as exc:
            problem = "it was opened only for writing; open it with read=True to read"
            raise EventQueuePermissionError(self._name, problem) from exc
        except Exception as exc:
            if not self.refused(exc):
                raise
            if is_first:
                raise self._unusable(exc) from exc

    def removed(self) -> bool:
        """Return whether the queue was unlinked, or the descriptor closed or lost."""
        if self._closed:
            return True
        try:
            status = os.fstat(self.fd)
        except OSError:
            status = None
        if status is not None and status.st_ino == self._inode and status.st_dev == self._device:
            return status.st_nlink == 0
        self._closed = True  # lost: the number now belongs to someone else, maybe even for the same queue
        return True

    def set_mode(self, mode: int) -> None:
        """Set the permission bits of the queue, unless they are right already.

        Raises:
            OSError: The queue belongs to another user.
        """
        if stat.S_IMODE(os.fstat(self.fd).st_mode) != mode:
            os.fchmod(self.fd, mode)

    def close(self) -> None:
        """Close the descriptor, if it is open; only this method and `removed` work afterwards."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):
                status = os.fstat(self.fd)
                if status.st_ino == self._inode and status.st_dev == self._device:
                    self._queue.close()

    def __del__(self) -> None:
        # Half constructed, or the interpreter is shutting down; then even module names may be gone.
        try:  # noqa: SIM105
            self.close()
        except Exception:  # noqa: BLE001, S110
            pass

    def _unusable(self, exc: Exception) -> EventQueueUnavailableError:
        return EventQueueUnavailableError(self._name, f"its descriptor can't be used ({exc})")


def make_queue(name: str, size: QueueSize, *, mode: int, read: bool) -> Descriptor | Refusal | None:
    """Create a queue of this POSIX name and size.

    Args:
        name: A valid POSIX name of a queue.
        size: Its size, within the hard bounds of the kernel.
        mode: Its permission bits, whatever the umask.
        read: Open it for receiving and sending, otherwise only for sending.

    Returns:
        Its descriptor, or why the kernel refuses the size, or None if the queue exists.

    Raises:
        EventQueueUnavailableError: It can't be created for another reason.
    """
    ipc = _require_posix_ipc(name)
    try:
        descriptor = _call(ipc, name, ipc.O_CREX, size, mode=mode, read=read)
        try:
            descriptor.set_mode(mode)
        except BaseException:
            descriptor.close()
            raise
    except ipc.ExistentialError:
        return None
    except ValueError:
        return Refusal.BOUNDS
    except (ipc.Error, OSError, MemoryError) as exc:
        # EMFILE means both: too many bytes of queues, and too many open files.
        if _error_number(exc) in {errno.EMFILE, errno.EOVERFLOW} and _can_open_a_file():
            return Refusal.BYTES
        raise _not_opened(ipc, name, exc) from exc
    return descriptor


def find_queue(name: str, *, read: bool) -> Descriptor | None:
    """Open the queue of this POSIX name; None if there is none.

    Args:
        name: A valid POSIX name of a queue.
        read: Open it for receiving and sending, otherwise only for sending.

    Raises:
        EventQueuePermissionError: It belongs to another user, and this process may not open it.
        EventQueueUnavailableError: It can't be opened for another reason.
    """
    ipc = _require_posix_ipc(name)
    try:
        return _call(ipc, name, 0, QueueSize(1, 1), mode=0, read=read)
    except ipc.ExistentialError:
        return None
    except (ipc.Error, OSError, ValueError, MemoryError) as exc:
        raise _not_opened(ipc, name, exc) from exc


def remove_queue(name: str) -> bool:
    """Unlink the queue of this POSIX name.

    Returns:
        Whether there was one.

    Raises:
        EventQueuePermissionError: It belongs to another user.
        EventQueueUnavailableError: It can't be unlinked for another reason.
    """
    ipc = _require_posix_ipc(name)
    try:
        ipc.unlink_message_queue(name)
    except ipc.ExistentialError:
        return False
    except (ipc.Error, OSError) as exc:
        raise _not_opened(ipc, name, exc) from exc
    return True


def _call(ipc: PosixIpc, name: str, flags: int, size: QueueSize, *, mode: int, read: bool) -> Descriptor:
    queue = ipc.MessageQueue(
        name,
        flags | ipc.O_NONBLOCK,
        mode=mode,
        max_messages=size.max_messages,
        max_message_size=size.max_message_size,
        read=read,
    )
    try:
        return Descriptor(ipc, name, queue)
    except BaseException:
        queue.close()
        raise


def _not_opened(ipc: PosixIpc, name: str, exc: Exception) -> EventQueueUnavailableError:
    """Return the error for a queue that can't be opened, created or removed."""
    if isinstance(exc, (ipc.PermissionsError, PermissionError)):
        return EventQueuePermissionError(name, _describe_denied(name))
    number = _error_number(exc)
    if number == errno.ENOSPC:
        problem = (
            "the host allows no further queue; raise the sysctl fs.mqueue.queues_max, or use a spool, "
            f"which has no such limit: {SPOOL_REMEDY}"
        )
        return EventQueueLimitError(name, problem)
    if number == errno.ENOSYS:
        problem = f"the kernel of this host has no POSIX message queues; use {_SPOOL_INSTEAD}"
        return EventQueueUnsupportedError(name, problem)
    return EventQueueUnavailableError(name, TOO_MANY_FILES.get(number or 0, f"it can't be used ({exc})"))


def _describe_denied(name: str) -> str:
    """Return the problem and remedy for a queue that this process may not open."""
    status = queue_status(name)
    if status is None:
        owner = "it belongs to another user"
    else:
        owner = f"it belongs to user {status.st_uid} and has mode {stat.S_IMODE(status.st_mode):#o}"
    return (
        f"{owner}, so this process of user {os.geteuid()} may not open it; run service and publisher as the "
        "same user, or give them a common group and create the queue with mode=0o660"
    )


def _error_number(exc: Exception) -> int | None:
    """Return the error number of an exception of `posix_ipc`, which often has only a text."""
    if isinstance(exc, OSError) and exc.errno is not None:
        return exc.errno
    text = str(exc)
    return next((number for words, number in _ERROR_NUMBERS if words in text), None)


def _can_open_a_file() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True
