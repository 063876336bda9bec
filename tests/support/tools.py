"""Tools that tests need besides Python packages, and what happens if they are missing.

A test that lacks something is skipped and says what, or fails if REQUIRE_TOOLS=1. All such skips come from
this module, so pytest's summary has one line for each reason, not one for each test.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def missing(what: str) -> NoReturn:
    """Skip the current test, or fail it if tools are required.

    Args:
        what: What is missing, and how to get it.
    """
    if os.environ.get("REQUIRE_TOOLS") == "1":
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


def need_command(name: str, path: str | None = None) -> None:
    """Continue only if there is a command of this name, in the PATH given or that of this process."""
    if shutil.which(name, path=path) is None:
        missing(f"there is no {name}")


def check_root(item: pytest.Item) -> None:
    """Treat a test that only root can run, before it is set up."""
    if item.get_closest_marker("needs_root") is not None and os.geteuid() != 0:
        missing("only root can become another user, mount, and lift limits")


def not_installed(*modules: str) -> str | None:
    """Return which of these modules are not installed, in words; None if all are."""
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def stand_in(what: str | None, path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Return a module with one test, which lacks a tool, if the real module can't be imported without it.

    It is for the hook `pytest_pycollect_makemodule` in the `conftest.py` of a suite.

    Args:
        what: What is missing; None if nothing is, and the real module is to be collected.
        path: The path of the real module.
        parent: The collector of its folder.
    """
    suite = path.parent.name
    return None if what is None else _StandIn.of(f"{what}; `tox -e {suite}` runs tests/{suite}", path, parent)


class _StandIn(pytest.Module):
    """A test module that isn't imported."""

    what: str

    @classmethod
    def of(cls, what: str, path: Path, parent: pytest.Collector) -> _StandIn:
        self: _StandIn = cls.from_parent(parent, path=path)  # pyright: ignore[reportUnknownMemberType]
        self.what = what
        return self

    def collect(self) -> Iterator[pytest.Item]:
        yield _Lacking.from_parent(self, name="tools")  # pyright: ignore[reportUnknownMemberType]


class _Lacking(pytest.Item):
    """The only test of such a module."""

    def runtest(self) -> None:
        assert isinstance(self.parent, _StandIn)
        missing(self.parent.what)
