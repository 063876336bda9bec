"""Foreign text on a terminal: it can do nothing but be visible."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baseplate_events.event_publisher.foreign_text import printable, printable_bytes

#: What moves a cursor, hides, reorders or breaks lines, and how it is to be shown.
HAZARDS = {
    "\x00": r"\x00",
    "\t": r"\t",
    "\n": r"\n",
    "\r": r"\r",
    "\x1b": r"\x1b",
    "\x7f": r"\x7f",  # DEL
    "\x85": r"\x85",  # NEL
    "\x9b": r"\x9b",  # CSI, a C1 control
    "\xa0": r"\xa0",  # a blank that isn't one
    "\xad": r"\xad",  # a hyphen that doesn't show
    "\u034f": r"\u034f",  # combining grapheme joiner
    "\u200b": r"\u200b",  # zero-width space
    "\u200d": r"\u200d",  # zero-width joiner
    "\u200f": r"\u200f",  # right-to-left mark
    "\u2028": r"\u2028",
    "\u2029": r"\u2029",
    "\u202e": r"\u202e",  # right-to-left override
    "\u2066": r"\u2066",  # left-to-right isolate
    "\u3164": r"\u3164",  # a letter that doesn't show
    "\ufeff": r"\ufeff",
    chr(0xD800): r"\ud800",
    "\udc9b": r"\udc9b",  # a byte 0x9b of an argument that isn't UTF-8
    "\ue000": r"\ue000",  # private use
    "\uffff": r"\uffff",
    "\U000e0041": r"\U000e0041",  # a tag
    "\U000e0100": r"\U000e0100",  # a variation selector
}

#: Texts with many hazards, and escapes that look like them.
foreign_texts = st.text(st.characters() | st.sampled_from([*HAZARDS, "\\", "é", "漢"]), max_size=40)


def shows(char: str) -> bool:
    """Return, by Unicode's own categories, whether a character is visible as itself."""
    return char == " " or unicodedata.category(char)[0] not in "CZ"


@pytest.mark.parametrize("char", HAZARDS, ids=ascii)
def test_each_hazard_is_escaped(char: str) -> None:
    """Characters that a terminal would obey or hide are shown by their codes."""
    assert printable(f"a{char}b") == f"a{HAZARDS[char]}b"


@pytest.mark.unmeasured
@given(foreign_texts)
@example("".join(map(chr, [*range(0x110000)])))
def test_nothing_but_characters_that_show_is_left(text: str) -> None:
    """Each character is shown as it is, or as Python's escape of it; nothing is lost."""
    shown = printable(text)
    assert all(map(shows, shown))
    assert not set(shown) & set(HAZARDS)
    expected = [char if shows(char) and char not in HAZARDS else ascii(char)[1:-1] for char in text]
    if len(text) < 100:
        assert shown == "".join(expected)


@given(foreign_texts, st.integers(0, 50))
@example("\x1b" * 60_000, 1_000)
@example("x" * 60_000, 1_000)
def test_a_limit_holds_and_says_what_was_cut(text: str, limit: int) -> None:
    """A text within the limit is complete; a longer one is cut, with its length."""
    whole = printable(text)
    shown = printable(text, limit)
    if len(whole) <= limit:
        assert shown == whole
    else:
        beginning, _, remark = shown.rpartition("…")
        assert whole.startswith(beginning)
        assert limit - 10 < len(beginning) <= limit
        assert remark == f" (of {len(text):,} characters)"
        assert any(printable(text[:count]) == beginning for count in range(min(len(text), limit) + 1))


@given(st.binary(max_size=40))
@example(b"\x9b31m\xc2\x9b31m\xff\xe2\x80\xae")
def test_bytes_are_text_or_escaped(data: bytes) -> None:
    """UTF-8 is shown as its text, other bytes by their codes, so that no raw C1 control is left."""
    shown = printable_bytes(data)
    assert all(map(shows, shown))
    try:
        assert shown == printable(data.decode())
    except UnicodeDecodeError:
        assert "\\x" in shown
