"""The files of a spool on real file systems, for any umask, owner, group and neighbour."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.errors import (
    EventQueuePermissionError,
    EventQueueUnavailableError,
    EventQueueUnsupportedError,
)
from baseplate_events.spool import directory as directory_module
from baseplate_events.spool import file_systems, problems
from baseplate_events.spool.directory import SpoolDirectory
from baseplate_events.spool.permissions import PRIVATE, SHARED, DirectoryAccess, Fault
from tests.support.commands import IMPORTING, run
from tests.support.examples import examples
from tests.support.failing_steps import failing
from tests.support.processes import PIPE, hear, say, started
from tests.support.queues import needs_root
from tests.support.sandbox import sandbox
from tests.support.spool_directories import (
    MODES,
    OTHER,
    TEAM,
    USER,
    as_member,
    fake_mountinfo,
    folder_of,
    fresh_place,
    mode_of,
    names_in,
    spool_in,
    umask,
    unusable,
    write_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def do_nothing(*_: object) -> None:
    """A stand-in for a system call that a file system only pretends to do."""


def fail_with(number: int) -> Callable[..., NoReturn]:
    """Return a stand-in for a system call that fails."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


def problem_of(place: Path, mode: int = PRIVATE, *, prepared: SpoolDirectory | None = None) -> str:
    """Return why the spool can't be used."""
    spool = prepared or SpoolDirectory(str(place), "v2", mode=mode)
    with pytest.raises(EventQueueUnavailableError) as caught:
        spool.open() if prepared else spool.prepare()
    assert str(folder_of(place)) == caught.value.name
    assert caught.value.problem in str(caught.value)
    return caught.value.problem


def fault_of(place: Path, mode: int, fault: Fault) -> str:
    """Return the problem of a fault of the folder as it is now."""
    path = folder_of(place)
    return DirectoryAccess.here(path.lstat(), mode).explain(fault, str(path))


#: How the probe finds out that a file system's locks do nothing.
LYING_LOCKS = "a lock doesn't keep out another process (flock)"


# --- arguments ---


@pytest.mark.parametrize("mode", [0, 0o400, 0o640, 0o644, 0o666, 0o700, 0o2660, -1])
def test_a_mode_is_private_or_shared(mode: int) -> None:
    """Other modes are refused, with those that can be used."""
    with pytest.raises(ValueError, match=r"must be 0o600, .* or 0o660, .*not -?0o"):
        SpoolDirectory("/spool", "v2", mode=mode)


@pytest.mark.parametrize("directory", ["", "spool", "./spool", "/a\0b"])
def test_a_directory_is_an_absolute_path(directory: str) -> None:
    """The working directory of a service may change."""
    with pytest.raises(ValueError, match="must be an absolute path"):
        SpoolDirectory(directory, "v2", mode=PRIVATE)


@pytest.mark.parametrize("name", ["", "/", "../v2", "a\0"])
def test_a_name_is_part_of_a_file_name(name: str) -> None:
    """The name can't lead out of the directory."""
    with pytest.raises(ValueError, match="without a slash"):
        SpoolDirectory("/spool", name, mode=PRIVATE)


@pytest.mark.parametrize(("directory", "name"), [("/spool\ud800", "v2"), ("/spool", "v\ud800")])
def test_a_path_is_one_that_a_file_can_have(directory: str, name: str) -> None:
    """A character that no encoding has is refused before any file is touched."""
    with pytest.raises(ValueError, match="check its characters"):
        SpoolDirectory(directory, name, mode=PRIVATE)


# --- making and checking the folder ---


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077, 0o177])
@pytest.mark.parametrize("mode", MODES)
def test_the_umask_changes_nothing(place: Path, mode: int, mask: int) -> None:
    """The folder and its files have the modes that were asked for."""
    with umask(mask):
        spool = spool_in(place, mode)
        write_file(spool, "one")
    assert (0o700 if mode == PRIVATE else 0o2770) == mode_of(folder_of(place))
    assert mode == mode_of(folder_of(place) / "one")
    assert {"events-v2"} == names_in(place)


