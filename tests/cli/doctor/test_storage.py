from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from baseplate_events.cli.common import command_line
from baseplate_events.cli.doctor.findings import Code
from baseplate_events.cli.doctor.storage import check_dead_letters, check_folder, check_spool
from baseplate_events.cli.queue.info import user_name
from baseplate_events.event_publisher.config.settings import DeadLetterSettings, SpoolSettings, Sync
from baseplate_events.event_publisher.dead_letters.store import DeadLetters
from baseplate_events.event_publisher.spool.segment_format import SegmentFormat
from baseplate_events.event_publisher.spool.spool import Spool
from baseplate_events.event_publisher.storage import Folder
from tests.support.doctors import check_words, configured, diagnose, doctor, doctor_in, folders_of, sound
from tests.support.queues import NOBODY, needs_root, unprivileged
from tests.support.sandbox import sandbox
from tests.support.spools import append_all, spool_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from baseplate_events.cli.doctor.findings import Check

KEY = "spool.directory"


def look(path: Path) -> Check:
    """Look at a folder alone."""
    return sound(check_folder("spool folder", KEY, str(path)))


def look_at_spool(path: Path, max_size: int = 1 << 45) -> dict[str, Check]:
    """Look at a spool of events of version 2j alone, and give the checks by name."""
    settings = SpoolSettings(str(path), max_size, Sync.NEVER)
    return {check.name: sound(check) for check in check_spool(settings, "2j")}


def look_at_letters(path: Path) -> Check:
    """Look at dead letters alone."""
    *_, check = map(sound, check_dead_letters(DeadLetterSettings(str(path), 10**6)))
    return check


# --- folders ---


def test_without_folders_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    """What a configuration without folders costs is said."""
    table = diagnose(tmp_path, "http://127.0.0.1:9", "--no-probe")
    assert table["spool folder"].code is Code.SPOOL_UNSET
    assert table["dead letters"].code is Code.DEAD_LETTERS_UNSET
    check_words(
        table["spool folder"],
        "spool.directory isn't set: a `kill -9` of the publisher costs the events that it has in hand",
    )
    check_words(
        table["dead letters"], "there is no folder for them: events that the collector refuses are dropped"
    )


def test_a_folder_to_come_isnt_made(tmp_path: Path) -> None:
    """A spool that the publisher can make is ok, and isn't there afterwards either."""
    path = tmp_path / "deep" / "spool"
    check = folders_of(tmp_path, path)["spool folder"]
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


def make_open(path: Path) -> None:
    """Make a folder that others can enter, with something in it."""
    path.mkdir()
    (path / "somebody's").write_text("")
    path.chmod(0o755)


def make_dangling(path: Path) -> None:
    """Make a link to a disk that isn't mounted."""
    path.symlink_to("/mnt/that isn't there")


def make_below_a_file(path: Path) -> None:
    """Make a link through something that isn't a folder."""
    path.symlink_to("/etc/hostname/spool")


def make_sticky(path: Path) -> None:
    """Make a folder like `/tmp`."""
    path.mkdir()
    path.chmod(0o1777)


def make_foreign(path: Path) -> None:
    """Make a folder of another user."""
    path.mkdir(0o700)
    os.chown(path, NOBODY, NOBODY)


@pytest.mark.parametrize(
    ("make", "code", "fields"),
    [
        (make_file, Code.FOLDER_IS_NONE, {}),
        (make_open, Code.FOLDER_OPEN_TO_OTHERS, {"mode": "0755"}),
        (make_sticky, Code.FOLDER_OPEN_TO_OTHERS, {"mode": "1777"}),
        (make_dangling, Code.FOLDER_BEHIND_A_BROKEN_LINK, {"target": "/mnt/that isn't there"}),
        (make_below_a_file, Code.FOLDER_UNREACHABLE, {"reason": "Not a directory"}),
        pytest.param(make_foreign, Code.FOLDER_FOREIGN, {"owner": user_name(NOBODY)}, marks=needs_root),
    ],
)
def test_a_folder_that_cant_be_the_spool_is_a_problem(
    tmp_path: Path, make: Callable[[Path], None], code: Code, fields: dict[str, str]
) -> None:
    """What the publisher would refuse is told before it is started, and left as it is."""
    path = tmp_path / "spool"
    make(path)
    before = path.lstat()[:7]
    table = folders_of(tmp_path, path)
    check = table["spool folder"]
    assert check.code is code
    expected = {"key": KEY, "path": str(path), "user": user_name(os.geteuid()), **fields}
    assert expected.items() <= check.fields.items()
    assert before == path.lstat()[:7]
    assert table.status == 1
    assert "spool segments" not in table.names  # nor can they be looked at


