"""Runs work that may hang, such as a name lookup, for a limited time."""

from __future__ import annotations

import concurrent.futures
import threading
from typing import TYPE_CHECKING, TypeVar

from ...event_publisher.config.values import format_span

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


def within(seconds: float, work: Callable[[], _T]) -> _T:
    """Do some work in a thread and return its result.

    Args:
        seconds: How long it may take. After that it continues in a daemon thread, and its result is ignored.
        work: The function to call.

    Raises:
        TimeoutError: It takes longer.
        Exception: Whatever the work raises.
    """
    future: concurrent.futures.Future[_T] = concurrent.futures.Future()

    def perform() -> None:
        try:
            future.set_result(work())
        except Exception as exc:  # noqa: BLE001 - raised by `result` in the thread that asked
            future.set_exception(exc)

    threading.Thread(target=perform, name="doctor", daemon=True).start()
    try:
        return future.result(seconds)
    except concurrent.futures.TimeoutError:
        if future.done():  # just now, or it was the work's own
            return future.result()
        raise TimeoutError(f"no answer within {format_span(seconds)}") from None
