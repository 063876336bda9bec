"""How large a queue the host allows: the kernel's rules, which size to try next, and how to raise a limit.

Rules of Linux (mq_overview(7), setrlimit(2), and ipc/mqueue.c of the kernel):

1. No queue has more than 65,536 messages or 16 MiB per message. Without CAP_SYS_RESOURCE the bounds are the
   sysctls `fs.mqueue.msg_max` and `fs.mqueue.msgsize_max`. Beyond either, creating a queue fails with EINVAL.
2. A queue is charged in full when it is created (`QueueSize.bytes_charged`), to its user id, on top of all
   other queues of that user. If the sum exceeds the creator's RLIMIT_MSGQUEUE, creation fails with EMFILE.
   The charge ends when the queue is unlinked and its last descriptor closed.
3. Opening an existing queue is never charged or refused for size, and never changes its size.

A process can't reliably read which limit binds it (capabilities within a user namespace, other queues of the
user). So the creator of a queue tries, and asks a `Negotiation` which size to try next. Everything except the
readers at the end is pure.

If the bytes aren't enough for the requested size, these are reduced in order: depth beyond 48 messages,
message size beyond 8,192 bytes, depth beyond 10, message size beyond 512 bytes, then the rest of the depth. A
request may put several events at once, and a queue too short for them loses some every time; an event of more
than 8,192 bytes is rare.
"""

from __future__ import annotations

import enum
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from .._compat import assert_never
from .._words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Most messages of any queue, whoever creates it (HARD_MSGMAX of the kernel).
HARD_MAX_MESSAGES = 65_536

#: Largest message of any queue in bytes, whoever creates it (HARD_MSGSIZEMAX of the kernel).
HARD_MAX_MESSAGE_SIZE = 16 * 1024 * 1024

#: Message size in bytes below which a queue isn't reduced: hardly any event is smaller.
SMALLEST_MESSAGE_SIZE = 512

#: The kernel's default sysctls, used if /proc can't be read.
DEFAULT_MSG_MAX = 10
DEFAULT_MSGSIZE_MAX = 8_192

#: Depth that a queue keeps while its message size is reduced down to `DEFAULT_MSGSIZE_MAX`. It is a burst of
#: several requests with several events each. 48 messages of 8,192 bytes are charged 397,824 bytes, which fits
#: into half of the default RLIMIT_MSGQUEUE (819,200 bytes) and leaves a rest for a third queue.
PREFERRED_MESSAGES = 48

#: The remedy without kernel limits, for error messages: a sentence without its full stop.
SPOOL_REMEDY = (
    "with `EventQueue(..., spool_directory=DIRECTORY)` or the environment variable "
    "EVENT_SPOOL_DIRECTORY, services append events to files in a directory that they share with the "
    "publisher"
)

#: Bytes the kernel charges for a message's header (sizeof(struct msg_msg) on 64 bits).
_HEADER_SIZE = 48

#: Bytes the kernel charges for a node of a queue's tree of priorities (sizeof(struct posix_msg_tree_node)),
#: and how many nodes at most (MQ_PRIO_MAX).
_TREE_NODE_SIZE = 48
_MAX_TREE_NODES = 32_768

#: A queue is reduced by one part in so many at a time: coarse enough to end within about 170 tries from any
#: size, fine enough to waste little.
_STEP = 8

#: Where the kernel shows its queues, if mounted.
_QUEUE_DIRECTORY = "/dev/mqueue"
_SYSCTL_DIRECTORY = "/proc/sys/fs/mqueue"

#: Most names of other queues in one message.
_LISTED_QUEUES = 5


class Refusal(enum.Enum):
    """Why the kernel refused to create a queue of some size."""

    BOUNDS = enum.auto()  #: Beyond msg_max or msgsize_max.
    BYTES = enum.auto()  #: Beyond what RLIMIT_MSGQUEUE leaves to this user.


