"""Disks for tests: file systems in memory or in a file, a limit to the size of files, deletion under load."""

from __future__ import annotations

import contextlib
import resource
import shutil
from typing import TYPE_CHECKING

from tests.support.commands import run
from tests.support.tools import missing
from tests.support.waiting import wait_until

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


def delete_in_use(folder: Path) -> None:
    """Delete a folder that a thread or another process has open, and in which it may just make a file.

    It goes away from its place at once, so that what is written to this place afterwards isn't deleted.
    """
    away = folder.with_name(f"{folder.name}.deleted")
    folder.rename(away)

    def is_deleted() -> bool:
        shutil.rmtree(away, ignore_errors=True)
        return not away.exists()

    wait_until(is_deleted, f"{away} isn't deleted")
