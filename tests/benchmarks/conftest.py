"""These tests run the benchmarks briefly. They show nothing about the package that other tests don't."""

from __future__ import annotations

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Leave it out of a quick run."""
    item.add_marker(pytest.mark.slow)
