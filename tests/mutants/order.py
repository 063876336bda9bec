"""A pytest plugin that runs first what finds a mistake soonest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests: examples, then properties, then state machines, then what is about all modules."""
    items.sort(key=_cost)


def _cost(item: pytest.Item) -> int:
    function = getattr(item, "function", None)
    code = getattr(function, "__code__", None)
    if item.path.parent.name == "project":
        return 3
    if code is not None and "check_machine" in code.co_names:
        return 2
    return 1 if getattr(function, "is_hypothesis_test", False) else 0