@pytest.mark.parametrize("mode", MODES)
def test_paths_are_any_bytes(place: Path, mode: int) -> None:
    """Names needn't be UTF-8, and one may be as long as that of a POSIX queue."""
    strange = place / os.fsdecode(b"a b\n\xff$'")
    strange.mkdir()
    for name in (os.fsdecode(b"\xfe\n"), "x" * 247):
        spool = SpoolDirectory(str(strange), name, mode=mode)
        spool.prepare()
        write_file(spool, os.fsdecode(b"\xfd"))
        assert b"data" == Path(spool.path, os.fsdecode(b"\xfd")).read_bytes()
        assert file_systems.file_system_of(str(place)) == spool.file_system


def test_a_directory_that_isnt_there_is_an_error(place: Path) -> None:
    """A missing directory isn't created, since it may be a volume that isn't mounted; the error says so."""
    missing = place / "missing"
    (place / "link").symlink_to(missing)
    for path in (missing, missing / "deeper", place / "link"):
        problem = problem_of(path)
        assert f"the directory {path} doesn't exist; create it, or mount the volume" in problem
        assert not missing.exists()
    (place / "file").touch()
    for path in (place / "file", place / "file" / "deeper"):
        assert f"{path} isn't a directory" in problem_of(path)


@pytest.mark.parametrize("mode", MODES)
def test_a_folder_is_used_as_it_is(place: Path, mode: int) -> None:
    """An existing folder keeps its files, and the directory may be a link."""
    write_file(spool_in(place, mode), "one")
    (place / "link").symlink_to(place)
    write_file(spool_in(place / "link", mode), "two")
    assert {"one", "two"} == names_in(folder_of(place))


@pytest.mark.parametrize("mode", MODES)
def test_what_is_in_the_place_of_the_folder_stays(place: Path, mode: int) -> None:
    """A link isn't followed, a pipe doesn't block, and the error says what is in the way."""
    elsewhere = place / "elsewhere"
    elsewhere.mkdir(0o755)
    folder = folder_of(place)
    for target in (elsewhere, place / "missing"):
        folder.symlink_to(target)
        assert "it is a symbolic link" in problem_of(place, mode)
        folder.unlink()
    os.mkfifo(folder)
    assert "it isn't a directory; move that file away" in problem_of(place, mode)
    folder.unlink()
    folder.write_bytes(b"theirs")
    assert "it isn't a directory; move that file away" in problem_of(place, mode)
    assert b"theirs" == folder.read_bytes()
    assert set() == names_in(elsewhere)
    assert 0o755 == mode_of(elsewhere)
    assert {"elsewhere", "events-v2"} == names_in(place)


identities = st.sampled_from([(0, (0,)), (0, (0, TEAM)), (USER, (USER,)), (USER, (USER, TEAM))])


@needs_root
@examples(150)
@given(
    identity=identities,
    owner=st.sampled_from([0, USER, OTHER]),
    group=st.sampled_from([0, USER, OTHER, TEAM]),
    bits=st.one_of(
        st.integers(0, 0o7777), st.sampled_from([0o700, 0o755, 0o2770, 0o770, 0o3770, 0o2777, 0o0000])
    ),
    mode=st.sampled_from(MODES),
)
def test_a_folder_is_judged_by_its_owner_group_and_mode(
    identity: tuple[int, tuple[int, ...]], owner: int, group: int, bits: int, mode: int
) -> None:
    """The folder gets the permissions that the judgement requires, or is refused unchanged."""
    user, groups = identity
    expected = DirectoryAccess(owner, group, bits, user, set(groups), mode == SHARED).judge()
    with fresh_place() as place:
        folder = folder_of(place)
        folder.mkdir()
        os.chown(folder, owner, group)
        folder.chmod(bits)
        problem = None
        with as_member(user, *groups):
            try:
                write_file(spool_in(place, mode), "one")
            except EventQueuePermissionError as exc:
                problem = exc.problem
        if isinstance(expected, Fault):
            assert bits == mode_of(folder)
            assert problem is not None
            assert f"runs as {f'user {user}' if user else 'root'}" in problem
        elif user and owner == user and not bits & 0o400:
            assert problem is not None  # it has locked itself out
            assert f"run `chmod {expected:04o} {folder}`" in problem
        else:
            assert problem is None
            # A process can't leave setgid to a group that it isn't in.
            lost = stat.S_ISGID if user and group not in groups and bits != expected else 0
            assert expected & ~lost == mode_of(folder)
            status = (folder / "one").stat()
            assert mode == stat.S_IMODE(status.st_mode)
            assert user == status.st_uid
            assert mode == PRIVATE or group == status.st_gid


