from __future__ import annotations

import itertools
import re
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baseplate_events.event_publisher.telemetry.statsd_lines import (
    format_line,
    format_metric,
    format_number,
    format_rate,
    pack_lines,
)
from tests.support.statsd import Line, Rude, parse_line
from tests.support.strategies import finite_numbers, hostile_texts, metric_tags, unwritable_numbers

# --- numbers ---


@given(finite_numbers)
@example(1_000_000)
@example(1e22)
@example(5e-324)
@example(-0.0)
def test_a_number_is_a_plain_decimal_that_reads_back(number: float) -> None:
    """A finite number is written without exponent or needless digits, and reads back as the same number."""
    text = format_number(number)
    assert text is not None
    assert re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?", text)
    assert number == (int(text) if isinstance(number, int) else float(text))


@given(finite_numbers)
def test_a_number_is_written_as_the_original_does_where_that_is_exact(number: float) -> None:
    """Where `%g` is exact and has no exponent, the text is the same, but for minus zero."""
    original = f"{number:g}"
    if "e" not in original and Decimal(original) == Decimal(
        number if isinstance(number, int) else repr(number)
    ):
        assert ("0" if original == "-0" else original) == format_number(number)


@given(finite_numbers, st.integers(0, 6))
def test_a_shift_multiplies_exactly(number: float, shift: int) -> None:
    """A shifted number is the decimal number times a power of ten, with nothing rounded."""
    plain, shifted = format_number(number), format_number(number, shift=shift)
    assert plain is not None
    assert shifted is not None
    assert Fraction(plain) * 10**shift == Fraction(shifted)


@given(unwritable_numbers)
def test_what_is_no_finite_number_cannot_be_written(number: float) -> None:
    """NaN, the infinities and ints beyond every float give no text."""
    assert format_number(number) is None


@pytest.mark.parametrize("value", ["1", None, b"1", Rude(), [], 1j])
def test_what_is_no_number_cannot_be_written(value: object) -> None:
    """A value of a wrong type gives no text and no exception."""
    assert format_number(value) is None  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@given(st.floats() | st.integers())
def test_a_rate_is_told_only_where_it_is_a_share(rate: float) -> None:
    """A rate above 0 and below 1 is annotated so that it reads back, any other counts as 1."""
    text = format_rate(rate)
    if 0 < rate < 1:
        assert text.startswith("|@0.")
        assert rate == float(text[2:])
    else:
        assert text == ""


# --- lines ---


@given(
    hostile_texts, hostile_texts, st.dictionaries(hostile_texts, hostile_texts, max_size=3), finite_numbers
)
@example("", "a\nb:1|c", {"k\n": "v|#,=:"}, 1)
@example("..", "a..b.", {"": ""}, 1)
def test_no_name_or_tag_can_inject(namespace: str, name: str, tags: dict[str, str], number: float) -> None:
    """Whatever the names are, they make one line of the grammar with as many tags, or none without a name."""
    metric = format_metric(namespace, name, tags)
    line = format_line(metric, format_number(number), "c")
    if not (namespace + name).strip("."):
        assert line is None
        return
    assert line is not None
    parsed = parse_line(line)
    assert len(tags) == len(parsed.tags)
    assert len([node for node in f"{namespace}.{name}".split(".") if node]) == len(parsed.name.split("."))


@given(
    st.from_regex(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", fullmatch=True),
    st.from_regex(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", fullmatch=True),
    metric_tags,
)
def test_a_safe_name_stays_as_it_is(namespace: str, name: str, tags: dict[str, str]) -> None:
    """Names and tags of safe characters are kept, in their order."""
    parsed = parse_line(format_line(format_metric(namespace, name, tags), "1", "c") or b"")
    assert Line(f"{namespace}.{name}", tuple(tags.items()), "1", "c", 1.0) == parsed


def test_what_is_no_name_or_tag_does_no_harm() -> None:
    """Names, values and mappings of wrong types are written as something, and nothing is raised."""
    name: str = Rude()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    tags: dict[str, str] = [1]  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    assert format_metric("a", name, {"b": Rude()}) == b"a._,b=_"
    assert format_metric("a", "b", tags) == b"a.b"
    assert format_metric("a", "b", {"c": 3}) == b"a.b,c=3"


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
