"""These tests need the peers that `python -m tests.peers.install` gets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tests.peers.install import absent_peers
from tests.support.tools import stand_in

if TYPE_CHECKING:
    import pytest


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Collect a module of tests, or one item that says which peer is missing."""
    return stand_in(_what_is_missing(), module_path, parent)


def _what_is_missing() -> str | None:
    folder = os.environ.get("PEERS_FOLDER")
    if folder is None:
        return "no peers: PEERS_FOLDER is not set"
    absent = absent_peers(Path(folder))
    return f"not installed: {', '.join(absent)}" if absent else None
