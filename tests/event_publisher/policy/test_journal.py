"""What the policy has written down are values: they are compared by what they hold."""

from __future__ import annotations

from baseplate_events.event_publisher.policy.journal import DeadLetter, EnteredBatch
from baseplate_events.event_publisher.policy.poison import CLEAN
from baseplate_events.event_publisher.policy.span import Span

PLACE = Span(b"A" * 16, 0, 18)


def test_a_batch_that_was_entered() -> None:
    """It never failed if nothing is said of that."""
    assert EnteredBatch((1, 0), 1, (PLACE,)) == EnteredBatch((1, 0), 1, (PLACE,), CLEAN)
    assert EnteredBatch((1, 0), 1, (PLACE,)) != EnteredBatch((1, 1), 1, (PLACE,))


def test_a_dead_letter() -> None:
    """It has no excerpt if nothing is said of that."""
    assert DeadLetter(b"{}", 400, "refused") == DeadLetter(b"{}", 400, "refused", b"")
    assert DeadLetter(b"{}", 400, "refused") != DeadLetter(b"{}", None, "refused")
