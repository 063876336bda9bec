"""Nothing is lost, whatever happens when: the writer among processes that are interrupted anywhere."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.spool_model.programs import Append, Fork, Look, Send
from tests.support.spool_model.scenes import SCENES, large_setting
from tests.support.spool_model.schedules import Chance, Exhaustive
from tests.support.spool_model.world import Setting, World, explore, replay

#: Processes are greenlets.
pytestmark = pytest.mark.simulated

#: Scenes of which there are several thousand schedules with two interruptions.
LONG = {"two writers", "threads that rotate", "a child in the middle of a start", "a deleted directory"}

#: Marks of a test that only tries more schedules than others do: these don't depend on the Python.
MANY_SCHEDULES = [pytest.mark.slow, pytest.mark.one_python]

#: Runs for each random example.
RUNS = 10

#: Schedules of a slow test: 3,000 by default, and more or less with the other profiles of hypothesis.
MANY = 30 * settings().max_examples


@pytest.mark.parametrize("name", SCENES)
def test_nothing_is_lost(name: str) -> None:
    """Nothing is lost in any schedule with one interruption, kill, short write or failed call anywhere."""
    assert explore(SCENES[name], Exhaustive(preemptions=1)) > 10
    assert explore(SCENES[name], Exhaustive(preemptions=0, faults=1)) > 10


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=MANY_SCHEDULES if name in LONG else []) for name in SCENES]
)
def test_nothing_is_lost_with_two_interruptions(name: str) -> None:
    """Nothing is lost in any schedule with two interruptions."""
    assert explore(SCENES[name], Exhaustive(preemptions=2), most=3 * MANY) > 50


@pytest.mark.slow
@pytest.mark.one_python
@pytest.mark.parametrize("name", ["one writer", "a full spool"])
def test_nothing_is_lost_with_both(name: str) -> None:
    """Nothing is lost in any schedule with one interruption and one fault."""
    assert explore(SCENES[name], Exhaustive(preemptions=1, faults=1)) > 100


@pytest.mark.slow
@pytest.mark.one_python
@pytest.mark.parametrize("name", SCENES)
def test_nothing_is_lost_with_more(name: str) -> None:
    """Nothing is lost in many schedules with up to two interruptions and two faults."""
    for preemptions, faults in ((1, 1), (2, 1), (1, 2)):
        assert explore(SCENES[name], Exhaustive(preemptions=preemptions, faults=faults), most=MANY) > 100


@given(st.integers(0, 2**32))
def test_nothing_is_lost_in_large_programs(seed: int) -> None:
    """Nothing is lost with random processes, threads, children, full disks and deleted directories."""
    random = Random(seed)
    for _ in range(RUNS):
        World(large_setting(random), Chance(random, faults=random.choice([0, 0, 1, 3]))).run()


@pytest.mark.slow
@pytest.mark.one_python
def test_nothing_is_lost_in_very_many_large_programs() -> None:
    """The same, many times."""
    for seed in range(MANY):
        random = Random(seed)
        World(large_setting(random), Chance(random, faults=random.choice([0, 0, 1, 3]))).run()


def test_a_schedule_can_be_repeated() -> None:
    """The same schedule leads to the same steps."""
    setting = Setting(((Append(), Fork((Send(),)), Send()), (Look(),)))
    random = Random(1)
    world = World(setting, Chance(random, faults=1))
    world.run()
    again = World(setting, Chance(Random(1), faults=1))
    again.run()
    steps = [(name, call) for name, call, _ in world.machine.log]
    assert [(name, call) for name, call, _ in again.machine.log] == steps
    assert [tuple(line.split()[:2]) for line in replay(setting, world.machine.schedule).splitlines()] == [
        (name, call.split()[0]) for name, call in steps
    ]
