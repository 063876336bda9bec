"""How an `EventQueue` is configured: its arguments, the environment, and what they result in."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, NamedTuple

from .serializers import event_format_of
from .spool import MIN_SPOOL_SIZE
from .transport.posix import MAX_NAME_SIZE, check_arguments

if TYPE_CHECKING:
    from .spool.directory import SpoolDirectory

#: Largest serialized event in bytes: the message size of the queue, for producers and the publisher.
#: This default and the next are baseplate.py's.
MAX_EVENT_SIZE = 102_400

#: Capacity of a queue in events.
MAX_QUEUE_SIZE = 10_000

#: Bytes of undelivered events that a spool holds.
MAX_SPOOL_SIZE = 1024 * 1024 * 1024

#: Environment variable with the directory for the spools of services.
SPOOL_VARIABLE = "EVENT_SPOOL_DIRECTORY"

#: Environment variable that switches a service's queues on or off.
ENABLED_VARIABLE = "EVENT_QUEUES_ENABLED"

#: Values of the variable and of a configuration, in any case.
_SWITCH = {
    **dict.fromkeys(("on", "true", "yes", "1"), True),
    **dict.fromkeys(("off", "false", "no", "0"), False),
}

#: What the POSIX name of an event queue starts with; shared with baseplate.py's publisher.
_PREFIX = "/events-"


class EventQueueSettings(NamedTuple):
    """All arguments of an `EventQueue` except its serializer; `EventQueue` documents them.

    They can be pickled, and mean the same in another process, whatever its environment is.

    Attributes:
        name: NAME.
        max_queue_size: Events that its POSIX queue holds.
        max_event_size: Largest serialized event in bytes.
        put_timeout: Seconds that a put waits for room.
        mode: Permission bits.
        strict_size: Whether a smaller queue than requested is an error.
        spool_directory: The absolute path of the directory for its spool; None for a POSIX queue.
        max_spool_size: Bytes that its spool holds.
        enabled: Whether it is switched on.
    """

    name: str
    max_queue_size: int
    max_event_size: int
    put_timeout: float
    mode: int
    strict_size: bool
    spool_directory: str | None
    max_spool_size: int
    enabled: bool


class QueueArguments(NamedTuple):
    """What an `EventQueue` opens.

    Attributes:
        posix_name: The name of its POSIX queue.
        max_queue_size: Events that it holds.
        max_event_size: Largest serialized event in bytes.
        mode: Permission bits.
        strict_size: Whether a smaller queue than requested is an error.
        spool: Where its spool is; None for a POSIX queue.
        max_spool_size: Bytes that its spool holds.
        event_format: The `collector.version` that its events are for, or `unknown`.
    """

    posix_name: str
    max_queue_size: int
    max_event_size: int
    mode: int
    strict_size: bool
    spool: SpoolDirectory | None
    max_spool_size: int
    event_format: str


def check_settings(settings: EventQueueSettings, event_serializer: object) -> QueueArguments:
    """Return what to open, or raise a `ValueError` in terms of the arguments."""
    posix_name = _posix_name(settings.name)
    check_arguments(posix_name, settings.max_queue_size, settings.max_event_size, settings.mode)
    if not (math.isfinite(settings.put_timeout) and settings.put_timeout >= 0):
        raise ValueError(
            f"put_timeout must be a finite number of seconds, 0 or more, not {settings.put_timeout}"
        )
    if not settings.max_spool_size >= MIN_SPOOL_SIZE:
        raise ValueError(
            f"max_spool_size must be {MIN_SPOOL_SIZE:,} bytes or more, not {settings.max_spool_size:,}"
        )
    return QueueArguments(
        posix_name=posix_name,
        max_queue_size=settings.max_queue_size,
        max_event_size=settings.max_event_size,
        mode=settings.mode,
        strict_size=settings.strict_size,
        spool=_make_spool(settings.name, settings.spool_directory, settings.mode),
        max_spool_size=settings.max_spool_size,
        event_format=event_format_of(event_serializer),
    )


def check_serializer(name: str, event_serializer: object) -> None:
    """Raise a `pickle.PicklingError` if a serializer can't be pickled."""
    import pickle  # noqa: PLC0415 - a slow import, which whoever sends a queue has paid for already

    try:
        pickle.dumps(event_serializer)
    except Exception as exc:
        what = getattr(event_serializer, "__qualname__", type(event_serializer).__qualname__)
        raise pickle.PicklingError(
            f"event queue {name!r} can't be sent to another process: its event serializer {what} can't be "
            f"pickled ({type(exc).__name__}); define the serializer with `def` at the top of a module, or "
            "create the queue in the worker"
        ) from exc


def find_spool_directory(directory: str | os.PathLike[str] | None) -> str | None:
    """Return the absolute path of the directory named by the argument or else by the environment."""
    if directory is None:
        path = os.environ.get(SPOOL_VARIABLE, "").strip()
        if not path:
            return None
    else:
        path = os.fspath(directory)
        if not path:
            raise ValueError(
                "spool_directory must be the path of a directory, not ''; leave it out for a POSIX queue"
            )
    try:
        return os.path.abspath(path)  # noqa: PTH100 - pathlib is slow to import
    except FileNotFoundError:
        raise ValueError(
            f"the directory of a spool must be an absolute path, not {path!r}, since this process' working "
            "directory was deleted"
        ) from None


def find_switch(enabled: bool | None) -> bool:
    """Return whether the argument, or else the environment, switches a queue on; True if neither is set."""
    if enabled is not None:
        if type(enabled) is not bool:
            raise ValueError(f"enabled must be True, False or None, not {enabled!r}")
        return enabled
    word = os.environ.get(ENABLED_VARIABLE, "").strip()
    switch = parse_switch(word or "on")
    if switch is None:
        raise ValueError(f"the variable {ENABLED_VARIABLE} must be one of {', '.join(_SWITCH)}, not {word!r}")
    return switch


def parse_switch(word: str) -> bool | None:
    """Return whether a word means on or off; None if it is neither."""
    return _SWITCH.get(word.strip().lower())


def _make_spool(name: str, directory: str | None, mode: int) -> SpoolDirectory | None:
    if directory is None:
        return None
    from .spool.directory import SpoolDirectory  # noqa: PLC0415 - most services have a POSIX queue

    try:
        return SpoolDirectory(directory, name, mode=mode)
    except ValueError as exc:
        problem = f"{exc}; there is a spool because of spool_directory or the variable {SPOOL_VARIABLE}"
        raise ValueError(problem) from None


def _posix_name(name: str) -> str:
    """Return the POSIX name of an event queue, or raise a `ValueError` about the argument `name`."""
    longest = MAX_NAME_SIZE - len(_PREFIX)
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # a lone surrogate
        size = 0
    if not 1 <= size <= longest or "/" in name or "\0" in name:
        raise ValueError(
            f"name must be 1 to {longest} bytes of UTF-8 without a slash or a NUL, such as 'v2', not {name!r}"
        )
    return _PREFIX + name
