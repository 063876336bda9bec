"""Services with a spool whose users, groups and umask differ from their reader's."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

import pytest

from tests.support.queues import needs_root
from tests.support.spool_directories import fresh_place
from tests.support.spool_reader import SpoolFileReader
from tests.support.spool_services import check_exit, files_in, forked, open_queue, read_all, spool_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

pytestmark = needs_root


@pytest.fixture
def ids() -> tuple[int, int, int]:
    """Two users and a group that no one else has."""
    first = 100_000 + secrets.randbelow(1_000_000_000)
    return first, first + 1, first + 2


@pytest.fixture
def directory() -> Generator[Path]:
    """A directory that belongs to root, and that other users can reach."""
    # Another pytest of this user closes the folders above `tmp_path`, when it starts.
    with fresh_place() as place:
        yield place


def run_as(user: int, group: int, function: Callable[[], object]) -> None:
    """Run a function in a child of another user, with the strictest umask, in one group alone."""

    def run() -> None:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
        os.umask(0o077)
        function()

    check_exit(forked(run))


def put_all(directory: Path, events: list[bytes], mode: int = 0o600) -> None:
    """Put events as a service does that ends then."""
    with open_queue(directory, mode=mode) as queue:
        for event in events:
            queue.put(event)


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_user_without_privileges_has_a_spool_in_the_directory_of_root(
    directory: Path, ids: tuple[int, int, int], mode: int
) -> None:
    """A volume that belongs to root and is open to all, sticky or not, holds the private spool of a user."""
    user, _, group = ids
    directory.chmod(mode)

    def check() -> None:
        put_all(directory, [b"{first}", b"{second}"])
        assert [b"{first}", b"{second}"] == read_all(directory)
        put_all(directory, [b"{third}"])

    run_as(user, group, check)
    status = spool_of(directory).stat()
    assert (status.st_uid, status.st_mode & 0o7777) == (user, 0o700)
    assert [b"{third}"] == read_all(directory)


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o2770])
def test_users_of_a_group_share_a_spool_whatever_their_umask(
    directory: Path, ids: tuple[int, int, int], mode: int
) -> None:
    """With a umask of 077, both users of a group put, and a reader of either reads and deletes."""
    one, other, group = ids
    os.chown(directory, 0, group)
    directory.chmod(mode)
    run_as(one, group, lambda: put_all(directory, [b"{of one}"], 0o660))
    run_as(other, group, lambda: put_all(directory, [b"{of other}"], 0o660))
    assert spool_of(directory).stat().st_mode & 0o7777 == 0o2770
    assert {0o660} == {(spool_of(directory) / name).stat().st_mode & 0o7777 for name in files_in(directory)}

    def check() -> None:
        with SpoolFileReader(spool_of(directory)) as reader:
            assert [b"{of one}", b"{of other}"] == reader.drain()
            assert files_in(directory) == []

    run_as(other, group, check)
    run_as(one, group, lambda: put_all(directory, [b"{again}"], 0o660))
    assert [b"{again}"] == read_all(directory)


def test_what_is_planted_in_a_spool_holds_up_no_one(tmp_path: Path) -> None:
    """Links, pipes and folders with names of segments are neither read nor written, and events arrive."""
    put_all(tmp_path, [b"{first}"])
    folder = spool_of(tmp_path)
    other = tmp_path / "other"
    other.write_bytes(b"{not to be touched}")
    planted = {
        f"{'9' * 20}-{kind}.{suffix}" for kind in ("link", "pipe", "folder") for suffix in ("new", "segment")
    }
    for name in planted:
        if "link" in name:
            (folder / name).symlink_to(other)
        elif "pipe" in name:
            os.mkfifo(folder / name)
        else:
            (folder / name).mkdir()
    with SpoolFileReader(folder) as reader:
        reader.read()
        put_all(tmp_path, [b"{second}"])
        assert [b"{first}", b"{second}"] == reader.drain()
    assert planted == set(files_in(tmp_path))
    assert other.read_bytes() == b"{not to be touched}"
