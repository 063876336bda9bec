"""Makes a step of a constructor fail, and checks that what it had opened before is closed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NoReturn
from unittest import mock

import pytest

from tests.support.queues import lasting_files, open_files

if TYPE_CHECKING:
    from collections.abc import Generator


class StepError(Exception):
    """Raised by a step that was made to fail."""


def fail(*_: object, **__: object) -> NoReturn:
    """Fail, in the place of a function or method."""
    raise StepError


@contextlib.contextmanager
def failing(owner: object, step: str) -> Generator[None]:
    """Make a step fail within the block, which must raise its error and leave no descriptor open.

    The error is kept meanwhile, as by a caller that logs it later: what only garbage collection closes counts
    as open.

    Args:
        owner: The module or class that has the step.
        step: The name of the function, class or method.
    """
    before = lasting_files()
    with pytest.raises(StepError) as kept, mock.patch.object(owner, step, fail):
        yield
    assert open_files() <= before, kept
