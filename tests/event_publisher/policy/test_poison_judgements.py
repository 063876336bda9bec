"""Judgements of one policy, by example: one call after the other."""

from __future__ import annotations

import math

import pytest

from baseplate_events.event_publisher.policy.poison import (
    CLEAN,
    Action,
    FaultRecord,
    Pace,
    PoisonPolicy,
)


def test_a_trial_by_example() -> None:
    """The first batch that fails is retried at once and split after four failures; others wait meanwhile."""
    policy, record = PoisonPolicy(), CLEAN
    expected = [
        (Action.KEEP, Pace.FAILED, True),
        (Action.KEEP, Pace.PROBE, True),
        (Action.KEEP, Pace.PROBE, True),
        (Action.SPLIT, Pace.PROBE, False),
    ]
    for failures, (action, pace, goes_first) in enumerate(expected, 1):
        judgement = policy.fail(record, 1, 10)
        record = judgement.record
        assert (judgement.action, judgement.pace, judgement.goes_first) == (action, pace, goes_first)
        assert record == FaultRecord(failures=failures, tried=1, failed=1)
        other = policy.fail(FaultRecord(failures=1, tried=1, failed=1), 2, 10)
        assert (other.action, other.pace, other.goes_first) == (Action.KEEP, Pace.FAILED, False)


def test_probes_by_example() -> None:
    """Parts are split at once, as often as the number of events has bits; then each needs four failures."""
    policy = PoisonPolicy()
    whole = policy.refuse(CLEAN, 1, 100, 0.0)
    assert (whole.action, whole.pace) == (Action.SPLIT, Pace.ANSWERED)
    part = policy.split(whole.record, 1, (50, 50))
    assert part == FaultRecord(tried=1, failed=0, accepted=0, refused_at=0.0, is_part=True)
    for _ in range(7):  # 100 has 7 bits
        judgement = policy.fail(part, 1, 50)
        assert (judgement.action, judgement.pace) == (Action.SPLIT, Pace.PROBE)
        policy.split(judgement.record, 1, (25, 25))
    for action in (Action.KEEP, Action.KEEP, Action.KEEP, Action.SPLIT):
        judgement = policy.fail(part, 1, 50)
        part = judgement.record
        assert (judgement.action, judgement.pace) == (action, Pace.FAILED)


def test_an_acceptance_renews_the_probes() -> None:
    """Without a pause from then on in this trial; and a part that is older than it is split at once."""
    policy = PoisonPolicy()
    whole = policy.refuse(CLEAN, 1, 4, 0.0)
    part = policy.split(whole.record, 1, (2, 2))
    for _ in range(3):
        assert policy.fail(part, 1, 2).action is Action.SPLIT
    assert policy.fail(part, 1, 2).action is Action.KEEP
    policy.accept(CLEAN, 2, 1, 1.0)
    judgement = policy.fail(part, 1, 2)
    assert (judgement.action, judgement.pace) == (Action.SPLIT, Pace.UNCHANGED)
    again = policy.fail(judgement.record, 1, 2)
    assert (again.action, again.pace) == (Action.SPLIT, Pace.PROBE)
    newer = policy.split(judgement.record, 1, (1, 1))
    assert (newer.accepted, newer.failures) == (1, 0)
    lone = policy.fail(newer, 1, 1)
    assert (lone.action, lone.pace) == (Action.KEEP, Pace.UNCHANGED)


def test_a_trial_after_a_fruitless_one_takes_twice_as_many_failures() -> None:
    """And twice as many again, until something is accepted; the batch waits for its pause each time."""
    policy = PoisonPolicy()
    for number, most in enumerate((4, 8, 16), 1):
        record = CLEAN
        for failures in range(1, most + 1):
            judgement = policy.fail(record, number, 2)
            record = judgement.record
            assert (judgement.action is Action.SPLIT) == (failures == most)
            assert judgement.goes_first == (number == 1 and failures < most)
            assert judgement.pace is (Pace.PROBE if number == 1 and failures > 1 else Pace.FAILED)
        policy.split(record, number, (1, 1))
    policy.accept(CLEAN, 9, 1, 0.0)
    record = CLEAN
    for _ in range(3):
        record = policy.fail(record, 10, 2).record
    assert policy.fail(record, 10, 2).action is Action.SPLIT


