"""Runs hypothesis' state machines under a type checker's eyes: its own function for that has no types."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hypothesis import settings, stateful

from tests.support.examples import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

_run = cast("Callable[..., None]", vars(stateful)["run_state_machine_as_test"])


def check_machine(
    machine: type[stateful.RuleBasedStateMachine], *, steps: int = 50, examples: int = 100
) -> None:
    """Run a state machine as a test: so many examples by default, each with at most so many rules."""
    _run(machine, settings=settings(stateful_step_count=steps, max_examples=scaled(examples)))
