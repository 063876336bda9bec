"""The benchmarks: the parts of their tables, and that each of them runs."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import footprint, latency, put, refused, serialize, typed_events
from benchmarks.__main__ import BENCHMARKS, describe_machine, main
from benchmarks.distributions import installed
from benchmarks.report import Line, Report, Target, number
from benchmarks.rounds import interleave, medians, percentile
from benchmarks.scale import Scale

if TYPE_CHECKING:
    from collections.abc import Callable

figures = st.floats(1e-6, 1e9)
names = st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=5, unique=True)


# --- rounds ---


@given(names, st.integers(1, 12))
def test_candidates_take_turns(candidates: list[str], rounds: int) -> None:
    """Each runs once a round, and no two rounds in a row begin with the same one."""
    order: list[str] = []

    def run(name: str) -> int:
        order.append(name)
        return len(order)

    results = interleave({name: partial(run, name) for name in candidates}, rounds)
    size = len(candidates)
    turns = [order[start : start + size] for start in range(0, len(order), size)]
    assert [sorted(candidates)] * rounds == [sorted(turn) for turn in turns]
    assert [candidates[number % size] for number in range(rounds)] == [turn[0] for turn in turns]
    for name in candidates:
        assert [place for place, runner in enumerate(order, 1) if runner == name] == results[name]


@given(st.dictionaries(st.text(max_size=3), st.lists(figures, min_size=1, max_size=9), max_size=4))
def test_a_figure_is_a_median(results: dict[str, list[float]]) -> None:
    """Half of the results are at least as large, and half at most."""
    found = medians(results)
    assert results.keys() == found.keys()
    for name, values in results.items():
        assert 2 * sum(value <= found[name] for value in values) >= len(values)
        assert 2 * sum(value >= found[name] for value in values) >= len(values)


@given(st.lists(figures, min_size=1, max_size=50), st.floats(0, 100))
def test_a_percentile_is_one_of_the_values(values: list[float], percent: float) -> None:
    """It is the least of the values that this percentage doesn't exceed."""
    found = percentile(values, percent)
    assert found in values
    assert 100 * sum(value <= found for value in values) >= percent * len(values) * (1 - 1e-9)
    less = [value for value in values if value < found]
    assert not less or 100 * len(less) < percent * len(values)
    assert percentile(values, 100) == max(values)


# --- reports ---


@given(figures, figures, st.floats(1.0, 1e3))
def test_better_is_more_than_once_the_original(ours: float, other: float, factor: float) -> None:
    """Both ratios are above 1 where ours is better, in whichever direction, and grow with how much."""
    for more_is_better in (False, True):
        line = Line("speed", "x", ours, other, other, more_is_better=more_is_better)
        better = ours / factor if not more_is_better else ours * factor
        improved = Line("speed", "x", better, other, other, more_is_better=more_is_better)
        assert line.times_original is not None
        assert line.times_original == line.of_floor
        assert (line.times_original > 1) == (ours > other if more_is_better else ours < other)
        assert improved.times_original == pytest.approx(line.times_original * factor)


@given(figures)
def test_without_a_peer_there_is_no_ratio(ours: float) -> None:
    """If baseplate.py or a floor is missing, its cells stay empty."""
    line = Line("speed", "x", ours)
    assert line.times_original is None
    assert line.of_floor is None
    row = str(Report("title", (line,))).splitlines()[-1]
    assert f"| speed | x | {number(ours)} |  |  |  |  |" == row


@given(figures, figures)
def test_a_target_on_its_bound_is_reached(found: float, bound: float) -> None:
    """What is reached in one direction is missed in the other, unless both are equal."""
    at_least, at_most = Target("speed", found, bound), Target("speed", found, bound, at_least=False)
    assert at_least.reached or at_most.reached
    assert (at_least.reached and at_most.reached) == (found == bound)
    assert ("MISSED" in str(at_least)) != at_least.reached


