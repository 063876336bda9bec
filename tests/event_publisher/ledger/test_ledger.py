from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import stateful
from hypothesis import strategies as st

from baseplate_events.event_publisher.ledger.file import LedgerError
from baseplate_events.event_publisher.ledger.ledger import FIRST_PAUSE, LONGEST_PAUSE
from baseplate_events.event_publisher.policy.journal import EnteredBatch
from baseplate_events.event_publisher.policy.poison import FaultRecord
from baseplate_events.event_publisher.policy.span import Span, cut_spans
from tests.support.clocks import FakeClock
from tests.support.ledgers import (
    END,
    IDENTITIES,
    batch_of,
    batches,
    copied,
    covered,
    events_written,
    letter_file,
    letter_of,
    letters,
    locked,
    opened,
    orders,
    resolved_of,
    some_spans,
    written,
)
from tests.support.machines import check_machine

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

    from baseplate_events.event_publisher.ledger.ledger import Ledger
    from baseplate_events.event_publisher.policy.journal import DeadLetter, Journal

A, B, C = IDENTITIES
NOW = 5.0


def as_restored(batch: EnteredBatch, now: float = NOW) -> EnteredBatch:
    """Return a batch as restored by a run that starts now."""
    record = replace(batch.record, refused_at=None if batch.record.refused_at is None else now)
    return replace(batch, record=record)


