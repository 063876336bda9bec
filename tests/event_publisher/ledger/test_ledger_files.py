"""What happens to the files of a ledger when it is opened, created and closed, by example."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

import pytest

from baseplate_events.event_publisher.ledger import file as file_module
from baseplate_events.event_publisher.ledger.file import JOURNAL, LedgerError, connect, create
from baseplate_events.event_publisher.ledger.rows import DamagedLedgerError
from tests.support.ledgers import IDENTITIES, NAME, batch_of, fill, letter_file, opened

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path


def test_a_second_close_does_nothing(tmp_path: Path) -> None:
    """It doesn't recreate a file that was deleted since."""
    ledger = opened(tmp_path)
    ledger.close()
    (tmp_path / NAME).unlink()
    ledger.close()
    assert not (tmp_path / NAME).exists()


def test_files_get_their_mode_back(tmp_path: Path) -> None:
    """The file and its journal, when it is opened."""
    modes: dict[str, int] = {}
    for mode in (0o600, 0o660, 0o600):
        ledger = opened(tmp_path, mode=mode)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        ledger.enter(batch_of(mode, (IDENTITIES[0], 0, 5)))
        ledger.finish((mode, 0))
        ledger.close()
        assert set(modes.values()) == {mode}
    assert modes.keys() == {NAME, NAME + JOURNAL}


@pytest.mark.parametrize(("sync", "setting"), [(True, "FULL"), (False, "OFF")])
def test_a_synced_file_is_created_and_changed_so(
    sync: bool, setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first statement on, and each time that it is opened."""
    statements: list[str] = []
    open_file = vars(file_module)["_connect"]

    def traced(path: str, patience: float) -> sqlite3.Connection:
        assert patience == 0.0, "no one else knows the file"
        connection: sqlite3.Connection = open_file(path, patience)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(file_module, "_connect", traced)
    path = str(tmp_path / NAME)
    create(path, 0o600, sync=sync)
    connect(path, patience=0.0, sync=sync, journal_limit=0).close()
    found = [statement for statement in statements if "PRAGMA synchronous" in statement]
    assert found == [f"PRAGMA synchronous = {setting}"] * 2


# --- what takes the place of a file right after it was looked at ---


def _link(path: Path) -> None:
    target = path.with_name("target")
    path.rename(target)
    path.symlink_to(target)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(("replace", "error"), [(_link, OSError), (_pipe, DamagedLedgerError)])
def test_a_link_or_a_pipe_is_not_opened(
    replace: Callable[[Path], None],
    error: type[Exception],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though there was a file when its kind was asked for; opening a pipe would block."""
    path = tmp_path / NAME
    create(str(path), 0o600, sync=False)
    lstat = os.lstat

    def replaced(name: str) -> os.stat_result:
        found = lstat(name)
        replace(path)
        return found

    monkeypatch.setattr(os, "lstat", replaced)
    with pytest.raises(error):
        connect(str(path), patience=0.0, sync=False, journal_limit=0)


def test_a_new_file_does_not_go_where_a_link_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though what had its name was deleted just before."""
    path, target = tmp_path / NAME, tmp_path / "target"
    target.write_bytes(b"precious")
    unlink = os.unlink

    def replaced(name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            unlink(name)
        if name.endswith(".part") and not os.path.islink(name):  # noqa: PTH114 - as `os` is replaced
            os.symlink(target, name)  # noqa: PTH211

    monkeypatch.setattr(os, "unlink", replaced)
    with pytest.raises(FileExistsError):
        create(str(path), 0o600, sync=False)
    assert target.read_bytes() == b"precious"


def test_letters_of_a_file_that_became_a_link_are_not_replayed(tmp_path: Path) -> None:
    """Its lock would be another file's."""
    fill(tmp_path, [b"e"])
    with letter_file(tmp_path) as file:
        _link(tmp_path / NAME)
        with pytest.raises(LedgerError, match="can't be locked"):
            file.replay(file.numbers(), lambda _number, _event: True)