def test_an_empty_folder_that_is_open_is_ok(tmp_path: Path) -> None:
    """The publisher closes it to others, so it isn't a problem; the doctor leaves it open."""
    path = tmp_path / "spool"
    path.mkdir()
    path.chmod(0o755)
    table = folders_of(tmp_path, path)
    assert table["spool folder"].code is Code.FOLDER_USABLE
    assert table["spool segments"].code is Code.SEGMENTS_NONE
    assert path.stat().st_mode & 0o777 == 0o755


@needs_root
def test_permissions_are_those_of_the_user_who_asks(tmp_path: Path) -> None:
    """A user who can't make, enter or write to the folder is told, with the command that helps."""
    folders_of(tmp_path, tmp_path / "spool")  # another user may not be able to read all modules
    own = tmp_path / "own"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    own.chmod(0o500)
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    new = tmp_path / "new"
    with configured(tmp_path) as arguments:
        arguments += ["--no-probe"]
        config = Path(arguments[0])
        text = config.read_text()
        config.chmod(0o644)
        for directory, code, commands in (
            (new, Code.FOLDER_UNMAKABLE, [f"install -d -m 0700 -o {NOBODY} {new}"]),
            (own, Code.FOLDER_NOT_WRITABLE, [f"chmod 0700 {own}"]),
            (closed / "spool", Code.FOLDER_UNREACHABLE, []),
        ):
            config.write_text(f"{text}spool.directory = {directory}\n")
            with unprivileged(tmp_path):
                check = doctor(*arguments)["spool folder"]
            assert check.code is code
            assert {"path": str(directory), "user": user_name(NOBODY)}.items() <= check.fields.items()
            assert commands == list(check.commands)


def test_a_name_is_that_of_the_folder_that_was_looked_at(tmp_path: Path) -> None:
    """The folder for dead letters has the same findings, with its own name and key."""
    (tmp_path / "file").write_text("")
    table = diagnose(
        tmp_path, "http://127.0.0.1:9", "--no-probe", dead_letters__directory=str(tmp_path / "file")
    )
    check = table["dead letters folder"]
    assert (Code.FOLDER_IS_NONE, "dead_letters.directory") == (check.code, check.fields["key"])
    assert "dead_letters.directory" in check.remedy


def test_the_words_on_a_folder(tmp_path: Path) -> None:
    """The path is named, what is wrong with it, and the command or the key that fixes it."""
    user = user_name(os.geteuid())
    path = tmp_path / "a b"
    check_words(look(path), f"{path} isn't there; the publisher makes it")
    path.mkdir(0o700)
    check_words(look(path), f"{path} can be used by user {user}")
    path.rmdir()
    make_open(path)
    check_words(
        look(path),
        f"{path} is open to other users (mode 0755)",
        f"`chmod 0700 '{path}'` if nobody else uses it, or name another folder in spool.directory",
    )
    path = tmp_path / "file"
    make_file(path)
    check_words(
        look(path), f"{path} isn't a folder", "name another in spool.directory, or move the file away"
    )
    check_words(
        look(path / "x"),
        f"{path}/x: Not a directory",
        f"name another folder in spool.directory, or let user {user} into those above it",
    )
    path = tmp_path / "link"
    make_dangling(path)
    check_words(
        look(path),
        f"{path} is a link to /mnt/that isn't there, which isn't there",
        "mount the disk that it is on, or make that folder, or name another in spool.directory",
    )


@needs_root
def test_the_words_on_a_folder_that_needs_root(tmp_path: Path) -> None:
    """Both users are named, and the command that root pastes, whatever a shell would make of the path."""
    user = user_name(NOBODY)
    path = tmp_path / "a b"
    folders_of(tmp_path, tmp_path / "none")  # another user may not be able to read all modules
    with unprivileged(tmp_path):
        check = look(path)
    check_words(
        check,
        f"{path} isn't there, and user {user} can't make it in {tmp_path}",
        f"as root: `install -d -m 0700 -o {NOBODY} '{path}'`, or name another folder in spool.directory",
    )
    path.mkdir(0o500)
    with unprivileged(tmp_path):
        check = look(path)
    check_words(
        check,
        f"{path} belongs to user {user_name(0)}, and this process runs as {user}",
        "run publisher and doctor as that user, or name another folder in spool.directory; if it is this "
        f"publisher's alone, as root: `chown -R {NOBODY} '{path}'`",
    )
    os.chown(path, NOBODY, NOBODY)
    with unprivileged(tmp_path):
        check = look(path)
    check_words(check, f"{path}: its owner may not write to it", f"`chmod 0700 '{path}'`")