class LedgerMachine(stateful.RuleBasedStateMachine):
    """A ledger and a plain model of it, with locks of others, restarts and kills at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.folders: list[str] = []
        self.clock = FakeClock()
        self.lock: sqlite3.Connection | None = None
        self.entered: dict[tuple[int, int], EnteredBatch] = {}
        self.resolved: set[tuple[bytes, int]] = set()
        self.ever: set[tuple[bytes, int]] = set()  # resolved, of segments that are gone too
        self.letters: list[DeadLetter] = []

    @stateful.initialize()
    def open(self) -> None:
        self.ledger = self.open_in(self.new_folder())
        assert self.ledger.is_new

    def new_folder(self) -> str:
        self.folders.append(tempfile.mkdtemp())
        return self.folders[-1]

    def open_in(self, folder: str) -> Ledger:
        ledger = opened(folder, clock=self.clock)
        assert ledger.start_problem is None
        return ledger

    @stateful.rule(batch=batches)
    def enter(self, batch: EnteredBatch) -> None:
        """Enter a new batch, or an entered one with another record."""
        self.ledger.enter(batch)
        self.entered[batch.order] = batch

    @stateful.rule(order=orders, some=st.lists(letters, max_size=2))
    def finish(self, order: tuple[int, int], some: list[DeadLetter]) -> None:
        spans = self.entered[order].spans if order in self.entered else ()
        try:
            assert self.ledger.finish(order, some) == 0
        except LedgerError:
            assert some
            assert self.ledger.error is not None
            return
        self.entered.pop(order, None)
        self.end(spans, some)

    @stateful.rule(spans=some_spans, some=st.lists(letters, max_size=2))
    def resolve(self, spans: tuple[Span, ...], some: list[DeadLetter]) -> None:
        try:
            assert self.ledger.resolve(spans, some) == 0
        except LedgerError:
            assert some
            assert self.ledger.error is not None
            return
        self.end(spans, some)

    def end(self, spans: tuple[Span, ...], some: list[DeadLetter]) -> None:
        self.ever |= covered(spans)
        self.resolved |= covered(spans)
        self.letters += some

    @stateful.rule(order=orders, size=st.integers(1, END))
    def split(self, order: tuple[int, int], size: int) -> None:
        old = self.entered.get(order)
        if old is None:
            return
        keys = [order, *((number, 7) for number in (1, 2) if (number, 7) not in self.entered)]
        halves = [half for half in cut_spans(old.spans, size) if half]
        parts = [
            EnteredBatch(key, 1, half, FaultRecord(is_part=True))
            for key, half in zip(keys, halves, strict=False)
        ]
        if len(parts) == len(halves):
            self.ledger.replace(order, parts)
            del self.entered[order]
            self.entered.update((part.order, part) for part in parts)

    @stateful.rule(identities=st.sets(st.sampled_from(IDENTITIES)))
    def forget(self, identities: set[bytes]) -> None:
        self.ledger.forget(identities)
        self.resolved = {item for item in self.resolved if item[0] not in identities}

    @stateful.rule(identities=st.sets(st.sampled_from(IDENTITIES)))
    def retain(self, identities: set[bytes]) -> None:
        self.ledger.retain(identities)
        self.resolved = {item for item in self.resolved if item[0] in identities}
        self.entered = {
            order: batch
            for order, batch in self.entered.items()
            if identities >= {span.identity for span in batch.spans}
        }

    @stateful.rule(data=st.data())
    def delete_letter(self, data: st.DataObject) -> None:
        """A command deletes a letter while the publisher runs."""
        if self.lock is None and self.letters:
            index = data.draw(st.integers(0, len(self.letters) - 1))
            with letter_file(self.folders[-1]) as file:
                assert file.purge([file.numbers()[index]]) == 1
            del self.letters[index]

    @stateful.rule()
    def lock_or_unlock(self) -> None:
        """Another process locks the file, or unlocks it."""
        if self.lock is not None:
            self.unlock()
        else:
            self.lock = locked(self.folders[-1])

    def unlock(self) -> None:
        if self.lock is not None:
            self.lock.close()
            self.lock = None

    @stateful.rule(seconds=st.sampled_from((0.05, 1.0, 60.0)))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.ledger.retry()
        if self.lock is None and seconds > LONGEST_PAUSE:
            assert self.ledger.error is None

    @stateful.rule()
    def restart(self) -> None:
        """Pending changes are written at the close at the latest, if the lock is gone."""
        self.unlock()
        self.ledger.close()
        self.ledger = self.open_in(self.folders[-1])
        self.check_restored()

    @stateful.rule()
    def kill(self) -> None:
        """The next run works with the files as they are at this moment."""
        is_behind = self.ledger.error is not None
        folder = self.new_folder()
        copied(self.folders[-2], folder)
        self.unlock()
        self.ledger.close()
        self.ledger = self.open_in(folder)
        if is_behind:  # a kill duplicates events, and loses none
            assert resolved_of(self.ledger) <= self.ever
            self.resolved = resolved_of(self.ledger)
            self.entered = {batch.order: batch for batch in self.ledger.unfinished()}
        self.check_restored()

    def check_restored(self) -> None:
        assert self.ledger.error is None
        assert not self.ledger.is_new
        expected = [as_restored(self.entered[order], self.clock.now) for order in sorted(self.entered)]
        assert expected == self.ledger.unfinished()
        self.entered = {batch.order: batch for batch in expected}

    @stateful.invariant()
    def is_as_the_model(self) -> None:
        if not self.folders:
            return
        assert [self.entered[order] for order in sorted(self.entered)] == self.ledger.unfinished()
        assert self.resolved == resolved_of(self.ledger)
        for identity in IDENTITIES:
            assert len(self.ledger.resolved(identity)) <= END // 2
        assert self.letters == written(self.folders[-1])
        if self.ledger.error is None:
            assert self.ledger.letters[0] == len(self.letters)

    def teardown(self) -> None:
        self.unlock()
        if self.folders:
            self.ledger.close()
        for folder in self.folders:
            shutil.rmtree(folder)


def test_the_ledger_is_its_model() -> None:
    """Whatever is entered, split, finished, forgotten, locked, restarted or killed: the model is right."""
    check_machine(LedgerMachine, examples=60)


def test_a_restart_rebuilds_what_was_in_flight(tmp_path: Path) -> None:
    """A kill leaves the batches without a fate, in their order, and what is resolved as one range."""
    ledger = opened(tmp_path)
    first, second, third = (batch_of(n, (A, n * 10, n * 10 + 10), (B, n, n + 1)) for n in (1, 2, 3))
    for batch in (third, first, second):
        ledger.enter(batch)
    record = FaultRecord(failures=1, evidence=2.5, refused_at=77.0, tried=9)
    ledger.enter(replace(second, record=record))
    ledger.finish((1, 0))
    ledger.finish((3, 0))
    assert [(10, 20), (30, 40)] == ledger.resolved(A)
    copied(tmp_path, tmp_path / "copy")
    ledger.close()

    clock = FakeClock()
    again = opened(tmp_path / "copy", clock=clock)
    record = FaultRecord(failures=1, evidence=2.5, refused_at=clock.now)
    assert [replace(second, record=record)] == again.unfinished()
    assert again.resolved(A) == [(10, 20), (30, 40)]
    again.finish((2, 0))
    assert [(10, 40)] == again.resolved(A)
    assert [] == again.resolved(C)
    again.close()


@pytest.mark.parametrize("after", ["retry", "enter", "resolve", "forget", "close"])
@pytest.mark.parametrize("is_locked", [True, False])
def test_the_end_of_a_batch_is_written_with_the_next_change(
    after: str, tmp_path: Path, *, is_locked: bool
) -> None:
    """Until then a kill leaves the batch unfinished. After an error, it is written with everything else."""
    clock = FakeClock()
    ledger = opened(tmp_path, clock=clock)
    first, second, third = (batch_of(n, (A, n * 10, n * 10 + 10)) for n in (1, 2, 3))
    for batch in (first, second):
        ledger.enter(batch)
    lock = locked(tmp_path) if is_locked else None
    ledger.finish_later(first.order, first.spans)
    assert ([second], [(10, 20)]) == (ledger.unfinished(), ledger.resolved(A))
    changes: dict[str, Callable[[], object]] = {
        "retry": ledger.retry,
        "enter": lambda: ledger.enter(third),
        "resolve": lambda: ledger.resolve([Span(B, 0, 1)]),
        "forget": lambda: ledger.forget([A]),
        "close": ledger.close,
    }
    if lock is None:
        copied(tmp_path, tmp_path / "before")
        before = opened(tmp_path / "before")
        assert ([first, second], []) == (before.unfinished(), before.resolved(A))
        before.close()
    else:
        ledger.retry()
        assert ledger.error is not None
        lock.close()
        clock.now = ledger.retry_at
    changes[after]()
    copied(tmp_path, tmp_path / "copy")
    ledger.close()
    again = opened(tmp_path / "copy")
    assert again.unfinished() == ([second, third] if after == "enter" else [second])
    assert again.resolved(A) == ([] if after == "forget" else [(10, 20)])
    assert again.resolved(B) == ([(0, 1)] if after == "resolve" else [])
    again.close()


def test_a_split_is_one_change(tmp_path: Path) -> None:
    """The parts take the place of their batch, also for the next run."""
    ledger = opened(tmp_path)
    whole, other = batch_of(1, (A, 0, 10)), batch_of(2, (B, 0, 1))
    ledger.enter(whole)
    ledger.enter(other)
    halves = [batch_of(1, (A, 0, 5)), batch_of(1, (A, 5, 10), part=5)]
    ledger.replace((1, 0), halves)
    copied(tmp_path, tmp_path / "copy")
    ledger.close()
    again = opened(tmp_path / "copy")
    assert [*halves, other] == again.unfinished()
    again.close()


@pytest.mark.parametrize("left", [(), (Span(A, 2, 5),), (Span(A, 0, 3), Span(A, 9, 10))])
def test_what_is_gone_of_a_batch_is_resolved(left: tuple[Span, ...], tmp_path: Path) -> None:
    """The rest is the batch then, also for the next run; without a rest, it is finished."""
    ledger = opened(tmp_path)
    whole, rest = batch_of(1, (A, 0, 10)), EnteredBatch((1, 0), len(left), left)
    ledger.shrink(whole, 0)  # it wasn't entered, so nothing changes
    assert ledger.unfinished() == []
    ledger.enter(whole)
    ledger.shrink(rest, 10 - len(left))
    copied(tmp_path, tmp_path / "copy")
    again = opened(tmp_path / "copy")
    for each in (ledger, again):
        assert each.unfinished() == [rest][: len(left)]
        assert resolved_of(each) == covered(whole.spans) - covered(left)
        each.close()


def test_letters_that_cannot_be_written_change_nothing(tmp_path: Path) -> None:
    """If letters can't be written, the error names file and remedy; later the same call works."""
    clock = FakeClock()
    ledger = opened(tmp_path, clock=clock)
    batch = batch_of(1, (A, 0, 1))
    ledger.enter(batch)
    lock = locked(tmp_path)
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"ledger\.sqlite: dead letters can't be written: .*locked"):
            ledger.finish((1, 0), [letter_of(b"e")])
        with pytest.raises(LedgerError, match="kept until then"):
            ledger.resolve([Span(B, 0, 1)], [letter_of(b"f")])
    assert ([batch], [], []) == (ledger.unfinished(), ledger.resolved(A), ledger.resolved(B))
    assert ledger.finish((7, 0)) == 0  # without letters, nothing is raised
    lock.close()
    with pytest.raises(LedgerError):  # the next try is due later
        ledger.finish((1, 0), [letter_of(b"e")])
    clock.now = ledger.retry_at
    assert ledger.finish((1, 0), [letter_of(b"e")]) == 0
    assert ledger.error is None
    ledger.resolve([Span(B, 0, 1)], [letter_of(b"f")])
    assert [b"e", b"f"] == events_written(tmp_path)
    ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        ledger.resolve((), [letter_of(b"g")])


