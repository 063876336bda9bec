"""`assert_never` for closed unions; `typing` has it from Python 3.11."""

from __future__ import annotations

from typing import NoReturn


def assert_never(value: NoReturn) -> NoReturn:
    """Mark a branch that no value reaches: a type checker reports a union member that was forgotten.

    Raises:
        AssertionError: Always; the message names the type that got past the type checker.
    """
    raise AssertionError(f"unexpected {type(value).__name__}")
