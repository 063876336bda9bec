"""These tests need the servers that they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.tools import not_installed, stand_in

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Collect a module of tests, or what says that it lacks a tool."""
    return stand_in(
        not_installed("celery", "django", "fastapi", "flask", "gevent", "gunicorn", "pyuwsgi", "uvicorn"),
        module_path,
        parent,
    )
