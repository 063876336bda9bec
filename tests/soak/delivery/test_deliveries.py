"""The oracle of the runs with a publisher must see every loss and every duplicate."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.soak.delivery.__main__ import main
from tests.soak.delivery.deliveries import Deliveries, Puts
from tests.soak.spool.oracle import Entry, encode, make_event

EVENTS = st.tuples(st.integers(0, 2), st.integers(0, 4))
BATCHES = st.lists(st.lists(EVENTS, min_size=1, max_size=4), max_size=6)


def _body(batch: list[tuple[int, int]]) -> bytes:
    return b"[%b]" % b",".join(make_event(*event) for event in batch)


@given(BATCHES, st.data())
def test_each_event_is_counted(batches: list[list[tuple[int, int]]], data: st.DataObject) -> None:
    """Batches that come again with their key are repeated; other events that come again are duplicates."""
    deliveries = Deliveries()
    calls = [(f"key {number}", _body(batch)) for number, batch in enumerate(batches)]
    repeats = data.draw(st.lists(st.sampled_from(calls), max_size=3)) if calls else []
    for key, body in [*calls, *repeats]:
        deliveries.take(key, body)
    counts = Counter(event for batch in batches for event in batch)
    assert (deliveries.batches, deliveries.repeated) == (len(batches), len(repeats))
    assert deliveries.duplicates == counts.total() - len(counts)
    assert sum(map(deliveries.count, range(3))) == len(counts)
    assert deliveries.foreign == 0


@given(st.lists(st.sampled_from([Entry.ACKNOWLEDGED, Entry.REFUSED]), max_size=5), st.sets(st.integers(0, 8)))
def test_losses_are_found(kinds: list[Entry], arrived: set[int]) -> None:
    """What was acknowledged and didn't arrive is lost; what arrived and wasn't put is foreign."""
    deliveries = Deliveries()
    for number in arrived:
        deliveries.take(str(number), _body([(1, number)]))
    log = b"".join(encode(kind, 1, number) for number, kind in enumerate(kinds))
    acknowledged = {number for number, kind in enumerate(kinds) if kind is Entry.ACKNOWLEDGED}
    possible = acknowledged | {len(kinds)} if kinds else set(arrived)
    assert deliveries.compare([log]) == Puts(
        len(acknowledged),
        len(kinds) - len(acknowledged),
        len(acknowledged - arrived),
        len(arrived - possible),
    )


@given(BATCHES.filter(bool), st.data())
def test_a_body_that_was_cut_or_changed_is_foreign(
    batches: list[list[tuple[int, int]]], data: st.DataObject
) -> None:
    """A part of an event doesn't count as an event."""
    body = _body(batches[0])
    at = data.draw(st.integers(1, len(body) - 2))
    deliveries = Deliveries()
    deliveries.take("key", body[:at] + body[at + 1 :])
    assert deliveries.foreign


def test_a_failure_sets_the_exit_status(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command prints FAIL with the reason and ends with 1 if something was lost."""

    class Blind(Deliveries):
        def take(self, key: str, body: bytes) -> None:
            """Note nothing."""

    monkeypatch.setattr("tests.soak.delivery.collector.Deliveries", Blind)
    assert main(["kills", "--rounds=1", "--services=1", "--threads=1", "--events=10"]) == 1
    words = capsys.readouterr().out
    assert words.startswith("FAIL kills: rounds=1 ")
    assert "events in the spool were lost]" in words


def test_an_unknown_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that isn't one of a run ends the command with 2, and the names that are."""
    with pytest.raises(SystemExit) as caught:
        main(["kils"])
    assert caught.value.code == 2
    assert "kils; expected kills, " in capsys.readouterr().err
