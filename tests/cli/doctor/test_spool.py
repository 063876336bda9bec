"""The doctor's check of a spool: its folder, its disk, its segments, and its reader."""

from __future__ import annotations

import os
import stat
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.cli.doctor import spool as spool_module
from baseplate_events.cli.doctor.findings import Check, Code, Verdict
from baseplate_events.cli.doctor.memory import MemoryLimit
from baseplate_events.cli.doctor.spool import SpoolWanted, check_spool
from baseplate_events.cli.queue.info import user_name
from baseplate_events.errors import EventQueueUnavailableError
from baseplate_events.event_publisher.ledger.file import SPOOL_NAME
from baseplate_events.spool.directory import SpoolDirectory
from baseplate_events.spool.permissions import PRIVATE, SHARED
from tests.support.disks import mounted
from tests.support.doctors import check_words, sound, spool_of
from tests.support.examples import examples
from tests.support.ledgers import fill
from tests.support.queues import OTHER_UID, needs_root, unprivileged
from tests.support.spool_directories import (
    MODES,
    TEAM,
    USER,
    as_member,
    fake_mountinfo,
    folder_of,
    fresh_place,
    mode_of,
    names_in,
    spool_in,
)
from tests.support.spool_publishers import publisher_of
from tests.support.spool_segments import write_segment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = "spool.directory"
#: The header of a later release.
_LINE = b"event-segment 2 x "
NEWER = b"%b%08x\n" % (_LINE, zlib.crc32(_LINE))


def look(place: Path, mode: int | None = PRIVATE, max_size: int = 1 << 20) -> list[Check]:
    """Look at the spool of the queue `v2`, whose events are of version 2, in a directory."""
    wanted = SpoolWanted(str(place), "v2", mode, max_size, "2")
    return [sound(check) for check in check_spool(wanted)]


def find(place: Path, name: str, mode: int | None = PRIVATE) -> Check:
    """Look at it, and give the check of this name."""
    [check] = [check for check in look(place, mode) if check.name == name]
    return check


def snapshot(place: Path) -> dict[str, tuple[int, ...]]:
    """Return what is in a directory, without the times at which it was read."""
    paths = [place, *place.rglob("*")]
    return {str(path): (path.lstat().st_ino, path.lstat().st_mode, path.lstat().st_size) for path in paths}


def prepare(place: Path, mode: int) -> str | None:
    """Use the spool as services do, and return why that isn't possible; None if it is."""
    try:
        SpoolDirectory(str(place), "v2", mode=mode).prepare()
    except EventQueueUnavailableError as exc:
        return exc.problem
    return None


# --- the folder ---