def test_without_a_spool_there_are_letters_only(tmp_path: Path) -> None:
    """Batches without spans aren't entered; they can be split and finished like any."""
    ledger: Journal
    ledger = file = opened(tmp_path)
    ledger.enter(EnteredBatch((1, 0), 2, ()))
    ledger.replace((1, 0), [EnteredBatch((1, 0), 1, ()), EnteredBatch((1, 1), 1, ())])
    ledger.shrink(EnteredBatch((1, 0), 0, ()), 1)
    assert ledger.finish((1, 0)) == 0
    assert ledger.finish((1, 1), [letter_of(b"e")]) == 0
    assert ledger.resolve((), [letter_of(b"f")]) == 0
    assert [] == file.unfinished()
    assert [b"e", b"f"] == events_written(tmp_path)
    file.close()


def test_pauses_grow_and_end(tmp_path: Path) -> None:
    """A locked file is tried again at growing intervals, never in between."""
    clock = FakeClock()
    ledger = opened(tmp_path, clock=clock)
    lock = locked(tmp_path)
    pauses: list[float] = []
    for number in range(12):
        ledger.resolve([Span(A, number * 2, number * 2 + 1)])
        pauses.append(ledger.retry_at - clock.now)
        at = ledger.retry_at
        ledger.resolve([Span(B, number * 2, number * 2 + 1)])
        assert at == ledger.retry_at
        clock.now = at
    assert pauses[0] == pytest.approx(FIRST_PAUSE)
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE
    lock.close()
    ledger.resolve([Span(C, 0, 1)])
    assert ledger.error is None
    copied(tmp_path, tmp_path / "copy")
    again = opened(tmp_path / "copy")
    assert resolved_of(ledger) == resolved_of(again)
    assert ledger.resolved(A) == again.resolved(A)
    again.close()
    ledger.close()
