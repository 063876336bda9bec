"""The `default` of a JSON serializer, which is called once for each value of an event.

The writers and the reference may both come across a value: what was returned, or raised, for the first is
kept until the event is written.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class _Answer(NamedTuple):
    """What became of a call.

    Attributes:
        value: What it was called with, which is kept so that no other value has its id meanwhile.
        result: What it returned.
        error: What it raised, or None.
    """

    value: object
    result: object
    error: Exception | None


#: Answers for values of the event that this thread or greenlet writes, by their ids.
_answers: Final[ContextVar[dict[int, _Answer]]] = ContextVar("answers")


class Hook:
    """Calls a `default`, unless it was called with the same value for the same event.

    Args:
        default: Takes a value that JSON has no form for and returns what to write instead.
    """

    __slots__ = ("_default",)

    def __init__(self, default: Callable[[Any], object]) -> None:
        self._default = default

    def __call__(self, value: object, /) -> object:
        """Return what to write instead of a value; raise what `default` raises."""
        answers = _answers.get()
        answer = answers.get(id(value))
        if answer is None:
            try:
                answer = _Answer(value, self._default(value), None)
            except Exception as error:  # noqa: BLE001 - raised below, and again for the reference
                answer = _Answer(value, None, error)
            answers[id(value)] = answer
        if answer.error is not None:
            raise answer.error
        return answer.result

    def write(self, event: object, write: Callable[[Any], bytes]) -> bytes:
        """Write an event by a function that calls this hook."""
        answers: dict[int, _Answer] = {}
        token = _answers.set(answers)
        try:
            return write(event)
        finally:
            _answers.reset(token)
            answers.clear()  # an error refers to frames that refer to it
