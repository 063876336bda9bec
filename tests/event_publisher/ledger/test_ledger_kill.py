"""The publisher is killed at any moment, by SIGKILL; an independent log says what it had done."""

from __future__ import annotations

import random
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.ledgers import IDENTITIES, NAME, copied, events_written, opened
from tests.support.processes import PIPE, finish, hear, started

if TYPE_CHECKING:
    from pathlib import Path

#: Batches of a record in each of two segments; every third becomes a letter, every fifth is split first. A
#: line is written before a step begins and after it ended. Numbers go on where the last run ended.
WORK = """
import os, sys, time
from baseplate_events.event_publisher.ledger.ledger import Ledger
from baseplate_events.event_publisher.policy.journal import DeadLetter, EnteredBatch
from baseplate_events.event_publisher.policy.span import Span

path, sync, start = sys.argv[1], sys.argv[2] == "True", int(sys.argv[3])
A, B = b"A" * 16, b"B" * 16
options = {"wall_time": time.time, "max_letters_size": 10_000_000, "queue_name": "v2"}
ledger = Ledger(path, clock=time.monotonic, sync=sync, **options)
if ledger.start_problem or ledger.error or (ledger.is_new and start > 1):
    print("bad", ledger.start_problem, ledger.error, flush=True)

def say(word, number):
    os.write(1, b"%s %d\\n" % (word, number))

def end(order, number):
    ledger.finish(order, [DeadLetter(b"%d" % number * 300, 400, "r")] if number % 3 == 0 else [])

for batch in ledger.unfinished():
    end(batch.order, batch.order[0])
say(b"recovered", start)
for number in range(start, start + 100_000):
    spans = Span(A, number, number + 1), Span(B, number, number + 1)
    say(b"enter", number)
    ledger.enter(EnteredBatch((number, 0), 2, spans))
    say(b"entered", number)
    if number % 5 == 0:
        parts = [EnteredBatch((number, part), 1, (span,)) for part, span in enumerate(spans)]
        ledger.replace((number, 0), parts)
    if number > start + 2:
        gone = number - 2
        say(b"finish", gone)
        for part in (0, 1) if gone % 5 == 0 else (0,):
            end((gone, part), gone)
        say(b"finished", gone)
"""


@pytest.mark.unmeasured
@pytest.mark.parametrize("sync", [False, True])
def test_a_kill_loses_nothing(sync: bool, tmp_path: Path) -> None:
    """After each kill, a batch that was entered is unfinished or resolved; a finished one is resolved."""
    source = random.Random(f"{sync}")
    folder, copy = tmp_path / "spool", tmp_path / "copy"
    folder.mkdir()
    start = 1
    entered: set[int] = set()
    begun: set[int] = set()
    finished: set[int] = set()
    for _ in range(12):
        arguments = [str(folder / NAME), str(sync), str(start)]
        with started(sys.executable, "-c", WORK, *arguments, stdout=PIPE) as process:
            lines = [hear(process) for _ in range(source.randrange(1, 120))]
            process.kill()
            lines += finish(process).out.splitlines()
        for line in lines:
            word, text = line.split()[:2]
            assert word != "bad", line
            if word == "recovered":
                finished |= entered
            {"enter": begun, "entered": entered, "finished": finished}.get(word, set()).add(int(text))

        copied(folder, copy)
        ledger = opened(copy)
        assert ledger.start_problem is None
        assert not ledger.is_new or not entered
        a, b = (
            {offset for start, end in ledger.resolved(key) for offset in range(start, end)}
            for key in IDENTITIES[:2]
        )
        left = {(batch.order[0], span.identity) for batch in ledger.unfinished() for span in batch.spans}
        ledger.close()
        dead = [int(event[: len(event) // 300]) for event in events_written(copy)]
        for number in entered:
            for key, resolved in zip(IDENTITIES[:2], (a, b), strict=True):
                assert (number in resolved) != ((number, key) in left)
        assert finished <= a & b
        assert a | b <= begun
        # A letter is there exactly if its batch is resolved; split batches have one for each part.
        for number in begun:
            expected = 0
            if number % 3 == 0:
                expected = (number in a) + (number in b) if number % 5 == 0 else int(number in a)
            found = dead.count(number)
            assert found == expected or (number % 15 == 0 and number in a & b and found in {1, 2})
        shutil.rmtree(copy)
        start = max(begun, default=0) + 1
    assert len(finished) > 20
