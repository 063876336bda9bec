"""The number of examples of a property test, if it isn't that of the profile."""

from __future__ import annotations

from typing import Final

from hypothesis import settings

#: Examples of the profile to which the numbers in tests refer.
_DEFAULT: Final = 100

#: Examples of any test at least, unless it asks for fewer.
_FEWEST: Final = 5


def scaled(count: int) -> int:
    """Return the number of examples, scaled by the profile, for a test with `count` by default."""
    return max(min(count, _FEWEST), count * settings().max_examples // _DEFAULT)


def examples(count: int) -> settings:
    """Return settings with `count` examples by default; see `scaled`."""
    return settings(max_examples=scaled(count))
