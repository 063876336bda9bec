"""The programs of a publisher's simulation, and its settings."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from . import programs

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Put:
    """Put events of these kinds into the POSIX queue, as far as it has room."""

    kinds: str


@dataclass(frozen=True)
class Publish:
    """Run a publisher for so many steps; then stop it, or keep it for the end of the run.

    After a kill there is another one.
    """

    steps: int
    ends: Literal["stop", "stay"] = "stop"


@dataclass(frozen=True)
class Harm:
    """Damage the ledger's file."""

    kind: Literal["delete", "empty", "cut", "zeros", "lock", "unlock"]


@dataclass(frozen=True)
class Mood:
    """Let the collector fail with this probability from now on."""

    failing: float


@dataclass(frozen=True)
class Syncs:
    """Let all syncs succeed or fail from now on."""

    working: bool


Deed: TypeAlias = programs.Operation | Put | Publish | Harm | Mood | Syncs


class Shape(NamedTuple):
    """The settings of publishers and their machine.

    Attributes:
        programs: What happens.
        max_size: Bytes that the spool holds.
        segment_size: Bytes at which a segment ends.
        capacity: Events that the POSIX queue holds.
        burst: Events that a publisher receives or reads in a step.
        batch_size: Bytes of a batch.
        batch_events: Events of a batch.
        concurrency: Batches in flight.
        chunk: Bytes that the reader reads at a time.
        sync: The setting `spool.fsync`.
        drain: The setting `shutdown.drain`.
        lies: Whether locks are always reported as obtained.
        ticks: See `PublisherFolder`.
        punches: Whether holes can be punched.
        keeps_full: Whether a disk that is full at the end stays so until the spool is delivered.
        errors: See `Machine.errors`.
    """

    programs: tuple[tuple[Deed, ...], ...]
    max_size: int = 100_000
    segment_size: int = 200
    capacity: int = 5
    burst: int = 1000
    batch_size: int = 200
    batch_events: int = 3
    concurrency: int = 1
    chunk: int = 100_000
    sync: Literal["never", "batch", "event"] = "never"
    drain: bool = True
    lies: bool = False
    ticks: bool = True
    punches: bool = False
    keeps_full: bool = True
    errors: Mapping[str, tuple[int, ...]] = MappingProxyType({})
