"""A file that is damaged, foreign, of a later schema, or left by a kill; and the properties of a good one."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import __version__
from baseplate_events.event_publisher.ledger.file import (
    KEPT_ASIDE,
    LedgerError,
    LedgerVersionError,
    create,
)
from baseplate_events.event_publisher.ledger.letters import LetterFile
from baseplate_events.event_publisher.ledger.rows import SCHEMA_VERSION
from tests.support.examples import examples
from tests.support.ledgers import (
    IDENTITIES,
    NAME,
    RESOLVED,
    SECOND,
    aside_of,
    batch_of,
    check_usable,
    copied,
    events_written,
    filled,
    opened,
    resolved_of,
)
from tests.support.queues import lasting_files, open_files

if TYPE_CHECKING:
    from collections.abc import Callable


A, B, C = IDENTITIES
few = examples(60)


def _sqlite(folder: Path, script: str) -> None:
    with contextlib.closing(sqlite3.connect(folder / NAME)) as connection:
        connection.executescript(script)


def _foreign(folder: Path) -> None:
    (folder / NAME).unlink()
    _sqlite(folder, "CREATE TABLE cookies (value TEXT); INSERT INTO cookies VALUES ('mine')")


def _directory(folder: Path) -> None:
    (folder / NAME).unlink()
    (folder / NAME).mkdir()
    (folder / NAME / "file").write_text("mine")


def _link(folder: Path) -> None:
    shutil.move(folder / NAME, folder / "elsewhere")
    (folder / NAME).symlink_to(folder / "elsewhere")


def _pipe(folder: Path) -> None:
    (folder / NAME).unlink()
    os.mkfifo(folder / NAME)


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / NAME
        path.write_bytes(change(path.read_bytes()))

    return damage


DAMAGE: Final[dict[str, Callable[[Path], None]]] = {
    "emptied": _bytes(lambda _: b""),
    "zero-filled": _bytes(lambda data: bytes(len(data))),
    "text": _bytes(lambda _: b"Dear ledger,\n" * 1_000),
    "cut in the header": _bytes(lambda data: data[:50]),
    "cut to a page": _bytes(lambda data: data[:4_096]),
    "cut by a page": _bytes(lambda data: data[:-4_096]),
    "zero-filled behind the first page": _bytes(lambda data: data[:4_096] + bytes(len(data) - 4_096)),
    "of an unknown format": _bytes(lambda data: data[:18] + b"\x07\x07" + data[20:]),
    "of an unknown format to write": _bytes(lambda data: data[:18] + b"\x07" + data[19:]),
    "foreign": _foreign,
    "a directory": _directory,
    "a link": _link,
    "a pipe": _pipe,
    "without a table": lambda folder: _sqlite(folder, "DROP TABLE segments"),
    "without its version": lambda folder: _sqlite(folder, "DELETE FROM written_by"),
    "of two versions": lambda folder: _sqlite(folder, "INSERT INTO written_by VALUES (7, 'x')"),
    "of a wrong version": lambda folder: _sqlite(folder, "PRAGMA user_version = 9"),
    "of version 0": lambda folder: _sqlite(
        folder, "PRAGMA user_version = 0; UPDATE written_by SET version = 0"
    ),
    "with a trigger": lambda folder: _sqlite(
        folder, "CREATE TRIGGER t AFTER INSERT ON letters BEGIN DELETE FROM segments; END"
    ),
    "with a flipped range": lambda folder: _sqlite(
        folder, "UPDATE segments SET resolved = x'0000000000000000' || x'00000000000000ff'"
    ),
    "with text for a blob": lambda folder: _sqlite(folder, "UPDATE batches SET spans = 'abc'"),
    "with a text that isn't one": lambda folder: _sqlite(
        folder, "UPDATE batches SET spans = CAST(x'ff' AS TEXT)"
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_kept_aside(kind: str, tmp_path: Path) -> None:
    """Whatever is wrong with the file, the start works, reports the problem, and keeps the file."""
    filled(tmp_path)
    DAMAGE[kind](tmp_path)
    before = (tmp_path / NAME).lstat()
    ledger = opened(tmp_path)
    assert ledger.start_problem is not None
    assert str(tmp_path / NAME) in ledger.start_problem
    assert ("is empty" in ledger.start_problem) == (kind == "emptied")
    assert not ledger.is_new
    assert set() == resolved_of(ledger)
    check_usable(ledger)
    ledger.close()
    assert [b"later"] == events_written(tmp_path)
    (aside,) = aside_of(tmp_path)
    assert before.st_ino == (tmp_path / aside).lstat().st_ino
    assert aside in ledger.start_problem


@few
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=4),
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 9_000)), max_size=2),
    st.floats(0, 1) | st.just(1.0),
    st.sampled_from(("", "-journal")),
)
def test_no_damage_loses_an_event(
    flips: list[tuple[float, int]],
    zeros: list[tuple[float, int]],
    length: float,
    suffix: str,
) -> None:
    """After flipped bits, zeros and cuts in the file or its journal, what counts as resolved is."""
    with tempfile.TemporaryDirectory() as folder:
        filled(folder)
        path = Path(folder, NAME + suffix)
        data = bytearray(path.read_bytes())
        for place, mask in flips:
            data[int(place * (len(data) - 1))] ^= mask
        for place, size in zeros:
            start = int(place * len(data))
            data[start : start + size] = bytes(len(data[start : start + size]))
        del data[int(length * len(data)) :]
        path.write_bytes(data)
        ledger = opened(folder)
        try:
            check_usable(ledger)
        finally:
            ledger.close()
        again = opened(folder)
        assert again.start_problem is None
        assert (C, 1) in resolved_of(again)
        again.close()


@pytest.mark.parametrize("suffix", ["-wal", "-journal", "-shm", ".part"])
@pytest.mark.parametrize("content", [b"", b"x" * 9_000, bytes(9_000)])
def test_garbage_beside_the_file_does_no_harm(suffix: str, content: bytes, tmp_path: Path) -> None:
    """A leftover journal of another file is ignored, with a ledger and without one."""
    for folder in (tmp_path / "with", tmp_path / "without"):
        folder.mkdir()
        if folder.name == "with":
            filled(folder)
        (folder / (NAME + suffix)).write_bytes(content)
        ledger = opened(folder)
        assert ledger.start_problem is None
        assert (folder.name == "without") == ledger.is_new
        check_usable(ledger)
        ledger.close()


def test_a_kill_within_a_transaction_leaves_what_was_before(tmp_path: Path) -> None:
    """The journal of a killed process is applied; if the file is gone, it isn't applied to the new one."""
    filled(tmp_path)
    connection = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    connection.execute("PRAGMA cache_spill = 1")
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN")
    connection.execute("DELETE FROM segments")
    connection.executemany("INSERT INTO letters (event) VALUES (?)", [(bytes(3_000),)] * 200)
    for copy in (tmp_path / "with", tmp_path / "without"):
        copied(tmp_path, copy)
        assert (copy / f"{NAME}-journal").read_bytes()[:1] != b"\0"
    connection.close()

    ledger = opened(tmp_path / "with")
    assert ledger.start_problem is None
    assert (RESOLVED, [SECOND], 1) == (resolved_of(ledger), ledger.unfinished(), ledger.letters[0])
    ledger.close()

    (tmp_path / "without" / NAME).unlink()
    ledger = opened(tmp_path / "without")
    assert ledger.is_new
    assert (set(), [], 0) == (resolved_of(ledger), ledger.unfinished(), ledger.letters[0])
    check_usable(ledger)
    ledger.close()