def test_without_a_spool_there_is_nothing_to_check() -> None:
    """The finding says what that costs."""
    [check] = map(sound, check_spool(None))
    assert check.code is Code.SPOOL_UNSET
    check_words(
        check, "spool.directory isn't set: a `kill -9` of the publisher loses the events in its memory"
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_folder_to_come_isnt_made(tmp_path: Path, mode: int) -> None:
    """The first user creates the folder; the directory above it has to exist."""
    assert find(tmp_path, "spool folder", mode).code is Code.FOLDER_TO_COME
    assert list(tmp_path.iterdir()) == []
    spool_in(tmp_path, mode)
    assert find(tmp_path, "spool folder", mode).code is Code.FOLDER_USABLE


def test_a_directory_that_is_missing_is_a_problem(tmp_path: Path) -> None:
    """It may be a volume that isn't mounted, so it isn't created, and nothing else is checked."""
    [check] = look(tmp_path / "volume")
    assert check.code is Code.SPOOL_DIRECTORY_MISSING
    user = user_name(os.geteuid())
    assert check.fields == {"key": KEY, "path": str(tmp_path / "volume"), "user": user}
    assert [f"install -d -m 0755 -o {os.geteuid()} {tmp_path}/volume"] == list(check.commands)


def make_link(folder: Path) -> None:
    """Make a link to a folder, which isn't followed."""
    folder.with_name("other").mkdir(0o700)
    folder.symlink_to(folder.with_name("other"))


def make_file(folder: Path) -> None:
    """Make a file in the place of the folder."""
    folder.write_text("")


@pytest.mark.parametrize("make", [make_link, make_file])
def test_what_is_no_folder_is_a_problem(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """The spool refuses such a folder with the same text."""
    make(folder_of(tmp_path))
    [check] = look(tmp_path)
    assert (check.code, check.fields["path"]) == (Code.SPOOL_FOLDER_IS_NONE, str(folder_of(tmp_path)))
    with pytest.raises(EventQueueUnavailableError) as caught:
        spool_in(tmp_path)
    assert f"{folder_of(tmp_path)}: {caught.value.problem}" == f"{check.found}; {check.remedy}"


@needs_root
@examples(40)
@given(
    st.sampled_from(MODES),
    st.sampled_from([0, USER]),
    st.sampled_from([0, TEAM]),
    st.sampled_from([0o700, 0o750, 0o2770, 0o2750, 0o3770, 0o1777, 0o777, 0o500, 0o300]),
)
def test_permissions_are_judged_as_the_spool_does(mode: int, owner: int, group: int, bits: int) -> None:
    """Whatever the owner and the mode of the folder, the doctor allows what `prepare` allows."""
    with fresh_place() as place:
        folder = folder_of(place)
        folder.mkdir()
        os.chown(folder, owner, group)
        folder.chmod(bits)
        with as_member(USER, TEAM):
            check = find(place, "spool folder", mode)
            assert stat.S_IMODE(folder.stat().st_mode) == bits  # it corrects nothing
            refusal = prepare(place, mode)
    if refusal is None:
        assert check.code is Code.FOLDER_USABLE
    else:
        assert check.verdict is Verdict.PROBLEM
        if check.code is Code.SPOOL_FOLDER_FORBIDDEN:
            assert f"{folder}: {refusal}" == f"{check.found}; {check.remedy}"
            assert check.fields["mode"] == f"{bits:04o}"


@needs_root
def test_a_directory_that_lets_no_one_in_is_a_problem(tmp_path: Path) -> None:
    """A user who can't create or reach the folder is reported, with the command that creates it."""
    look(tmp_path)  # another user may not be able to read all modules
    path = folder_of(tmp_path)
    for mode, bits in ((PRIVATE, "0700"), (SHARED, "2770 -g GROUP")):
        with unprivileged(tmp_path):
            [check] = look(tmp_path, mode)
        assert check.code is Code.FOLDER_UNMAKABLE
        assert [f"install -d -m {bits} -o {OTHER_UID} {path}"] == list(check.commands)
    (tmp_path / "closed").mkdir(0o700)
    with unprivileged(tmp_path):
        [check] = look(tmp_path / "closed")
    assert check.code is Code.FOLDER_NOT_WRITABLE


# --- the disk ---


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("ext4", Code.SPOOL_FILE_SYSTEM_LOCAL),
        ("nfs4", Code.SPOOL_FILE_SYSTEM_REMOTE),
        ("virtiofs", Code.SPOOL_FILE_SYSTEM_UNPROVEN),
    ],
)
def test_the_file_system_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, code: Code
) -> None:
    """A network file system is a problem; one that only a probe could judge is a warning."""
    spool_in(tmp_path)
    fake_mountinfo(tmp_path, kind, monkeypatch)
    before = snapshot(tmp_path)
    check = find(tmp_path, "spool file system")
    assert (check.code, check.fields["file_system"]) == (code, kind)
    assert before == snapshot(tmp_path)


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        (None, Code.SPOOL_MEMORY_UNLIMITED),
        (1 << 40, Code.SPOOL_MEMORY_SUFFICIENT),
        (1 << 20, Code.SPOOL_MEMORY_TOO_SMALL),
    ],
)
def test_in_memory_the_size_is_compared_with_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None, code: Code
) -> None:
    """On a tmpfs a full spool is charged to whoever writes to it; on a disk the limit doesn't matter."""
    found = None if limit is None else MemoryLimit(limit, "/sys/fs/cgroup/memory.max")
    monkeypatch.setattr(spool_module, "read_memory_limit", lambda: found)
    fake_mountinfo(tmp_path, "tmpfs", monkeypatch)
    check = find(tmp_path, "spool memory")
    assert (check.code, check.fields["limit"]) == (code, limit)
    fake_mountinfo(tmp_path, "ext4", monkeypatch)
    assert "spool memory" not in {check.name for check in look(tmp_path)}


