"""What tests of the transports share. They name a queue by its POSIX name, which begins with a slash."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from baseplate_events.spool import writer
from tests.support.queues import fresh_name
from tests.support.spool_services import TINY

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture
def name() -> Generator[str]:
    """Yield the name of a queue of the test's own."""
    with fresh_name() as name:
        yield name


@pytest.fixture
def tiny_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let segments of a spool be so small that they start all the time."""
    monkeypatch.setattr(writer, "MIN_SEGMENT_SIZE", TINY)
    monkeypatch.setattr(writer, "SEGMENTS", 1 << 40)
