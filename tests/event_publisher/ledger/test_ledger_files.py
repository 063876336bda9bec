"""What happens to the files of a ledger when it is opened, created and closed, by example."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from baseplate_events.event_publisher.ledger import file as file_module
from baseplate_events.event_publisher.ledger.file import JOURNAL, connect, create
from tests.support.ledgers import IDENTITIES, NAME, batch_of, opened

if TYPE_CHECKING:
    import sqlite3
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
        connection: sqlite3.Connection = open_file(path, patience)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(file_module, "_connect", traced)
    path = str(tmp_path / NAME)
    create(path, 0o600, sync=sync)
    connect(path, patience=0.0, sync=sync, journal_limit=0).close()
    found = [statement for statement in statements if "PRAGMA synchronous" in statement]
    assert found == [f"PRAGMA synchronous = {setting}"] * 2