def test_a_disk_that_is_smaller_than_the_spool_is_a_warning(tmp_path: Path) -> None:
    """The numbers are those of the directory's disk, even before the folder exists."""
    assert "spool space" in {check.name for check in look(tmp_path)}
    spool_in(tmp_path)
    checks = {check.name: check for check in look(tmp_path, max_size=1 << 60)}
    check = checks["spool space"]
    assert check.code is Code.SPACE_TOO_SMALL
    assert ("spool.max_size", 0, 1 << 60) == tuple(check.fields[name] for name in ("key", "used", "max_size"))


@needs_root
@pytest.mark.parametrize(("inodes", "code"), [(100, Code.INODES_FEW), (100_000, Code.INODES_SUFFICIENT)])
def test_few_inodes_are_a_warning(tmp_path: Path, inodes: int, code: Code) -> None:
    """A real file system has them counted."""
    place = tmp_path / "disk"
    with mounted(place, "-t", "tmpfs", "-o", f"nr_inodes={inodes}", "none"):
        check = find(place, "spool inodes")
    assert check.code is code
    free = check.fields["free"]
    assert isinstance(free, int)
    assert inodes - 10 < free < inodes


# --- what is in it, and who reads it ---


def test_segments_are_counted_and_left_alone(tmp_path: Path) -> None:
    """The undelivered bytes are counted, and nothing is changed."""
    spool_in(tmp_path)
    folder = folder_of(tmp_path)
    assert find(tmp_path, "spool segments").code is Code.SEGMENTS_NONE
    size = sum(write_segment(folder, [b"a" * 5_000]).stat().st_size for _ in range(3))
    write_segment(folder, [], event_format="unknown", head=b"")  # a power cut took its header
    (folder / "notes.segment").write_bytes(b"someone's own")
    before = snapshot(tmp_path)
    checks = look(tmp_path)
    assert before == snapshot(tmp_path)
    assert {check.verdict for check in checks} == {Verdict.OK}
    [check] = [check for check in checks if check.name == "spool segments"]
    assert check.code is Code.SEGMENTS_WAITING
    assert check.fields == {"segments": 4, "bytes": size + len(b"someone's own")}


@pytest.mark.parametrize(
    ("event_format", "head", "code"),
    [
        ("2", NEWER, Code.SEGMENTS_NEWER),
        ("2j", None, Code.SEGMENTS_OF_ANOTHER_FORMAT),
        ("3", b"something else\n" * 10, Code.SEGMENTS_UNREADABLE),
    ],
)
def test_segments_that_are_set_aside_are_a_warning(
    tmp_path: Path, event_format: str, head: bytes | None, code: Code
) -> None:
    """They delay no other segments. One of each kind is named, with the number."""
    spool_in(tmp_path)
    folder = folder_of(tmp_path)
    write_segment(folder, [b"a"])
    names = {
        write_segment(folder, [b"a"], event_format=event_format, head=head, created=created).name: created
        for created in (1, 2)
    }
    check = find(tmp_path, "set aside")
    assert check.code is code
    assert (check.fields["segments"], check.fields["path"]) == (2, f"{folder}/{min(names)}")
    assert find(tmp_path, "spool segments").fields["segments"] == 3


def test_a_segment_with_another_identity_is_unreadable(tmp_path: Path) -> None:
    """As for the publisher: a copy would be delivered twice."""
    spool_in(tmp_path)
    path = write_segment(folder_of(tmp_path), [b"a"])
    path.rename(path.with_name(path.name.replace(path.name[-40:-8], "0" * 32)))
    assert find(tmp_path, "set aside").code is Code.SEGMENTS_UNREADABLE


@pytest.mark.parametrize("event_format", ["2", "2j"])
@pytest.mark.parametrize("events", [[b"a"], []])
def test_a_header_that_is_lost_is_judged_as_by_the_publisher(
    events: list[bytes], event_format: str, tmp_path: Path
) -> None:
    """Events of the publisher's format are delivered, and without events there is nothing to deliver."""
    spool_in(tmp_path)
    write_segment(folder_of(tmp_path), events, event_format=event_format, head=bytes(4096))
    if events and event_format == "2j":
        assert find(tmp_path, "set aside").code is Code.SEGMENTS_OF_ANOTHER_FORMAT
    else:
        assert "set aside" not in {check.name for check in look(tmp_path)}


