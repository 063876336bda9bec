"""What an `EventQueue` checks of a message and of its transport. Only counts show what it leaves out."""

from __future__ import annotations

import pytest

from baseplate_events import events
from tests.test_events_fast_way import make


@pytest.mark.parametrize(
    ("event", "checks"), [(b"{}", 0), (b'{"a":1}', 0), (b"{ }", 0), (b" {}", 1), (b"{}\n", 1)]
)
def test_a_message_with_both_brackets_is_not_looked_at_for_blanks(
    event: bytes, checks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one that begins or ends with something else."""
    looked_at: list[bytes] = []
    may_be_object = vars(events)["_may_be_object"]

    def note(message: bytes) -> object:
        looked_at.append(message)
        return may_be_object(message)

    monkeypatch.setattr(events, "_may_be_object", note)
    queue = make()
    queue.recorder.is_confirmed = False
    queue.recorder.trusted_until = 0.0
    queue.put(event)
    assert queue.take_calls()[-1] == ("put", 0.0)
    assert looked_at == [event] * checks


@pytest.mark.parametrize(
    ("now", "calls"), [(4.9, ["send"]), (5.0, ["confirm", "send"]), (5.1, ["confirm", "send"])]
)
def test_a_transport_is_trusted_until_a_moment(
    now: float, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At which the trust ends."""
    monkeypatch.setattr(events, "monotonic", lambda: now)
    queue = make()
    queue.recorder.trusted_until = 5.0
    queue.put(b"{}")
    assert queue.take_calls() == calls