def test_few_damaged_files_are_kept(tmp_path: Path) -> None:
    """The newest are kept, with their journals; similar names are left alone."""
    (tmp_path / f"{NAME}.damaged-x").write_text("mine")
    assert KEPT_ASIDE == 3
    for number in range(6):
        (tmp_path / NAME).write_text(f"number {number}")
        (tmp_path / f"{NAME}-journal").write_text(f"journal {number}")
        opened(tmp_path).close()
    kept = {path.name: path.read_text() for path in tmp_path.iterdir() if "damaged-" in path.name}
    assert {
        f"{NAME}.damaged-x": "mine",
        **{f"{NAME}.damaged-{number + 1}": f"number {number}" for number in (3, 4, 5)},
        **{f"{NAME}.damaged-{number + 1}-journal": f"journal {number}" for number in (3, 4, 5)},
    } == kept


def test_a_later_schema_is_refused_by_name(tmp_path: Path) -> None:
    """The error names the release to use; the file stays as it is, for publisher and command."""
    filled(tmp_path)
    later = SCHEMA_VERSION + 1
    _sqlite(
        tmp_path,
        f"PRAGMA user_version = {later}; UPDATE written_by SET version = {later}, release = '7.0'; "
        "ALTER TABLE letters ADD COLUMN colour TEXT",
    )
    before = (tmp_path / NAME).read_bytes()
    for _ in range(2):
        with pytest.raises(LedgerVersionError, match=r"release '7\.0' or later") as caught:
            opened(tmp_path)
        assert __version__ in str(caught.value)
        with pytest.raises(LedgerVersionError, match=r"release '7\.0' or later"):
            LetterFile(str(tmp_path / NAME))
    assert before == (tmp_path / NAME).read_bytes()
    assert [NAME] == [path.name for path in tmp_path.iterdir()]