@needs_root
@pytest.mark.parametrize("parent", [0o777, 0o1777, 0o2777])
@pytest.mark.parametrize("mode", MODES)
def test_the_directory_above_is_the_administrators(place: Path, parent: int, mode: int) -> None:
    """A volume of root that is open to all is fine, sticky or not."""
    os.chown(place, 0, TEAM)
    place.chmod(parent)
    with as_member(USER, USER, TEAM):
        write_file(spool_in(place, mode), "one")
    assert parent == mode_of(place)
    status = folder_of(place).stat()
    assert (USER, TEAM if parent & stat.S_ISGID else USER) == (status.st_uid, status.st_gid)


@needs_root
def test_a_group_shares_a_spool(place: Path) -> None:
    """Users of a common group write files that the others can read and delete, with any umask."""
    os.chown(place, 0, TEAM)
    place.chmod(0o2775)
    for user, mask in ((USER, 0o077), (OTHER, 0o022), (0, 0o077)):
        with as_member(user, user, TEAM), umask(mask):
            write_file(spool_in(place, SHARED), str(user))
    with as_member(OTHER, TEAM):
        folder = folder_of(place)
        assert {str(user): b"data" for user in (USER, OTHER, 0)} == {
            path.name: path.read_bytes() for path in folder.iterdir()
        }
        with spool_in(place, SHARED).open() as opened:
            for user in (USER, OTHER, 0):
                opened.remove(str(user))
    with as_member(12_345, 12_345):
        assert fault_of(place, SHARED, Fault.GROUP) == problem_of(place, SHARED)
        assert fault_of(place, PRIVATE, Fault.OWNER) == problem_of(place)


@needs_root
def test_users_start_at_the_same_moment(place: Path) -> None:
    """Users of a common group may use the folder, whoever creates it."""
    os.chown(place, 0, TEAM)
    place.chmod(0o2777)
    code = f"""
import os, sys
from baseplate_events.spool.directory import SpoolDirectory
user, rounds = int(sys.argv[1]), int(sys.argv[2])
os.setgroups([{TEAM}]); os.setgid(user); os.setuid(user); os.umask(0o077)
for number in range(rounds):
    sys.stdin.readline()
    spool = SpoolDirectory({str(place)!r}, str(number), mode=0o660)
    spool.prepare()
    while True:
        with spool.open() as folder:
            try:
                spool.close(folder.create(str(user)))
            except FileNotFoundError:
                continue
        break
    print(number, flush=True)
"""
    users, rounds = (USER, OTHER, USER + 100), 40
    with contextlib.ExitStack() as stack:
        command = (sys.executable, "-c", code)
        processes = [
            stack.enter_context(
                started(*command, str(user), str(rounds), stdin=PIPE, stdout=PIPE, environ=IMPORTING)
            )
            for user in users
        ]
        for number in range(rounds):
            for process in processes:
                say(process)
            for process in processes:
                assert str(number) == hear(process)
            folder = place / f"events-{number}"
            assert 0o2770 == mode_of(folder)
            assert {str(user) for user in users} == names_in(folder)
    assert {f"events-{number}" for number in range(rounds)} == names_in(place)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("used", [False, True])