def test_an_overloaded_collector_by_example() -> None:
    """A batch is split after ten failures by 503, or with five bits of evidence; every one slows down."""
    policy, record = PoisonPolicy(), CLEAN
    for failures in range(1, 11):
        judgement = policy.fail(record, 1, 2, overloaded=True)
        record = judgement.record
        assert (judgement.action is Action.SPLIT) == (failures == 10)
        assert judgement.pace is Pace.FAILED
    suspicious = FaultRecord(failures=1, evidence=5.0)
    assert PoisonPolicy().fail(suspicious, 1, 2, overloaded=True).action is Action.SPLIT
    nearly = FaultRecord(failures=1, evidence=4.9)
    assert PoisonPolicy().fail(nearly, 1, 2, overloaded=True).action is Action.KEEP


@pytest.mark.parametrize(
    ("others", "failing", "bits"), [(0, 0, 0), (1, 0, 1), (3, 1, 1), (6, 0, 2.807), (7, 0, 3), (99, 0, 3)]
)
def test_evidence_by_example(others: int, failing: int, bits: float) -> None:
    """`log2((tried + 1) / (failed + 1))` bits, at most three, from the second failure on."""
    policy = PoisonPolicy()
    record = policy.fail(CLEAN, 1, 1).record
    assert record.evidence == 0.0
    for number in range(others):
        if number < failing:
            policy.pass_over(CLEAN)
        else:
            policy.accept(CLEAN, 2 + number, 1, 0.0)
    again = policy.fail(record, 1, 1).record
    assert math.isclose(again.evidence, bits, abs_tol=1e-3)
    assert (again.failures, again.tried, again.failed) == (2, others + 1, failing + 1)
    policy.accept(record, 99, 1, 0.0)  # not its first attempt, so it doesn't count
    assert policy.fail(again, 1, 1).record.tried == others + 1


@pytest.mark.parametrize("overloaded", [False, True])
def test_a_lone_event_is_given_up_with_thirty_bits(overloaded: bool) -> None:
    """Not with fewer."""
    for evidence, action in ((29.9, Action.KEEP), (30.0, Action.GIVE_UP)):
        record = FaultRecord(failures=11, evidence=evidence)
        assert PoisonPolicy().fail(record, 1, 1, overloaded=overloaded).action is action


def test_the_pace_after_a_lone_failure() -> None:
    """It depends on how others fared since it failed last."""

    def pace(accepted: int, failing: int, *, overloaded: bool = False, all_held: bool = False) -> Pace:
        policy = PoisonPolicy()
        record = policy.fail(CLEAN, 1, 1).record
        for number in range(accepted):
            policy.accept(CLEAN, 2 + number, 1, 0.0)
        for _ in range(failing):
            policy.pass_over(CLEAN)
        return policy.fail(record, 1, 1, overloaded=overloaded, all_held=all_held).pace

    assert PoisonPolicy().fail(CLEAN, 1, 1).pace is Pace.FAILED
    for overloaded in (False, True):  # a first failure says nothing, however others fared before
        policy = PoisonPolicy()
        policy.accept(CLEAN, 2, 1, 0.0)
        assert policy.fail(CLEAN, 1, 1, overloaded=overloaded).pace is Pace.FAILED
    assert pace(0, 0) is Pace.UNCHANGED  # its own pause is enough
    assert pace(0, 0, all_held=True) is Pace.FAILED
    assert pace(1, 0) is Pace.UNCHANGED
    assert pace(1, 1) is Pace.PROBE
    assert pace(0, 1) is Pace.FAILED
    assert pace(0, 0, overloaded=True) is Pace.FAILED
    assert pace(1, 0, overloaded=True) is Pace.PROBE
    assert pace(0, 1, overloaded=True) is Pace.FAILED


def test_a_batch_that_is_not_on_trial_waits() -> None:
    """If others fare well, its failure is its own fault from the second time on."""
    policy = PoisonPolicy()
    policy.fail(CLEAN, 1, 2)
    first = policy.fail(CLEAN, 2, 2)
    assert (first.action, first.pace) == (Action.KEEP, Pace.FAILED)
    policy.accept(CLEAN, 3, 1, 0.0)
    second = policy.fail(first.record, 2, 2)
    assert (second.action, second.pace) == (Action.KEEP, Pace.UNCHANGED)
    third = policy.fail(second.record, 2, 2)  # there were no others
    assert (third.action, third.pace) == (Action.KEEP, Pace.FAILED)
    policy.accept(CLEAN, 4, 1, 0.0)
    policy.pass_over(CLEAN)
    assert policy.fail(third.record, 2, 2).pace is Pace.FAILED


