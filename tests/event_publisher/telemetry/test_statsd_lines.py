from __future__ import annotations

import itertools
import math
import re
import sys
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baseplate_events.event_publisher.telemetry.statsd_lines import format_lines, format_number, pack_lines
from tests.support.commands import run
from tests.support.statsd import Line, parse_line
from tests.support.strategies import finite_numbers

if TYPE_CHECKING:
    from baseplate_events.event_publisher.telemetry.statsd_lines import Kind

# --- numbers ---


@given(finite_numbers)
@example(1_000_000)
@example(1e22)
@example(5e-324)
@example(1.7976931348623157e308)
def test_a_number_is_a_plain_decimal(number: float) -> None:
    """An int is exact, a float is right to a millionth, and no text has an exponent or a needless digit."""
    text = format_number(number)
    assert re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]{0,5}[1-9])?", text)
    assert abs(Decimal(text) - Decimal(number)) <= (0 if isinstance(number, int) else Decimal("0.0000005"))


@given(st.integers(-(10**6), 10**6), st.integers(0, 4))
def test_a_number_is_written_as_baseplate_py_does_if_that_is_exact(digits: int, places: int) -> None:
    """If `%g` is exact and has no exponent, the text is the same."""
    number = digits / 10**places
    expected = f"{number:g}"
    if "e" not in expected and float(expected) == number:
        assert expected == format_number(number)


def test_a_boolean_is_a_number() -> None:
    """To a type checker a boolean is an int, so it's written as one."""
    assert ["1", "0"] == [format_number(True), format_number(False)]


def test_formatting_needs_no_decimal() -> None:
    """A publisher that starts imports neither `decimal` nor `difflib`, which cost memory and time."""
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"  # a tool that measures coverage may have them
        "import baseplate_events.event_publisher.publisher\n"
        "print({'decimal', '_decimal', '_pydecimal', 'difflib'} & sys.modules.keys() - before)"
    )
    assert run(sys.executable, "-c", program).check() == "set()\n"


# --- lines ---

_names = st.from_regex(r"[a-z_]+(\.[a-z_]+)?", fullmatch=True)


@given(
    st.sampled_from(["", "app."]),
    st.sampled_from(["ms", "g", "c"]),
    st.dictionaries(_names, st.floats(0, 1e300) | st.integers(0, 1 << 70) | st.just(math.nan)),
)
def test_each_finite_number_is_a_line(prefix: str, kind: Kind, numbers: dict[str, float]) -> None:
    """The finite numbers are lines of their kind, in their order; others are left out and spoil nothing."""
    assert [
        Line(prefix + name, format_number(number * (1_000 if kind == "ms" else 1)), kind)
        for name, number in numbers.items()
        if math.isfinite(number)
    ] == [parse_line(line) for line in format_lines(prefix, kind, numbers)]


def test_a_line_of_each_kind() -> None:
    """Timers are measured in seconds and sent in milliseconds; only a change can be negative."""
    assert format_lines("app.", "ms", {"post": 0.0125}) == [b"app.post:12.5|ms"]
    assert format_lines("", "g", {"queue.depth": 7, "oldest.age": 0.001}) == [
        b"queue.depth:7|g",
        b"oldest.age:0.001|g",
    ]
    assert format_lines("app.", "c", {"sent": 3, "received": -1}) == [b"app.sent:3|c", b"app.received:-1|c"]


# --- packing ---


@given(
    st.lists(st.binary(min_size=1, max_size=30).filter(lambda line: b"\n" not in line)), st.integers(1, 60)
)
def test_packing_conserves_lines_and_keeps_the_size(lines: list[bytes], size: int) -> None:
    """Datagrams hold exactly the lines, in order, as few as can be; only a line alone can be too long."""
    datagrams = list(pack_lines(lines, size))
    assert lines == [line for datagram in datagrams for line in datagram.split(b"\n")]
    for datagram in datagrams:
        assert len(datagram) <= size or datagram.count(b"\n") == 0
    for datagram, following in itertools.pairwise(datagrams):
        assert len(datagram) + 1 + len(following.split(b"\n")[0]) > size


@pytest.mark.parametrize(("size", "count"), [(716, 2), (715, 1)])
def test_a_datagram_has_1432_bytes_at_most(size: int, count: int) -> None:
    """Two lines and the newline between them fit up to that."""
    lines = [b"x" * 716, b"y" * size]
    assert len(list(pack_lines(lines))) == count
    assert max(map(len, pack_lines(lines))) <= 1_432
