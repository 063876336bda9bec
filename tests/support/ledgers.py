"""Ledgers for tests: values that collide and merge, and copies of the files as a kill leaves them."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hypothesis import strategies as st

from baseplate_events.event_publisher.ledger.file import SPOOL_NAME
from baseplate_events.event_publisher.ledger.ledger import Ledger
from baseplate_events.event_publisher.ledger.letters import LetterFile
from baseplate_events.event_publisher.policy.journal import DeadLetter, EnteredBatch
from baseplate_events.event_publisher.policy.poison import FaultRecord
from baseplate_events.event_publisher.policy.span import Span, join_spans
from tests.support.clocks import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from baseplate_events.event_publisher.ledger.letters import Letter

IDENTITIES: Final = (b"A" * 16, b"B" * 16, bytes(16))
NAME: Final = SPOOL_NAME

#: Offsets of tests are below this.
END: Final = 12

orders = st.tuples(st.integers(1, 4), st.integers(0, 2))


@st.composite
def _spans(draw: st.DrawFn) -> Span:
    start = draw(st.integers(0, END - 1))
    return Span(draw(st.sampled_from(IDENTITIES)), start, draw(st.integers(start + 1, END)))


spans = _spans()
some_spans = st.lists(spans, min_size=1, max_size=3).map(join_spans)
records = st.builds(
    FaultRecord,
    failures=st.integers(0, 3),
    evidence=st.floats(0, 30),
    refused_at=st.none() | st.just(1.0),
    is_part=st.booleans(),
)
batches = st.builds(
    EnteredBatch,
    order=orders,
    count=st.integers(1, 3),
    spans=some_spans,
    record=records,
)
letters = st.builds(
    DeadLetter,
    event=st.binary(max_size=40),
    status=st.none() | st.sampled_from((400, 413)),
    reason=st.sampled_from(("refused", "r\0\N{SNOWMAN}")),
    excerpt=st.binary(max_size=3),
)


def batch_of(number: int, *parts: tuple[bytes, int, int], part: int = 0) -> EnteredBatch:
    """Make a batch of some spans."""
    return EnteredBatch((number, part), 1, tuple(Span(*span) for span in parts))


def letter_of(event: bytes) -> DeadLetter:
    """Make a dead letter."""
    return DeadLetter(event, 400, "refused", b"no")


def opened(
    folder: Path | str,
    *,
    name: str = NAME,
    clock: Callable[[], float] | None = None,
    wall_time: Callable[[], float] = lambda: 1.0,
    mode: int = 0o600,
    max_letters_size: int = 1_000_000,
    sync: bool = False,
) -> Ledger:
    """Open the ledger of a folder."""
    return Ledger(
        str(Path(folder, name)),
        clock=clock or FakeClock(),
        wall_time=wall_time,
        mode=mode,
        max_letters_size=max_letters_size,
        sync=sync,
        queue_name="v2",
    )


def fill(
    folder: Path | str,
    events: Iterable[bytes],
    *,
    name: str = NAME,
    now: float = 1.0,
    status: int | None = 400,
    reason: str = "refused",
    excerpt: bytes = b"no",
) -> None:
    """Write dead letters, as a publisher that has ended."""
    ledger = opened(folder, name=name, wall_time=lambda: now, max_letters_size=10_000_000)
    ledger.resolve((), [DeadLetter(event, status, reason, excerpt) for event in events])
    ledger.close()


def copied(folder: Path | str, copy: Path | str) -> None:
    """Copy the files of a ledger, as a kill of its publisher would leave them now."""
    Path(copy).mkdir(exist_ok=True)
    for path in Path(folder).iterdir():
        if path.is_file():
            shutil.copyfile(path, Path(copy, path.name))


@contextlib.contextmanager
def letter_file(folder: Path | str, name: str = NAME, *, patience: float = 5.0) -> Generator[LetterFile]:
    """Open the dead letters of a folder's ledger, as a command does."""
    file = LetterFile(str(Path(folder, name)), patience=patience)
    try:
        yield file
    finally:
        file.close()


def letters_in(folder: Path | str, name: str = NAME) -> list[Letter]:
    """Read the dead letters of a folder's ledger, oldest first."""
    with letter_file(folder, name) as file:
        return [letter for number in file.numbers() if (letter := file.read(number)) is not None]


def written(folder: Path | str, name: str = NAME) -> list[DeadLetter]:
    """Read the dead letters of a folder's ledger as the publisher wrote them, oldest first."""
    return [
        DeadLetter(letter.event, letter.status, letter.reason, letter.excerpt)
        for letter in letters_in(folder, name)
    ]


def events_written(folder: Path | str, name: str = NAME) -> list[bytes]:
    """Read the events of the dead letters of a folder's ledger, oldest first."""
    return [letter.event for letter in letters_in(folder, name)]


def locked(folder: Path | str) -> sqlite3.Connection:
    """Lock the ledger of a folder, as a command does that deletes; until the connection is closed."""
    connection = sqlite3.connect(Path(folder, NAME), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def covered(batch_spans: Iterable[Span]) -> set[tuple[bytes, int]]:
    """Return all offsets of some spans, with the segments that they are in."""
    return {(span.identity, offset) for span in batch_spans for offset in range(span.start, span.end)}


def resolved_of(ledger: Ledger) -> set[tuple[bytes, int]]:
    """Return all resolved offsets of a ledger."""
    return {
        (identity, offset)
        for identity in IDENTITIES
        for start, end in ledger.resolved(identity)
        for offset in range(start, end)
    }


#: What `filled` leaves in a ledger: batch 1 is finished, 2 is pending, 3 became a letter.
RESOLVED: Final = {(IDENTITIES[0], offset) for offset in (*range(10), *range(20, 30))}
SECOND: Final = batch_of(2, (IDENTITIES[0], 10, 20), (IDENTITIES[1], 0, 5))


def filled(folder: Path | str) -> None:
    """Make a ledger with something in each table, as a kill leaves it."""
    with tempfile.TemporaryDirectory() as elsewhere:
        ledger = opened(elsewhere)
        for batch in (batch_of(1, (IDENTITIES[0], 0, 10)), SECOND, batch_of(3, (IDENTITIES[0], 20, 30))):
            ledger.enter(batch)
        ledger.finish((1, 0))
        ledger.finish((3, 0), [letter_of(b"dead")])
        copied(elsewhere, folder)
        ledger.close()


def check_usable(ledger: Ledger) -> None:
    """Check that a ledger's state is true, and that it can be written."""
    assert resolved_of(ledger) <= RESOLVED
    assert all(batch == SECOND for batch in ledger.unfinished())
    assert ledger.error is None
    ledger.enter(batch_of(9, (IDENTITIES[2], 1, 2)))
    ledger.finish((9, 0), [letter_of(b"later")])
    assert ledger.error is None
    assert (IDENTITIES[2], 1) in resolved_of(ledger)


def aside_of(folder: Path | str) -> list[str]:
    """Return the names of files that were kept aside, without their journals."""
    return sorted(path.name for path in Path(folder).glob("*.damaged-?"))


def all_events(folder: Path | str) -> list[bytes]:
    """Read the events of all dead letters, also of ledgers kept aside that aren't really damaged."""
    return [event for name in (NAME, *aside_of(folder)) for event in events_written(folder, name)]
