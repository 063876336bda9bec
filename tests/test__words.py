from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import baseplate_events
from baseplate_events._words import Count, counted

NOUNS = st.sampled_from(["event", "byte", "batch", "old dead letter"])


@given(st.integers(0, 10**20), NOUNS)
def test_a_number_is_exact_and_has_its_plural(number: int, noun: str) -> None:
    """Without commas the digits are the number; only one is singular."""
    digits, _, words = counted(number, noun).partition(" ")
    assert int(digits.replace(",", "")) == number
    assert (words == noun) == (number == 1)
    assert words in {noun, f"{noun}s", f"{noun}es"}


@given(st.floats(0, 1e15), NOUNS)
def test_a_fraction_is_rounded_before_its_plural_is_chosen(number: float, noun: str) -> None:
    """A sample of a metric is a float: it reads like the whole number next to it."""
    assert counted(number, noun) == counted(round(number), noun)


@given(st.integers(0, 10**20), NOUNS)
def test_a_count_is_a_number_that_is_written_with_its_noun(number: int, noun: str) -> None:
    """As an argument of a log line it is written as `counted` does, and equals its number."""
    assert "%s" % (Count(number, noun),) == f"{Count(number, noun)!s}" == counted(number, noun)  # noqa: UP031 - as logging does
    assert Count(number, noun) == number


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "event", "0 events"),
        (1, "event", "1 event"),
        (1.0, "event", "1 event"),
        (2_000, "event", "2,000 events"),
        (1, "batch", "1 batch"),
        (2, "batch", "2 batches"),
        (1_073_741_824, "byte", "1,073,741,824 bytes"),
    ],
)
def test_examples(number: float, noun: str, text: str) -> None:
    """The examples of the documentation."""
    assert counted(number, noun) == text


#: What is allowed: a bound that is always large, a text of baseplate.py, and spans, which are read back.
ALLOWED = re.compile(
    r"MAX_NAME_SIZE|MAX_PAYLOAD|MAX_HEAD|MAX_SOCKET|MAX_QUEUE_NAME|MIN_SPOOL|longest|too large to send"
    r"|events put for|put\} events|:\.1f\}|\{seconds:f\}|of \{len\(text\)"
    r"|counts\.batches|max_size\} bytes don't|\{unit\}"
)

#: Nouns that are counted; after a format such as `{free:,}` any other counts, too.
PLURALS: Final = (
    "events|bytes|letters|batches|lines|files|inodes|seconds|minutes|hours|days|times|segments|addresses|"
    "requests|responses|queues|spools|places|services|publishers|attempts|headers|messages|refusals"
)


def test_there_is_one_plural() -> None:
    """No module writes a plural after a variable number itself, nor rounds bytes to MiB."""
    pattern = re.compile(
        rf"(%d|%\.0f|\{{[^{{}}]*[a-z_][^{{}}]*\}}) ((of|more|old|log|dead) )*({PLURALS})\b"
        r"|\{[^{}]*[a-z_][^{}]*:,(\.0f)?\} [a-z]+s\b"
        r"|\}[^{}]* [KMGT]i?B\b|'' if \w+ == 1"
    )
    folder = Path(baseplate_events.__file__).parent
    found = [
        f"{path.relative_to(folder)}: {line.strip()}"
        for path in sorted(folder.rglob("*.py"))
        for line in path.read_text().splitlines()
        if pattern.search(line) and not ALLOWED.search(line)
    ]
    assert found == []
