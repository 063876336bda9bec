r"""Makes foreign text safe for a terminal or a text log. The one place that decides what is safe. Pure.

Foreign text comes from an event, from the collector, or from another process. On a terminal it could move the
cursor, change the title, answer a query as if it were typed, or reorder words. In a text log it could forge a
line.

Rules:

1. Characters that aren't visible as themselves are escaped as in Python, such as `\x1b` or `\u202e`:
   C0 and C1 controls, DEL, bidirectional and zero-width characters, line and paragraph separators, lone
   surrogates, unassigned characters, and those that terminals may ignore.
2. Bytes that aren't UTF-8 are escaped likewise, and so are raw C1 controls (0x80 to 0x9F).
3. Visible characters are unchanged, including backslashes: the result is for people, and can't be reversed.
4. It is used for text that goes to a terminal or a text log. Output to a file or a pipe for a program stays
   as it is, byte for byte.
"""

from __future__ import annotations

import re
from typing import Final

#: Characters of foreign text in a log line or a table row: a collector's reason phrase can have 60,000. Two
#: of these and the publisher's own text fit into PIPE_BUF (4,096 bytes).
MAX_FOREIGN: Final = 1_000

#: Characters that are invisible although Python calls them printable: Default_Ignorable_Code_Point of
#: Unicode's DerivedCoreProperties.txt, without the format characters, which Python doesn't call printable.
_IGNORABLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def printable(text: str, limit: int | None = None) -> str:
    r"""Escape all characters that aren't visible as themselves, including line breaks.

    Args:
        text: Any text, `"\x1b[2J"` for example.
        limit: Most characters of the result, besides a remark of at most 40 on what was cut; None for
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


def printable_bytes(data: bytes) -> str:
    """Escape bytes likewise, as UTF-8."""
    return printable(data.decode("utf-8", "backslashreplace"))


def _escape(char: str) -> str:
    if char.isprintable() and _IGNORABLE.match(char) is None:
        return char
    code = ord(char)
    if code <= 0xFF:  # noqa: PLR2004  a byte
        return _SHORT.get(char) or f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004  Python's own forms


_SHORT: Final = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
