"""Checks the spool: its folder, its disk, its segments, and its reader.

Nothing is created, corrected or deleted. To see whether a publisher reads the spool, its lock is requested
and released at once, as services do; a publisher that starts at that moment tries again. The file system
isn't probed, since that would create a file.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ..._words import counted
from ...errors import EventQueueUnavailableError
from ...event_publisher.ledger.file import SPOOL_NAME
from ...spool import UNKNOWN_FORMAT, problems
from ...spool.file_systems import Suitability, file_system_of, judge_file_system
from ...spool.format import UnreadableSegmentError
from ...spool.permissions import SHARED, DirectoryAccess, Fault, file_mode
from ..queue.spool_info import FLAGS, inspect_folder, open_spool, read_header
from .checks import judge_inodes, judge_space
from .findings import Code, Verdict, ok, problem, skipped, warning
from .folders import check_place, check_use, fields_of, look_up, nearest, take_over_command
from .letters import check_ledger
from .memory import judge_spool_memory, read_memory_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...spool.format import Header
    from ..queue.spool_info import SpoolInfo
    from .findings import Check, Field

_KEY: Final = "spool.directory"
_FOLDER: Final = "spool folder"
_SEGMENTS: Final = "spool segments"

#: The problems that segments may have.
_NEWER: Final = Code.SEGMENTS_NEWER
_OTHER: Final = Code.SEGMENTS_OF_ANOTHER_FORMAT
_UNREADABLE: Final = Code.SEGMENTS_UNREADABLE

#: File systems in memory.
_IN_MEMORY: Final = frozenset({"ramfs", "tmpfs"})


class SpoolWanted(NamedTuple):
    """The spool that a publisher or a service is configured with.

    Attributes:
        directory: The directory that services and publisher share.
        queue_name: NAME, as in `events-NAME`.
        mode: Permission bits of its files; None without a configuration.
        max_size: Bytes of undelivered events that it may hold.
        event_format: The `collector.version`; None without a configuration.
    """

    directory: str
    queue_name: str
    mode: int | None
    max_size: int
    event_format: str | None

    @property
    def path(self) -> str:
        """The folder of the spool."""
        return str(Path(self.directory, f"events-{self.queue_name}"))


def check_spool(wanted: SpoolWanted | None) -> Iterator[Check]:
    """Check the spool; None if none is configured."""
    if wanted is None:
        yield skipped(
            Code.SPOOL_UNSET,
            _FOLDER,
            f"{_KEY} isn't set: a `kill -9` of the publisher loses the events in its memory",
        )
        return
    folder = _check_folder(wanted)
    yield folder
    if folder.verdict is Verdict.PROBLEM:
        return
    file_system = file_system_of(wanted.path)
    yield _check_file_system(wanted.path, file_system)
    if file_system in _IN_MEMORY:
        yield judge_spool_memory(wanted.max_size, read_memory_limit())
    used = 0
    try:
        with open_spool(wanted.path) as descriptor:
            if descriptor is not None:
                info = inspect_folder(wanted.path, descriptor)
                used = info.backlog
                yield _judge_reader(info)
                yield from _check_segments(info, descriptor, wanted.event_format)
    except EventQueueUnavailableError as exc:
        found, _, remedy = exc.problem.partition("; ")
        yield problem(
            Code.SPOOL_UNREADABLE,
            _SEGMENTS,
            f"{wanted.path}: {found}",
            remedy or "check that disk",
            fields={"path": wanted.path},
        )
        return
    room = os.statvfs(nearest(wanted.path))
    free = room.f_bavail * room.f_frsize
    yield judge_space("spool space", "spool.max_size", free=free, used=used, max_size=wanted.max_size)
    yield judge_inodes("spool inodes", wanted.directory, room.f_favail if room.f_files else None)
    if Path(wanted.path).is_dir():
        yield from check_ledger(str(Path(wanted.path, SPOOL_NAME)))


def _check_folder(wanted: SpoolWanted) -> Check:
    """Check the folder by the rules of services and publisher."""
    directory, path = wanted.directory, wanted.path
    found = look_up(_FOLDER, _KEY, directory)
    if found is None:
        make = f"install -d -m 0755 -o {os.geteuid()} {shlex.quote(directory)}"
        return problem(
            Code.SPOOL_DIRECTORY_MISSING,
            _FOLDER,
            f"the directory {directory} doesn't exist",
            f"mount the volume that services and publisher share there, or create the directory: `{make}`",
            commands=(make,),
            fields=fields_of(_KEY, directory),
        )
    if not isinstance(found, os.stat_result):
        return found
    try:
        status = Path(path).lstat()
    except FileNotFoundError:
        bits = "2770 -g GROUP" if wanted.mode == SHARED else "0700"
        make = f"install -d -m {bits} -o {os.geteuid()} {shlex.quote(path)}"
        return check_place(_FOLDER, _KEY, path, make)
    except OSError:
        return check_use(_FOLDER, _KEY, directory, os.X_OK)
    # Without a configuration, the folder says whether a group shares it.
    access = DirectoryAccess.here(status, file_mode(status.st_mode) if wanted.mode is None else wanted.mode)
    fault = access.judge()
    if not isinstance(fault, Fault):
        return check_use(_FOLDER, _KEY, path, os.R_OK)  # its owner corrects the other bits
    text, _, remedy = access.explain(fault, path).rpartition("; ")
    return problem(
        Code.SPOOL_FOLDER_IS_NONE if fault is Fault.KIND else Code.SPOOL_FOLDER_FORBIDDEN,
        _FOLDER,
        f"{path}: {text}",
        remedy,
        commands=re.findall(r"`([^`]+)`", remedy),
        fields={
            **fields_of(_KEY, path),
            "fault": fault.name.lower(),
            "owner": access.owner,
            "group": access.group,
            "mode": f"{access.mode:04o}",
        },
    )


def _check_file_system(path: str, kind: str | None) -> Check:
    name = "spool file system"
    fields: dict[str, Field] = {"path": path, "file_system": kind}
    suitability = judge_file_system(kind)
    if suitability is Suitability.SUITABLE:
        return ok(Code.SPOOL_FILE_SYSTEM_LOCAL, name, f"{kind}, a local file system", fields=fields)
    if suitability is Suitability.UNSUITABLE:
        found, _, remedy = problems.unsuitable(kind).partition("; ")
        return problem(Code.SPOOL_FILE_SYSTEM_REMOTE, name, f"{path}: {found}", remedy, fields=fields)
    return warning(
        Code.SPOOL_FILE_SYSTEM_UNPROVEN,
        name,
        f"{path}: the file system type is {kind or 'unknown'}; at their start, services and publisher "
        "test whether it does what a spool needs",
        "to be safe, use a directory of a local disk (ext4, XFS, Btrfs); never share this one between hosts "
        "or virtual machines",
        fields=fields,
    )


def _judge_reader(info: SpoolInfo) -> Check:
    name = "spool lock"
    if info.has_reader is None:
        return skipped(Code.SPOOL_LOCK_UNKNOWN, name, "whether a publisher uses it is unknown")
    if info.has_reader:
        return ok(Code.SPOOL_LOCKED, name, "in use by a running publisher")
    return ok(Code.SPOOL_UNLOCKED, name, "no publisher uses it now")


def _check_segments(info: SpoolInfo, folder: int, event_format: str | None) -> Iterator[Check]:
    """Check the headers of all segments, as the publisher does."""
    wrong: dict[Code, dict[str, str]] = defaultdict(dict)
    for name in info.segments:
        try:
            header = _read_header(folder, name)
        except FileNotFoundError:
            continue  # delivered and deleted in the meantime
        except UnreadableSegmentError as exc:
            wrong[_NEWER if exc.newer else _UNREADABLE][name] = str(exc)
        except OSError as exc:
            wrong[_UNREADABLE][name] = str(exc.strerror)
        else:
            known = {event_format, UNKNOWN_FORMAT}
            if event_format is not None and header is not None and header.event_format not in known:
                wrong[_OTHER][name] = f"its events are for collector.version {header.event_format}"
    if not info.segments:
        yield ok(Code.SEGMENTS_NONE, _SEGMENTS, "none: no events are waiting")
    else:
        fields: dict[str, Field] = {"segments": len(info.segments), "bytes": info.backlog}
        found = f"{len(info.segments):,}, {counted(info.backlog, 'byte')} undelivered"
        yield ok(Code.SEGMENTS_WAITING, _SEGMENTS, found, fields=fields)
    take_over = take_over_command(info.path)
    look_after = (
        f"if they are another user's, as root: `{take_over}`; otherwise check the disk, or move "
        "the files away"
    )
    remedies: dict[Code, tuple[str, tuple[str, ...]]] = {
        _NEWER: ("upgrade the publisher: a later release wrote them", ()),
        _OTHER: ("run a publisher with that collector.version until they are delivered", ()),
        _UNREADABLE: (look_after, (take_over,)),
    }
    for code, (remedy, commands) in remedies.items():
        if names := wrong.get(code):
            first, reason = next(iter(names.items()))
            yield warning(
                code,
                "set aside",
                f"{len(names):,} undeliverable, left in place; {first}: {reason}",
                remedy,
                commands=commands,
                fields={"path": f"{info.path}/{first}", "reason": reason, "segments": len(names)},
            )


def _read_header(folder: int, name: str) -> Header | None:
    """Return the header of a segment; None if there is nothing to deliver.

    Raises:
        OSError: It can't be read.
        UnreadableSegmentError: It isn't a segment that this release can read.
    """
    descriptor = os.open(name, FLAGS, dir_fd=folder)
    try:
        return read_header(descriptor, name)
    finally:
        os.close(descriptor)
