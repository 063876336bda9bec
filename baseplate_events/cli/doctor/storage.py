"""Looks at the folders of the publisher: its spool, and its dead letters.

Nothing is made, written or deleted. To see whether a publisher uses a folder, its lock is asked for and let
go of at once; a publisher that starts in that very instant may find it taken, and has to be started again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ...event_publisher.dead_letters.record import Letter
from ...event_publisher.dead_letters.store import DeadLetterError, file_numbers, read_letters
from ...event_publisher.spool.segment_format import LINE_LIMIT, SegmentFormat
from ..common import command_line, counted
from ..queue.info import user_name
from .checks import judge_space
from .findings import Code, Verdict, ok, problem, skipped, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...event_publisher.config.settings import DeadLetterSettings, SpoolSettings
    from .findings import Check, Field

_SEGMENTS: Final = "segment-*"
_JOURNALS: Final = "journal-*"


def check_spool(settings: SpoolSettings | None, version: str) -> Iterator[Check]:
    """Look at the spool.

    Args:
        settings: Its settings, or None where there is none.
        version: The format of the events, `collector.version`.
    """
    if settings is None:
        yield skipped(
            Code.SPOOL_UNSET,
            "spool folder",
            "spool.directory isn't set: a `kill -9` of the publisher costs the events that it has in hand",
        )
        return
    folder = check_folder("spool folder", "spool.directory", settings.directory)
    yield folder
    if folder.verdict is Verdict.PROBLEM:
        return
    segments: dict[str, int] = {}
    if Path(settings.directory).is_dir():
        yield _check_lock(settings.directory)
        segments = _sizes(settings.directory, _SEGMENTS) | _sizes(settings.directory, _JOURNALS, held=True)
        yield _check_segments(settings.directory, segments, version)
    yield judge_space(
        "spool space",
        "spool.max_size",
        free=_free(_existing(settings.directory)),
        used=sum(segments.values()),
        max_size=settings.max_size,
    )


def check_dead_letters(settings: DeadLetterSettings | None) -> Iterator[Check]:
    """Look at the dead letters; settings are None where there are none."""
    if settings is None:
        yield skipped(
            Code.DEAD_LETTERS_UNSET,
            "dead letters",
            "there is no folder for them: events that the collector refuses are dropped",
        )
        return
    directory = settings.directory
    folder = check_folder("dead letters folder", "dead_letters.directory", directory)
    yield folder
    if folder.verdict is Verdict.PROBLEM or not Path(directory).is_dir():
        return
    try:
        letters = [
            entry
            for number in file_numbers(directory)
            for entry in read_letters(directory, number)
            if isinstance(entry, Letter)
        ]
    except DeadLetterError as exc:
        yield problem(
            Code.DEAD_LETTERS_UNREADABLE,
            "dead letters",
            f"{exc.path}: {exc.problem}",
            _unreadable_remedy(directory),
            commands=(_take_over(directory),),
            fields={"path": str(exc.path), "reason": exc.problem},
        )
        return
    size = sum(len(letter.event) for letter in letters)
    fields: dict[str, Field] = {"path": directory, "events": len(letters), "bytes": size}
    if not letters:
        yield ok(Code.DEAD_LETTERS_NONE, "dead letters", "none", fields=fields)
        return
    show = command_line("dead-letters", "list", directory)
    yield warning(
        Code.DEAD_LETTERS_KEPT,
        "dead letters",
        f"{counted(len(letters), 'event')} that the collector refused, {size:,} bytes",
        f"see why: `{show}`; then replay or purge them",
        commands=(show,),
        fields=fields,
    )


def check_folder(name: str, key: str, path: str) -> Check:
    """Look at a folder of the publisher by the rules that it has for them.

    Args:
        name: Name of the check.
        key: The key that names the folder.
        path: The folder, which needn't be there yet.
    """
    user = user_name(os.geteuid())
    fields = {"key": key, "path": path, "user": user}
    try:
        status = Path(path).stat()  # a link to a folder is followed
    except FileNotFoundError:
        return _check_place(name, key, path)
    except OSError as exc:
        return problem(
            Code.FOLDER_UNREACHABLE,
            name,
            f"{path}: {exc.strerror}",
            f"name another folder in {key}, or let user {user} into those above it",
            fields={**fields, "reason": str(exc.strerror)},
        )
    if not stat.S_ISDIR(status.st_mode):
        return problem(
            Code.FOLDER_IS_NONE,
            name,
            f"{path} isn't a folder",
            f"name another in {key}, or move the file away",
            fields=fields,
        )
    if status.st_uid != os.geteuid():
        owner, take_over = user_name(status.st_uid), _take_over(path)
        return problem(
            Code.FOLDER_FOREIGN,
            name,
            f"{path} belongs to user {owner}, and this process runs as {user}",
            f"run publisher and doctor as that user, or name another folder in {key}; if it is this "
            f"publisher's alone, as root: `{take_over}`",
            commands=(take_over,),
            fields={**fields, "owner": owner},
        )
    close = f"chmod 0700 {shlex.quote(path)}"
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        if _is_read_only(path):
            return problem(
                Code.FOLDER_READ_ONLY,
                name,
                f"{path} is on a disk that is read-only",
                _remount_remedy(path),
                commands=_remount(path),
                fields=fields,
            )
        return problem(
            Code.FOLDER_NOT_WRITABLE,
            name,
            f"{path}: its owner may not write to it",
            f"`{close}`",
            commands=(close,),
            fields=fields,
        )
    open_to_others = status.st_mode & 0o077
    if open_to_others and (status.st_mode & stat.S_ISVTX or any(Path(path).iterdir())):
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        return problem(
            Code.FOLDER_OPEN_TO_OTHERS,
            name,
            f"{path} is open to other users (mode {mode})",
            f"`{close}` if nobody else uses it, or name another folder in {key}",
            commands=(close,),
            fields={**fields, "mode": mode},
        )
    return ok(Code.FOLDER_USABLE, name, f"{path} can be used by user {user}", fields=fields)


def _check_place(name: str, key: str, path: str) -> Check:
    """Look whether a folder that isn't there can be made."""
    above = _existing(path)
    uid = os.geteuid()
    user = user_name(uid)
    fields = {"key": key, "path": path, "user": user, "above": str(above)}
    if above.is_symlink() and not above.exists():
        target = str(above.readlink())
        return problem(
            Code.FOLDER_BEHIND_A_BROKEN_LINK,
            name,
            f"{above} is a link to {target}, which isn't there",
            f"mount the disk that it is on, or make that folder, or name another in {key}",
            fields={**fields, "target": target},
        )
    if os.access(above, os.W_OK | os.X_OK):
        return ok(Code.FOLDER_TO_COME, name, f"{path} isn't there; the publisher makes it", fields=fields)
    if _is_read_only(above):
        return problem(
            Code.FOLDER_UNMAKABLE_READ_ONLY,
            name,
            f"{path} isn't there, and {above} is on a disk that is read-only",
            _remount_remedy(above),
            commands=_remount(above),
            fields=fields,
        )
    make = f"install -d -m 0700 -o {uid} {shlex.quote(path)}"
    return problem(
        Code.FOLDER_UNMAKABLE,
        name,
        f"{path} isn't there, and user {user} can't make it in {above}",
        f"as root: `{make}`, or name another folder in {key}",
        commands=(make,),
        fields=fields,
    )


