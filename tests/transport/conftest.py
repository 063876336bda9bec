"""The tests of the transport name a queue by its POSIX name, which begins with a slash."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.queues import fresh_name

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture
def name() -> Generator[str]:
    """Give the name of a queue of the test's own."""
    with fresh_name() as name:
        yield name