def test_a_trial_ends_when_nothing_of_it_can_be_split() -> None:
    """Parts of several events count, whether they are accepted, given up or split."""
    policy = PoisonPolicy()
    whole = policy.refuse(CLEAN, 1, 7, 0.0)
    part = policy.split(whole.record, 1, (3, 4))

    def is_on_trial(number: int) -> bool:
        return policy.refuse(CLEAN, number, 2, 0.0).action is Action.SPLIT

    assert not is_on_trial(2)
    policy.leave(1, 4)
    assert not is_on_trial(2)
    policy.leave(1, 1)  # a single event can't be split, so it doesn't count
    policy.leave(2, 3)  # nor does another batch
    assert not is_on_trial(2)
    policy.split(part, 1, (1, 2))
    assert not is_on_trial(2)
    policy.leave(1, 2)
    assert is_on_trial(2)


def test_refusals_by_example() -> None:
    """Sixteen in a row aren't a reason to slow down; an acceptance resets the count to zero."""
    policy = PoisonPolicy()
    for _ in range(2):
        for count in range(1, 19):
            judgement = policy.refuse(CLEAN, count, 1, 5.0)
            assert judgement.action is Action.KEEP
            assert judgement.pace is (Pace.ANSWERED if count <= 16 else Pace.FAILED)
            assert (judgement.record.refused_at, judgement.record.failures) == (5.0, 1)
        policy.accept(CLEAN, 99, 1, 4.9)  # which began before


@pytest.mark.parametrize(
    ("started_at", "action"), [(4.9, Action.KEEP), (5.0, Action.GIVE_UP), (5.1, Action.GIVE_UP)]
)
def test_a_refusal_needs_an_acceptance_that_began_since(started_at: float, action: Action) -> None:
    """Since the first refusal of the event, whenever it is refused again."""
    policy = PoisonPolicy()
    record = policy.refuse(CLEAN, 1, 1, 5.0).record
    policy.accept(CLEAN, 2, 1, started_at)
    policy.accept(CLEAN, 3, 1, 1.0)  # which began earlier
    again = policy.refuse(record, 1, 1, 9.0)
    assert (again.action, again.pace) == (action, Pace.ANSWERED)
    assert again.record.refused_at == 5.0


def test_refused_parts_by_example() -> None:
    """Without evidence, a refused part is split at its first failure, or by its fourth."""
    policy = PoisonPolicy()
    whole = policy.refuse(CLEAN, 1, 2, 0.0)
    part = policy.split(whole.record, 1, (2, 2))
    assert policy.refuse(part, 1, 2, 0.0).action is Action.SPLIT
    for failures, action in ((1, Action.KEEP), (2, Action.KEEP), (3, Action.SPLIT)):
        record = FaultRecord(failures=failures, refused_at=0.0, is_part=True)
        assert policy.refuse(record, 1, 2, 0.0).action is action
    other = FaultRecord(refused_at=0.0, is_part=True)
    assert policy.refuse(other, 2, 2, 0.0).action is Action.KEEP
    policy.accept(CLEAN, 3, 1, 0.0)
    assert policy.refuse(other, 2, 2, 0.0).action is Action.SPLIT


def test_a_lone_part_fails_for_itself_if_anything_was_accepted_since() -> None:
    """At its first failure; later ones are judged by how others fare."""
    policy = PoisonPolicy()
    part = policy.split(policy.refuse(CLEAN, 1, 2, 0.0).record, 1, (1, 1))
    policy.accept(CLEAN, 2, 1, 0.0)
    first = policy.fail(part, 1, 1)
    assert (first.action, first.pace) == (Action.KEEP, Pace.UNCHANGED)
    second = policy.fail(first.record, 1, 1, all_held=True)
    assert (second.action, second.pace) == (Action.KEEP, Pace.FAILED)


def test_a_part_of_an_earlier_run_by_example() -> None:
    """It has no probes and needs four failures; if anything was accepted in this run, it is split at once."""
    policy, part = PoisonPolicy(), FaultRecord(is_part=True)
    for action in (Action.KEEP, Action.KEEP, Action.KEEP, Action.SPLIT):
        judgement = policy.fail(part, 1, 2)
        part = judgement.record
        assert (judgement.action, judgement.pace) == (action, Pace.FAILED)
    policy, part = PoisonPolicy(), FaultRecord(is_part=True)
    policy.accept(CLEAN, 2, 2, 0.0)
    judgement = policy.fail(part, 1, 2)
    assert (judgement.action, judgement.pace) == (Action.SPLIT, Pace.UNCHANGED)
