"""A writer with a mistake loses events in the model, so the model can fail."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.support.spool_model.machine import Violation
from tests.support.spool_model.mutants import MUTANTS
from tests.support.spool_model.scenes import SCENES
from tests.support.spool_model.schedules import Exhaustive, Replay
from tests.support.spool_model.world import World, explore

#: Processes are greenlets.
pytestmark = pytest.mark.simulated

#: Schedules within which each is found.
MOST = 3_000


@pytest.mark.slow
@pytest.mark.one_python
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_is_found(name: str) -> None:
    """Each mistake is found within its bounds by the rule that it breaks, and its schedule reproduces it."""
    mutant = MUTANTS[name]
    setting = replace(SCENES[mutant.scene], code=mutant.code)
    strategy = Exhaustive(preemptions=mutant.preemptions, faults=mutant.faults)
    with pytest.raises(Violation, match=mutant.found) as found:
        explore(setting, strategy, most=MOST)
    text = re.search(r"with the schedule \{(.*?)\}", str(found.value))
    assert text is not None
    pairs = (pair.split(": ") for pair in text[1].split(", ") if pair)
    with pytest.raises(Violation, match=mutant.found):
        World(setting, Replay({int(choice): int(taken) for choice, taken in pairs})).run()