def test_the_words_on_a_disk_that_is_read_only(tmp_path: Path) -> None:
    """The command finds where the disk is mounted, after a look at why it may be read-only."""
    disk = tmp_path / "a b"
    disk.mkdir()
    keys = {"spool__directory": str(disk / "spool"), "dead_letters__directory": str(disk)}
    with sandbox(tmp_path) as place, configured(tmp_path, **keys) as arguments:
        place.set_up("mount", "-t", "tmpfs", "-o", "ro,mode=0700", "none", str(disk))
        table = doctor_in(place, *arguments, "--no-probe")
    remedy = (
        "see by `dmesg` whether the disk fails; if it doesn't, as root: "
        f"`mount -o remount,rw \"$(findmnt -n -o TARGET -T '{disk}')\"`"
    )
    check_words(table["dead letters folder"], f"{disk} is on a disk that is read-only", remedy)
    check_words(
        table["spool folder"],
        f"{disk}/spool isn't there, and {disk} is on a disk that is read-only",
        remedy,
    )


# --- spool ---


def test_a_spool_in_use_is_left_alone(tmp_path: Path) -> None:
    """A publisher's lock is seen and stays the publisher's; where there is none, none is left behind."""
    folder = Folder(str(tmp_path / "spool"))
    spool = spool_on(folder, version="2j")
    append_all(spool, [b'{"a":1}', b'{"b":2}'])
    append_all(spool, [b'{"c":3}'])
    table = folders_of(tmp_path, tmp_path / "spool")
    assert table["spool lock"].code is Code.SPOOL_LOCKED
    assert table["spool segments"].code is Code.SEGMENTS_WAITING
    assert {"segments": 2, "bytes": spool.size} == table["spool segments"].fields
    spool.close()
    folder.release()
    table = folders_of(tmp_path, tmp_path / "spool")
    assert table["spool lock"].code is Code.SPOOL_UNLOCKED
    assert table["spool segments"].code is Code.SEGMENTS_WAITING
    Folder(str(tmp_path / "spool")).release()


def test_events_in_a_journal_are_counted_and_an_empty_one_is_not(tmp_path: Path) -> None:
    """What is left in a journal counts as a segment; a journal without events doesn't."""
    directory = tmp_path / "spool"
    folder = Folder(str(directory))
    spool = Spool(folder, str(directory), version="2j", max_size=2**30, sync=Sync.NEVER)
    spool.append(b'{"a":1}')
    assert folders_of(tmp_path, directory)["spool segments"].fields["segments"] == 1
    segment = spool.close_segment()
    assert segment is not None
    spool.release(segment.number)
    assert list(directory.glob("journal-*"))
    assert folders_of(tmp_path, directory)["spool segments"].code is Code.SEGMENTS_NONE
    spool.close()
    folder.release()


def test_another_doctor_isnt_taken_for_a_publisher(tmp_path: Path) -> None:
    """Two that look at a spool in the same moment both see that nobody uses it."""
    path = tmp_path / "spool"
    path.mkdir(0o700)
    folder = os.open(path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_SH)  # as the other one does it
    table = folders_of(tmp_path, path)
    os.close(folder)
    assert table["spool lock"].code is Code.SPOOL_UNLOCKED


@pytest.mark.parametrize("first_line", [b"event-spool 1 2\n", b"event-spool 9 2j\n", b"something else\n"])
def test_segments_that_stop_a_publisher_are_a_problem(tmp_path: Path, first_line: bytes) -> None:
    """What another version or program left there is named with its file, in the spool's own words."""
    path = tmp_path / "spool"
    path.mkdir(0o700)
    (path / "segment-0000000007").write_bytes(first_line + b"x" * 100)
    check = folders_of(tmp_path, path)["spool segments"]
    file = f"{path}/segment-0000000007"
    assert (Code.SEGMENT_REFUSED, {"path": file}) == (check.code, check.fields)
    assert f"{file} {SegmentFormat('2j').refusal(first_line)}" == f"{check.found}; {check.remedy}"


