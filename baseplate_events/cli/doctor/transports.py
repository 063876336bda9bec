"""Judges which transport suits this host: the POSIX queue, the spool, either or none."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from ...errors import EventQueueUnavailableError
from ...transport.limits import SPOOL_REMEDY, read_limits
from ..queue.info import inspect_queue
from .checks import expected_size, size_fields
from .findings import Code, ok, problem, warning
from .host import charges_of_others

if TYPE_CHECKING:
    from ...transport.limits import QueueSize
    from .findings import Check, Field

_NAME: Final = "transport"


class Posix(enum.Enum):
    """The POSIX queue that exists or would be created."""

    WANTED = "wanted"
    SMALLER = "smaller"
    NONE = "none"


class Spool(enum.Enum):
    """Whether a spool can be used."""

    USABLE = "usable"
    UNUSABLE = "unusable"
    UNSET = "unset"


def find_posix(name: str | None, wanted: QueueSize) -> tuple[Posix, QueueSize | None]:
    """Return the existing queue, or the one that an ordinary user would get, and its size.

    Args:
        name: Its POSIX name, or None for any new one.
        wanted: The size that it should have.
    """
    try:
        info = None if name is None else inspect_queue(name)
    except EventQueueUnavailableError:
        return Posix.NONE, None
    taken = sum(charges_of_others(name).values())
    size = expected_size(wanted, read_limits(), taken) if info is None else info.size
    if size is None:
        return Posix.NONE, None
    return (Posix.WANTED if size.covers(wanted) else Posix.SMALLER), size


def judge_transport(
    posix: Posix, size: QueueSize | None, wanted: QueueSize, spool: Spool, chosen: str | None
) -> Check:
    """Judge which transport suits this host.

    Args:
        posix: The POSIX queue that exists or would be created.
        size: Its size; None if it is impossible.
        wanted: The size that it should have.
        spool: Whether a spool can be used.
        chosen: `queue.transport`; None without a configuration.
    """
    fields: dict[str, Field] = {
        "posix": posix.value,
        "spool": spool.value,
        "chosen": chosen,
        "wanted": size_fields(wanted),
        "expected": None if size is None else size_fields(size),
    }
    queue = "no POSIX queue" if size is None else f"a POSIX queue of {size} instead of {wanted}"
    if posix is Posix.WANTED and spool is Spool.USABLE:
        found = f"both suit: a POSIX queue of {size}, and the spool"
        return ok(Code.TRANSPORT_EITHER, _NAME, found, fields=fields)
    if posix is Posix.WANTED:
        why = "no spool is configured" if spool is Spool.UNSET else "the spool can't be used"
        found = f"the POSIX queue suits, with {size}; {why}"
        return ok(Code.TRANSPORT_POSIX, _NAME, found, fields=fields)
    found = f"the limits of this host allow {queue}"
    if spool is Spool.UNSET:
        return warning(
            Code.TRANSPORT_SPOOL_UNSET,
            _NAME,
            f"the spool suits: {found}",
            f"set spool.directory to a directory that services and publisher share; {SPOOL_REMEDY}",
            fields=fields,
        )
    if spool is Spool.UNUSABLE:
        return problem(
            Code.TRANSPORT_NONE,
            _NAME,
            f"neither suits: {found}, and the spool can't be used",
            "see the remedy of the spool folder or its file system; a spool doesn't depend on kernel limits",
            fields=fields,
        )
    if chosen == "posix":
        return warning(
            Code.TRANSPORT_SPOOL_UNUSED,
            _NAME,
            f"the spool suits and can be used: {found}, which is what services use",
            f"set queue.transport = both, or spool; {SPOOL_REMEDY}",
            fields=fields,
        )
    return ok(Code.TRANSPORT_SPOOL, _NAME, f"the spool suits and can be used; {found}", fields=fields)
