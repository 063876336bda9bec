"""Publishers with a mistake, each of which the simulation must find."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, NamedTuple
from unittest.mock import patch

from baseplate_events.event_publisher.event_sources import EventSources
from baseplate_events.event_publisher.policy.span import EventRun
from baseplate_events.event_publisher.relay import Relay
from baseplate_events.event_publisher.spool_reader.reader import SpoolReader
from baseplate_events.event_publisher.spool_source import SpoolSource

from .publisher import PublisherCode
from .publisher_files import PublisherFolder, SimulatedLedger

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from baseplate_events.event_publisher.ledger.rows import Statement
    from baseplate_events.event_publisher.policy.delivery import Delivery
    from baseplate_events.event_publisher.policy.journal import DeadLetter, EnteredBatch
    from baseplate_events.event_publisher.policy.span import Span
    from baseplate_events.spool.segment import Segment


class PublisherMutant(NamedTuple):
    """A publisher with a mistake.

    Attributes:
        code: What is different.
        found: A part of what is found.
        seed: Of a program that has shown it.
        is_rare: Whether few programs do.
        scene: A scene that shows it.
    """

    code: PublisherCode
    found: str
    seed: int = 0
    is_rare: bool = False
    scene: str = ""


def _ignore(*_: object) -> int:
    return 0


class _NeverEnters(SpoolSource):
    """Doesn't write batches down."""

    def enter(self, batch: EnteredBatch) -> None:
        self._spans[batch.order] = batch.spans


class _EntersLate(SimulatedLedger):
    """Writes a batch down only in memory, as long as nothing else is written."""

    def enter(self, batch: EnteredBatch) -> None:
        self._batches[batch.order] = batch


class _SettlesFirst(SpoolSource):
    """Frees the space of a batch before its dead letters are written."""

    def finish(self, order: tuple[int, int], letters: Sequence[DeadLetter] = ()) -> int:
        self._reader.resolve(self._spans[order])
        self._reader.tidy()
        dropped = self.ledger.finish(order, letters)
        del self._spans[order]
        return dropped


class _NeverSkips(SpoolSource):
    """Hands relayed events on, and doesn't have the reader pass over them."""

    def relay_events(self, events: Iterable[bytes], memory_left: int) -> tuple[int, EventRun]:
        with patch.object(self._reader, "skip", _ignore):
            return super().relay_events(events, memory_left)


class _Overtakes(SpoolSource):
    """Hands relayed events on though others wait unread."""

    def relay_events(self, events: Iterable[bytes], memory_left: int) -> tuple[int, EventRun]:
        self.is_behind = False
        return super().relay_events(events, memory_left)


class _SettlesWhatItReads(SpoolReader):
    """Settles what it hands out."""

    def read(self, max_events: int, max_bytes: int) -> EventRun:
        run = super().read(max_events, max_bytes)
        self.resolve(run.spans)
        return run


class _LoadsOnly(SpoolReader):
    """Reads again what it has loaded."""

    def load(self, spans: Sequence[Span]) -> list[bytes] | None:
        with patch.object(self, "skip", _ignore):
            return super().load(spans)


class _ForgetsSkips(SpoolReader):
    """Passes over only what is in segments that it has found."""

    def skip(self, spans: Iterable[Span]) -> None:
        for identity, start, end in spans:
            segment = self._catalog.by_identity.get(identity)
            if segment is not None:
                segment.skip(start, end)


class _SettlesAllBefore(SpoolReader):
    """Settles what precedes an event with it."""

    def resolve(self, spans: Iterable[Span]) -> None:
        super().resolve([span._replace(start=0) for span in spans])


class _NeverLocks(PublisherFolder):
    """Deletes segments that others have open."""

    def lock(self, fd: int) -> bool:
        self._step("lock exclusively", fd)
        return True


class _StaysInTheFolder(PublisherFolder):
    """Goes on in a folder that was deleted."""

    def names(self) -> list[str]:
        self._step("names")
        return sorted(self._current.names)


class _DropsHeld(Relay):
    """Loses an event that the disk doesn't take."""

    def _append_elsewhere(self, event: bytes) -> Segment | None:
        segment = super()._append_elsewhere(event)
        if self.held is event:
            self.held = None
        return segment


class _ReceivesAhead(Relay):
    """Receives all events before it appends the first."""

    def append(self, events: Iterable[bytes], most: int = sys.maxsize) -> EventRun:
        return super().append(iter(list(events)), most)


class _KeepsHeldForLater(Relay):
    """Appends what it held behind later events."""

    def append(self, events: Iterable[bytes], most: int = sys.maxsize) -> EventRun:
        held, self.held = self.held, None
        return super().append(itertools.chain(events, () if held is None else (held,)), most)


class _Waits(Relay):
    """Doesn't try again once the disk was full."""

    def room(self, message_size: int) -> int:
        return super().room(message_size) if self.error is None else 0


class _CutsPlaces(Relay):
    """Says that events are a byte further on."""

    def append(self, events: Iterable[bytes], most: int = sys.maxsize) -> EventRun:
        run = super().append(events, most)
        return EventRun(run.events, tuple(span._replace(end=span.end - 1) for span in run.spans))


class _RewritesIntoNothing(SpoolSource):
    """Settles events of a segment that couldn't be synced, whether they are elsewhere or not."""

    def _rewrite(self, identity: bytes) -> None:
        rest = self._reader.take_rest(identity)
        self.relay.append(rest.events)
        self.relay.take_held()
        self.resolve(rest.spans)


class _NeverRecovers(SpoolSource):
    """Reads batches of an earlier run as if they were new."""

    def recover(self, delivery: Delivery, now: float) -> None:
        del delivery, now
        for entered in self.ledger.unfinished():
            self.ledger.finish(entered.order)


