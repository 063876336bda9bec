"""These tests check the long runs at a tiny scale. They show nothing about the package that others don't."""

from __future__ import annotations

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark these tests as slow, so that a quick run leaves them out."""
    item.add_marker(pytest.mark.slow)
