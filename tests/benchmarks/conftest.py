"""These tests run the benchmarks briefly. They show nothing about the package that other tests don't."""

from __future__ import annotations

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Leave them out of a quick run, and run them on one Python."""
    item.add_marker(pytest.mark.slow)
    item.add_marker(pytest.mark.one_python)
