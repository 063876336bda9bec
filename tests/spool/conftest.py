"""The directory that a spool is in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.queues import open_files
from tests.support.spool_directories import fresh_place

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@pytest.fixture
def place() -> Generator[Path]:
    """Yield the directory that services and publisher share; no descriptors must be left open."""
    before = open_files()
    with fresh_place() as path:
        yield path
    assert open_files() <= before
