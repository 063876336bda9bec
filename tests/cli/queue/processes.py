"""The command `queue` in processes of their own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.support.processes import PIPE, started

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tests.support.processes import Process


def process(*words: str, stdout: int = PIPE) -> AbstractContextManager[Process]:
    """Run the command in a process of its own until the end of a block."""
    command = (sys.executable, "-m", "baseplate_events", "queue", *words)
    return started(*command, stdin=PIPE, stdout=stdout, stderr=PIPE)
