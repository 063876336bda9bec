"""Checks the publisher's file with its dead letters and, with a spool, its batches.

Changes nothing. The file is read as by `dead-letters`, so a publisher may use it at the same time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..._words import counted
from ...event_publisher.ledger.file import LETTERS_NAME, LedgerError, LedgerVersionError
from ...event_publisher.ledger.letters import LetterFile
from ...event_publisher.ledger.rows import DamagedLedgerError
from ..common import command_line
from .findings import Code, Verdict, ok, problem, skipped, warning
from .folders import check_folder, take_over_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...event_publisher.config.options import DeadLetterSettings
    from .findings import Check, Field

_KEY: Final = "dead_letters.directory"
_LEDGER: Final = "ledger"
_LETTERS: Final = "dead letters"


def check_dead_letters(settings: DeadLetterSettings | None) -> Iterator[Check]:
    """Check the dead letters of a publisher without a spool; None if no folder is configured."""
    if settings is None or settings.directory is None:
        yield skipped(
            Code.DEAD_LETTERS_UNSET,
            _LETTERS,
            "dead_letters.directory isn't set: events that the collector refuses are dropped",
        )
        return
    folder = check_folder("dead letters folder", _KEY, settings.directory)
    yield folder
    if folder.verdict is not Verdict.PROBLEM and Path(settings.directory).is_dir():
        yield from check_ledger(str(Path(settings.directory, LETTERS_NAME)))


def check_ledger(path: str) -> Iterator[Check]:
    """Check a ledger, and the dead letters in it."""
    fields: dict[str, Field] = {"path": path}
    if not os.path.lexists(path):
        yield ok(Code.LEDGER_NONE, _LEDGER, f"{path} doesn't exist; the publisher creates it", fields=fields)
        return
    try:
        file = LetterFile(path)
        try:
            count, size = file.totals()
        finally:
            file.close()
    except LedgerVersionError as exc:
        found, _, remedy = exc.problem.partition("; ")
        yield problem(Code.LEDGER_NEWER, _LEDGER, f"{path} {found}", remedy, fields=fields)
    except LedgerError as exc:
        yield _unusable(path, exc)
    else:
        yield ok(Code.LEDGER_READABLE, _LEDGER, f"{path} is readable", fields=fields)
        yield _judge_letters(path, count, size)


def _unusable(path: str, error: LedgerError) -> Check:
    cause = error.__cause__
    if isinstance(cause, DamagedLedgerError):
        return warning(
            Code.LEDGER_DAMAGED,
            _LEDGER,
            f"{path} {cause}",
            "restart the publisher: it keeps the file aside and creates a new one; delivered events of the "
            "spool may be delivered again",
            fields={"path": path, "reason": str(cause)},
        )
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    take_over = take_over_command(str(Path(path).parent))  # with its journal
    return problem(
        Code.LEDGER_UNREADABLE,
        _LEDGER,
        f"{path}: {reason}",
        f"if it is another user's, as root: `{take_over}`; otherwise check the disk, or move the file away",
        commands=(take_over,),
        fields={"path": path, "reason": reason},
    )


def _judge_letters(path: str, count: int, size: int) -> Check:
    fields: dict[str, Field] = {"path": path, "events": count, "bytes": size}
    if not count:
        return ok(Code.DEAD_LETTERS_NONE, _LETTERS, "none", fields=fields)
    show = command_line("dead-letters", "list", path)
    return warning(
        Code.DEAD_LETTERS_KEPT,
        _LETTERS,
        f"{counted(count, 'event')} that the collector refused, {counted(size, 'byte')}",
        f"show the reasons with `{show}`; then replay or purge them",
        commands=(show,),
        fields=fields,
    )