class _LosesWhatFailed(SpoolSource):
    def load(self, order: tuple[int, int]) -> EventRun:
        del order
        return EventRun([], ())


class _ForgetsBatches(SpoolSource):
    """Makes other batches of those that an earlier run had begun to send."""

    def recover(self, delivery: Delivery, now: float) -> None:
        assert isinstance(self.ledger, SimulatedLedger)
        self.ledger.lose_batches()
        super().recover(delivery, now)


class _SplitsInMemory(SimulatedLedger):
    """Doesn't write down that a batch was split."""

    def replace(self, order: tuple[int, int], parts: Sequence[EnteredBatch]) -> None:
        with patch.object(self, "_write", _ignore):
            super().replace(order, parts)


class _FinishesInTwoSteps(SimulatedLedger):
    """Takes a batch out in one transaction, and settles its events in the next."""

    def finish(self, order: tuple[int, int], letters: Sequence[DeadLetter] = ()) -> int:
        batch = self._batches.pop(order)
        self._write([("DELETE FROM batches WHERE number = ? AND part = ?", order)])
        return self.resolve(batch.spans, letters)

    def finish_later(self, order: tuple[int, int], spans: Sequence[Span]) -> None:
        del spans
        self.finish(order)


class _NeverRetries(SimulatedLedger):
    """Writes only what is new once the file can be written again."""

    def _transact(self, statements: Sequence[Statement], letters: Sequence[DeadLetter]) -> int:
        if self._connection is None:
            self._open(0.0)
        return super()._transact(statements, letters)


class _NeverForgets(SimulatedLedger):
    """Keeps what is settled of segments that were deleted."""

    def forget(self, identities: Iterable[bytes]) -> None:
        pass


class _ForgetsAll(SpoolSource):
    """Forgets all segments at the start."""

    def recover(self, delivery: Delivery, now: float) -> None:
        assert isinstance(self.ledger, SimulatedLedger)
        self.ledger.lose_segments()
        super().recover(delivery, now)


class _DropsLetters(SimulatedLedger):
    """Settles events whose dead letters couldn't be written."""

    def _settle(
        self, spans: Sequence[Span], letters: Sequence[DeadLetter], statements: list[Statement]
    ) -> int:
        try:
            return super()._settle(spans, letters, statements)
        except Exception:  # noqa: BLE001
            return super()._settle(spans, (), statements)


class _ReadsWithRoomOnly(EventSources):
    """Delivers nothing while the disk is full."""

    def _may_read(self) -> bool:
        return super()._may_read() and self._spool is not None and self._spool.relay.error is None


MUTANTS: dict[str, PublisherMutant] = {
    "never enters": PublisherMutant(PublisherCode(source=_NeverEnters), "", 28),
    "enters late": PublisherMutant(PublisherCode(ledger=_EntersLate), "", 28),
    "settles first": PublisherMutant(PublisherCode(source=_SettlesFirst), "", 588, is_rare=True),
    "never skips": PublisherMutant(PublisherCode(source=_NeverSkips), "handed out twice", 0),
    "forgets skips": PublisherMutant(PublisherCode(reader=_ForgetsSkips), "handed out twice", 0),
    "overtakes": PublisherMutant(PublisherCode(source=_Overtakes), "order", 708, is_rare=True),
    "settles what it reads": PublisherMutant(PublisherCode(reader=_SettlesWhatItReads), "lost", 3),
    "reads what it has loaded": PublisherMutant(PublisherCode(reader=_LoadsOnly), "handed out twice", 0),
    "settles all before": PublisherMutant(PublisherCode(reader=_SettlesAllBefore), "", 25),
    "never locks": PublisherMutant(PublisherCode(folder=_NeverLocks), "lost", 2270, is_rare=True),
    "stays in the folder": PublisherMutant(
        PublisherCode(folder=_StaysInTheFolder), "", scene="a deleted folder"
    ),
    "drops held": PublisherMutant(PublisherCode(relay=_DropsHeld), "lost", 21),
    "receives ahead": PublisherMutant(PublisherCode(relay=_ReceivesAhead), "lost", 32),
    "holds for later": PublisherMutant(PublisherCode(relay=_KeepsHeldForLater), "", 539),
    "waits": PublisherMutant(PublisherCode(relay=_Waits), "not all is delivered", 2),
    "cuts places": PublisherMutant(PublisherCode(relay=_CutsPlaces), "", 5),
    "rewrites into nothing": PublisherMutant(
        PublisherCode(source=_RewritesIntoNothing), "lost", scene="a failed sync on a full disk"
    ),
    "never recovers": PublisherMutant(PublisherCode(source=_NeverRecovers), "lost", 3),
    "loses what failed": PublisherMutant(PublisherCode(source=_LosesWhatFailed), "no file was deleted", 55),
    "forgets batches": PublisherMutant(PublisherCode(source=_ForgetsBatches), "", 7),
    "splits in memory": PublisherMutant(PublisherCode(ledger=_SplitsInMemory), "a part of it", 8),
    "finishes in two steps": PublisherMutant(
        PublisherCode(ledger=_FinishesInTwoSteps), "", 1326, is_rare=True
    ),
    "never retries": PublisherMutant(PublisherCode(ledger=_NeverRetries), "", 1806, is_rare=True),
    "never forgets": PublisherMutant(PublisherCode(ledger=_NeverForgets), "left in the ledger", 0),
    "forgets all": PublisherMutant(PublisherCode(source=_ForgetsAll), "", 155),
    "drops letters": PublisherMutant(PublisherCode(ledger=_DropsLetters), "lost", 349, is_rare=True),
    "reads with room only": PublisherMutant(PublisherCode(sources=_ReadsWithRoomOnly), "isn't delivered", 3),
}
