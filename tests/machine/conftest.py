"""A machine, if this host has the tools."""

from __future__ import annotations

import os
import platform
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.machine.image import built, missing_tools
from tests.support.tools import missing

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.machine.image import Image


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look for what the image needs. If the fixture did it, the summary would have a line for each test."""
    if isinstance(item, pytest.Function) and "image" in item.fixturenames:
        if os.geteuid() != 0:
            missing("only root can build a machine")
        if platform.machine() != "x86_64":
            missing("a machine has Debian's kernel for amd64")
        absent = missing_tools()
        if absent:
            missing(
                f"a machine needs {', '.join(absent)}: apt-get install mmdebstrap qemu-system-x86 e2fsprogs"
            )


@pytest.fixture(scope="session")
def image() -> Generator[Image]:
    """What machines boot from."""
    try:
        with built() as image:
            yield image
    except subprocess.TimeoutExpired as exc:
        missing(f"no machine can be built here: {exc}")
