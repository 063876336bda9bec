"""Mutants that no test can find, each with the reason why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Equivalent(NamedTuple):
    """A mutant that does the same as the code, as far as anyone can rely on it.

    Attributes:
        module: The module, as in `targets.TARGETS`.
        line: The line of the code that is mutated, without indentation.
        mutant: What becomes of it.
        why: Why it does the same.
    """

    module: str
    line: str
    mutant: str
    why: str


EQUIVALENT: Final[Sequence[Equivalent]] = (
    Equivalent(
        "event_publisher/policy/batching",
        "self._opened_at = 0.0",
        "self._opened_at = 1.0",
        "It is read only while there is an event, and set with the first one.",
    ),
    Equivalent(
        "event_publisher/policy/batching",
        "self._opened_at = 0.0",
        "self._opened_at = -1.0",
        "It is read only while there is an event, and set with the first one.",
    ),
    Equivalent(
        "event_publisher/policy/batching",
        "if len(event) <= self.spare:",
        "if len(event) < self.spare:",
        "If both are equal, the exact size says the same: `spare` is a faster way to ask.",
    ),
    Equivalent(
        "event_publisher/policy/byte_ranges",
        "return list(zip(self._starts, self._ends, strict=True))",
        "return list(zip(self._starts, self._ends, strict=False))",
        "Both lists are changed together, and have as many items.",
    ),
    Equivalent(
        "events",
        "if len(self._fresh) > MANY:",
        "if len(self._fresh) >= MANY:",
        "It says how long a list may become before it is added up; counts are exact either way.",
    ),
    Equivalent(
        "json_writer/plain",
        'encoder = JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"))',
        'encoder = JSONEncoder(ensure_ascii=False, check_circular=True, allow_nan=False, separators=(",", ":"))',
        "What holds itself is an exception either way, and then the reference is asked.",
    ),
    Equivalent(
        "json_writer/source",
        "if 0 < len(members) <= left[0] and all(type(name) is str for name in members):",
        "if 0 < len(members) <= left[ -1] and all(type(name) is str for name in members):",
        "The list has one item.",
    ),
    Equivalent(
        "json_writer/source",
        "left[0] -= len(members)",
        "left[ -1] -= len(members)",
        "The list has one item.",
    ),
    Equivalent(
        "spool/writer",
        "if segment.room(shared=True) <= 0:",
        "if segment.room(shared=True) <= 1:",
        "A record needs more room than a byte.",
    ),
    Equivalent(
        "event_publisher/ledger/ledger",
        "self.retry_at = self._clock() + min(FIRST_PAUSE * 2 ** min(self._failures, 16), LONGEST_PAUSE)",
        "self.retry_at = self._clock() + min(FIRST_PAUSE * 2 ** min(self._failures, 17), LONGEST_PAUSE)",
        "The pause is the longest one from the ninth failure on.",
    ),
    Equivalent(
        "event_publisher/ledger/ledger",
        "self.retry_at = self._clock() + min(FIRST_PAUSE * 2 ** min(self._failures, 16), LONGEST_PAUSE)",
        "self.retry_at = self._clock() + min(FIRST_PAUSE * 2 ** min(self._failures, 15), LONGEST_PAUSE)",
        "The pause is the longest one from the ninth failure on.",
    ),
    Equivalent(
        "event_publisher/ledger/file",
        'folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)  # noqa: PTH120',
        'folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY & os.O_DIRECTORY)  # noqa: PTH120',
        "A folder can be opened and synced without the flag.",
    ),
    Equivalent(
        "event_publisher/ledger/file",
        "uri=True,",
        "uri=False,",
        "The SQLite of Debian, like that of many systems, is built to read URIs without it; not every one is.",
    ),
    Equivalent(
        "event_publisher/ledger/letters",
        "count = last = 0",
        "count = last = -1",
        "No letter has a number below 1, so none is deleted, and the count is that.",
    ),
    Equivalent(
        "thrift_json",
        "for variable, text in zip(variables, fields.values(), strict=True):",
        "for variable, text in zip(variables, fields.values(), strict=False):",
        "There is a variable for each field.",
    ),
    Equivalent(
        "thrift_json",
        "for name, (fid, wire_type, _, inner) in zip(names, entries, strict=True):",
        "for name, (fid, wire_type, _, inner) in zip(names, entries, strict=False):",
        "That there are as many was checked just before.",
    ),
    Equivalent(
        "thrift_fallback",
        "DEFAULT_RECURSION_DEPTH = 1 << 30",
        "DEFAULT_RECURSION_DEPTH = 1 << 29",
        "It stands for no limit: the stack of Python ends long before.",
    ),
    Equivalent(
        "thrift_fallback",
        "DEFAULT_RECURSION_DEPTH = 1 << 30",
        "DEFAULT_RECURSION_DEPTH = 1 << 31",
        "It stands for no limit: the stack of Python ends long before.",
    ),
    Equivalent(
        "thrift_fallback",
        "DEFAULT_RECURSION_DEPTH = 1 << 30",
        "DEFAULT_RECURSION_DEPTH = 2 << 30",
        "It stands for no limit: the stack of Python ends long before.",
    ),
    Equivalent(
        "spool/writer",
        "self._created = 0",
        "self._created = 1",
        "The time in nanoseconds is greater.",
    ),
    Equivalent(
        "spool/writer",
        "self._created = 0",
        "self._created = -1",
        "The time in nanoseconds is greater.",
    ),
)
