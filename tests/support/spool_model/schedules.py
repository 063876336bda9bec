"""Strategies for schedules: all within bounds, random ones, or a given one.

A schedule maps the number of a choice to the number of the chosen option, unless that is the first.
The options depend only on earlier choices, so the same schedule gives the same run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

#: What may happen at a step:
#:
#: - `go`: the process that was about to do it, does it;
#: - `next`: another process runs, as this one ended or waits;
#: - `run`: another process runs instead, until this one's turn comes again;
#: - `signal`: the process runs its signal handler first;
#: - `kill`: a process is killed;
#: - `stop`: a process is stopped until all others have ended;
#: - `short`: a write ends after some bytes;
#: - `torn`: a process is killed in the middle of its write;
#: - `split`: others see the first bytes of a write before the rest;
#: - `fail`: the call fails for lack of room.
Kind: TypeAlias = Literal["go", "next", "run", "signal", "kill", "stop", "short", "torn", "split", "fail"]

#: Kinds that an exploration has a bound for.
FAULTS: frozenset[Kind] = frozenset({"kill", "stop", "short", "torn", "fail"})
PREEMPTIONS: frozenset[Kind] = frozenset({"run", "split", "signal"})


#: See `Rare`.
_EMPHASIS = 5
_RESTS = frozenset({"sleep", "poll"})


class Choice(NamedTuple):
    """What may happen next.

    Attributes:
        kind: What it is.
        target: The process, or a number of bytes.
    """

    kind: Kind
    target: str | int = 0


class Strategy(Protocol):
    """Chooses what happens."""

    def interferes(self, choice: int, call: str) -> bool:
        """Return whether anything except the call may happen at this choice."""
        ...

    def choose(self, choice: int, options: Sequence[Choice]) -> int:
        """Return the index of the option to take, of two or more."""
        ...


class Replay:
    """Follows a schedule, and otherwise takes the first option."""

    def __init__(self, schedule: Mapping[int, int]) -> None:
        self._schedule = schedule

    def interferes(self, choice: int, call: str) -> bool:
        """See `Strategy`."""
        del call
        return choice in self._schedule

    def choose(self, choice: int, options: Sequence[Choice]) -> int:
        """See `Strategy`."""
        return min(self._schedule.get(choice, 0), len(options) - 1)


class Exhaustive:
    """Takes all options in turn, run after run, within bounds.

    Args:
        preemptions: How often a process may be interrupted by another in a run.
        faults: How many faults there may be.
        kinds: The kinds of faults.

    Attributes:
        quiet: Calls before which nothing else happens, since it may as well happen before the next one.
        runs: Runs so far.
    """

    def __init__(
        self,
        *,
        preemptions: int,
        faults: int = 0,
        kinds: frozenset[Kind] = FAULTS - {"stop"},
    ) -> None:
        self._preemptions = preemptions
        self._faults = faults
        self._kinds = kinds
        self.quiet: frozenset[str] = frozenset()
        self._path: list[list[int]] = []  # options still to be taken at each choice, the current one last
        self._at = 0
        self._left = (0, 0)
        self.runs = 0

    def begin(self) -> bool:
        """Begin the next run; return False if all were made."""
        if self.runs:
            while self._path and len(self._path[-1]) == 1:
                self._path.pop()
            if not self._path:
                return False
            self._path[-1].pop()
        self.runs += 1
        self._at = 0
        self._left = (self._preemptions, self._faults)
        return True

    def interferes(self, choice: int, call: str) -> bool:
        """See `Strategy`."""
        del choice
        return self._left != (0, 0) and call not in self.quiet

    def choose(self, choice: int, options: Sequence[Choice]) -> int:
        """See `Strategy`."""
        del choice
        if self._at == len(self._path):
            self._path.append(
                [index for index in reversed(range(len(options))) if self._allowed(options[index].kind)]
            )
        taken = self._path[self._at][-1]
        self._at += 1
        kind = options[taken].kind
        preemptions, faults = self._left
        self._left = (preemptions - (kind in PREEMPTIONS), faults - (kind in FAULTS))
        return taken

    def _allowed(self, kind: Kind) -> bool:
        preemptions, faults = self._left
        if kind in PREEMPTIONS:
            return preemptions > 0
        if kind in FAULTS:
            return faults > 0 and kind in self._kinds
        return True


class Chance:
    """Takes options at random.

    Args:
        random: The random source.
        faults: How many faults there may be.
        switching: The probability of switching to another process, from 0 to 1.
        kinds: The kinds of faults.
    """

    def __init__(
        self, random: Random, *, faults: int, switching: float = 0.3, kinds: frozenset[Kind] = FAULTS
    ) -> None:
        self._random = random
        self._faults = faults
        self._switching = switching
        self._kinds = kinds

    def interferes(self, choice: int, call: str) -> bool:
        """See `Strategy`."""
        del choice, call
        return True

    def choose(self, choice: int, options: Sequence[Choice]) -> int:
        """See `Strategy`."""
        del choice
        dice = self._random.random()
        by_kind: dict[str, list[int]] = {"fault": [], "preemption": []}
        for index, option in enumerate(options):
            if option.kind in FAULTS:
                if option.kind in self._kinds:
                    by_kind["fault"].append(index)
            elif option.kind in PREEMPTIONS:
                by_kind["preemption"].append(index)
        if self._faults and by_kind["fault"] and dice < 0.05:
            self._faults -= 1
            kind = self._random.choice(sorted({options[index].kind for index in by_kind["fault"]}))
            return self._random.choice([index for index in by_kind["fault"] if options[index].kind == kind])
        if by_kind["preemption"] and dice > 1 - self._switching:
            return self._random.choice(by_kind["preemption"])
        return self._random.choice([i for i, option in enumerate(options) if option.kind in {"go", "next"}])


class Rare:
    """Takes the first option most of the time, and others at random.

    Args:
        random: The random source.
        faults: How many faults there may be.
        rate: The probability of a fault at each choice, while any are left. It is `_EMPHASIS` times that
            before calls of `critical`.
        switching: The probability of switching to another process at each choice. It is one half if a process
            rests.
    """

    def __init__(
        self,
        random: Random,
        *,
        faults: int,
        rate: float,
        switching: float,
        critical: frozenset[str] = frozenset(),
    ) -> None:
        self._random = random
        self._faults = faults
        self._rate = rate
        self._switching = switching
        self._critical = critical
        self._wanted: frozenset[Kind] = frozenset()

    def interferes(self, choice: int, call: str) -> bool:
        """See `Strategy`."""
        del choice
        dice = self._random.random()
        if self._faults and dice < self._rate * (_EMPHASIS if call in self._critical else 1):
            self._wanted = FAULTS
        elif dice > 1 - (0.5 if call in _RESTS else self._switching):
            self._wanted = PREEMPTIONS
        else:
            self._wanted = frozenset()
        return bool(self._wanted)

    def choose(self, choice: int, options: Sequence[Choice]) -> int:
        """See `Strategy`."""
        del choice
        wanted, self._wanted = self._wanted, frozenset()
        kinds = sorted({option.kind for option in options if option.kind in wanted})
        if kinds:
            kind = self._random.choice(kinds)
            self._faults -= kind in FAULTS
            return self._random.choice([i for i, option in enumerate(options) if option.kind == kind])
        return self._random.choice([i for i, option in enumerate(options) if option.kind in {"go", "next"}])
