"""How many examples a test of a property has, where the number isn't that of the profile."""

from __future__ import annotations

from typing import Final

from hypothesis import settings

#: Examples of the profile to which the numbers in tests refer.
_DEFAULT: Final = 100

#: Examples of any test at least, unless it asks for fewer.
_FEWEST: Final = 5


def scaled(count: int) -> int:
    """Return how many examples a test has that has so many by default: the profile makes it more or less."""
    return max(min(count, _FEWEST), count * settings().max_examples // _DEFAULT)


def examples(count: int) -> settings:
    """Return settings with so many examples by default; see `scaled`."""
    return settings(max_examples=scaled(count))