def test_a_segment_that_cant_be_read_is_a_problem(tmp_path: Path) -> None:
    """It is named, as is what to do with it."""
    file = tmp_path / "spool" / "segment-0000000001"
    file.mkdir(parents=True)
    (tmp_path / "spool").chmod(0o700)
    check = folders_of(tmp_path, tmp_path / "spool")["spool segments"]
    assert check.code is Code.SEGMENT_UNREADABLE
    assert {"path": str(file), "reason": "Is a directory"} == check.fields
    assert [f"chown -R {os.geteuid()} {tmp_path}/spool"] == list(check.commands)


def test_a_disk_that_is_smaller_than_the_spool_is_a_warning(tmp_path: Path) -> None:
    """Where `spool.max_size` is more than there is, the number that fits is told."""
    (tmp_path / "spool").mkdir(0o700)
    check = folders_of(tmp_path, tmp_path / "spool", spool__max_size=str(1 << 45))["spool space"]
    assert check.code is Code.SPACE_TOO_SMALL
    assert ("spool.max_size", 0, 1 << 45) == tuple(check.fields[name] for name in ("key", "used", "max_size"))


def test_the_words_on_a_spool(tmp_path: Path) -> None:
    """Whether it is in use, and what waits in it."""
    path = tmp_path / "spool"
    folder = Folder(str(path))
    checks = look_at_spool(path)
    check_words(checks["spool lock"], "in use by a running publisher")
    check_words(checks["spool segments"], "none: nothing waits on the disk")
    spool = spool_on(folder, version="2j")
    append_all(spool, [b'{"a":1}'])
    size = spool.size
    spool.close()
    folder.release()
    checks = look_at_spool(path)
    check_words(checks["spool lock"], "no publisher uses it now")
    check_words(checks["spool segments"], f"1, {size} bytes; a publisher delivers them before new events")
    (path / "segment-0").mkdir()
    check_words(
        look_at_spool(path)["spool segments"],
        f"{path}/segment-0: Is a directory",
        f"if it is another user's, as root: `chown -R {os.geteuid()} {path}`; if it isn't, mend that disk, "
        "or move the file away",
    )


# --- dead letters ---


def write_letters(path: Path, count: int) -> None:
    """Make dead letters of 13 bytes each."""
    letters = DeadLetters(str(path), max_size=10**6)
    for _ in range(count):
        letters.write(b'{"private":1}', status=400, reason="no")
    letters.close()


def test_dead_letters_are_a_warning_with_the_command_that_shows_them(tmp_path: Path) -> None:
    """They are counted, and shown by number and bytes alone."""
    path = tmp_path / "letters"
    write_letters(path, 2)
    table = diagnose(tmp_path, "http://127.0.0.1:9", "--no-probe", dead_letters__directory=str(path))
    check = table["dead letters"]
    assert check.code is Code.DEAD_LETTERS_KEPT
    assert {"path": str(path), "events": 2, "bytes": 26} == check.fields
    assert [command_line("dead-letters", "list", str(path))] == list(check.commands)
    assert "private" not in table.text


def test_dead_letters_that_cant_be_read_are_a_problem(tmp_path: Path) -> None:
    """A file that isn't one is named; without letters all is well."""
    path = tmp_path / "letters"
    path.mkdir(0o700)
    arguments = ("http://127.0.0.1:9", "--no-probe")
    none = diagnose(tmp_path, *arguments, dead_letters__directory=str(path))["dead letters"]
    assert none.code is Code.DEAD_LETTERS_NONE
    assert {"path": str(path), "events": 0, "bytes": 0} == none.fields
    file = path / "letters-0000000001.jsonl"
    file.mkdir()
    check = diagnose(tmp_path, *arguments, dead_letters__directory=str(path))["dead letters"]
    assert (Code.DEAD_LETTERS_UNREADABLE, str(file)) == (check.code, check.fields["path"])
    assert [f"chown -R {os.geteuid()} {path}"] == list(check.commands)
    assert file.name in check.found


def test_the_words_on_dead_letters(tmp_path: Path) -> None:
    """How many there are, and the command that shows them; or why they can't be read."""
    path = tmp_path / "letters"
    write_letters(path, 0)
    check_words(look_at_letters(path), "none")
    write_letters(path, 1)
    check_words(
        look_at_letters(path),
        "1 event that the collector refused, 13 bytes",
        f"see why: `{command_line('dead-letters', 'list', str(path))}`; then replay or purge them",
    )
