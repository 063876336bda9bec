"""What every test shares: hypothesis profiles, and an event queue of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support.queues import fresh_event_name

if TYPE_CHECKING:
    from collections.abc import Generator

# Machines that run tests are shared and noisy: no example has a deadline, so a slow one is not a failure.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=2_000)
settings.register_profile("quick", parent=settings.get_profile("default"), max_examples=25)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def name() -> Generator[str]:
    """The NAME of an event queue that no other test has; whoever makes it, it is removed in the end."""
    with fresh_event_name() as name:
        yield name
