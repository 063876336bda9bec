"""The survival script works at a tiny scale, and its oracle sees every loss."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.soak.survival.__main__ import main
from tests.soak.survival.receipts import Receipts, make_event, number_of, unexplained_losses
from tests.soak.survival.rig import rig
from tests.soak.survival.scenarios import SCENARIOS

TINY = ["--seconds=0.2", "--poison-events=200", "--outage-events=60", "--rate=100", "--json"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_passes_at_a_tiny_scale(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each scenario ends with PASS, and its figures add up."""
    status = main([scenario, "--rounds", "3" if scenario == "kill" else "1", *TINY])
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert [] == result["failures"]
    assert status == 0
    assert result["scenario"] == scenario
    assert result["put"] == result["delivered"] + result["lost"] > 0


def test_losses_without_a_spool_are_reported_and_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """`--no-spool` shows what is lost, which is no failure."""
    assert main(["kill", "--no-spool", "--rounds", "2", *TINY]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["put"] == result["delivered"] + result["lost"] > 0
    assert result["passed"]


def test_an_unknown_scenario_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that isn't one of a scenario ends the script with 2 and the names that are."""
    with pytest.raises(SystemExit) as caught:
        main(["kil"])
    assert caught.value.code == 2
    words = capsys.readouterr().err
    assert all(name in words for name in ["kil;", *SCENARIOS])


def test_a_failure_is_reported_and_sets_the_exit_status(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scenario that a publisher doesn't survive gives FAIL with the reason, and the script ends with 1."""
    # The oracle sees every batch twice, and no key.
    take = Receipts.take

    def take_twice_without_key(self: Receipts, _: str | None, events: tuple[bytes, ...]) -> None:
        take(self, None, events)
        take(self, None, events)

    monkeypatch.setattr(Receipts, "take", take_twice_without_key)
    assert main(["poison", *TINY[:-1]]) == 1
    output = capsys.readouterr().out
    assert output.startswith("FAIL poison: ")
    assert "duplicates are not explained" in output


def test_a_loss_is_seen() -> None:
    """An event that was put and is nowhere is counted as lost, and one that no one put as a stray."""
    with rig() as setup:
        for number in range(3):
            setup.queue.put(make_event(number))
        assert setup.queue.get() == make_event(0)
        lost, figures = setup.audit({0, 1, 2})
        assert {0} == lost
        assert figures["lost"] == 1
        assert ["2 events were left behind"] == setup.failures
        setup.collector.receipts.take("key", (make_event(7), b"{}"))
        setup.audit({0})
        assert "2 events arrived that no one put" in setup.failures


@given(st.integers(0, 10**12))
def test_an_event_has_its_number_only_if_it_is_whole(number: int) -> None:
    """A cut or changed event counts as one that no one put."""
    event = make_event(number)
    assert number_of(event) == number
    assert number_of(event[:-1]) is None
    assert number_of(event.replace(b"pad", b"dap")) is None
    assert number_of(b'{"id":%d,"pad":"y"}' % number) is None


@given(st.lists(st.lists(st.integers(0, 20), max_size=4), max_size=6), st.data())
def test_the_ledger_counts_each_event_once(batches: list[list[int]], data: st.DataObject) -> None:
    """Batches come in any order and number: a repeat under its own key is explained, others aren't."""
    receipts = Receipts()
    calls = [(f"key {number}", tuple(map(make_event, batch))) for number, batch in enumerate(batches)]
    repeated = data.draw(st.lists(st.sampled_from(calls), max_size=5)) if calls else []
    for key, events in [*calls, *repeated]:
        receipts.take(key, events)
    numbers = list(itertools.chain.from_iterable(batches))
    assert set(numbers) == receipts.delivered
    assert len(batches) == receipts.batches
    assert len(repeated) == receipts.repeats
    assert sum(len(events) for _, events in repeated) == receipts.duplicates
    assert len(numbers) - len(set(numbers)) == receipts.unexplained


@given(st.sets(st.integers(0, 20), min_size=1), st.sampled_from([None, "fresh key", "used key"]))
def test_a_repeat_without_the_key_of_its_batch_is_not_explained(numbers: set[int], key: str | None) -> None:
    """Events that come again without a key, under a new one or another batch's are unexplained."""
    receipts = Receipts()
    events = tuple(map(make_event, numbers))
    receipts.take("key", events)
    receipts.take("used key", (make_event(99),))
    receipts.take(key, events)
    assert len(events) == receipts.unexplained
    assert receipts.repeats == 0


@given(
    kills=st.lists(st.integers(0, 12), max_size=4),
    lost=st.sets(st.integers(0, 12), max_size=4),
    window=st.integers(0, 3),
)
def test_each_kill_explains_one_loss_at_most(kills: list[int], lost: set[int], window: int) -> None:
    """Each kill explains at most one loss in its window, in the assignment that explains most losses."""

    def matched(order: tuple[int, ...]) -> int:
        return sum(number <= kill <= number + window for number, kill in zip(order, kills, strict=False))

    # Every way to give each kill a loss, or none.
    choices = [*lost, *[-100] * len(kills)]
    best = max(map(matched, itertools.permutations(choices, len(kills))), default=0)
    unexplained = unexplained_losses(lost, kills, window)
    assert len(lost) - best == len(unexplained)
    assert set(unexplained) <= lost
