"""Some of the power cuts; `python -m tests.machine.cuts` makes them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.machine.cuts.__main__ import SEED
from tests.machine.cuts.plan import plan
from tests.machine.cuts.scene import make_cut
from tests.machine.prepared import prepare

if TYPE_CHECKING:
    from tests.machine.image import Image

#: One for each `spool.fsync` and way, of different kinds, none with a long load.
SELECTED: Final = (3, 6, 2, 5, 7, 10)


@pytest.mark.parametrize("number", SELECTED)
def test_what_a_power_cut_takes(image: Image, number: int) -> None:
    """After a power cut the publisher starts, keeps its promises, and delivers nothing damaged."""
    cut = plan(SEED)[number]
    result = make_cut(cut, prepare(image, cut.file_system))
    print(cut, result)
    assert [] == result.failures
    assert result.outcome.put > 0


def test_the_selection_has_each_cell() -> None:
    """Each `spool.fsync`, way and file system is among them."""
    cuts = [plan(SEED)[number] for number in SELECTED]
    assert len({(cut.fsync, cut.way) for cut in cuts}) == len(SELECTED)
    assert {"ext4", "xfs"} == {cut.file_system for cut in cuts}
    assert all(cut.stock_writeback == (cut.fsync != "never") for cut in cuts)
