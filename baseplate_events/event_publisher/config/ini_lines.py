"""Line numbers of the keys of an INI file, which `configparser` doesn't keep. Pure.

With them a message can name the line of a mistake instead of showing it.
"""

from __future__ import annotations

import configparser
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_COMMENTS: Final = ("#", ";")
_NOT_BLANK: Final = re.compile(r"\S")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key is.

    Attributes:
        line: The number of its line, from 1.
        continued: The number of the first indented line that continues its value, or None.
    """

    line: int
    continued: int | None = None


def find_keys(text: str) -> Mapping[tuple[str, str], Place]:
    """Find the keys of an INI file that `configparser.RawConfigParser` has parsed.

    A line that is indented further than the key's continues its value. Comments and empty lines between them
    don't end the value.

    Args:
        text: The text of the file.

    Returns:
        The place of each key, by section and key; keys are in lower case.
    """
    places: dict[tuple[str, str], Place] = {}
    section, key = "", ""
    indent = 0
    for number, line in enumerate(text.split("\n"), 1):
        content = line.strip()
        first = _NOT_BLANK.search(line)
        if first is None or content.startswith(_COMMENTS):
            continue
        if key and first.start() > indent:
            place = places[section, key]
            if place.continued is None:
                places[section, key] = Place(place.line, number)
            continue
        indent = first.start()
        if header := configparser.RawConfigParser.SECTCRE.match(content):
            section, key = header["header"], ""
        elif section and (option := configparser.RawConfigParser.OPTCRE.match(content)):
            key = option["option"].rstrip().lower()
            places[section, key] = Place(number)
    return places
