"""What the reader of a spool finds and settles itself: headers, torn bytes, reports of refusals. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Final, cast

from ..policy.span import Span, join_spans

#: Most distinct reasons of refusals; there are a handful, but a segment can contain anything.
_MAX_REASONS: Final = 32
_OTHER_REASONS: Final = "other"

#: Most events of one report.
_MAX_COUNT: Final = 1 << 63

#: A reason that can be part of a metric's name.
_REASON: Final = re.compile("[A-Za-z0-9_]{1,64}")


class OwnFindings:
    """The findings in all segments.

    Attributes:
        torn_bytes: Bytes that are part of no whole record.
        torn_gaps: Runs of such bytes.
        refusals: Events that services refused, by reason.
    """

    def __init__(self) -> None:
        self.torn_bytes: int = 0
        self.torn_gaps: int = 0
        self.refusals: Counter[str] = Counter()
        self._settled: list[Span] = []

    def settle(self, identity: bytes, start: int, end: int) -> None:
        """Record that bytes of a segment are settled."""
        self._settled.append(Span(identity, start, end))

    def take_settled(self) -> tuple[Span, ...]:
        """Return the places recorded since the last call, joined."""
        settled = join_spans(self._settled)
        self._settled.clear()
        return settled

    def count_refusals(self, payload: bytes) -> None:
        """Add a report of refusals. Values that aren't counts are ignored."""
        try:
            counts: object = json.loads(payload)
        except (ValueError, RecursionError):
            return
        if isinstance(counts, dict):
            for reason, count in cast("dict[str, object]", counts).items():
                if type(count) is int and 0 < count <= _MAX_COUNT:  # not a bool
                    known = reason in self.refusals or (
                        len(self.refusals) < _MAX_REASONS and _REASON.fullmatch(reason) is not None
                    )
                    self.refusals[reason if known else _OTHER_REASONS] += count