def test_another_process_makes_the_folder_first(
    place: Path, mode: int, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If two processes create a folder, both use the same one; its files stay, and nothing else is left."""
    mkdir = os.mkdir
    other = SpoolDirectory(str(place), "v2", mode=mode)

    def come_second(path: str, bits: int) -> None:
        monkeypatch.setattr(os, "mkdir", mkdir)
        other.prepare()
        if used:
            write_file(other, "theirs")
        mkdir(path, bits)

    monkeypatch.setattr(os, "mkdir", come_second)
    write_file(spool_in(place, mode), "ours")
    write_file(other, "later")
    assert {"events-v2"} == names_in(place)
    assert {"ours", "later", *(["theirs"] if used else [])} == names_in(folder_of(place))


@pytest.mark.parametrize("mode", MODES)
def test_a_directory_that_is_deleted_again_at_once_is_made_again(
    place: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder may be deleted between any two steps."""
    spool = spool_in(place, mode)
    shutil.rmtree(place)
    mkdir, deletions = os.mkdir, iter(range(3))

    def make_in_vain(path: str, bits: int) -> None:
        mkdir(path, bits)
        if path == str(place) and next(deletions, None) is not None:
            place.rmdir()

    monkeypatch.setattr(os, "mkdir", make_in_vain)
    write_file(spool, "ours")
    assert {"ours"} == names_in(folder_of(place))


def test_a_folder_that_cant_be_renamed_is_removed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that can't be renamed is removed; an error that means a full disk is passed on."""
    spool = spool_in(place, SHARED)
    folder_of(place).rmdir()
    monkeypatch.setattr(os, "rename", fail_with(errno.EDQUOT))
    with pytest.raises(OSError, match="quota"):
        spool.open()
    monkeypatch.setattr(os, "rename", fail_with(errno.EIO))
    assert unusable(folder_of(place), errno.EIO) == problem_of(place, prepared=spool)
    assert set() == names_in(place)


@needs_root
def test_a_directory_that_a_user_may_not_use(place: Path) -> None:
    """The error says who may not do what, and which commands help."""
    with as_member(USER, USER):
        problem = problem_of(place)
        owner = "of user 0, group 0, mode "
        assert f"this process of user {USER} may not create it in {place} ({owner}" in problem
        assert f"may not create it in {place}" in problem_of(place, SHARED)
    place.chmod(0o700)
    with as_member(USER, USER):
        assert f"user {USER} may not reach {place}" in problem_of(place)


@needs_root
def test_a_service_that_lost_its_privileges(place: Path) -> None:
    """A spool that root prepared isn't open to the user that the service becomes."""
    spool = spool_in(place)
    with as_member(USER, USER):
        assert fault_of(place, PRIVATE, Fault.OWNER) == problem_of(place, prepared=spool)


def test_a_file_system_that_ignores_modes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that ignores modes is refused: it can't keep strangers out."""
    folder_of(place).mkdir()
    folder_of(place).chmod(0o777)
    monkeypatch.setattr(os, "fchmod", do_nothing)
    kind = file_systems.file_system_of(str(place))
    problem = problem_of(place)
    assert (
        f"can't be changed from 0777 to 0770 on a file system of type {kind}" in problem
        or "to 0700" in problem
    )
    assert "to 2770" in problem_of(place, SHARED)


def test_a_process_with_too_many_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without free descriptors gets an error that names the limit."""
    spool_in(place)
    for number, expected in (
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "fs.file-max"),
        (errno.EIO, "Input/output"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", fail_with(number))
            assert expected in problem_of(place)


def test_a_folder_that_cannot_be_looked_at_is_closed(place: Path) -> None:
    """Its descriptor doesn't stay open if it can't be used after all."""
    spool = spool_in(place)
    with failing(directory_module.OpenDirectory, "__init__"):
        spool.open()


def test_a_folder_that_is_deleted_all_the_time(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is deleted again and again is an error in the end."""
    mkdir = os.mkdir

    def make_and_delete(path: str, mode: int) -> None:
        mkdir(path, mode)
        Path(path).rmdir()

    monkeypatch.setattr(os, "mkdir", make_and_delete)
    assert "another process keeps deleting it" in problem_of(place)


# --- file systems ---


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "ceph", "fuse.glusterfs"])
def test_a_network_file_system_is_refused(place: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system is refused by its type, and nothing is created there."""
    fake_mountinfo(place, kind, monkeypatch)
    spool = SpoolDirectory(str(place), "v2", mode=PRIVATE)
    with pytest.raises(EventQueueUnavailableError, match=f"is of type {kind} and can't hold a spool"):
        spool.prepare()
    assert kind == spool.file_system
    assert {"mountinfo"} == names_in(place)


@pytest.mark.parametrize("mode", MODES)
def test_an_unproven_file_system_is_tried_out(
    place: Path, mode: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If the probe passes, there is one warning per path; otherwise the spool is refused, and left empty."""
    fake_mountinfo(place, "virtiofs", monkeypatch)
    for _ in range(3):
        spool_in(place, mode)
    assert set() == names_in(folder_of(place))
    (record,) = caplog.records
    assert "WARNING" == record.levelname
    text = record.getMessage()
    assert text.startswith(
        f"Event queue {folder_of(place)} is on a file system of type virtiofs: it passed all checks"
    )

    with monkeypatch.context() as patch:
        patch.setattr(directory_module, "_warned", set[tuple[str, str]]())
        patch.setattr(os, "write", fail_with(errno.EDQUOT))
        spool_in(place, mode)
    assert "couldn't be checked (Disk quota exceeded)" in caplog.records[1].getMessage()
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", do_nothing)
        assert problem_of(place, mode).startswith(problems.unsuitable("virtiofs", LYING_LOCKS))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail_with(errno.EIO))
        assert unusable(folder_of(place), errno.EIO) == problem_of(place, mode)
    assert set() == names_in(folder_of(place))
    assert len(caplog.records) == 2


