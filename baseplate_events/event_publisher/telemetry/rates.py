"""How fast numbers grew lately, for those who look once. Pure."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Seconds that a rate is over, at least, as soon as there is so much to look back at.
WINDOW: Final = 10.0

#: Seconds of the shortest time that gives a rate: less would make it jump.
_SHORTEST: Final = 0.5


@final
class Rates:
    """The growth of some numbers in a second, over the last `WINDOW`.

    It holds the numbers of a window, one set for each call, and calls come a second apart.
    """

    def __init__(self) -> None:
        self._looks: collections.deque[tuple[float, Mapping[str, float]]] = collections.deque()

    def note(self, now: float, numbers: Mapping[str, float]) -> dict[str, float]:
        """Take numbers of a moment, the same ones each time, and return their growth in a second.

        Returns:
            The rates, rounded to thousandths; none before half a second has passed since the first call.
        """
        looks = self._looks
        while len(looks) > 1 and looks[1][0] <= now - WINDOW:
            looks.popleft()
        if not looks or now >= looks[-1][0] + _SHORTEST:  # more often would only fill memory
            looks.append((now, dict(numbers)))
        then, before = looks[0]
        if now < then + _SHORTEST:
            return {}
        return {name: round((number - before[name]) / (now - then), 3) for name, number in numbers.items()}
