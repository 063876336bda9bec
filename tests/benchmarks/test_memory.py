"""The benchmark of the publisher's memory at a tiny scale, and the formula that it checks."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import memory
from benchmarks.scale import Scale

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def test_the_benchmark_runs() -> None:
    """It has a peak for each setting, and compares it with the bound."""
    report = memory.run(Scale.TINY)
    assert [line.ours > 10 for line in report.lines] == [True]
    assert [target.bound for target in report.targets] == [memory.documented_bound(2, 128_000)]


def test_the_formula_is_the_documented_one() -> None:
    """The bound is the one that operators are promised."""
    pattern = (
        r"memory of the publisher +<= +(\d+) MiB \+ (\d+) MiB \* delivery\.concurrency"
        r" \+ ([\d.]+) \* batch\.max_size \* \(delivery\.concurrency \+ (\d+)\)"
    )
    found = re.search(pattern, re.sub(r"\s+", " ", OPERATIONS.read_text()))
    assert found is not None
    documented = [float(number) for number in found.groups()]
    assert [memory.BASE, memory.SENDER, memory.FACTOR, memory.MORE_BATCHES] == documented
