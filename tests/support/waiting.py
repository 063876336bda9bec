"""The way to wait for something that can't be awaited otherwise: poll until it holds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

T = TypeVar("T")

#: Seconds until something that should happen is given up; only a failing test waits for so long.
PATIENCE: Final = 30.0


def wait_until(
    condition: Callable[[], T],
    failure: str | Callable[[], str],
    *,
    process: subprocess.Popen[Any] | None = None,
    patience: float = PATIENCE,
    interval: float = 0.01,
) -> T:
    """Poll a condition until it holds, and return its value.

    Args:
        condition: Holds if its value is true.
        failure: What the error says; a function is called only if there is one.
        process: A process without which the condition cannot come to hold.
        patience: Seconds until the wait is given up.
        interval: Seconds between two polls.

    Raises:
        TimeoutError: The condition did not hold in time, or the process ended first.
    """
    give_up_at = time.monotonic() + patience
    while True:
        # First the process, then the condition: what a process did just before its end counts.
        status = None if process is None else process.poll()
        if value := condition():
            return value
        if status is not None or time.monotonic() > give_up_at:
            why = f"{patience:g} seconds passed" if status is None else f"the process ended with {status}"
            raise TimeoutError(f"{failure if isinstance(failure, str) else failure()} ({why})")
        time.sleep(interval)
