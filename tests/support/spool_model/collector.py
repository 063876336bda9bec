"""The model's collector, and events that it may refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baseplate_events.event_publisher.policy.outcome import (
    Accepted,
    Misconfigured,
    Outcome,
    Refused,
    Retryable,
    TooLarge,
)

from .programs import Events

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random


class JsonEvents(Events):
    """Events that a collector may accept or refuse."""

    random: Random
    kinds: str

    def make(self, thread: str, sizes: Sequence[int]) -> list[bytes]:
        mine = self.tried.setdefault(thread, [])
        made: list[bytes] = []
        for size in sizes:
            event = f'{{"{self.random.choice(self.kinds)}":"{thread}.{len(mine)}'.encode()
            event += b"x" * (size - len(event) - 2) + b'"}'
            mine.append(event)
            made.append(event)
        return made


class Collector:
    """Accepts batches, or not.

    Attributes:
        failing: The probability that an attempt fails.
        speed: The probability that an attempt ends between two steps.
        accepted: By event: the batches that contained it.
    """

    def __init__(self, random: Random, failing: float, speed: float) -> None:
        self.failing = failing
        self.speed = speed
        self.accepted: dict[bytes, set[tuple[bytes, ...]]] = {}
        self._random = random

    def judge(self, events: tuple[bytes, ...]) -> Outcome:
        """Return the outcome of a batch, as its publisher sees it."""
        if self._random.random() < self.failing:
            failure = self._random.choice(["503", "500", "lost", "lost", "401", "413"])
            if failure == "503":
                return Retryable("503", from_collector=True, status=503, may_be_poison=True)
            if failure == "500":
                return Retryable("500", from_collector=True, status=500, may_be_poison=True)
            if failure == "401":
                return Misconfigured("401", "check the key", from_collector=True)
            if failure == "413":
                return TooLarge("413", 413)
            self._take(events)
            return Retryable("no response", from_collector=False, may_be_poison=True)
        return self._take(events)

    def _take(self, events: tuple[bytes, ...]) -> Outcome:
        if any(event.startswith(b'{"r"') for event in events):
            return Refused("400", 400)
        for event in events:
            self.accepted.setdefault(event, set()).add(events)
        return Accepted(200)