class QueueSize(NamedTuple):
    """The size of a queue, fixed when it is created.

    Attributes:
        max_messages: Messages that it holds.
        max_message_size: Largest message in bytes.
    """

    max_messages: int
    max_message_size: int

    @property
    def bytes_charged(self) -> int:
        """Bytes of RLIMIT_MSGQUEUE charged for the queue on a 64-bit kernel, full or empty."""
        nodes = min(self.max_messages, _MAX_TREE_NODES)
        return self.max_messages * (self.max_message_size + _HEADER_SIZE) + nodes * _TREE_NODE_SIZE

    def covers(self, other: QueueSize) -> bool:
        """Return whether everything that fits into a queue of size `other` fits into this one."""
        return self.max_messages >= other.max_messages and self.max_message_size >= other.max_message_size

    def __str__(self) -> str:
        messages, size = counted(self.max_messages, "event"), counted(self.max_message_size, "byte")
        return f"{messages} of at most {size}"


class HostLimits(NamedTuple):
    """The limits for an ordinary process of this host that creates a queue.

    Attributes:
        msg_max: The sysctl `fs.mqueue.msg_max`, in messages.
        msgsize_max: The sysctl `fs.mqueue.msgsize_max`, in bytes.
        rlimit: The soft RLIMIT_MSGQUEUE of this process, in bytes, or None for no limit.
    """

    msg_max: int
    msgsize_max: int
    rlimit: int | None

    def clamp(self, size: QueueSize) -> QueueSize:
        """Return the largest size within both sysctls that exceeds `size` in neither dimension."""
        return QueueSize(min(size.max_messages, self.msg_max), min(size.max_message_size, self.msgsize_max))


