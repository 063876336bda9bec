"""A bare Debian, a system that boots it, and an engine for containers, if this machine has the tools."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.deploy.containers import started
from tests.deploy.debian import bootstrap, clone
from tests.deploy.systems import PROJECT, booted
from tests.support.tools import missing, need_command, not_installed, stand_in

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.deploy.containers import Engine
    from tests.deploy.systems import System


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Collect a module of tests, or one item that says which tool is missing."""
    return stand_in(not_installed("kubernetes_validate"), module_path, parent)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check for tools before fixtures do: so the summary has one line, not one for each test."""
    fixtures = item.fixturenames if isinstance(item, pytest.Function) else ()
    if "debian" in fixtures:
        if os.geteuid() != 0:
            missing("only root can make a Debian system")
        for tool in ("mmdebstrap", "git", *(("podman", "crun", "ip") if "engine" in fixtures else ())):
            need_command(tool)


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """The top folder of a bare Debian with a systemd, which all tests share: none changes it."""
    folder = tmp_path_factory.mktemp("debian")
    try:
        bootstrap(folder / "tree")
        yield folder / "tree"
    except (OSError, AssertionError, subprocess.TimeoutExpired) as exc:
        missing(f"no Debian can be made here: {exc}")
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def system(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[System]:
    """A bare Debian that runs, with a clone of the project in `PROJECT`."""
    mounts, additions = tmp_path_factory.mktemp("mounts"), tmp_path_factory.mktemp("additions")
    with contextlib.ExitStack() as stack:
        try:
            (additions / "root").mkdir(mode=0o700)  # as on any Debian
            clone(additions / PROJECT.relative_to("/"))
            running = stack.enter_context(booted(mounts, additions, debian))
        except (OSError, AssertionError) as exc:
            missing(f"no system boots here: {exc}")
        else:
            yield running


@pytest.fixture(scope="session")
def engine(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Engine]:
    """A host with an engine for containers, and with the images."""
    folder, project = tmp_path_factory.mktemp("engine"), tmp_path_factory.mktemp("project")
    with contextlib.ExitStack() as stack:
        try:
            clone(project)
            running = stack.enter_context(started(folder, project, debian))
        except (OSError, AssertionError, subprocess.SubprocessError) as exc:
            missing(f"no engine for containers works here: {exc}")
        else:
            yield running
