"""Poison events and systemic rejections: what is split, held and given up, and how long that takes.

The scenarios run with the default settings in simulated time. What they promise is in the docstrings.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.policy.outcome import Accepted, Outcome, Refused, Retryable
from baseplate_events.event_publisher.policy.poison import (
    CLEAN,
    ENOUGH_EVIDENCE,
    MAX_GAIN,
    Action,
    FaultRecord,
    PoisonPolicy,
)
from tests.support.simulated_publisher import kind_of, make_event, start_one
from tests.support.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from baseplate_events.event_publisher.policy.batching import Batch

FAILURE = Retryable("500", from_collector=True, status=500, may_be_poison=True)
RESET = Retryable("connection lost", from_collector=False, may_be_poison=True)
REJECTION = Refused("400", 400)

#: Events that are put at once, in batches of at most so many bytes: five batches.
BURST = 3_000
BODY = 25_000


def collector(crash: Outcome = FAILURE) -> Callable[[Batch, float], Outcome]:
    """Make a collector that takes all batches but those with a `crash` or a `refused` event."""

    def answer(batch: Batch, now: float) -> Outcome:
        del now
        if any(b"crash" in event for event in batch.events):
            return crash
        return REJECTION if any(b"refused" in event for event in batch.events) else Accepted(200)

    return answer


def burst(poisons: Iterable[int], kind: str = "crash") -> list[bytes]:
    """Make the events that are put at once."""
    kinds = dict.fromkeys(poisons, kind)
    return [make_event(number, kinds.get(number, "good")) for number in range(BURST)]


def trickle(seconds: float, rate: float = 5.0) -> list[tuple[float, bytes]]:
    """Make healthy events that are put at a rate, with their times."""
    return [(number / rate, make_event(10**6 + number)) for number in range(int(seconds * rate))]


def merged(events: list[bytes], others: list[tuple[float, bytes]]) -> list[tuple[float, bytes]]:
    """Put events at time 0, before the others."""
    return [*((0.0, event) for event in events), *others]


def healthy(events: Iterable[bytes]) -> set[bytes]:
    """Return those that a collector takes."""
    return {event for event in events if kind_of(event) == "good"}


POISONS = {
    "one": [1_234],
    "the first": [0],
    "the last": [BURST - 1],
    "two in one batch": [10, 300],
    "ten in one batch": list(range(5, 500, 50)),
    "in every batch": list(range(100, BURST, 400)),
}


@pytest.mark.unmeasured
@pytest.mark.parametrize("poisons", POISONS.values(), ids=POISONS.keys())
@pytest.mark.parametrize("concurrency", [1, 16])
@pytest.mark.parametrize("spooled", [False, True], ids=["memory", "spool"])
@pytest.mark.parametrize("crash", [FAILURE, RESET], ids=["500", "hang-up"])
def test_in_a_quiet_line_all_healthy_events_arrive(
    poisons: list[int], concurrency: int, spooled: bool, crash: Outcome
) -> None:
    """Within 60 seconds, and no poison event is given up as long as nothing speaks for the collector."""
    events = burst(poisons)
    timeline = Timeline(collector(crash), concurrency=concurrency, spooled=spooled, max_size=BODY)
    timeline.run(60.0, merged(events, []))
    assert healthy(events) <= timeline.delivered.keys()
    assert timeline.journal.letters == []
    assert timeline.delivery.accounting.in_hand + timeline.delivery.accounting.spooled == len(poisons)


@pytest.mark.unmeasured
@pytest.mark.parametrize("poisons", POISONS.values(), ids=POISONS.keys())
@pytest.mark.parametrize("concurrency", [1, 16])
def test_under_a_trickle_all_healthy_events_arrive(poisons: list[int], concurrency: int) -> None:
    """Within 30 seconds, those of the trickle too; later each poison event is one dead letter."""
    events = burst(poisons)
    seconds = 600.0
    others = trickle(seconds)
    timeline = Timeline(collector(), concurrency=concurrency, max_size=BODY, seed=1)
    timeline.run(30.0, merged(events, others))
    assert healthy(events) <= timeline.delivered.keys()
    timeline.run(seconds, [item for item in others if item[0] >= 30.0])
    assert {event for _, event in others} <= timeline.delivered.keys()
    assert sorted(events[number] for number in poisons) == sorted(timeline.journal.letters)
    delays = [timeline.delivered[event] - at for at, event in others if at > 30.0]
    assert max(delays) < 5.0, "a held event costs only itself"


@pytest.mark.parametrize("concurrency", [1, 16])
def test_a_restart_in_a_quiet_line_changes_nothing(concurrency: int) -> None:
    """A publisher that finds a poison batch in its spool delivers all others of it in time as well."""
    events = burst([1_234])
    timeline = Timeline(collector(), concurrency=concurrency, spooled=True, max_size=BODY)
    timeline.run(3.0, merged(events, []))
    timeline.start()
    timeline.run(60.0)
    assert healthy(events) <= timeline.delivered.keys()


@given(
    size=st.integers(1, 3_000), at=st.floats(0, 1), concurrency=st.sampled_from([1, 16]), seed=st.integers()
)
def test_few_requests_fail_for_a_poison_event(size: int, at: float, concurrency: int, seed: int) -> None:
    """At most log2(n) and some: the failures before the first split, and the retries of the event alone."""
    poison = min(size - 1, int(size * at))
    events = [make_event(number, "crash" if number == poison else "good") for number in range(size)]
    timeline = Timeline(collector(), concurrency=concurrency, max_size=10**6, seed=seed)
    timeline.run(60.0, merged(events, []))
    assert healthy(events) == timeline.delivered.keys()
    together = sum(count for events_in, count in timeline.failed.items() if events_in > 1)
    assert together <= math.log2(size) + 4
    assert timeline.failed[1] <= 15


@pytest.mark.parametrize("concurrency", [1, 16])
def test_memory_full_of_poison_lets_others_through(concurrency: int) -> None:
    """Events that fill the memory and crash the collector are held; those that come later arrive."""
    size = 200
    poisons = [make_event(number, "crash", pad=60) for number in range(2 * (concurrency + 1))]
    others = [(20.0 + number, make_event(10**6 + number)) for number in range(100)]
    timeline = Timeline(
        collector(), concurrency=concurrency, max_size=size, max_events=1, queue_capacity=1_000
    )
    timeline.run(600.0, merged(poisons[: concurrency + 1], others))
    assert {event for _, event in others} <= timeline.delivered.keys()
    assert set(timeline.journal.letters) <= set(poisons)
    delays = [timeline.delivered[event] - at for at, event in others]
    assert sorted(delays)[len(delays) // 2] < 30.0


@pytest.mark.unmeasured
@pytest.mark.parametrize("kind", ["refused", "crash"])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_run_longer_than_memory_that_the_collector_cannot_take_stops_no_one(
    kind: str, concurrency: int
) -> None:
    """What is behind it in a spool arrives, except what shares a batch with it. In the end it is given up."""
    run = [make_event(number, kind, pad=60) for number in range(100)]
    others = [make_event(10**6 + number) for number in range(50)]
    timeline = Timeline(collector(), concurrency=concurrency, spooled=True, max_size=500)
    timeline.run(5_000.0, merged(run + others, []))
    assert set(others[5:]) <= timeline.delivered.keys()
    later = [(5_000.0 + 2 * number, make_event(2 * 10**6 + number)) for number in range(8_000)]
    timeline.run(20_000.0, later)
    assert sorted(timeline.journal.letters) == sorted(run)
    assert set(others) <= timeline.delivered.keys()


def down(outcome: Outcome, begins: float, ends: float) -> Callable[[Batch, float], Outcome]:
    """Make a collector that answers only this from one moment to another, and takes everything else."""

    def answer(batch: Batch, now: float) -> Outcome:
        del batch
        return outcome if begins <= now < ends else Accepted(200)

    return answer


@pytest.mark.slow
@pytest.mark.parametrize("outcome", [FAILURE, RESET, REJECTION], ids=["503", "reset", "400"])
@pytest.mark.parametrize(
    ("begins", "ends"), [(0.0, 900.0), (0.0, 30.0), (60.0, 90.0), (60.0, 600.0)], ids=str
)
@pytest.mark.parametrize("concurrency", [1, 16])
def test_no_outage_gives_a_healthy_event_up(
    outcome: Outcome, begins: float, ends: float, concurrency: int
) -> None:
    """Whatever the collector answers to everything, all arrives afterwards, most of it in whole batches."""
    events = [(number / 2.0, make_event(number)) for number in range(int(2 * ends) + 200)]
    timeline = Timeline(
        down(outcome, begins, ends), concurrency=concurrency, spooled=True, max_size=BODY, max_events=20
    )
    timeline.run(ends, events)
    timeline.run(600.0, [item for item in events if item[0] >= ends])
    assert {event for _, event in events} == timeline.delivered.keys()
    assert timeline.journal.letters == []


@pytest.mark.parametrize("seed", range(3))
def test_chance_gives_a_healthy_event_up_never(seed: int) -> None:
    """With half of all answers 5xx at random, everything arrives and nothing is given up."""
    chance = random.Random(seed)
    events = [(number / 5.0, make_event(number)) for number in range(2_000)]

    def answer(batch: Batch, now: float) -> Outcome:
        del batch, now
        return FAILURE if chance.random() < 0.5 else Accepted(200)

    timeline = Timeline(answer, seed=seed, max_events=50)
    timeline.run(3_000.0, events)
    assert {event for _, event in events} == timeline.delivered.keys()
    assert timeline.journal.letters == []


@pytest.mark.slow
def test_an_outage_splits_few_batches() -> None:
    """In an hour of 500 nearly all batches keep their contents, and with that their idempotency keys."""
    attempts: set[tuple[bytes, ...]] = set()
    delivered: set[tuple[bytes, ...]] = set()

    def answer(batch: Batch, now: float) -> Outcome:
        (attempts if now < 3_600.0 else delivered).add(batch.events)
        return FAILURE if now < 3_600.0 else Accepted(200)

    events = [(number / 2.0, make_event(number)) for number in range(7_200)]
    timeline = Timeline(answer, spooled=True, max_events=100)
    timeline.run(3_600.0, events)
    timeline.run(600.0)
    assert len(timeline.delivered) == len(events)
    whole = {batch for batch in attempts if len(batch) > 1}
    parted = {event for batch in whole - delivered for event in batch}
    assert len(parted) < len(events) / 20


@pytest.mark.parametrize("spooled", [False, True], ids=["memory", "spool"])
def test_a_systemic_rejection_drops_nothing(spooled: bool) -> None:
    """When everything is answered 400, all is kept, requests become rare, and all arrives afterwards."""
    requests: list[float] = []

    def answer(batch: Batch, now: float) -> Outcome:
        del batch
        requests.append(now)
        return REJECTION if now < 1_800.0 else Accepted(200)

    events = [make_event(number) for number in range(200)]
    timeline = Timeline(answer, spooled=spooled)
    timeline.run(1_800.0, merged(events, []))
    assert timeline.delivery.accounting.in_hand + timeline.delivery.accounting.spooled == len(events)
    assert timeline.journal.letters == []
    assert sum(1_200.0 < at < 1_800.0 for at in requests) < 200
    timeline.run(300.0)
    assert set(events) == timeline.delivered.keys()


def test_a_rejected_event_is_given_up_once_another_is_accepted() -> None:
    """Alone it is held; with the first acceptance after its rejection its next rejection is the last."""
    timeline = Timeline(collector())
    rejected, other = make_event(0, "refused"), make_event(1)
    timeline.run(100.0, [(0.0, rejected)])
    assert (timeline.journal.letters, timeline.delivery.accounting.in_hand) == ([], 1)
    timeline.run(60.0, [(100.0, other)])
    assert ([rejected], {other}) == (timeline.journal.letters, set(timeline.delivered))


def test_max_age_ends_what_is_held() -> None:
    """`retry.max_age` gives up a held event as any other."""
    timeline = Timeline(collector(), max_age=50.0)
    timeline.run(200.0, [(0.0, make_event(0, "refused")), (0.5, make_event(1, "crash"))])
    assert len(timeline.journal.letters) == 2


@given(others=st.integers(0, 60), failing=st.floats(0.01, 1.0))
def test_evidence_is_expected_to_say_nothing_of_chance(others: int, failing: float) -> None:
    """If each request fails with the same probability, a failure is expected to multiply by at most 1."""
    expectation = sum(
        math.comb(others, failed)
        * failing**failed
        * (1.0 - failing) ** (others - failed)
        * min(2.0**MAX_GAIN, (others + 1) / (failed + 1))
        for failed in range(others + 1)
    )
    assert failing * expectation <= 1.0 + 1e-9


@pytest.mark.parametrize("failing", [0.2, 0.5, 0.8])
def test_evidence_against_the_healthy_is_as_rare_as_it_says(failing: float) -> None:
    """Of 2,000 healthy events that fail by chance no more than 2**-bits of them collect so many bits."""
    chance = random.Random(1)
    events = 2_000
    most: list[float] = []
    for _ in range(events):
        policy, record = PoisonPolicy(), CLEAN
        while chance.random() < failing:
            record = policy.fail(record, 0, 1).record
            for number in range(1, chance.choice([1, 2, 4, 10]) + 1):
                if chance.random() < failing:
                    policy.fail(CLEAN, number, 1)
                else:
                    policy.accept(CLEAN, number, 1, 0.0)
        most.append(record.evidence)
    for bits in range(1, 7):
        rare = events * 2.0**-bits
        assert sum(evidence >= bits for evidence in most) <= rare + 4.0 * math.sqrt(rare)
    assert max(most) < ENOUGH_EVIDENCE


@given(gaps=st.lists(st.integers(0, 30), min_size=1, max_size=60))
def test_without_others_a_failure_says_nothing(gaps: list[int]) -> None:
    """An event is given up after ten failures at the least, and only by what others did in between."""
    policy, record = PoisonPolicy(), CLEAN
    for failures, others in enumerate(gaps, 1):
        before = record.evidence
        judgement = policy.fail(record, 0, 1)
        record = judgement.record
        gained = record.evidence - before
        assert 0.0 <= gained <= MAX_GAIN + 1e-9
        assert (gained > 0.0) == (failures > 1 and gaps[failures - 2] > 0)
        assert (judgement.action is Action.GIVE_UP) == (record.evidence >= ENOUGH_EVIDENCE)
        assert judgement.action is Action.KEEP or failures > 10
        for number in range(others):
            policy.accept(CLEAN, number + 1, 1, 0.0)


@given(steps=st.lists(st.tuples(st.integers(0, 5), st.integers(4, 40), st.booleans()), max_size=80))
def test_one_batch_at_a_time_is_split_without_evidence(steps: list[tuple[int, int, bool]]) -> None:
    """While nothing is accepted, whatever fails or is rejected: what is split belongs to one batch."""
    policy = PoisonPolicy()
    pieces: dict[int, tuple[FaultRecord, int]] = {}
    split: set[int] = set()
    for number, size, rejects in steps:
        record, count = pieces.get(number, (CLEAN, size))
        judgement = (
            policy.refuse(record, number, count, 0.0) if rejects else policy.fail(record, number, count)
        )
        assert judgement.action is not Action.GIVE_UP
        pieces[number] = (judgement.record, count)
        if judgement.action is Action.SPLIT:
            split.add(number)
            larger = count - count // 2
            # The other half waits meanwhile, so there is always something left to split.
            part = policy.split(judgement.record, number, (count // 2, larger))
            pieces[number] = (part, larger)
    numbers = {number for number in split if pieces[number][1] > 1}
    assert len(numbers) <= 1


def test_an_acceptance_that_began_before_a_refusal_is_no_evidence() -> None:
    """A batch that was sent before everything was refused says nothing of the collector since then."""
    timeline = Timeline(down(REJECTION, 0.5, 100.0), concurrency=2, max_events=4)
    delivery, events = timeline.delivery, [make_event(number) for number in range(9)]
    delivery.offer(events[:1], 0.0)
    first = start_one(delivery, 1.0)
    delivery.finish(first, Accepted(200), 1.1)
    delivery.offer(events[1:], 2.0)
    slow, refused = delivery.next_attempt(2.0), delivery.next_attempt(2.0)
    assert slow is not None
    assert refused is not None
    delivery.finish(refused, REJECTION, 2.1)
    delivery.finish(slow, Accepted(200), 2.2)
    timeline.now = 2.2
    timeline.run(300.0)
    assert timeline.journal.letters == []
    assert healthy(events) == {*timeline.delivered, *first.batch.events, *slow.batch.events}


@pytest.mark.parametrize("outcome", [FAILURE, REJECTION], ids=["500", "400"])
@pytest.mark.parametrize("concurrency", [1, 16])
def test_held_events_in_a_quiet_line_keep_to_the_backoff(outcome: Outcome, concurrency: int) -> None:
    """However many are held, requests stay as rare in an outage as the longest pause makes them."""
    requests: list[float] = []

    def answer(batch: Batch, now: float) -> Outcome:
        del batch
        requests.append(now)
        return outcome

    timeline = Timeline(answer, concurrency=concurrency, max_events=1)
    timeline.run(4 * 3_600.0, merged([make_event(number) for number in range(60)], []))
    for hour in range(4):
        assert sum(hour * 3_600.0 <= at < (hour + 1) * 3_600.0 for at in requests) < 500