@needs_root
def test_a_segment_of_another_user_is_unreadable(tmp_path: Path) -> None:
    """The command gives the spool to the user who asks."""
    spool_in(tmp_path)
    folder = folder_of(tmp_path)
    write_segment(folder, [b"a"]).chmod(0o600)
    os.chown(folder, OTHER_UID, OTHER_UID)
    look(tmp_path)  # another user may not be able to read all modules
    with unprivileged(tmp_path):
        check = find(tmp_path, "set aside")
    assert (check.code, check.fields["reason"]) == (Code.SEGMENTS_UNREADABLE, "Permission denied")
    assert [f"chown -R {OTHER_UID} {folder}"] == list(check.commands)


def test_a_spool_in_use_is_left_alone(tmp_path: Path) -> None:
    """A publisher's lock is seen and stays the publisher's; where there is none, none is left behind."""
    spool_in(tmp_path)
    folder = folder_of(tmp_path)
    write_segment(folder, [b'{"a":1}'])
    for _ in range(2):
        with publisher_of(folder) as (ledger, reader):
            before = names_in(folder)
            assert find(tmp_path, "spool lock").code is Code.SPOOL_LOCKED
            assert find(tmp_path, "ledger").code is Code.LEDGER_READABLE
            assert before == names_in(folder)
            assert reader.status().segments == 1
            assert ledger.error is None
        assert find(tmp_path, "spool lock").code is Code.SPOOL_UNLOCKED
    (folder / "reader.lock").unlink()
    (folder / "reader.lock").mkdir()
    assert find(tmp_path, "spool lock").code is Code.SPOOL_LOCK_UNKNOWN


def test_dead_letters_are_in_the_ledger(tmp_path: Path) -> None:
    """A damaged ledger hides them, and is a warning, since the publisher starts with a new one."""
    spool_in(tmp_path)
    folder = folder_of(tmp_path)
    fill(folder, [b"x"])
    assert find(tmp_path, "dead letters").code is Code.DEAD_LETTERS_KEPT
    (folder / SPOOL_NAME).write_bytes(b"")
    assert find(tmp_path, "ledger").code is Code.LEDGER_DAMAGED


def test_a_service_that_has_no_configuration_has_either_mode(tmp_path: Path) -> None:
    """Without a configuration the mode is that of the folder."""
    for mode, bits in ((PRIVATE, 0o700), (SHARED, 0o2770)):
        place = tmp_path / str(mode)
        place.mkdir()
        spool_in(place, mode)
        assert mode_of(folder_of(place)) == bits
        assert find(place, "spool folder", None).code is Code.FOLDER_USABLE


def test_the_command_checks_the_spool_of_the_configuration(tmp_path: Path) -> None:
    """With the name of the queue, its mode, and the limit that are set."""
    table = spool_of(tmp_path, tmp_path, spool__max_size=str(1 << 45), queue__mode="0660")
    assert table["spool folder"].code is Code.FOLDER_TO_COME
    assert str(table["spool folder"].fields["path"]).startswith(f"{tmp_path}/events-test-")
    assert table["spool space"].fields["max_size"] == 1 << 45


def test_the_words_on_a_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What there is, whether it is in use, and what waits in it."""
    missing = tmp_path / "no"
    [check] = look(missing)
    check_words(
        check,
        f"the directory {missing} doesn't exist",
        "mount the volume that services and publisher share there, or create the directory: `install -d -m "
        f"0755 -o {os.geteuid()} {missing}`",
    )
    spool_in(tmp_path)
    folder = folder_of(tmp_path)
    fake_mountinfo(tmp_path, "ext4", monkeypatch)
    check_words(find(tmp_path, "spool file system"), "ext4, a local file system")
    check_words(find(tmp_path, "spool lock"), "no publisher uses it now")
    check_words(find(tmp_path, "spool segments"), "none: no events are waiting")
    size = write_segment(folder, [b"a"]).stat().st_size
    check_words(find(tmp_path, "spool segments"), f"1, {size} bytes undelivered")
    with publisher_of(folder):
        check_words(find(tmp_path, "spool lock"), "in use by a running publisher")
    bad = write_segment(folder, [b"a"], event_format="2j")
    check_words(
        find(tmp_path, "set aside"),
        f"1 undeliverable, left in place; {bad.name}: its events are for collector.version 2j",
        "run a publisher with that collector.version until they are delivered",
    )
