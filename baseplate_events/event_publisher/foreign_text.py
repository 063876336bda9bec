r"""Text of others, made safe for a terminal or a text log. The one place that decides what is safe. Pure.

Text of others is whatever comes from an event, from the collector, or from another process. On a terminal it
could move the cursor, change the title, answer a query as if it were typed, or show words in another order
than they have. In a text log it could forge a line.

Rules:

1. What doesn't show as a character of its own is escaped as Python escapes it, such as `\x1b` or `\u202e`:
   C0 and C1 controls, DEL, bidirectional and zero-width characters, line and paragraph separators, lone
   surrogates, characters that Unicode doesn't define, and those that it lets a terminal ignore.
2. Bytes that aren't UTF-8 are escaped likewise, so raw C1 controls (0x80 to 0x9F) are too.
3. What shows is left alone, a backslash too: this is for people, and can't be turned back.
4. It is used where text goes to a terminal or a text log. What goes to a file or a pipe for a program stays
   as it is, byte for byte.
"""

from __future__ import annotations

import re
from typing import Final

#: Characters of a text of others that a log line or a row of a table shows: a reason phrase of a collector
#: can have 60,000. Two of these and what the publisher says itself fit into PIPE_BUF (4,096 bytes).
MAX_FOREIGN: Final = 1_000

#: What Python calls printable although it shows nothing: Default_Ignorable_Code_Point of Unicode's
#: DerivedCoreProperties.txt, without the format characters, which Python doesn't call printable.
_IGNORABLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def printable(text: str, limit: int | None = None) -> str:
    r"""Escape whatever of a text doesn't show as a character of its own, line breaks included.

    Args:
        text: Any text, `"\x1b[2J"` for example.
        limit: Characters that the result may have, besides a remark of at most 40 on what was cut; None for
            no limit.

    Returns:
        One line, such as `\x1b[2J`.
    """
    whole = limit is None or len(text) <= limit
    if whole and text.isprintable() and _IGNORABLE.search(text) is None:
        return text
    if limit is None:
        return "".join(map(_escape, text))
    shown: list[str] = []
    room = limit
    for char in text:
        escaped = _escape(char)
        room -= len(escaped)
        if room < 0:
            return f"{''.join(shown)}… (of {len(text):,} characters)"
        shown.append(escaped)
    return "".join(shown)


def printable_bytes(data: bytes, limit: int | None = None) -> str:
    """Escape bytes likewise, as UTF-8."""
    return printable(data.decode("utf-8", "backslashreplace"), limit)


def _escape(char: str) -> str:
    if char.isprintable() and _IGNORABLE.match(char) is None:
        return char
    code = ord(char)
    if code <= 0xFF:  # noqa: PLR2004  a byte
        return _SHORT.get(char) or f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004  Python's own forms


_SHORT: Final = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
