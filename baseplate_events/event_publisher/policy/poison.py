"""Decides whether a batch causes its failures, when to split it, and when to give up a single event. Pure.

A *failure* here is one that the contents of a batch may have caused: a 5xx response, a lost connection, a
response that isn't HTTP or never came. A *refusal* is a 400, 413 or 422. An outage causes the same failures,
and a wrong setting the same refusals, so one batch says little; what becomes of the others decides.

Rules:

1. Splitting loses no event, only the idempotency key, and each half shows whether the other one is the cause.
   The first batch of several events that fails is put on trial: it is retried next, and split after
   `MAX_FAILURES`. A batch is split at its first refusal.
2. One batch at a time is on trial, and each trial takes twice as many failures as the one before, until
   something is accepted, so that an outage doesn't split the backlog. A refused batch needn't wait
   for that once another batch has been accepted since.
3. A part is split at its next failure or refusal if anything was accepted since it was made. Otherwise a part
   is also split at its first failure, but only `bit_length(events)` times after each acceptance: an
   overloaded collector is probed with less and less. After that, each part needs `MAX_FAILURES`. So an outage
   costs one batch a few idempotency keys.
4. An overloaded collector answers 503 to everything, and some proxies do when they lose a connection. So a
   batch is split after `MAX_OVERLOADS` of them, or earlier if its evidence is `SUSPICIOUS`.
5. A single event that is refused is given up if another batch was sent and accepted since it was first
   refused, alone or with others. Until then it is held: retried at the pace of the backoff, while later
   batches go first.
6. A single event that fails is held likewise, and given up once its `evidence` reaches `ENOUGH_EVIDENCE`.

Evidence is counted in bits. Let `tried` be the number of other batches whose first attempt ended since this
batch last failed, and `failed` how many of those attempts failed. When the batch fails again,
`log2((tried + 1) / (failed + 1))` bits are added, at most `MAX_GAIN`. Nothing is added in an outage, when all
fail, or in a quiet line, when there are no others.

Why that is safe: let the collector fail each request by chance, with any probability q. With n others, the
expected value of `(n + 1) / (failed + 1)` is `(1 - (1 - q)**(n + 1)) / q`. The event itself fails again with
probability q, so the expected factor per attempt is at most 1. The product over all its failures is a
supermartingale, and by Ville's inequality the probability that it ever reaches `2**30` is at most `2**-30`,
less than 1e-9. `tests/event_publisher/policy/test_poison.py` checks the expectation and simulates the rest.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace
from typing import Final

#: Failures of a batch of several events after which it is split. A brief disturbance causes fewer, and a
#: response that is lost a few times must not cost the idempotency key.
MAX_FAILURES: Final = 4

#: The same for 503, which an overloaded collector answers to whatever it gets. With others accepted in
#: between, so many bits of evidence do as well; a healthy batch collects them once in 32 times at most.
MAX_OVERLOADS: Final = 10
SUSPICIOUS: Final = 5.0

#: Bits of evidence after which a lone event is given up: a healthy one is with a probability of 2**-30.
ENOUGH_EVIDENCE: Final = 30.0

#: Bits that one failure adds at most, even if no other batch fails. Ten gains, and so eleven failures, are
#: needed, since an outage that comes and goes isn't random.
MAX_GAIN: Final = 3.0

#: Refusals in a row that are no reason to slow down: finding one bad event of 10,000 takes 14.
REFUSALS_IN_A_ROW: Final = 16


@dataclass(frozen=True, slots=True)
class FaultRecord:
    """What is known of a batch that failed or was refused, or of a part of one.

    Attributes:
        failures: Failures and refusals of exactly these events.
        evidence: Bits of evidence that a lone event is the cause of its failures.
        tried: First attempts for any batch that had ended when it failed last.
        failed: Those of them that failed.
        accepted: Batches that had been accepted when it was made, as a part.
        refused_at: When its events were first refused, by the monotonic clock; None if they weren't.
        is_part: Whether it is a part of a batch that was split.
    """

    failures: int = 0
    evidence: float = 0.0
    tried: int = 0
    failed: int = 0
    accepted: int = 0
    refused_at: float | None = None
    is_part: bool = False


#: The fault record of a batch that never failed.
CLEAN: Final = FaultRecord()


class Action(enum.Enum):
    """What to do with a batch."""

    KEEP = "keep"
    SPLIT = "split"
    GIVE_UP = "give up"


class Pace(enum.Enum):
    """How an attempt changes the pace of the next ones."""

    ANSWERED = "answered"
    """The collector answers, and has read the batch."""
    UNCHANGED = "unchanged"
    """The batch is the cause: others are accepted."""
    PROBE = "probe"
    """A short pause: a smaller part is to be tried next."""
    FAILED = "failed"
    """The collector is failing."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What follows from a failure or a refusal.

    Attributes:
        record: The new fault record of the batch.
        action: What to do with it.
        pace: How the pace of the next attempts changes.
        goes_first: Whether a batch that is kept is retried next, rather than after a pause of its own.
    """

    record: FaultRecord
    action: Action
    pace: Pace
    goes_first: bool = False


class PoisonPolicy:
    """Judges batches by their failures and by the outcomes of others.

    A batch is named by its number, which its parts share. The end of each attempt is given to exactly one of
    `accept`, `refuse`, `fail` and `pass_over`, and each batch that leaves otherwise to `leave`.
    """

    def __init__(self) -> None:
        # How many were accepted: until now, when the batch on trial was split, and when its trial began.
        self._accepted = self._split_at = self._began_at = 0
        self._accepted_start = float("-inf")  # when the latest attempt began whose batch was accepted
        self._tried = 0
        self._failed = 0
        self._refusals_in_a_row = 0
        # The batch on trial, how many pieces of it may be split, and how often one may be split at its first
        # failure though nothing was accepted since it was made.
        self._on_trial: int | None = None
        self._divisible = self._budget = self._probes = 0
        self._fruitless = 0  # how many trials ended since anything was accepted

    def accept(self, record: FaultRecord, number: int, count: int, started_at: float) -> None:
        """Record that a batch of `count` events was accepted, whose attempt began at `started_at`."""
        self._try_first(record, failed=False)
        self._accepted += 1
        self._accepted_start = max(self._accepted_start, started_at)
        self._refusals_in_a_row = 0
        self._fruitless = 0
        self._probes = self._budget
        self.leave(number, count)

    def pass_over(self, record: FaultRecord) -> None:
        """Record a failure that contents can't have caused."""
        self._try_first(record, failed=True)

    def leave(self, number: int, count: int) -> None:
        """Record that a batch of `count` events is no longer pending, whatever its fate."""
        if number == self._on_trial and count > 1:
            self._count_divisible(-1)

    def refuse(self, record: FaultRecord, number: int, count: int, now: float) -> Judgement:
        """Judge a batch of `count` events that was refused at `now`."""
        self._try_first(record, failed=False)
        self._refusals_in_a_row += 1
        first_at = record.refused_at if record.refused_at is not None else now
        has_evidence = self._accepted_start >= first_at
        record = self._mark(replace(record, refused_at=first_at))
        slows_down = not has_evidence and self._refusals_in_a_row > REFUSALS_IN_A_ROW
        pace = Pace.FAILED if slows_down else Pace.ANSWERED
        if count == 1:
            return Judgement(record, Action.GIVE_UP if has_evidence else Action.KEEP, pace)
        may_split = has_evidence or (
            self._is_on_trial(number)
            and (not record.is_part or record.failures >= MAX_FAILURES or bool(self._probe(record, number)))
        )
        return Judgement(record, Action.SPLIT if may_split else Action.KEEP, pace)

    def fail(
        self,
        record: FaultRecord,
        number: int,
        count: int,
        *,
        overloaded: bool = False,
        all_held: bool = False,
    ) -> Judgement:
        """Judge a batch of `count` events whose attempt failed.

        Args:
            record: Its fault record.
            number: Its number.
            count: Events in it.
            overloaded: Whether the collector may just have too much to do.
            all_held: Whether all other batches are single events that failed or were refused alone.
        """
        # Attempts for others since it failed last.
        tried, failed = self._tried - record.tried, self._failed - record.failed
        gain = min(MAX_GAIN, math.log2((tried + 1) / (failed + 1))) if record.failures else 0.0
        self._try_first(record, failed=True)
        record = self._mark(replace(record, evidence=record.evidence + gain))
        if count == 1:
            # Without others, the pause of the event itself is enough; but those of many held events add up.
            is_alone = record.failures > 1 and not tried and not all_held
            isolated = self._has_evidence(record)
            others_pass = is_alone or (record.failures > 1 and tried > 0 and (isolated or not failed))
            more_others_pass = record.failures > 1 and tried > failed
            if overloaded:
                pace = Pace.PROBE if more_others_pass else Pace.FAILED
                return Judgement(record, self._end_or_keep(record), pace)
            return self._judge_lone(
                record, number, others_pass=others_pass, more_others_pass=more_others_pass
            )
        if overloaded:
            return self._judge_overloaded(record, number)
        return self._judge_several(record, number, others_pass=tried > 0 and not failed)

    def _judge_overloaded(self, record: FaultRecord, number: int) -> Judgement:
        is_likely = record.failures >= MAX_OVERLOADS or record.evidence >= SUSPICIOUS
        may_split = (is_likely or self._has_evidence(record)) and self._is_on_trial(number)
        return Judgement(record, Action.SPLIT if may_split else Action.KEEP, Pace.FAILED)

    def _judge_lone(
        self, record: FaultRecord, number: int, *, others_pass: bool, more_others_pass: bool
    ) -> Judgement:
        if others_pass or (record.failures == 1 and self._has_evidence(record)):
            pace = Pace.UNCHANGED
        elif more_others_pass:
            pace = Pace.PROBE
        else:
            pace = self._probe(record, number) or Pace.FAILED
        return Judgement(record, self._end_or_keep(record), pace)

    def _judge_several(self, record: FaultRecord, number: int, *, others_pass: bool) -> Judgement:
        is_first = record.failures == 1
        if not self._is_on_trial(number):
            is_the_cause = not is_first and others_pass
            return Judgement(record, Action.KEEP, Pace.UNCHANGED if is_the_cause else Pace.FAILED)
        if self._has_evidence(record):
            return Judgement(record, Action.SPLIT, Pace.UNCHANGED if is_first else Pace.PROBE)
        is_brief = not self._fruitless and not record.is_part
        if record.failures >= MAX_FAILURES << self._fruitless:
            return Judgement(record, Action.SPLIT, Pace.PROBE if is_brief else Pace.FAILED)
        if record.is_part:
            pace = self._probe(record, number)
            return Judgement(record, Action.SPLIT if pace else Action.KEEP, pace or Pace.FAILED)
        pace = Pace.FAILED if is_first or not is_brief else Pace.PROBE
        return Judgement(record, Action.KEEP, pace, goes_first=is_brief)

    def split(self, record: FaultRecord, number: int, counts: tuple[int, int]) -> FaultRecord:
        """Note that a batch is split in parts of `counts` events; return the fault record of each part."""
        if number == self._on_trial:
            if not record.is_part:
                self._budget = self._probes = sum(counts).bit_length()
                self._split_at = self._accepted
            self._count_divisible(sum(count > 1 for count in counts) - 1)
        return FaultRecord(
            tried=self._tried,
            failed=self._failed,
            accepted=self._accepted,
            refused_at=record.refused_at,
            is_part=True,
        )

    def _try_first(self, record: FaultRecord, *, failed: bool) -> None:
        """Count an attempt among the first ones, if it is one."""
        if not record.failures:
            self._tried += 1
            self._failed += failed

    def _mark(self, record: FaultRecord) -> FaultRecord:
        """Return the fault record with one failure more, at this moment."""
        return replace(record, failures=record.failures + 1, tried=self._tried, failed=self._failed)

    def _is_on_trial(self, number: int) -> bool:
        """Whether a batch of several events is the one on trial, which it becomes if there is none."""
        if self._on_trial is None:
            self._on_trial = number
            self._divisible = 1
            self._began_at = self._accepted
        return self._on_trial == number

    def _has_evidence(self, record: FaultRecord) -> bool:
        """Whether anything was accepted since a part was made."""
        return record.is_part and self._accepted > record.accepted

    @staticmethod
    def _end_or_keep(record: FaultRecord) -> Action:
        return Action.GIVE_UP if record.evidence >= ENOUGH_EVIDENCE else Action.KEEP

    def _probe(self, record: FaultRecord, number: int) -> Pace | None:
        """Go on without evidence after the first failure of a part, if that is still allowed.

        Returns:
            The pace: no pause if anything was accepted in this trial. None if it isn't allowed.
        """
        if not record.is_part or record.failures > 1 or number != self._on_trial:
            return None
        if self._fruitless or not self._probes:
            return None
        self._probes -= 1
        return Pace.UNCHANGED if self._accepted > self._split_at else Pace.PROBE

    def _count_divisible(self, change: int) -> None:
        self._divisible += change
        if not self._divisible:
            self._on_trial = None
            self._fruitless += self._accepted == self._began_at