# --- private ---


@pytest.mark.parametrize("mode", [0o600, 0o660])
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_files_are_private(mode: int, umask: int, tmp_path: Path) -> None:
    """The file and its journal have the requested mode, whatever the umask, and get it back."""
    before = os.umask(umask)
    try:
        for number in (1, 2):
            with contextlib.closing(opened(tmp_path, mode=mode)) as ledger:
                ledger.enter(batch_of(number, (A, 0, 1)))
                assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode}
            for path in tmp_path.iterdir():
                path.chmod(0o644)
    finally:
        os.umask(before)


@pytest.mark.parametrize("sync", [False, True])
def test_settings_of_the_file(sync: bool, tmp_path: Path) -> None:
    """The journal is as `file` says, no memory is mapped, and nothing waits for a lock."""
    ledger = opened(tmp_path, sync=sync)
    ledger.enter(batch_of(1, (A, 0, 1)))
    connection = ledger._connection  # pyright: ignore[reportPrivateUsage]
    assert connection is not None
    found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in PRAGMAS]
    assert ["persist", 2 if sync else 0, 0, 0] == found
    assert connection.execute("PRAGMA mmap_size").fetchall() in ([], [(0,)])
    assert NAME not in Path("/proc/self/maps").read_text(encoding="utf-8")
    ledger.close()


@pytest.mark.parametrize("relative", [False, True])
def test_the_folder_of_a_synced_file_is_synced(
    relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, when the file has its name; without `sync` nothing is forced onto the disk."""
    synced: list[int] = []

    def sync(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.chdir(tmp_path if relative else "/")
    create("one" if relative else str(tmp_path / "one"), 0o600, sync=False)
    assert synced == []
    create("two" if relative else str(tmp_path / "two"), 0o600, sync=True)
    assert synced == [tmp_path.stat().st_ino]
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


def test_a_file_that_cannot_be_created_leaves_nothing(tmp_path: Path) -> None:
    """What was written under the other name is deleted."""
    (tmp_path / NAME).mkdir()
    with pytest.raises(IsADirectoryError):
        create(str(tmp_path / NAME), 0o600, sync=False)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


PRAGMAS: Final = ("journal_mode", "synchronous", "busy_timeout", "trusted_schema")


@pytest.mark.parametrize("setting", ["temp_store", "secure_delete"])
def test_a_file_that_cannot_be_used_is_closed(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was opened is closed if a setting of the connection fails, while the error is kept too."""
    create(str(tmp_path / NAME), 0o600, sync=False)

    class Unusable(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:  # noqa: ANN401 - as in sqlite3
            if setting not in sql:
                return super().execute(sql, parameters)
            super().execute("SELECT count(*) FROM sqlite_master").fetchall()  # this opens the file
            raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Unusable))
    before = lasting_files()
    with pytest.raises(LedgerError, match="disk I/O error") as kept:
        LetterFile(str(tmp_path / NAME))
    assert open_files() <= before, kept
