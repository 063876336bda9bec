"""Which power cuts are made, and at which moments. All is drawn from one seed.

There is a cell for each `spool.fsync`, way into the spool and file system. Each cell has a cut of each kind;
the cuts of a cell differ in their kind, in when they come, in what the disk keeps, in the load, and in
whether the collector is up. The plan goes through the cells in turn, so that any first part of it is spread
over all of them.
"""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from tests.machine.nbd import Moment

if TYPE_CHECKING:
    from collections.abc import Iterable

_T = TypeVar("_T")


class Way(enum.Enum):
    """How events get into the spool."""

    SERVICE = "service"
    RELAY = "relay"


class Kind(enum.Enum):
    """At which moment the power is cut."""

    WRITE = "at a write"
    BEFORE_SYNC = "before a sync"
    AFTER_SYNC = "after a sync"
    KILL = "right after kill -9 of the publisher"
    RESTART = "at a write after kill -9 and restart of the publisher"

    @property
    def moment(self) -> Moment | None:
        """What the disk counts; None if it doesn't."""
        return _MOMENTS[self]


_MOMENTS: Final = {
    Kind.WRITE: Moment.WRITE,
    Kind.BEFORE_SYNC: Moment.BEFORE_SYNC,
    Kind.AFTER_SYNC: Moment.AFTER_SYNC,
    Kind.KILL: None,
    Kind.RESTART: Moment.WRITE,
}

FSYNCS: Final = ("never", "batch", "event")
FILE_SYSTEMS: Final = ("ext4", "xfs")

#: The cells, one of each `spool.fsync` among the first three.
CELLS: Final = tuple((fsync, way, system) for system in FILE_SYSTEMS for way in Way for fsync in FSYNCS)

#: The kinds of the cuts of a cell.
KINDS: Final = (
    *(Kind.WRITE, Kind.BEFORE_SYNC, Kind.KILL, Kind.WRITE, Kind.AFTER_SYNC),
    *(Kind.RESTART, Kind.WRITE, Kind.BEFORE_SYNC, Kind.WRITE, Kind.RESTART),
)

#: Cuts of a whole plan.
CUTS: Final = len(CELLS) * len(KINDS)

#: The parts of the unflushed blocks that a disk keeps.
_KEPT: Final = (0.0, 0.3, 0.7, 0.95)

#: Events a second; 0 for as many as the service can put.
_RATES: Final = (0.0, 100.0, 300.0)

#: Most seconds of load before the moment is looked for.
_LONGEST_LOAD: Final = 8.0

#: The same with `never`, where the system writes back after 30 seconds, and events a second then.
_STOCK_LOAD: Final = (40.0, 80.0)
_STOCK_RATE: Final = 150.0

#: The cuts of a cell with `never` in which the system writes back when it does by default; in the others it
#: does so at once, so that they hit writes.
_STOCK_KINDS: Final = (0, 4, 7)

#: The last write or sync of a kind that a cut waits for.
_MOST_WRITES: Final = 40
_MOST_SYNCS: Final = 6


@dataclass(frozen=True)
class Cut:
    """A power cut.

    Attributes:
        number: Its place in the plan.
        seed: That of the plan.
        fsync: `spool.fsync`.
        way: How events get into the spool.
        file_system: That of the spool.
        kind: At which moment it comes.
        count: At which write or sync from the end of the load on.
        load: Seconds of load before.
        rate: Events a second; 0 for as many as the service can put.
        collector_up: Whether the collector takes events before the cut.
        stock_writeback: Whether the system writes back when it does by default.
        keep: The part of the unflushed blocks that the disk keeps.
    """

    number: int
    seed: int
    fsync: str
    way: Way
    file_system: str
    kind: Kind
    count: int
    load: float
    rate: float
    collector_up: bool
    stock_writeback: bool
    keep: float

    @property
    def series(self) -> str:
        """What the ids of its events begin with."""
        return f"cut-{self.seed}-{self.number}"


def plan(seed: int) -> list[Cut]:
    """Return all cuts that a seed stands for."""
    columns = [_cell(seed, *cell) for cell in CELLS]
    return [
        replace(cell[(turn + place) % len(KINDS)], number=turn * len(CELLS) + place)
        for turn in range(len(KINDS))
        for place, cell in enumerate(columns)
    ]


def _cell(seed: int, fsync: str, way: Way, file_system: str) -> list[Cut]:
    chance = random.Random(f"{seed} {fsync} {way.value} {file_system}")
    size = len(KINDS)
    # Each tenth of the longest load once.
    loads = [(tenth + chance.random()) * _LONGEST_LOAD / size for tenth in _shuffled(chance, range(size))]
    kept = _shuffled(chance, [_KEPT[index % len(_KEPT)] for index in range(size)])
    rates = _shuffled(chance, [_RATES[index % len(_RATES)] for index in range(size)])
    ups = _shuffled(chance, [index % 2 == 0 for index in range(size)])
    cuts: list[Cut] = []
    for index, kind in enumerate(KINDS):
        most = _MOST_WRITES if kind.moment is Moment.WRITE else _MOST_SYNCS
        count = int(most ** chance.random())
        stock = fsync != "never" or index in _STOCK_KINDS
        slow = fsync == "never" and stock
        cuts.append(
            Cut(
                number=-1,
                seed=seed,
                fsync=fsync,
                way=way,
                file_system=file_system,
                kind=kind,
                count=count,
                load=chance.uniform(*_STOCK_LOAD) if slow else loads[index],
                rate=_STOCK_RATE if slow else rates[index],
                collector_up=ups[index],
                stock_writeback=stock,
                keep=kept[index],
            )
        )
    return cuts


def _shuffled(chance: random.Random, values: Iterable[_T]) -> list[_T]:
    shuffled = list(values)
    chance.shuffle(shuffled)
    return shuffled
