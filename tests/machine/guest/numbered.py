"""The events of the power cuts: the same number gives the same event, in the machine and outside."""

from __future__ import annotations

import hashlib
import json
from typing import Final

#: Most bytes of an event; few have more than a quarter.
MAX_EVENT_SIZE: Final = 8_192

#: One event in so many is a large one.
_LARGE_EACH: Final = 32


def numbered(series: str, number: int) -> bytes:
    """Return the event of this number: JSON with an id and text that only this event has."""
    name = f"{series}-{number}"
    digest = hashlib.sha256(name.encode()).hexdigest()
    draw = int(digest[:8], 16)
    size = draw % (MAX_EVENT_SIZE - 200 if draw % _LARGE_EACH == 0 else MAX_EVENT_SIZE // 4)
    text = (digest * (1 + size // len(digest)))[:size]
    return json.dumps({"id": name, "text": text}, separators=(",", ":")).encode()
