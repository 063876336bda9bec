from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.machine.cuts.plan import CELLS, CUTS, KINDS, plan

SEEDS = st.integers(0, 1_000)


@given(seed=SEEDS)
def test_a_plan_has_each_kind_in_each_cell(seed: int) -> None:
    """There are 120 cuts: ten in each cell, of the same kinds."""
    cuts = plan(seed)
    assert CUTS == len(cuts) == 120
    assert list(range(CUTS)) == [cut.number for cut in cuts]
    for cell in CELLS:
        kinds = [cut.kind for cut in cuts if (cut.fsync, cut.way, cut.file_system) == cell]
        assert Counter(KINDS) == Counter(kinds)


@given(seed=SEEDS, size=st.integers(1, CUTS))
def test_any_first_part_is_spread_over_the_cells(seed: int, size: int) -> None:
    """No cell is ahead of another by more than one cut."""
    counts = Counter((cut.fsync, cut.way, cut.file_system) for cut in plan(seed)[:size])
    assert max(counts.values()) - min(counts[cell] for cell in CELLS) <= 1


@given(seed=SEEDS)
def test_moments_are_stratified(seed: int) -> None:
    """In each cell the collector is up for half of the cuts; loads of all lengths come, long ones aside."""
    for cell in CELLS:
        cuts = [cut for cut in plan(seed) if (cut.fsync, cut.way, cut.file_system) == cell]
        assert sum(cut.collector_up for cut in cuts) == len(cuts) // 2
        if cell[0] != "never":
            loads = sorted(cut.load for cut in cuts)
            assert all(0.8 * tenth <= load <= 0.8 * (tenth + 1) for tenth, load in enumerate(loads))


@given(seed=SEEDS)
def test_a_seed_stands_for_its_plan(seed: int) -> None:
    """The same seed gives the same cuts, another one others."""
    assert plan(seed) == plan(seed)
    assert plan(seed) != plan(seed + 1)
