"""Nothing is lost, whatever happens when: the publisher's reader, and writers that are interrupted."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseplate_events.event_publisher.spool_reader import followed_segment
from tests.support.spool_model.real_reader import RealReader
from tests.support.spool_model.scenes import SCENES, large_setting
from tests.support.spool_model.schedules import Chance, Exhaustive
from tests.support.spool_model.world import Setting, World, explore

#: Processes are greenlets.
pytestmark = pytest.mark.simulated

#: Programs of a slow test: 3,000 by default, and more or less with the other profiles of hypothesis.
MANY = 30 * settings().max_examples


def with_reader(setting: Setting) -> Setting:
    """Return the same with the publisher's reader."""
    return replace(setting, reader=RealReader)


def run_large_program(seed: int) -> None:
    """Run programs that chance has made."""
    random = Random(seed)
    with patch.object(followed_segment, "CHUNK", random.choice([30, 100, 100_000])):
        World(with_reader(large_setting(random)), Chance(random, faults=random.choice([0, 0, 1, 3]))).run()


@pytest.mark.parametrize("name", SCENES)
def test_nothing_is_lost(name: str) -> None:
    """Nothing is lost in any schedule with one interruption, kill, short write or failed call anywhere."""
    setting = with_reader(SCENES[name])
    assert explore(setting, Exhaustive(preemptions=1)) > 10
    assert explore(setting, Exhaustive(preemptions=0, faults=1)) > 10


@given(st.integers(0, 2**32))
def test_nothing_is_lost_in_large_programs(seed: int) -> None:
    """Nothing is lost with random processes, threads, children, full disks and deleted directories."""
    run_large_program(seed)


@pytest.mark.slow
@pytest.mark.one_python
def test_nothing_is_lost_in_many_large_programs() -> None:
    """The same, many times."""
    for seed in range(MANY):
        run_large_program(seed)
