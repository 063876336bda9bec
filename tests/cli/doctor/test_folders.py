"""The doctor's check of a folder that the publisher creates or finds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from baseplate_events.cli.doctor.findings import Code
from baseplate_events.cli.doctor.folders import check_folder
from baseplate_events.cli.queue.info import user_name
from tests.support.doctors import check_words, configured, diagnose, doctor_in, sound
from tests.support.queues import OTHER_UID, needs_root, unprivileged
from tests.support.sandbox import sandbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from baseplate_events.cli.doctor.findings import Check

KEY = "dead_letters.directory"


def look(path: Path) -> Check:
    """Look at a folder alone."""
    return sound(check_folder("dead letters folder", KEY, str(path)))


def test_a_folder_to_come_isnt_made(tmp_path: Path) -> None:
    """A folder that the publisher can create is ok, and isn't created by the check."""
    path = tmp_path / "deep" / "letters"
    check = diagnose(tmp_path, "http://127.0.0.1:9", "--no-probe", dead_letters__directory=str(path))[
        "dead letters folder"
    ]
    assert check.code is Code.FOLDER_TO_COME
    assert check.fields == {
        "key": KEY,
        "path": str(path),
        "user": user_name(os.geteuid()),
        "above": str(tmp_path),
    }
    assert not (tmp_path / "deep").exists()


def make_file(path: Path) -> None:
    """Make a file where a folder is expected."""
    path.write_text("")


def make_dangling(path: Path) -> None:
    """Make a link to a disk that isn't mounted."""
    path.symlink_to("/mnt/that isn't there")


def make_below_a_file(path: Path) -> None:
    """Make a link through something that isn't a folder."""
    path.symlink_to("/etc/hostname/letters")


@pytest.mark.parametrize(
    ("make", "code", "fields"),
    [
        (make_file, Code.FOLDER_IS_NONE, {}),
        (make_dangling, Code.FOLDER_BEHIND_A_BROKEN_LINK, {"target": "/mnt/that isn't there"}),
        (make_below_a_file, Code.FOLDER_UNREACHABLE, {"reason": "Not a directory"}),
    ],
)
def test_a_folder_that_cant_be_used_is_a_problem(
    tmp_path: Path, make: Callable[[Path], None], code: Code, fields: dict[str, str]
) -> None:
    """What the publisher would refuse is reported before it is started, and left unchanged."""
    path = tmp_path / "letters"
    make(path)
    before = path.lstat()[:7]
    check = look(path)
    assert check.code is code
    expected = {"key": KEY, "path": str(path), "user": user_name(os.geteuid()), **fields}
    assert expected.items() <= check.fields.items()
    assert before == path.lstat()[:7]


def test_a_folder_that_is_there_can_be_used(tmp_path: Path) -> None:
    """Through a link too; whoever may enter it, the file in it is closed to others."""
    path = tmp_path / "letters"
    path.mkdir(0o755)
    (tmp_path / "link").symlink_to(path)
    for each in (path, tmp_path / "link"):
        assert look(each).code is Code.FOLDER_USABLE


@needs_root
def test_permissions_are_those_of_the_user_who_asks(tmp_path: Path) -> None:
    """A user who can't create, enter or write to the folder is reported, with the command that fixes it."""
    look(tmp_path)  # another user may not be able to read all modules
    own, closed = tmp_path / "own", tmp_path / "closed"
    own.mkdir()
    os.chown(own, OTHER_UID, OTHER_UID)
    own.chmod(0o500)
    closed.mkdir(0o700)
    for path, code, commands in (
        (tmp_path / "new", Code.FOLDER_UNMAKABLE, [f"install -d -m 0700 -o {OTHER_UID} {tmp_path}/new"]),
        (own, Code.FOLDER_NOT_WRITABLE, [f"chmod u+rwx {own}"]),
        (closed, Code.FOLDER_NOT_WRITABLE, [f"chown -R {OTHER_UID} {closed}"]),
        (closed / "letters", Code.FOLDER_UNREACHABLE, []),
    ):
        with unprivileged(tmp_path):
            check = look(path)
        assert check.code is code
        assert {"path": str(path), "user": user_name(OTHER_UID)}.items() <= check.fields.items()
        assert commands == list(check.commands)


def test_the_words_on_a_folder(tmp_path: Path) -> None:
    """The path is named, what is wrong with it, and the command or the key that fixes it."""
    user = user_name(os.geteuid())
    path = tmp_path / "a b"
    check_words(look(path), f"{path} doesn't exist; the first process that uses it creates it")
    path.mkdir(0o700)
    check_words(look(path), f"{path} can be used by user {user}")
    path = tmp_path / "file"
    make_file(path)
    check_words(look(path), f"{path} isn't a folder", f"name another in {KEY}, or move the file away")
    check_words(
        look(path / "x"),
        f"{path}/x: Not a directory",
        f"name another folder in {KEY}, or give user {user} access to the folders above it",
    )
    path = tmp_path / "link"
    make_dangling(path)
    check_words(
        look(path),
        f"{path} is a link to /mnt/that isn't there, which doesn't exist",
        f"mount the disk that it is on, or make that folder, or name another in {KEY}",
    )


@needs_root
def test_the_words_on_a_folder_that_needs_root(tmp_path: Path) -> None:
    """Both users are named, and the command for root, with the path quoted."""
    user = user_name(OTHER_UID)
    path = tmp_path / "a b"
    look(path)  # another user may not be able to read all modules
    with unprivileged(tmp_path):
        check = look(path)
    check_words(
        check,
        f"{path} doesn't exist, and user {user} can't create it in {tmp_path}",
        f"as root: `install -d -m 0700 -o {OTHER_UID} '{path}'`, or name another folder in {KEY}",
    )
    path.mkdir(0o700)
    with unprivileged(tmp_path):
        check = look(path)
    check_words(
        check,
        f"user {user} may not write to {path}, which belongs to {user_name(0)} (mode 0700)",
        f"run publisher and doctor as that user, or name another folder in {KEY}, or as root: "
        f"`chown -R {OTHER_UID} '{path}'`",
    )


def test_the_words_on_a_disk_that_is_read_only(tmp_path: Path) -> None:
    """The command finds the mount point, after one that shows why it may be read-only."""
    disk = tmp_path / "a b"
    disk.mkdir()
    remedy = (
        "run `dmesg` to see whether the disk fails; if it doesn't, as root: "
        f"`mount -o remount,rw \"$(findmnt -n -o TARGET -T '{disk}')\"`"
    )
    for folder, words in (
        (disk, f"{disk} is on a disk that is read-only"),
        (disk / "x", f"{disk}/x doesn't exist, and {disk} is on a disk that is read-only"),
    ):
        keys = {"dead_letters__directory": str(folder)}
        with sandbox(tmp_path) as place, configured(tmp_path, **keys) as arguments:
            place.set_up("mount", "-t", "tmpfs", "-o", "ro,mode=0700", "none", str(disk))
            check = doctor_in(place, *arguments, "--no-probe")["dead letters folder"]
        check_words(check, words, remedy)
