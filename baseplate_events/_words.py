"""How errors, logs and commands write numbers: one function for plurals and bytes.

Rules:

1. One is singular, everything else is plural, including zero: `1 event`, `0 events`, `2,000 events`.
2. Numbers of bytes are exact, `1,073,741,824 bytes`, never rounded to MiB or MB: people compare them with
   limits that they typed as numbers in the INI file, for sysctl, ulimit or systemd.
"""

from __future__ import annotations

from typing import final


def counted(number: float, noun: str) -> str:
    """Format a number of things: `1 event`, `2,000 events`, `1,024 bytes`; a fraction is rounded.

    Args:
        number: How many there are.
        noun: What they are, in the singular. Its plural adds `s`, or `es` after `ch`.
    """
    text = f"{round(number):,}"
    ending = "" if text == "1" else "es" if noun.endswith("ch") else "s"
    return f"{text} {noun}{ending}"


@final
class Count(int):
    """A number of things as an argument of a log line; `%s` formats it as `counted` does.

    The publisher's log repeats lines that differ only in numbers once in ten seconds. It recognises numbers
    by their type, so a formatted text won't do.
    """

    noun: str

    def __new__(cls, number: int, noun: str) -> Count:
        """Create one; the arguments are those of `counted`."""
        count = super().__new__(cls, number)
        count.noun = noun
        return count

    def __str__(self) -> str:
        return counted(int(self), self.noun)
