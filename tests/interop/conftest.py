"""These tests need `baseplate` 2.7.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.tools import not_installed, stand_in

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Collect a module of tests, or one item that says which tool is missing."""
    return stand_in(not_installed("baseplate"), module_path, parent)
