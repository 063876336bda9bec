"""Which address of a host is tried first, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.addresses import FORGET_AFTER, AddressBook, Entry
from baseplate_events.event_publisher.http_connection import Budget

places = st.integers(0, 4)


def entry(place: int) -> Entry:
    """Return what a resolver gives for the address of this number."""
    return 2, 1, 6, "", (f"192.0.2.{place}", 443)


def places_of(entries: list[Entry]) -> list[int]:
    """Return the numbers of addresses."""
    return [int(entry[-1][0].rpartition(".")[2]) for entry in entries]


@given(failures=st.lists(st.tuples(places, st.floats(0, FORGET_AFTER / 2)), max_size=20))
def test_those_that_failed_lately_come_last(failures: list[tuple[int, float]]) -> None:
    """The others keep the resolver's order; of those the one that has waited longest comes first."""
    book = AddressBook()
    now = 0.0
    failed: dict[int, float] = {}
    for place, pause in failures:
        now += pause
        book.record_failure(entry(place)[-1], now)
        failed[place] = now
    lately = {place: at for place, at in failed.items() if now - at < FORGET_AFTER}
    expected = [place for place in range(5) if place not in lately] + sorted(
        lately, key=lambda place: (lately[place], place)
    )
    assert expected == places_of(book.order(map(entry, range(5)), now))


@given(dead=st.sets(places, max_size=4), per_attempt=st.integers(1, 3))
def test_a_working_address_is_found_however_few_an_attempt_tries(dead: set[int], per_attempt: int) -> None:
    """Each attempt continues where the last one stopped, so that all addresses are tried in turn."""
    book = AddressBook()
    for attempt in range(1, 6):
        for place in places_of(book.order(map(entry, range(5)), float(attempt)))[:per_attempt]:
            if place not in dead:
                assert attempt <= 1 + len(dead) // per_attempt
                return
            book.record_failure(entry(place)[-1], float(attempt))
    raise AssertionError("the address that works was never tried")


def test_an_address_comes_once() -> None:
    """A duplicate address gets no second share of the time."""
    assert places_of(AddressBook().order([entry(1), entry(0), entry(1)], 0.0)) == [1, 0]


@given(timeout=st.floats(0.01, 60), extra=st.floats(0, 60), parts=st.integers(1, 50), used=st.floats(0, 1))
def test_a_share_leaves_time_for_the_others(timeout: float, extra: float, parts: int, used: float) -> None:
    """A share is at most the timeout and the rest, and at least a fair try if that much is left."""
    now = [0.0]
    deadline = timeout + extra
    budget = Budget(timeout, deadline, lambda: now[0])
    budget.start()
    now[0] = used * deadline * 0.999
    left = deadline - now[0]
    share = budget.share(parts)
    assert 0 < share <= min(timeout, left)
    assert budget.is_fair(share) or share == left or share == budget.left()
    assert share <= max(left / parts, 1.0)


def test_five_addresses_get_their_share_of_the_defaults() -> None:
    """With the default timeout and deadline an attempt reaches the fifth of five addresses."""
    now = [0.0]
    budget = Budget(3.0, 10.0, lambda: now[0])
    budget.start()
    for parts in range(5, 1, -1):
        now[0] += budget.share(parts)
    assert budget.left() == pytest.approx(2.0)
