"""These tests need `kubernetes-validate`, which tox installs; without it they aren't collected.

A test whose other tools aren't there is skipped, or fails where REQUIRE_TOOLS=1 says that they have to be.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.deploy.containers import started
from tests.deploy.debian import bootstrap, clone
from tests.deploy.systems import PROJECT, booted

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.deploy.containers import Engine
    from tests.deploy.systems import System

collect_ignore_glob = [] if importlib.util.find_spec("kubernetes_validate") else ["test_*.py"]


def missing(what: str) -> NoReturn:
    """Skip the test for want of a tool, or fail it where tools are required."""
    if os.environ.get("REQUIRE_TOOLS") == "1":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """The top folder of a bare Debian with a systemd, which is for all tests: nobody changes it."""
    if os.geteuid() != 0:
        missing("only root can make a Debian system")
    if shutil.which("mmdebstrap") is None:
        missing("there is no mmdebstrap; Debian's package mmdebstrap has it")
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
    for tool in ("podman", "crun"):
        if shutil.which(tool) is None:
            missing(f"there is no {tool}; Debian's package {tool} has it")
    folder, project = tmp_path_factory.mktemp("engine"), tmp_path_factory.mktemp("project")
    with contextlib.ExitStack() as stack:
        try:
            clone(project)
            running = stack.enter_context(started(folder, project, debian))
        except (OSError, AssertionError, subprocess.SubprocessError) as exc:
            missing(f"no engine for containers works here: {exc}")
        else:
            yield running
