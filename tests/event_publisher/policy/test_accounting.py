"""Properties of the accounting: the equation holds through every transition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.policy.accounting import Accounting, DropReason


@given(data=st.data(), steps=st.integers(0, 30))
def test_every_event_has_one_fate(data: st.DataObject, steps: int) -> None:
    """However events come and go, received is the sum of all fates."""
    accounting = Accounting()
    for _ in range(steps):
        spooled = data.draw(st.booleans())
        count = data.draw(st.integers(0, accounting.spooled if spooled else accounting.in_hand))
        move = data.draw(
            st.sampled_from(["receive", "recover", "read", "deliver", "write", "requeue", *DropReason])
        )
        match move:
            case DropReason():
                accounting.drop(move, data.draw(st.integers(0, accounting.in_hand)))
            case "receive":
                accounting.receive(data.draw(st.integers(0, 100)))
            case "recover":
                accounting.recover(data.draw(st.integers(0, 100)))
            case "deliver":
                accounting.deliver(count, spooled=spooled)
            case "write":
                accounting.dead_letter(count, spooled=spooled)
            case "read":
                accounting.receive_spooled(data.draw(st.integers(0, 100)))
            case _:
                accounting.requeue(data.draw(st.integers(0, accounting.in_hand)))
        assert accounting.balanced


@given(received=st.integers(1, 100), delivered=st.integers(0, 100))
def test_a_fate_too_many_is_seen(received: int, delivered: int) -> None:
    """An event that is delivered twice, or was never received, unbalances the counters."""
    accounting = Accounting()
    accounting.receive(received)
    accounting.deliver(delivered)
    assert accounting.balanced == (delivered <= received)
    accounting.delivered += 1
    assert not accounting.balanced


def test_text_by_example() -> None:
    """The line that goes into the log at shutdown."""
    accounting = Accounting()
    accounting.receive(10)
    accounting.deliver(6)
    accounting.requeue(1)
    accounting.drop(DropReason.REFUSED, 2)
    expected = "10 events received = 6 delivered, 1 returned, 1 in memory, 2 dropped (refused)"
    assert str(accounting) == expected
    accounting.recover(9)
    accounting.dead_letter(2, spooled=True)
    expected = (
        "19 events received (9 of them recovered) = 6 delivered, 2 dead letters, 1 returned, 7 spooled, "
        "1 in memory, 2 dropped (refused)"
    )
    assert str(accounting) == expected


def test_no_event_leaves_twice() -> None:
    """Neither from the spool nor from memory, also if the sum is right."""
    for spooled in (False, True):
        accounting = Accounting()
        accounting.receive(5)
        accounting.receive_spooled(5)
        accounting.deliver(5, spooled=spooled)
        assert accounting.balanced
        accounting.deliver(1, spooled=spooled)
        assert not accounting.balanced


def test_each_fate_is_counted() -> None:
    """From 0 on, each by its number of events and nowhere else."""
    accounting = Accounting()
    assert accounting == Accounting(0, 0, 0, 0, 0, 0, 0, dict.fromkeys(DropReason, 0), 0)
    accounting.receive(100)
    accounting.receive_spooled(200)
    accounting.recover(50)
    accounting.deliver(7)
    accounting.deliver(9, spooled=True)
    accounting.dead_letter(11)
    accounting.dead_letter(13, spooled=True)
    accounting.requeue(17)
    accounting.drop(DropReason.EXPIRED, 19)
    accounting.drop(DropReason.SPOOL_LOST, 23, spooled=True)
    dropped = {**dict.fromkeys(DropReason, 0), DropReason.EXPIRED: 19, DropReason.SPOOL_LOST: 23}
    assert accounting == Accounting(350, 50, 16, 24, 17, 205, 46, dropped, 0)


def test_the_text_of_old_dead_letters() -> None:
    """They stand beside the equation."""
    assert str(Accounting(letters_dropped=2)) == (
        "0 events received = 0 delivered, 0 returned, 0 in memory; 2 old dead letters made room"
    )
