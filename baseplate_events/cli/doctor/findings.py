"""The data of a finding of the doctor. Pure.

Rules:

1. A code stands for one finding, and one place in this package creates it. Programs rely on names, codes,
   fields and commands. Texts are for people and may change in any release; names, codes and the names of
   fields don't. A field `reason` is in the words of the system, a library or a peer.
2. A verdict of `problem` means that events don't flow, or that the publisher won't start; `warning`, that
   they flow but something is or soon will be worse than it should be; `skipped`, that the state is unknown or
   the check doesn't apply.
3. If a check isn't ok, `remedy` says exactly what to do; if it was skipped, `found` says why.
4. A command in `commands` is also in the remedy, in backquotes.
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

#: Types of the fields of a finding; JSON can hold them.
Field: TypeAlias = str | int | float | Sequence[str] | Mapping[str, str | int] | None


class Verdict(enum.Enum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


#: The fields of a finding without any.
_NO_FIELDS: Final[Mapping[str, Field]] = {}


@dataclass(frozen=True, slots=True)
class Check:
    """A check and its result.

    Attributes:
        code: What was found, for programs.
        name: What was checked.
        verdict: The result.
        found: What was found, for people.
        remedy: What to do, for people; empty if there is nothing to do.
        commands: The shell commands of the remedy, in the order in which to run them. The operator fills in
            the parts in capitals.
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
    """Return a check that found no problem."""
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
    """Return a check that found something to improve."""
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
    """Return a check that found what keeps events from flowing."""
    return Check(code, name, Verdict.PROBLEM, found, remedy, commands, fields)


def skipped(code: Code, name: str, why: str, *, fields: Mapping[str, Field] = _NO_FIELDS) -> Check:
    """Return a check that wasn't made, with the reason."""
    return Check(code, name, Verdict.SKIPPED, why, fields=fields)


def overall(checks: Iterable[Check]) -> Verdict:
    """Return the worst verdict; skipped checks count as ok."""
    verdicts = {check.verdict for check in checks}
    if Verdict.PROBLEM in verdicts:
        return Verdict.PROBLEM
    return Verdict.WARNING if Verdict.WARNING in verdicts else Verdict.OK
