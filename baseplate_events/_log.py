"""Logging that can't fail a service."""

from __future__ import annotations

import contextlib

#: Levels, as `logging` has them.
DEBUG = 10
INFO = 20
WARNING = 30
ERROR = 40


def log(module: str, level: int, message: str, *arguments: object) -> None:
    """Log a message, unless a handler or a filter of the service fails, or `logging` can't be loaded.

    Args:
        module: The `__name__` of the caller, which is the name of the logger.
        level: One of the levels above.
        message: The message, with `%s` for each argument.
        arguments: These.
    """
    with contextlib.suppress(Exception):
        import logging  # noqa: PLC0415 - the slowest import of all; most services have nothing to log

        logging.getLogger(module).log(level, message, *arguments, stacklevel=2)
