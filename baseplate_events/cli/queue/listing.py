"""The action `list`: lists the POSIX event queues of this host, and the spools of a directory."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from ..._words import counted
from ...errors import EventQueueUnavailableError
from ...event_publisher.exit_status import print_stderr
from ...spool import problems
from ..terminal import format_age, printable, write_table
from .info import MOUNT_COMMAND
from .posix import inspect_existing
from .spool_place import SpoolPlace

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Where Linux shows POSIX queues, if mounted.
QUEUES: Final = "/dev/mqueue"

#: Prefix of the names of event queues and of spool folders.
_EVENTS: Final = "events-"


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the list: one event queue.

    Attributes:
        name: NAME of the queue.
        transport: `posix` or `spool`.
        path: POSIX name of the queue, or path of the spool.
        depth: Events in it; None for a spool, and if unknown.
        capacity: Events that it holds; None likewise.
        backlog_bytes: Undelivered bytes of a spool; None for a POSIX queue, and likewise.
        oldest_seconds: Age of the oldest segment of a spool; None for none, and likewise.
        publisher: Whether a publisher reads a spool; None for a POSIX queue, and likewise.
        problem: Why it can't be inspected; None if it can.
    """

    name: str
    transport: str
    path: str
    depth: int | None = None
    capacity: int | None = None
    backlog_bytes: int | None = None
    oldest_seconds: float | None = None
    publisher: bool | None = None
    problem: str | None = None


def list_queues(directory: str | None, *, as_json: bool) -> int:
    """Perform the action `list`, and return the exit status.

    Args:
        directory: The directory of spools, an absolute path; None to list no spools.
        as_json: Whether to write one JSON object.

    Raises:
        EventQueueUnavailableError: The directory of spools can't be read.
    """
    rows, warnings = list[_Row](), list[str]()
    try:
        rows += map(_posix_row, _names_in(QUEUES))
    except OSError as exc:
        warnings.append(
            f"POSIX queues aren't listed, because {QUEUES} can't be read ({exc.strerror}); run "
            f"`{MOUNT_COMMAND}` as root to see them"
        )
    if directory is not None:
        try:
            names = list(_names_in(directory))
        except OSError as exc:
            path = os.path.join(directory, _EVENTS)  # noqa: PTH118 - strings throughout
            raise EventQueueUnavailableError(directory, problems.unusable(path, exc)) from exc
        rows += [_spool_row(SpoolPlace(directory, name)) for name in names]
    if as_json:
        sys.stdout.write(json.dumps({"queues": [asdict(row) for row in rows], "warnings": warnings}) + "\n")
        return 0
    head = [("NAME", "TRANSPORT", "BACKLOG", "OLDEST", "PUBLISHER")] if rows else []
    write_table([*head, *map(_cells, rows)], warnings)
    if not rows:
        where = f"or spool in {directory}" if directory is not None else "and no spool directory was given"
        print_stderr(f"no event queue {where}")
    return 0


def _names_in(directory: str) -> Iterator[str]:
    """Yield the names of the event queues in a directory."""
    return (name.removeprefix(_EVENTS) for name in sorted(os.listdir(directory)) if name.startswith(_EVENTS))  # noqa: PTH208 - likewise


def _posix_row(name: str) -> _Row:
    path = f"/{_EVENTS}{name}"
    try:
        info = inspect_existing(path)
    except EventQueueUnavailableError as exc:  # it may just have been removed
        return _Row(name, "posix", path, problem=exc.problem)
    return _Row(name, "posix", path, depth=info.depth, capacity=info.size.max_messages)


def _spool_row(place: SpoolPlace) -> _Row:
    try:
        info = place.inspect()
    except EventQueueUnavailableError as exc:
        return _Row(place.name, "spool", place.path, problem=exc.problem)
    return _Row(
        place.name,
        "spool",
        place.path,
        backlog_bytes=info.backlog,
        oldest_seconds=info.oldest_age(time.time()),
        publisher=info.has_reader,
    )


def _cells(row: _Row) -> tuple[str, ...]:
    """Format a queue as a row of a table."""
    name, where = printable(row.name), row.transport
    if row.problem is not None:
        return name, where, printable(row.problem)
    if row.depth is not None:
        return name, where, f"{row.depth:,} of {counted(row.capacity or 0, 'event')}", "", ""
    oldest = "" if row.oldest_seconds is None else format_age(row.oldest_seconds)
    publisher = {True: "yes", False: "no", None: "unknown"}[row.publisher]
    return name, where, counted(row.backlog_bytes or 0, "byte"), oldest, publisher