def test_a_report_is_markdown() -> None:
    """A title, a table, the notes and the targets."""
    report = Report(
        "Speed",
        (Line("rate", "events/s", 90_000, 30_000, 120_000, more_is_better=True), Line("time", "µs", 2.5, 5)),
        (Target("times baseplate.py", 3.0, 2.0),),
        ("On one core.",),
    )
    assert str(report) == (
        "### Speed\n"
        "\n"
        "| | unit | ours | baseplate.py | floor | times baseplate.py | of the floor |\n"
        "|---|---|---|---|---|---|---|\n"
        "| rate | events/s | 90,000 | 30,000 | 120,000 | 3x | 75% |\n"
        "| time | µs | 2.5 | 5 |  | 2x |  |\n"
        "\n"
        "- On one core.\n"
        "\n"
        "- reached: times baseplate.py: 3 (at least 2)\n"
    )


@given(st.floats(-1e9, 1e9))
def test_figures_keep_three_digits(value: float) -> None:
    """A figure is written within half a per cent, or half of one."""
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=0.0051, abs=1e-300)


# --- what is installed ---


def test_a_distribution_brings_what_it_requires() -> None:
    """Requirements count with their own, those of extras don't; what isn't installed is none."""
    found = installed("Hypothesis")
    assert found is not None
    assert "hypothesis" in found.names
    assert "sortedcontainers" in found.names
    assert "django" not in found.names
    alone = installed("sortedcontainers")
    assert alone is not None
    assert frozenset({"sortedcontainers"}) == alone.names
    assert 0 < alone.size < found.size
    assert installed("no-such-distribution") is None


# --- running them ---


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that isn't one of a benchmark ends the command with 2, and the names that are."""
    with pytest.raises(SystemExit) as caught:
        main(["sterilize"])
    assert caught.value.code == 2
    words = capsys.readouterr().err
    assert all(name in words for name in ["sterilize", *BENCHMARKS])


def test_the_command_prints_the_machine_and_the_reports(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins with what the figures depend on; then the reports of each name come, in that order."""

    def run(scale: Scale) -> Report:
        return Report(scale.value, (Line("time", "s", 1.0),))

    def run_two(scale: Scale) -> list[Report]:
        return [run(scale), run(Scale.TINY)]

    monkeypatch.setattr(serialize, "run", run)
    monkeypatch.setattr(put, "run", run_two)
    assert main(["put", "serialize", "--quick"]) == 0
    output = capsys.readouterr().out
    titles = [line for line in output.splitlines() if line.startswith("###")]
    assert ["### quick", "### tiny", "### quick"] == titles
    assert output.startswith(f"- {describe_machine()[0][:10]}")
    assert "RLIMIT_MSGQUEUE" in output.partition("###")[0]


def test_typed_events_are_measured() -> None:
    """Each kind of event has a row, and so has each competitor; of dicts, each shape has one."""
    kinds, shapes = typed_events.run(Scale.TINY)
    assert all(
        f"| {name}" in str(kinds) for name in ("dataclass,", "NamedTuple,", "dict, json.dumps", "dict, bare")
    )
    assert len(shapes.rows) == len(shapes.targets)
    names = [row[0] for row in shapes.rows]
    assert {"4 members", "4 levels, new keys", "list of 20", "4 int keys within"} <= {*names}
    assert all(
        float(cell.rstrip("x").replace(",", "")) > 0 for row in shapes.rows for cell in row[1:] if cell
    )


@pytest.mark.parametrize(
    "run",
    [serialize.run, put.run, latency.run, footprint.run],
    ids=["serialize", "put", "latency", "footprint"],
)
def test_each_benchmark_runs(run: Callable[[Scale], Report | list[Report]]) -> None:
    """At the smallest scale each benchmark has a figure for each of its lines."""
    found = run(Scale.TINY)
    for report in [found] if isinstance(found, Report) else found:
        assert report.lines
        # A difference of two figures can be negative if little is measured.
        assert all(math.isfinite(line.ours) for line in report.lines)
        assert str(report)


def test_refused_events_are_measured() -> None:
    """For both transports and each way to handle a refusal there is a figure."""
    table = refused.run(Scale.TINY)
    assert len(table.rows) == 6
    assert all(float(row[1].replace(",", "")) > 0 for row in table.rows)
    assert len(table.targets) == 2
