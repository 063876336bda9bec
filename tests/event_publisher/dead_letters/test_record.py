from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.dead_letters.record import (
    Letter,
    Number,
    Unreadable,
    format_letter,
    parse_line,
)
from tests.support.strategies import answers, any_events, refusals, texts, wall_times


@given(any_events, refusals, texts, answers, wall_times)
def test_a_letter_is_a_line_of_json(
    event: bytes, status: int | None, reason: str, answer: bytes, now: float
) -> None:
    """A letter is one line of printable ASCII that readers of JSON lines take, with the documented keys."""
    line = format_letter(event, wall_time=now, status=status, reason=reason, excerpt=answer)
    assert line.endswith(b"\n")
    assert line[:-1].decode("ascii").replace("\x7f", "").isprintable()
    letter: dict[str, object] = json.loads(line)
    body = letter.pop("event", None) or letter.pop("event_base64", None)
    assert isinstance(body, str) or not event
    assert {"time", "status", "reason", "excerpt"} == letter.keys() - {"event"}
    moment = datetime.strptime(str(letter["time"]), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    assert round(now * 1_000) == round(moment.timestamp() * 1_000)


_junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda values: (
        st.lists(values, max_size=2)
        | st.dictionaries(
            st.sampled_from(["time", "status", "reason", "excerpt", "event", "event_base64"]),
            values,
            max_size=6,
        )
    ),
    max_leaves=6,
)


@given(
    st.one_of(
        st.binary(max_size=60),
        _junk.map(json.dumps).map(str.encode),
        st.just(b"[" * 200_000),
        st.just(b'{"time":' + b"9" * 5_000),
    )
)
def test_no_line_breaks_a_reader(junk: bytes) -> None:
    """Whatever a line holds, reading it gives a letter, a line that can't be read, or nothing."""
    line = junk.replace(b"\n", b"") + b"\n"
    number = Number(1, 1)
    entry = parse_line(line, number)
    assert entry is None or isinstance(entry, Letter) or entry == Unreadable(number, torn=False)


@given(
    st.sampled_from(
        [
            {"time": "2026-01-01T00:00:00.000"},
            {"time": "yesterday"},
            {"time": 5},
            {"status": "400"},
            {"status": 4.5},
            {"reason": None},
            {"excerpt": 1},
            {"event": 1},
            {"event": "\ud800"},
        ]
    )
)
def test_a_damaged_member_is_seen(damage: dict[str, object]) -> None:
    """A letter one of whose members isn't what it should be is a line that can't be read."""
    good = format_letter(b"{}", wall_time=0, status=400, reason="refused", excerpt=b"no")
    number = Number(1, 1)
    assert isinstance(parse_line(good, number), Letter)
    line = json.dumps({**json.loads(good), **damage}).encode() + b"\n"
    assert Unreadable(number, torn=False) == parse_line(line, number)


@given(st.integers(0, 9_999_999_999), st.integers(0, 9_999_999_999))
def test_a_number_is_read_as_it_is_written(file: int, line: int) -> None:
    """A letter's number is read back from its text."""
    number = Number(file, line)
    assert number == Number.parse(str(number))


@given(st.one_of(st.text(max_size=5), st.sampled_from(["3", "3:", ":17", "3:17\n", "-3:17", "3:1:7", "٣:1"])))
def test_no_other_text_is_a_number(text: str) -> None:
    """Whatever isn't two numbers in digits with a colon between them is refused."""
    file, colon, line = text.partition(":")
    if colon and all(part.isascii() and part.isdigit() for part in (file, line)):
        assert Number(int(file), int(line)) == Number.parse(text)
    else:
        with pytest.raises(ValueError, match="3:17"):
            Number.parse(text)


def test_no_content_in_a_repr() -> None:
    """The repr of a letter holds neither the event nor what the collector answered."""
    letter = parse_line(
        format_letter(b"private", wall_time=0, status=None, reason="r", excerpt=b"private"), Number(1, 1)
    )
    assert "private" not in repr(letter)
