"""`assert_never` for closed unions; `typing` has it only from Python 3.11 on."""

from __future__ import annotations

from typing import NoReturn


def assert_never(value: NoReturn) -> NoReturn:
    """Stand in the branch that no value reaches: a type checker reports a union's member that was forgotten.

    Raises:
        AssertionError: Always; it names the type that came here in spite of the type checker.
    """
    raise AssertionError(f"unexpected {type(value).__name__}")
