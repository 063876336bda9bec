from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from baseplate_events.event_publisher.telemetry.prometheus import (
    Metric,
    Sample,
    format_metrics,
    histogram_samples,
    parse_samples,
)
from baseplate_events.event_publisher.telemetry.snapshot import Distribution
from tests.support.strategies import texts

if TYPE_CHECKING:
    from baseplate_events.event_publisher.telemetry.prometheus import Kind, Labels

#: Text with everything that the format gives a meaning, line ends of all kinds included.
_texts = texts | st.text('ab"\\\n\r{}=, #\u2028é', max_size=12)

_KINDS: list[Kind] = ["counter", "gauge"]

_numbers = st.one_of(
    st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.just(1e-300)
)

_labels: st.SearchStrategy[Labels] = st.lists(
    st.tuples(st.sampled_from(["queue", "reason", "x_y"]), _texts), max_size=3, unique_by=lambda pair: pair[0]
).map(tuple)


@st.composite
def metrics(draw: st.DrawFn) -> list[Metric]:
    """Some metrics of distinct names, each with samples of distinct labels."""
    names = draw(
        st.lists(st.from_regex(r"[a-z]{1,5}(_[a-z]{1,5})?", fullmatch=True), unique=True, max_size=4)
    )
    made: list[Metric] = []
    for name in names:
        kind = draw(st.sampled_from(_KINDS))
        labels = draw(st.lists(_labels, max_size=3, unique_by=frozenset))
        samples = tuple(Sample(pairs, draw(_numbers)) for pairs in labels)
        full_name = f"a{name}_total" if kind == "counter" else f"b{name}"
        made.append(Metric(full_name, kind, draw(_texts), samples))
    return made


@given(metrics())
def test_what_is_written_is_read_back(written: list[Metric]) -> None:
    """Every sample comes back with its name, labels and number, and nothing else does."""
    expected = {
        (metric.name, sample.labels): float(sample.value) for metric in written for sample in metric.samples
    }
    assert expected == parse_samples(format_metrics(written))


@given(metrics())
def test_prometheus_reads_the_same(written: list[Metric]) -> None:
    """The parser of Prometheus' own client finds the same names, kinds, helps, labels and numbers."""
    found = list(text_string_to_metric_families(format_metrics(written)))
    expected = [metric for metric in written if metric.samples]
    assert [metric.name.removesuffix("_total") for metric in expected] == [family.name for family in found]
    for metric, family in zip(expected, found, strict=True):
        assert metric.kind == family.type
        assert [(dict(sample.labels), float(sample.value)) for sample in metric.samples] == [
            (dict(sample.labels), sample.value) for sample in family.samples
        ]


@given(
    st.lists(st.floats(0, 1_000), unique=True, max_size=5).map(sorted).map(tuple),
    st.data(),
    st.floats(0, 10**6),
)
def test_a_histogram_is_cumulative(bounds: tuple[float, ...], data: st.DataObject, total: float) -> None:
    """Each bucket has all values up to its bound, the last one all of them; sum and count are reported."""
    sizes = st.lists(st.integers(0, 10**6), min_size=len(bounds) + 1, max_size=len(bounds) + 1)
    counts = tuple(data.draw(sizes))
    labels = (("queue", "v2"),)
    metric = Metric(
        "seconds", "histogram", "How long.", histogram_samples(Distribution(bounds, counts, total), labels)
    )
    (family,) = text_string_to_metric_families(format_metrics([metric]))
    assert family.type == "histogram"
    buckets = [sample for sample in family.samples if sample.name == "seconds_bucket"]
    assert [*bounds, math.inf] == [float(sample.labels["le"]) for sample in buckets]
    assert [sum(counts[: at + 1]) for at in range(len(counts))] == [sample.value for sample in buckets]
    rest = {sample.name: sample.value for sample in family.samples if sample.name != "seconds_bucket"}
    assert {"seconds_sum": total, "seconds_count": sum(counts)} == rest


@given(metrics(), st.data())
def test_a_text_that_was_cut_is_refused(written: list[Metric], data: st.DataObject) -> None:
    """Metrics that end in the middle of a line aren't taken for fewer or other metrics."""
    text = format_metrics(written)
    cut = text[: data.draw(st.integers(0, len(text)))]
    if cut and not cut.endswith("\n"):
        with pytest.raises(ValueError, match="metrics"):
            parse_samples(cut)
    else:
        assert parse_samples(cut).items() <= parse_samples(text).items()


@pytest.mark.parametrize(
    "line",
    ["name", "name{", 'name{a="b} 1', 'name{a="\\x"} 1', "name{a=1} 1", "name x", 'n{a="b"c="d"} 1', " "],
)
def test_what_is_no_sample_is_refused(line: str) -> None:
    """A line that isn't of the format is an error that says which line."""
    with pytest.raises(ValueError, match="line 2 of the metrics"):
        parse_samples(f"# HELP name\n{line}\n")


def test_the_format_by_example() -> None:
    """What a scraper reads, to the byte."""
    metric = Metric(
        "up_total", "counter", "A \\ and\na line.", (Sample((("q", 'a"\\\nb'),), 5), Sample((), 0.5))
    )
    assert format_metrics([metric]) == (
        "# HELP up_total A \\\\ and\\na line.\n"
        "# TYPE up_total counter\n"
        'up_total{q="a\\"\\\\\\nb"} 5\n'
        "up_total 0.5\n"
    )
