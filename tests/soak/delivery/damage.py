"""What can happen to a ledger while no publisher runs."""

from __future__ import annotations

import enum
import os
from typing import TYPE_CHECKING

from baseplate_events.event_publisher.ledger.file import JOURNAL, SPOOL_NAME

if TYPE_CHECKING:
    from pathlib import Path


class Damage(enum.Enum):
    """What is done to the file."""

    DELETED = "deleted"
    EMPTIED = "emptied"
    CUT = "cut"
    ZEROED = "filled with zeros"

    def inflict(self, spool: Path) -> None:
        """Damage the ledger in the folder of a spool."""
        ledger = spool / SPOOL_NAME
        size = ledger.stat().st_size
        if self is Damage.DELETED:
            ledger.unlink()
            (spool / (SPOOL_NAME + JOURNAL)).unlink(missing_ok=True)
        elif self is Damage.ZEROED:
            ledger.write_bytes(bytes(size))
        else:
            os.truncate(ledger, size // 2 if self is Damage.CUT else 0)
