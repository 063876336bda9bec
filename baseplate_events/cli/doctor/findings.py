"""What a finding of the doctor carries. Pure.

Rules:

1. A code stands for one finding, and one place in this package makes it. Programs go by names, codes, fields
   and commands. Texts are for people and may change in any release; names, codes and the names of fields
   don't. A field `reason` is in the words of the system, a library or a peer.
2. A verdict of `problem` means that events don't flow, or that the publisher won't start; `warning`, that
   they flow but something is worse than it should be or soon will be; `skipped`, that it can't be known or
   doesn't apply.
3. Whatever isn't ok says in `remedy` exactly what to do; a check that was skipped says in `found` why.
4. A command in `commands` is in the remedy too, in backquotes.
5. Nothing here holds a secret or the content of an event.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from .codes import Code

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Check", "Code", "Field", "Verdict", "ok", "overall", "problem", "skipped", "warning"]

#: What a field of a finding may be, so that JSON can hold it.
Field: TypeAlias = str | int | float | Sequence[str] | Mapping[str, str | int] | None


class Verdict(enum.Enum):
    """What a check comes to."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


#: The fields of a finding that has none.
_NO_FIELDS: Final[Mapping[str, Field]] = {}


@dataclass(frozen=True, slots=True)
class Check:
    """A thing that was looked at.

    Attributes:
        code: What was found, for programs.
        name: What was looked at.
        verdict: What it comes to.
        found: What was found, for people.
        remedy: What to do, for people; empty where nothing is to be done.
        commands: The commands of the remedy for a shell, in the order in which they are run. What stands in
            capitals is for the operator to fill in.
        fields: The values of the finding, such as sizes in bytes, names and statuses, by name.
    """

    code: Code
    name: str
    verdict: Verdict
    found: str
    remedy: str = ""
    commands: Sequence[str] = ()
    fields: Mapping[str, Field] = field(default_factory=dict[str, Field])


def ok(code: Code, name: str, found: str, *, fields: Mapping[str, Field] = _NO_FIELDS) -> Check:
    """Say that a thing is as it should be."""
    return Check(code, name, Verdict.OK, found, fields=fields)


def warning(
    code: Code,
    name: str,
    found: str,
    remedy: str,
    *,
    commands: Sequence[str] = (),
    fields: Mapping[str, Field] = _NO_FIELDS,
) -> Check:
    """Say that a thing should be better."""
    return Check(code, name, Verdict.WARNING, found, remedy, commands, fields)


def problem(
    code: Code,
    name: str,
    found: str,
    remedy: str,
    *,
    commands: Sequence[str] = (),
    fields: Mapping[str, Field] = _NO_FIELDS,
) -> Check:
    """Say that a thing keeps events from flowing."""
    return Check(code, name, Verdict.PROBLEM, found, remedy, commands, fields)


def skipped(code: Code, name: str, why: str, *, fields: Mapping[str, Field] = _NO_FIELDS) -> Check:
    """Say why a thing wasn't looked at."""
    return Check(code, name, Verdict.SKIPPED, why, fields=fields)


def overall(checks: Iterable[Check]) -> Verdict:
    """Give the worst verdict; what was skipped counts as ok."""
    verdicts = {check.verdict for check in checks}
    if Verdict.PROBLEM in verdicts:
        return Verdict.PROBLEM
    return Verdict.WARNING if Verdict.WARNING in verdicts else Verdict.OK