def reductions(refused: QueueSize, rlimit: int | None) -> Iterator[QueueSize]:
    """Yield the sizes to try, largest first, after `refused` was refused for its bytes.

    Depth and message size are reduced in turn, in the order given in the module's docstring. The first size
    takes at most half of `rlimit` (unless that is less than one message of 512 bytes), so that another queue
    of the same user still finds room.

    Args:
        refused: The size that was too large.
        rlimit: RLIMIT_MSGQUEUE in bytes, or None if there is none.

    Yields:
        Sizes, each smaller than the one before and than `refused`, at most about 170. The last one is a
        single message of 512 bytes, or of the requested size if that is less. Nothing if `refused` is that
        already.
    """
    *_, smallest = floors = _floors(refused)
    charge = refused.bytes_charged if rlimit is None else max(rlimit // 2, smallest.bytes_charged)
    size = refused
    for floor in floors:
        while size != floor:
            size = _smaller(size, floor, charge)
            if size.bytes_charged <= charge:
                yield size


class Negotiation:
    """Finds the largest size of a queue that the host allows, one attempt after another.

    Args:
        asked: The requested size, which was refused or differs from that of the existing queue.
        limits: What the host allows now.

    Attributes:
        crowded: Whether a size was refused although it is within the limit: other queues of the user use it.
    """

    def __init__(self, asked: QueueSize, limits: HostLimits) -> None:
        self._asked = asked
        self._limits = limits
        self._tried = asked
        self._refusals: set[Refusal] = set()
        self._reductions: Iterator[QueueSize] | None = None
        self.crowded: bool = False

    def refused(self, refusal: Refusal) -> QueueSize | None:
        """Return the size to try after the last one was refused; None if there is none left.

        After a refusal by the sysctls, that is what they allow; after one for its bytes, smaller and smaller
        sizes (see `reductions`).
        """
        self._refusals.add(refusal)
        last, rlimit = self._tried, self._limits.rlimit
        smaller: QueueSize | None
        if refusal is Refusal.BOUNDS:
            clamped = self._limits.clamp(last)
            smaller = clamped if clamped != last else None
        elif refusal is Refusal.BYTES:
            self.crowded = self.crowded or (rlimit is not None and last.bytes_charged <= rlimit)
            if self._reductions is None:
                self._reductions = reductions(last, rlimit)
            smaller = next(self._reductions, None)
        else:
            assert_never(refusal)
        if smaller is not None:
            self._tried = smaller
        return smaller

    def explain(
        self,
        got: QueueSize | None,
        *,
        found: bool,
        unlink: str,
        depth: int = 0,
        neighbours: tuple[str, ...] = (),
    ) -> str:
        """Return one line: why the queue isn't as large as requested, and what to do about it.

        Args:
            got: The size that the queue has, or None if there is no queue.
            found: Whether the queue existed before it was opened.
            unlink: The command that removes the queue if it is empty; not used if there is no queue.
            depth: Events in the queue.
            neighbours: Names of other queues of the user, if known.

        Returns:
            What was requested and what was obtained. If limits of the host are the cause, these limits with
            their values, and the commands that raise them; otherwise that both sides need the same
            configuration, and the commands for limits that the requested size would hit next. Then the spool,
            and how to recreate the queue.
        """
        asked, limits = self._asked, self._limits
        charge = asked.bytes_charged
        is_charged_too_much = limits.rlimit is not None and charge > limits.rlimit
        bounded = Refusal.BOUNDS in self._refusals  # by the sysctls
        was_limited = True
        if found and got is not None:
            bounded = self._leads_to(got, limits.clamp(asked))
            # Otherwise its creator had CAP_SYS_RESOURCE, or requested less.
            if not bounded and not (is_charged_too_much and self._leads_to(got, asked)):
                was_limited, bounded = False, limits.clamp(got) == got
        causes: list[str] = []
        sysctls: list[str] = []
        if bounded:
            for sysctl, allowed, wanted in (
                ("fs.mqueue.msg_max", limits.msg_max, asked.max_messages),
                ("fs.mqueue.msgsize_max", limits.msgsize_max, asked.max_message_size),
            ):
                if allowed < wanted:
                    causes.append(f"{sysctl} is {allowed}")
                    sysctls.append(f"{sysctl}={wanted}")
        rlimit = 0  # the RLIMIT_MSGQUEUE that is needed, in bytes; 0 if it isn't the cause
        if limits.rlimit is not None and (is_charged_too_much or Refusal.BYTES in self._refusals):
            causes.append(
                f"RLIMIT_MSGQUEUE is {counted(limits.rlimit, 'byte')} and the full size needs {charge:,}"
            )
            rlimit = charge + limits.rlimit if self.crowded else charge
        if self.crowded:
            names = f" ({', '.join(neighbours)})" if neighbours else ""
            causes.append(f"other queues of this user{names} use part of that")
        commands = _commands(sysctls, rlimit)
        if got is None:
            text = f"no room for {asked}"
        else:
            text = f"it {'was created with' if found else 'has'} room for {got} instead of {asked}"
        if found and not (causes and was_limited):
            text += ". Give services and publisher the same max_queue_size and max_event_size"
            text += f". The requested size also needs {commands}" if commands else ""
        else:
            text += f", because {_listed(causes)}" if causes else ""
            text += f". To raise the limits: {commands}" if commands else ""
        text += f". A spool has no such limit: {SPOOL_REMEDY}"
        return text if got is None else text + _recreation(depth, unlink)

    def _leads_to(self, got: QueueSize, largest: QueueSize) -> bool:
        """Return whether a negotiation from `largest`, for lack of bytes, can end at `got`."""
        rlimit = self._limits.rlimit
        return got == largest or (rlimit is not None and got in reductions(largest, rlimit))


def _commands(sysctls: list[str], rlimit: int) -> str:
    """Format the commands that set sysctls and a byte limit; "" if there is nothing to set."""
    commands: list[str] = []
    docker = [f"--sysctl {setting}" for setting in sysctls]
    if sysctls:
        commands.append(f"`sysctl -w {' '.join(sysctls)}`")
    if rlimit:
        commands.append(f"`ulimit -q {rlimit}` (systemd: `LimitMSGQUEUE={rlimit}`)")
        docker.append(f"--ulimit msgqueue={rlimit}")
    return f"{' and '.join(commands)}; with docker: `{' '.join(docker)}`" if commands else ""


def _recreation(depth: int, unlink: str) -> str:
    """Return sentences, to follow another, on how a queue gets another size."""
    text = ". The queue keeps its size until it is removed"
    if depth:
        text += f", but it holds {counted(depth, 'event')}: let the publisher drain it first. Once"
    else:
        text += ": once"
    return f"{text} it is empty, run `{unlink}`; services and publisher then recreate it"


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _step(count: int) -> int:
    """Return how much to reduce `count` by: at least 1."""
    return max(1, count // _STEP)


def _floors(asked: QueueSize) -> tuple[QueueSize, ...]:
    """Return the sizes on the way down from `asked`; each step changes at most one dimension."""
    depth, message_size = asked
    preferred, few = min(depth, PREFERRED_MESSAGES), min(depth, DEFAULT_MSG_MAX)
    usual, smallest = min(message_size, DEFAULT_MSGSIZE_MAX), min(message_size, SMALLEST_MESSAGE_SIZE)
    return (
        QueueSize(preferred, message_size),
        QueueSize(preferred, usual),
        QueueSize(few, usual),
        QueueSize(few, smallest),
        QueueSize(1, smallest),
    )


def _smaller(size: QueueSize, floor: QueueSize, charge: int) -> QueueSize:
    """Return the next size on the way from `size` to `floor`, which differ in one dimension.

    Depth goes straight to where the queue is charged at most `charge` bytes, but not below `floor`, and from
    there in steps. Message size always goes in steps, since two queues that fill both halves of a limit to
    the last byte leave nothing for a third.
    """
    depth, message_size = size
    if depth > floor.max_messages:
        depth = _depth_within(charge, message_size) if size.bytes_charged > charge else depth - _step(depth)
        return QueueSize(max(depth, floor.max_messages), message_size)
    return QueueSize(depth, max(message_size - _step(message_size), floor.max_message_size))


def _depth_within(charge: int, message_size: int) -> int:
    """Return the largest depth, at this message size, that is charged at most `charge` bytes."""
    depth = charge // (message_size + _HEADER_SIZE + _TREE_NODE_SIZE)
    if depth > _MAX_TREE_NODES:
        depth = (charge - _MAX_TREE_NODES * _TREE_NODE_SIZE) // (message_size + _HEADER_SIZE)
    return depth


def read_limits() -> HostLimits:
    """Read the limits of this host and process; an unreadable limit counts as the kernel's default."""
    return HostLimits(
        msg_max=_read_sysctl("msg_max", DEFAULT_MSG_MAX),
        msgsize_max=_read_sysctl("msgsize_max", DEFAULT_MSGSIZE_MAX),
        rlimit=_read_rlimit(),
    )


def unlink_command(name: str) -> str:
    """Format the command that removes the queue of this POSIX name, unless it holds events.

    It is this package's command, under the name that the package has here. A copy of the library alone has no
    commands; there, PACKAGE stands for the name of a complete package, such as the publisher's.
    """
    import importlib.util  # noqa: PLC0415 - only a warning or an error asks for it
    import shlex  # noqa: PLC0415 - likewise

    package = __name__.removesuffix(".transport.limits")
    if importlib.util.find_spec(f"{package}.__main__") is None:
        package = "PACKAGE"
    return f"python -m {package} queue unlink {shlex.quote(name)}"


def queue_status(name: str) -> os.stat_result | None:
    """Return owner and mode of the queue of this POSIX name; None if unknown."""
    try:
        return os.stat(_QUEUE_DIRECTORY + name)  # noqa: PTH116 - pathlib takes long to import
    except OSError:
        return None


def queues_of_user(*, other_than: str) -> tuple[str, ...]:
    """Return the POSIX names of a few queues of this process's user; none if unknown."""
    try:
        with os.scandir(_QUEUE_DIRECTORY) as entries:
            names = sorted("/" + entry.name for entry in entries if entry.stat().st_uid == os.geteuid())
    except OSError:
        return ()
    return tuple(name for name in names if name != other_than)[:_LISTED_QUEUES]


def _read_sysctl(name: str, default: int) -> int:
    try:
        with open(f"{_SYSCTL_DIRECTORY}/{name}", encoding="ascii") as file:  # noqa: PTH123 - as above
            return int(file.read())
    except (OSError, ValueError):
        return default


def _read_rlimit() -> int | None:
    if sys.platform == "linux":
        import resource  # noqa: PLC0415 - only Linux has this limit, and only a refusal asks for it

        soft, _ = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
        if soft != resource.RLIM_INFINITY:
            return soft
    return None
