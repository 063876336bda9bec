"""Disks for tests: file systems in memory or in a file, and a limit to the size of files."""

from __future__ import annotations

import contextlib
import resource
from typing import TYPE_CHECKING

from tests.support.commands import run
from tests.support.tools import missing

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@contextlib.contextmanager
def mounted(path: Path, *arguments: str | Path) -> Generator[None]:
    """Mount a file system at a new folder."""
    path.mkdir()
    if run("mount", *arguments, path).status:
        missing("nothing can be mounted here")
    try:
        yield
    finally:
        run("umount", "--lazy", path).check()


@contextlib.contextmanager
def largest_file(limit: int) -> Generator[None]:
    """Let no file of this process grow beyond a size: a real write that is cut short, then a real error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