def test_a_system_without_types_is_tried_out_silently(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without mountinfo there is no warning."""
    monkeypatch.setattr(file_systems, "_MOUNTINFO", str(place / "missing"))
    assert spool_in(place).file_system is None
    assert [] == caplog.records
    monkeypatch.setattr(fcntl, "flock", do_nothing)
    assert problems.unsuitable(None, LYING_LOCKS) == problem_of(place)


def test_a_local_disk_isnt_tried_out(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A known file system isn't probed: a service doesn't start with needless writes."""
    fake_mountinfo(place, "xfs", monkeypatch)
    monkeypatch.setattr(fcntl, "flock", do_nothing)
    assert "xfs" == spool_in(place).file_system
    assert [] == caplog.records


def test_systems_without_locks_are_refused_when_a_queue_is_opened(place: Path) -> None:
    """Without `fcntl` the package can still be imported, even with the fewer names of `os` on Windows."""
    code = """
import os, sys
sys.modules["fcntl"] = None
for name in "O_DIRECTORY O_NOFOLLOW O_CLOEXEC O_NONBLOCK ST_RDONLY geteuid getegid getgroups".split():
    delattr(os, name)
from baseplate_events.errors import EventQueueUnsupportedError
from baseplate_events.spool.directory import SpoolDirectory
try:
    SpoolDirectory(sys.argv[1], "v2", mode=0o600).prepare()
except EventQueueUnsupportedError as exc:
    print(exc)
"""
    out = run(sys.executable, "-c", code, place, environ=IMPORTING).check()
    assert (
        f"Event queue {folder_of(place)}: this operating system has no file locks (flock); run on Linux"
        in out
    )
    assert issubclass(EventQueueUnsupportedError, EventQueueUnavailableError)


@needs_root
@pytest.mark.parametrize("mode", MODES)
def test_disks_that_take_nothing(place: Path, mode: int) -> None:
    """The errors of a full or read-only disk are passed on, except by `prepare`."""
    code = f"""
import errno, os, shutil, subprocess, sys
from baseplate_events.errors import EventQueueUnavailableError
from baseplate_events.spool.directory import SpoolDirectory
def attempt(call, *words):
    try:
        call(*words)
    except OSError as exc:
        print(errno.errorcode[exc.errno])
    except EventQueueUnavailableError as exc:
        print(exc.problem)
    else:
        print("fine")
def mount(*words):
    subprocess.run(["mount", *words, sys.argv[1]], check=True)
mount("-t", "tmpfs", "-o", "size=16k,nr_inodes=4,mode=0755", "none")
spool = SpoolDirectory(sys.argv[1], "v2", mode={mode})
spool.prepare()
folder = spool.open()
fd = folder.create("one")
print(spool.write(fd, bytes(65_536)))
attempt(spool.write, fd, b"x")
spool.close(folder.create("two"))
attempt(folder.create, "three")
print(sorted(os.listdir(spool.path)))
spool.close(fd)
folder.close()
spool.prepare()
shutil.rmtree(spool.path)
for name in "abc":
    os.mkdir(f"{{sys.argv[1]}}/{{name}}")
attempt(spool.open)
attempt(spool.prepare)
os.rmdir(f"{{sys.argv[1]}}/c")
spool.open().close()
mount("-o", "remount,ro")
folder = spool.open()
attempt(folder.create, "four")
folder.close()
attempt(spool.prepare)
mount("-o", "remount,rw")
os.rmdir(spool.path)
mount("-o", "remount,ro")
attempt(spool.open)
attempt(spool.prepare)
"""
    with sandbox(place, own_queues=False) as box:
        lines = box.run("python", "-c", code, str(place)).check().splitlines()
    read_only = "its file system is mounted read-only; mount it for writing (Kubernetes: without readOnly "
    read_only += "in volumeMounts)"
    assert lines == [
        *("16384", "ENOSPC", "ENOSPC", "['one', 'two']"),
        *("ENOSPC", "fine"),  # each put says that the disk is full
        *("EROFS", read_only),
        *("EROFS", read_only),
    ]
    assert set() == names_in(place)


# --- folders that go away ---


@pytest.mark.parametrize("mode", MODES)
def test_a_folder_that_was_deleted_is_made_again(place: Path, mode: int) -> None:
    """After the folder was deleted, an open one raises an error, and opening it creates a fresh one."""
    spool = spool_in(place, mode)
    with spool.open() as before:
        fd = before.create("one")
        shutil.rmtree(spool.path)
        with pytest.raises(FileNotFoundError):
            before.create("two")
        with pytest.raises(FileNotFoundError):
            before.publish("one", "two")
        assert 0 == before.used()
        assert before.has_reader() is False
        assert 0 == spool.status(fd).links
        spool.close(fd)
    write_file(spool, "three")
    assert {"three"} == names_in(folder_of(place))
    assert (0o700 if mode == PRIVATE else 0o2770) == mode_of(folder_of(place))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bits", [0o755, 0o1777, 0o2770])
def test_a_directory_that_was_deleted_is_made_again(place: Path, mode: int, bits: int) -> None:
    """A deleted directory is recreated with its former mode; the one above it isn't."""
    inner = place / "deep" / "spool"
    inner.mkdir(parents=True)
    inner.chmod(bits)
    spool = spool_in(inner, mode)
    inner.chmod(0o700)
    inner.chmod(bits)
    shutil.rmtree(inner)
    with umask(0o077):
        write_file(spool, "one")
    assert bits == mode_of(inner)
    assert b"data" == (folder_of(inner) / "one").read_bytes()
    shutil.rmtree(inner.parent)
    assert unusable(folder_of(inner), errno.ENOENT) == problem_of(inner, prepared=spool)
    assert set() == names_in(place)


def test_a_directory_is_made_only_if_it_was_there(place: Path) -> None:
    """Without `prepare`, no directory is recreated."""
    missing = place / "missing"
    spool = SpoolDirectory(str(missing), "v2", mode=PRIVATE)
    for _ in range(2):
        assert unusable(folder_of(missing), errno.ENOENT) == problem_of(missing, prepared=spool)
        with pytest.raises(EventQueueUnavailableError) as caught:
            spool.prepare()
        assert unusable(folder_of(missing), errno.ENOENT) == caught.value.problem
    assert set() == names_in(place)


def test_a_folder_that_was_replaced_is_refused(place: Path) -> None:
    """A link in its place isn't followed later either."""
    spool = spool_in(place)
    folder_of(place).rename(place / "moved")
    folder_of(place).symlink_to("moved")
    assert problems.not_a_folder(spool.path) == problem_of(place, prepared=spool)
    folder_of(place).unlink()
    place.joinpath("moved").rmdir()
    place.rmdir()
    place.touch()
    assert problems.not_a_folder(spool.path) == problem_of(place, prepared=spool)
    place.unlink()
    place.mkdir()
