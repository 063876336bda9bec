"""The benchmarks of the spool's writers at a tiny scale, and the parts that their figures depend on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.spool.format import OVERHEAD
from benchmarks import spool_put, spool_rig, spool_writers
from benchmarks.scale import Scale

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.report import Report


@pytest.fixture
def place(tmp_path: Path) -> spool_rig.Place:
    """A place of its own to measure in."""
    return spool_rig.Place(str(tmp_path), "a file system")


@pytest.mark.parametrize("run", [spool_put.run, spool_writers.run], ids=["put", "writers"])
def test_the_benchmark_runs(
    run: Callable[[Scale], list[Report]], place: spool_rig.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a figure for each line, has a target for each comparison, and leaves no file behind."""
    for module in (spool_put, spool_writers):
        monkeypatch.setattr(module, "places", lambda: [place])
    reports = run(Scale.TINY)
    assert any(report.targets for report in reports)
    for report in reports:
        assert report.lines
        assert all(math.isfinite(line.ours) for line in report.lines)
        assert any(line.floor is not None for line in report.lines)
        assert place.path in str(report)
    assert not list(Path(place.path).iterdir())


def test_a_place_is_a_directory_on_its_file_system() -> None:
    """There is one at least, no two have the same file system, and memory comes before a disk."""
    found = spool_rig.places()
    assert found
    assert all(Path(place.path).is_dir() for place in found)
    kinds = [place.file_system for place in found]
    assert len(kinds) == len(set(kinds))
    assert spool_rig.TMPFS not in kinds[1:]


@given(count=st.integers(1, 20))
def test_both_write_as_many_bytes(tmp_path_factory: pytest.TempPathFactory, count: int) -> None:
    """Our segment has a header, and then as many bytes as the bare file."""
    place = spool_rig.Place(str(tmp_path_factory.mktemp("place")), "a file system")
    with place.ours() as put, place.bare() as write:
        for _ in range(count):
            put(spool_rig.EVENT)
            write(spool_rig.RECORD)
        (segment,) = Path(place.path).glob("*/events-benchmark/*.segment")
        (bare,) = Path(place.path).glob("*/bare")
        assert count * (len(spool_rig.MESSAGE) + OVERHEAD) == bare.stat().st_size
        assert segment.stat().st_size - bare.stat().st_size in range(1, 129)
        assert segment.read_bytes().count(spool_rig.MESSAGE) == count
    assert not list(Path(place.path).iterdir())


def test_a_burst_has_one_segment(place: spool_rig.Place) -> None:
    """It nearly fills the segment that its first event starts, whatever the timing."""
    with place.ours() as put:
        for _ in range(spool_rig.BURST):
            put(spool_rig.EVENT)
        (segment,) = Path(place.path).glob("*/events-benchmark/*.segment")
        assert segment.stat().st_size > 3 * 1024 * 1024