def _is_read_only(path: str | Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _remount(path: str | Path) -> tuple[str, str]:
    """Give the commands by which root sees whether a disk fails, and makes it writable."""
    mount_point = f'"$(findmnt -n -o TARGET -T {shlex.quote(str(path))})"'
    return "dmesg", f"mount -o remount,rw {mount_point}"


def _remount_remedy(path: str | Path) -> str:
    look, remount = _remount(path)
    return f"see by `{look}` whether the disk fails; if it doesn't, as root: `{remount}`"


def _take_over(path: str) -> str:
    """Write the command by which root gives a folder and what is in it to the user of this process."""
    return f"chown -R {os.geteuid()} {shlex.quote(path)}"


def _unreadable_remedy(path: str) -> str:
    return (
        f"if it is another user's, as root: `{_take_over(path)}`; if it isn't, mend that disk, or move the "
        "file away"
    )


def _check_lock(path: str) -> Check:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Shared, so that two doctors aren't taken for a publisher.
        fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return ok(Code.SPOOL_LOCKED, "spool lock", "in use by a running publisher")
    finally:
        os.close(folder)  # and let go of the lock
    return ok(Code.SPOOL_UNLOCKED, "spool lock", "no publisher uses it now")


def _check_segments(path: str, sizes: dict[str, int], version: str) -> Check:
    name = "spool segments"
    if not sizes:
        return ok(Code.SEGMENTS_NONE, name, "none: nothing waits on the disk")
    oldest = min(sizes, key=lambda segment: (len(segment), segment))
    file = f"{path}/{oldest}"
    try:
        with Path(file).open("rb") as segment:
            refusal = SegmentFormat(version).refusal(segment.read(LINE_LIMIT))
    except FileNotFoundError:
        refusal = None  # delivered in the meantime
    except OSError as exc:
        return problem(
            Code.SEGMENT_UNREADABLE,
            name,
            f"{file}: {exc.strerror}",
            _unreadable_remedy(path),
            commands=(_take_over(path),),
            fields={"path": file, "reason": str(exc.strerror)},
        )
    if refusal is not None:
        found, _, remedy = refusal.partition("; ")
        return problem(Code.SEGMENT_REFUSED, name, f"{file} {found}", remedy, fields={"path": file})
    total = sum(sizes.values())
    return ok(
        Code.SEGMENTS_WAITING,
        name,
        f"{len(sizes):,}, {total:,} bytes; a publisher delivers them before new events",
        fields={"segments": len(sizes), "bytes": total},
    )


def _sizes(directory: str, pattern: str, *, held: bool = False) -> dict[str, int]:
    """Give the sizes of the files of a folder by name; with `held` of those that don't begin with zero."""
    sizes: dict[str, int] = {}
    for path in Path(directory).glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # delivered in the meantime
            if not held or path.is_symlink() or _begins(path):
                sizes[path.name] = path.lstat().st_size
    return sizes


def _begins(path: Path) -> bool:
    """Tell whether a journal holds events; a file that can't be read is looked at later."""
    try:
        with path.open("rb") as file:
            return file.read(1) not in {b"", b"\0"}
    except PermissionError:
        return True


def _existing(path: str) -> Path:
    """Give a folder, or the nearest one above it that is there."""
    place = Path(path).absolute()
    while not os.path.lexists(place):
        place = place.parent
    return place


def _free(directory: Path) -> int:
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
