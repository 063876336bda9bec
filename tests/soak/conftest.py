"""These tests run the long runs for a moment. About the package they show nothing that others don't."""

from __future__ import annotations

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Leave it out of a quick run."""
    item.add_marker(pytest.mark.slow)
