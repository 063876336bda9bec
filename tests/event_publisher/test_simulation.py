"""Nothing is lost, whatever happens when: services, the POSIX queue, and publishers that die and come back.

`tests/support/spool_model/publisher_world.py` says what must hold. All of the publisher is real but threads.
"""

from __future__ import annotations

from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.spool_model.machine import Violation
from tests.support.spool_model.publisher_mutants import MUTANTS, PublisherMutant
from tests.support.spool_model.publisher_scenes import SCENES, run_program, run_scene

#: Processes are greenlets.
pytestmark = pytest.mark.simulated

#: Programs for each random example.
RUNS = 2

#: Programs of a slow test: 3,000 by default, and more or less with the other profiles of hypothesis.
MANY = 30 * settings().max_examples

#: Programs within which a mistake must be found, if it isn't found in the one that is known to show it.
SEARCH = 200


@pytest.mark.parametrize("name", SCENES)
def test_faults_that_there_were(name: str) -> None:
    """Each scene is a sequence that once lost events."""
    assert not run_scene(name).dropped


@given(st.integers(0, 2**32))
def test_nothing_is_lost(seed: int) -> None:
    """Nothing is lost with random failures and kills at any step."""
    random = Random(seed)
    for _ in range(RUNS):
        run_program(random.getrandbits(32))


@pytest.mark.slow
@pytest.mark.one_python
def test_nothing_is_lost_in_many_programs() -> None:
    """The same, many times."""
    for seed in range(MANY):
        run_program(seed)


@pytest.mark.one_python
@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(mutant, id=name, marks=[pytest.mark.slow] if mutant.is_rare else [])
        for name, mutant in MUTANTS.items()
    ],
)
def test_mistakes_are_found(mutant: PublisherMutant) -> None:
    """Planted mistakes are found; otherwise the tests above would prove little."""
    found = ""
    seeds = (mutant.seed, *range(MANY if mutant.is_rare else SEARCH))
    runs = [partial(run_program, seed) for seed in seeds]
    if mutant.scene:
        runs = [partial(run_scene, mutant.scene)]
    for run in runs:
        try:
            run(mutant.code)
        except Violation as violation:
            found = str(violation).splitlines()[0]
        if found and mutant.found in found:
            return
    pytest.fail(f"it wasn't found, but {found!r}")
