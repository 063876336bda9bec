"""Services that are killed while they put events into a spool, briefly; and the oracle that counts."""

from __future__ import annotations

import struct
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.soak.spool import rounds
from tests.soak.spool.__main__ import main
from tests.soak.spool.oracle import Audit, Entry, audit, decode, encode, identify, make_event
from tests.soak.spool.rounds import Scale, run_rounds

LANES = st.integers(0, 2**64 - 1)
NUMBERS = st.integers(0, 2**50)


@pytest.mark.unmeasured
def test_kills_at_full_load_lose_nothing() -> None:
    """Producers, their forked children and readers are killed at random moments: all that was put arrives."""
    report = run_rounds(Scale(rounds=3, events=8_000))
    assert report.failures == []
    assert report.audit.acknowledged > 3 * 8_000


def test_a_failure_sets_the_exit_status(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command prints FAIL with the reason and ends with 1 if something was lost."""

    def audit_nothing(logs: list[bytes], log: bytes) -> Audit:
        return audit(logs, log[:0])

    monkeypatch.setattr(rounds, "audit", audit_nothing)
    assert main(["--rounds=1", "--producers=1", "--threads=1", "--events=10"]) == 1
    words = capsys.readouterr().out
    assert words.startswith("FAIL kill-services: rounds=1 ")
    assert " events were lost]" in words


# --- the oracle ---


@given(LANES, NUMBERS, st.binary(max_size=5))
def test_an_event_is_known_only_if_it_is_whole(lane: int, number: int, other: bytes) -> None:
    """Whoever cuts or changes an event makes it one that was never put."""
    event = make_event(lane, number)
    assert identify(event) == (lane, number)
    assert identify(event[:-1]) is None
    assert identify(event[: len(event) // 2] + other) in {None, (lane, number)}
    assert identify(event.replace(b"pad", b"dap")) is None


@given(st.lists(st.tuples(st.sampled_from(Entry), LANES, NUMBERS)), st.integers(1, 15))
def test_a_log_is_read_as_it_was_written(entries: list[tuple[Entry, int, int]], missing: int) -> None:
    """Entries come back in order, and a log that was cut inside of one is noticed."""
    log = b"".join(encode(*entry) for entry in entries)
    assert entries == list(decode(log))
    assert 4_096 % len(encode(Entry.TORN, 0, 0)) == 0
    if log:
        with pytest.raises(struct.error):
            list(decode(log[:-missing]))


@given(st.data())
def test_an_audit_counts_what_a_plain_count_does(data: st.DataObject) -> None:
    """The oracle is right for any puts, lanes, logs and arrivals."""
    outcomes = st.lists(st.sampled_from([Entry.ACKNOWLEDGED, Entry.REFUSED]), max_size=5)
    lanes = data.draw(st.dictionaries(st.integers(0, 3), outcomes))
    put = [[encode(kind, lane, number) for number, kind in enumerate(kinds)] for lane, kinds in lanes.items()]
    arrived = data.draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7)), max_size=20))
    fates = {
        (lane, number): kind for lane, kinds in lanes.items() for number, kind in enumerate(kinds)
    }  # of those whose put has ended
    in_flight = {(lane, len(lanes.get(lane, []))) for lane in range(5)}
    counted = audit(
        [b"".join(log) for log in put],
        b"".join(encode(Entry.ARRIVED, *each) for each in arrived)
        + encode(Entry.FOREIGN, 0, 1)
        + encode(Entry.TORN, 0, 2)
        + encode(Entry.TORN, 0, 3),
    )
    good = [each for each, kind in fates.items() if kind is Entry.ACKNOWLEDGED]
    expected = Audit(
        acknowledged=len(good),
        refused=len(fates) - len(good),
        lost=len(set(good) - set(arrived)),
        foreign=len(set(arrived) - set(good) - in_flight) + 1,
        duplicates=sum(count - 1 for count in Counter(arrived).values()),
        torn=5,
    )
    assert expected == counted
    assert sum([counted, counted], Audit()).lost == 2 * counted.lost
