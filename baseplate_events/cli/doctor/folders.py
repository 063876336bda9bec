"""Looks at a folder that the publisher uses, or will make. Changes nothing."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from ..queue.info import user_name
from .findings import Code, ok, problem

if TYPE_CHECKING:
    from .findings import Check, Field


def check_folder(name: str, key: str, path: str) -> Check:
    """Look at a folder that the publisher makes with all above it, unless it is there.

    Args:
        name: Name of the check.
        key: The key that names the folder.
        path: The folder, which needn't be there yet.
    """
    found = look_up(name, key, path)
    if found is None:
        return check_place(name, key, path, f"install -d -m 0700 -o {os.geteuid()} {shlex.quote(path)}")
    return found if not isinstance(found, os.stat_result) else check_use(name, key, path, os.W_OK | os.X_OK)


def look_up(name: str, key: str, path: str) -> os.stat_result | Check | None:
    """Return the status of a folder, or what is wrong with its path; None if it isn't there."""
    fields = fields_of(key, path)
    try:
        status = Path(path).stat()  # a link to a folder is followed
    except FileNotFoundError:
        above = nearest(path)
        if not above.is_symlink() or above.exists():
            return None
        target = str(above.readlink())
        return problem(
            Code.FOLDER_BEHIND_A_BROKEN_LINK,
            name,
            f"{above} is a link to {target}, which doesn't exist",
            f"mount the disk that it is on, or make that folder, or name another in {key}",
            fields={**fields, "above": str(above), "target": target},
        )
    except OSError as exc:
        return problem(
            Code.FOLDER_UNREACHABLE,
            name,
            f"{path}: {exc.strerror}",
            f"name another folder in {key}, or give user {fields['user']} access to the folders above it",
            fields={**fields, "reason": str(exc.strerror)},
        )
    if stat.S_ISDIR(status.st_mode):
        return status
    return problem(
        Code.FOLDER_IS_NONE,
        name,
        f"{path} isn't a folder",
        f"name another in {key}, or move the file away",
        fields=fields,
    )


def check_use(name: str, key: str, path: str, access: int) -> Check:
    """Look whether this user gets at a folder that is there.

    Args:
        name: Name of the check.
        key: The key that names the folder.
        path: The folder.
        access: What is needed, as `os.access` takes it.
    """
    fields = fields_of(key, path)
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        remedy, commands = _remount(path)
        return problem(
            Code.FOLDER_READ_ONLY,
            name,
            f"{path} is on a disk that is read-only",
            remedy,
            commands=commands,
            fields=fields,
        )
    if os.access(path, access):
        return ok(Code.FOLDER_USABLE, name, f"{path} can be used by user {fields['user']}", fields=fields)
    status = Path(path).stat()
    take_over = take_over_command(path)
    if status.st_uid == os.geteuid():
        take_over = f"chmod u+rwx {shlex.quote(path)}"
    return problem(
        Code.FOLDER_NOT_WRITABLE,
        name,
        f"user {fields['user']} may not write to {path}, which belongs to {user_name(status.st_uid)} (mode "
        f"{stat.S_IMODE(status.st_mode):04o})",
        f"run publisher and doctor as that user, or name another folder in {key}, or as root: `{take_over}`",
        commands=(take_over,),
        fields={**fields, "owner": user_name(status.st_uid), "mode": f"{stat.S_IMODE(status.st_mode):04o}"},
    )


def check_place(name: str, key: str, path: str, make: str) -> Check:
    """Look whether a folder that isn't there can be made.

    Args:
        name: Name of the check.
        key: The key that names the folder.
        path: The folder.
        make: The command by which root makes it.
    """
    above = nearest(path)
    fields = {**fields_of(key, path), "above": str(above)}
    if os.statvfs(above).f_flag & os.ST_RDONLY:
        remedy, commands = _remount(above)
        return problem(
            Code.FOLDER_UNMAKABLE_READ_ONLY,
            name,
            f"{path} doesn't exist, and {above} is on a disk that is read-only",
            remedy,
            commands=commands,
            fields=fields,
        )
    if os.access(above, os.W_OK | os.X_OK):
        found = f"{path} doesn't exist; the first process that uses it creates it"
        return ok(Code.FOLDER_TO_COME, name, found, fields=fields)
    return problem(
        Code.FOLDER_UNMAKABLE,
        name,
        f"{path} doesn't exist, and user {fields['user']} can't create it in {above}",
        f"as root: `{make}`, or name another folder in {key}",
        commands=(make,),
        fields=fields,
    )


def fields_of(key: str, path: str) -> dict[str, Field]:
    """Give the fields of a finding about a folder."""
    return {"key": key, "path": path, "user": user_name(os.geteuid())}


def nearest(path: str) -> Path:
    """Give a folder, or the nearest one above it that is there."""
    place = Path(path).absolute()
    while not os.path.lexists(place):
        place = place.parent
    return place


def take_over_command(path: str) -> str:
    """Write the command by which root gives a folder and what is in it to the user of this process."""
    return f"chown -R {os.geteuid()} {shlex.quote(path)}"


def _remount(path: str | Path) -> tuple[str, tuple[str, str]]:
    """Give the remedy for a read-only disk, and its commands: see whether it fails, and make it writable."""
    remount = f'mount -o remount,rw "$(findmnt -n -o TARGET -T {shlex.quote(str(path))})"'
    remedy = f"run `dmesg` to see whether the disk fails; if it doesn't, as root: `{remount}`"
    return remedy, ("dmesg", remount)
