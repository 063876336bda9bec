"""The actions of `queue` on a spool; the first argument of each is its place."""

from __future__ import annotations

import json
import shlex
import sys
import time
from typing import TYPE_CHECKING, final

from ..._words import counted
from ...counting.refusals import RefusalCounts
from ...errors import ConfigurationError, EventQueueFullError, EventQueueUnavailableError
from ...event_publisher.exit_status import print_stderr
from ...event_publisher.standard_streams import report
from ...events import MAX_SPOOL_SIZE
from ...spool import UNKNOWN_FORMAT, problems
from ...spool.file_systems import Suitability
from ...spool.format import MAX_PAYLOAD
from ...spool.permissions import SHARED
from ...transport.spool import SpoolTransport
from ..terminal import format_age, printable, write_table
from . import transfer
from .info import group_name, user_name
from .spool_events import SpoolEvents, own_spool
from .spool_info import inspect_folder, inspect_spool, open_spool, read_contents

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from ...spool.directory import SpoolDirectory
    from .spool_info import SpoolContents, SpoolInfo
    from .spool_place import SpoolPlace


def stat(place: SpoolPlace, arguments: argparse.Namespace) -> int:
    """Perform the action `stat`, and return the exit status."""
    with open_spool(place.path) as folder:
        if folder is None:
            raise place.absent()
        info = inspect_folder(place.path, folder)
        contents = read_contents(info, folder)
    oldest = info.oldest_age(time.time())
    warnings = _warnings(info, contents)
    if arguments.json:
        members = {
            "name": place.name,
            "transport": "spool",
            "path": info.path,
            "depth": None,
            "backlog_bytes": info.backlog,
            "oldest_seconds": oldest,
            "segments": len(info.segments),
            "formats": contents.formats,
            "unreadable": contents.unreadable,
            "refused": contents.findings.refusals,
            "publisher": info.has_reader,
            "file_system": info.file_system,
            "suitability": info.suitability.name.lower(),
            "free_bytes": info.free_bytes,
            "free_inodes": info.free_inodes,
            "uid": info.uid,
            "gid": info.gid,
            "mode": f"{info.mode:04o}",
            "warnings": warnings,
        }
        sys.stdout.write(json.dumps(members) + "\n")
        return 0
    rows = [
        ("path", printable(info.path)),
        ("backlog", counted(info.backlog, "byte")),
        ("segments", _describe_segments(info, contents, oldest)),
        ("publisher", {True: "running", False: "none", None: "unknown"}[info.has_reader]),
        ("refused", _list(contents.findings.refusals) or "none reported"),
        ("disk", f"{info.file_system or 'unknown'} ({info.suitability.name.lower()}), {free_room(info)}"),
        ("owner", f"{user_name(info.uid)}, group {group_name(info.gid)}"),
        ("mode", f"{info.mode:04o}: {info.users} may use it"),
    ]
    write_table(rows, warnings)
    return 0


def read(place: SpoolPlace, arguments: argparse.Namespace) -> int:
    """Perform the action `read`, and return the exit status."""
    with own_spool(place) as spool, SpoolEvents(spool) as events:
        return transfer.read(events, arguments)


def write(place: SpoolPlace, arguments: argparse.Namespace) -> int:
    """Perform the action `write`, and return the exit status."""
    size: int = arguments.spool_max_size or MAX_SPOOL_SIZE
    with transfer.open_input(arguments.file) as lines:
        info = place.inspect()
        directory = place.at(info.file_mode)
        directory.prepare()
        sink = SpoolSink(directory, size)
        try:
            return transfer.write(sink, info.path, lines, arguments.timeout)
        finally:
            sink.close()


def create(place: SpoolPlace, arguments: argparse.Namespace) -> int:
    """Perform the action `create`, and return the exit status."""
    for option in ("max_queue_size", "max_event_size", "strict"):
        if getattr(arguments, option):
            raise ConfigurationError(
                f"--{option.replace('_', '-')}: {place.path} is a spool; its size is set by each service "
                "(max_spool_size); omit this option"
            )
    before = inspect_spool(place.path)
    directory = place.at(arguments.queue_mode if before is None else before.file_mode)
    directory.prepare()
    info = inspect_spool(place.path)
    if info is None:
        raise EventQueueUnavailableError(place.path, "no space left for the folder; free space on that disk")
    verb = "created:" if before is None else "already exists:"
    sharing = "shared with a group" if info.file_mode == SHARED else "of one user"
    report(
        f"{info.path} {verb} a spool {sharing}, mode {info.mode:04o}, on {info.file_system or 'unknown'}, "
        f"{free_room(info)}"
    )
    if before is not None and info.file_mode != arguments.queue_mode:
        folder = shlex.quote(info.path)
        change = (
            f"chgrp GROUP {folder} && chmod 2770 {folder}"
            if arguments.queue_mode == SHARED
            else f"chmod 00700 {folder}"
        )
        print_stderr(f"its mode is unchanged; change it with `{change}` as its owner")
    return 0


@final
class SpoolSink:
    """A spool to which events are written as by services; a `Sink`.

    Args:
        directory: The spool, prepared.
        max_size: Bytes of undelivered events that it may hold.
    """

    def __init__(self, directory: SpoolDirectory, max_size: int) -> None:
        self.max_event_size: int = MAX_PAYLOAD
        self._transport = SpoolTransport(
            directory,
            UNKNOWN_FORMAT,
            max_size=max_size,
            max_message_size=MAX_PAYLOAD,
            refusals=RefusalCounts(),
        )

    def try_put(self, event: bytes) -> str:
        """Put an event; return "", or why the spool has no room."""
        try:
            self._transport.put(event)
        except EventQueueFullError as exc:
            return str(exc)
        return ""

    def wait(self, seconds: float) -> None:
        """Wait a little: nothing announces that there is room."""
        time.sleep(seconds)

    def close(self) -> None:
        """Close the segment."""
        self._transport.close()


def free_room(info: SpoolInfo) -> str:
    """Format the free space of its file system."""
    inodes = "" if info.free_inodes is None else f" and {counted(info.free_inodes, 'inode')}"
    return f"{counted(info.free_bytes, 'byte')}{inodes} free"


def _describe_segments(info: SpoolInfo, contents: SpoolContents, oldest: float | None) -> str:
    words = [f"{len(info.segments):,}"]
    if oldest is not None:
        words.append(f"the oldest started {format_age(oldest)} ago")
    if contents.formats:
        words.append(f"formats: {_list(contents.formats)}")
    return "; ".join(words)


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{printable(name)} {count:,}" for name, count in sorted(counts.items()))


def _warnings(info: SpoolInfo, contents: SpoolContents) -> list[str]:
    warnings = [f"{name} can't be read: {problem}" for name, problem in contents.unreadable.items()]
    if info.mode & 0o007:
        warnings.append(
            f"every user of this host may read the events in {info.path}; to prevent that, run "
            f"`chmod o-rwx {shlex.quote(info.path)}` as its owner"
        )
    if info.suitability is Suitability.UNSUITABLE:
        warnings.append(problems.unsuitable(info.file_system))
    elif info.suitability is Suitability.UNPROVEN:
        warnings.append(
            "only a test can say whether its file system does what a spool needs; to be safe, use a "
            "directory of a local disk (ext4, XFS, Btrfs)"
        )
    return warnings
