"""These tests need `kubernetes-validate`, which tox installs; without it they aren't collected.

A test whose other tools aren't there is skipped, or fails where REQUIRE_TOOLS=1 says that they have to be.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.deploy.systems import booted

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.deploy.systems import System

collect_ignore_glob = [] if importlib.util.find_spec("kubernetes_validate") else ["test_*.py"]


def missing(what: str) -> NoReturn:
    """Skip the test for want of a tool, or fail it where tools are required."""
    if os.environ.get("REQUIRE_TOOLS") == "1":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def systemd_analyze() -> str:
    """The path of systemd-analyze."""
    path = shutil.which("systemd-analyze")
    if path is None:
        missing("there is no systemd-analyze; Debian's package systemd has it")
    return path


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Generator[System]:
    """A system with a systemd of its own."""
    if os.geteuid() != 0:
        missing("only root can boot a system in namespaces")
    for tool, package in (("systemctl", "systemd"), ("unshare", "util-linux"), ("ip", "iproute2")):
        if shutil.which(tool) is None:
            missing(f"there is no {tool}; Debian's package {package} has it")
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(booted(tmp_path_factory.mktemp("system")))
        except (OSError, AssertionError) as exc:
            missing(f"no system boots here: {exc}")
        else:
            yield running
