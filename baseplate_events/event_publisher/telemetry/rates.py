"""How fast numbers grew lately, for readers who look only once. Pure."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Seconds that a rate covers at least, once that much time has passed.
WINDOW: Final = 10.0

#: Seconds that a rate covers at the least; with less it would jump.
_SHORTEST: Final = 0.5


@final
class Rates:
    """The growth per second of some numbers, over the last `WINDOW`.

    It keeps the numbers of a window, one set for each call; calls come about a second apart.
    """

    def __init__(self) -> None:
        self._looks: collections.deque[tuple[float, Mapping[str, float]]] = collections.deque()

    def record(self, now: float, numbers: Mapping[str, float]) -> dict[str, float]:
        """Add the numbers of this moment, the same ones each time, and return their growth per second.

        Returns:
            The rates, rounded to millionths; empty until half a second after the first call.
        """
        looks = self._looks
        while len(looks) > 1 and looks[1][0] <= now - WINDOW:
            looks.popleft()
        if not looks or now >= looks[-1][0] + _SHORTEST:  # more often would only use memory
            looks.append((now, dict(numbers)))
        then, before = looks[0]
        if now < then + _SHORTEST:
            return {}
        return {name: round((number - before[name]) / (now - then), 6) for name, number in numbers.items()}
