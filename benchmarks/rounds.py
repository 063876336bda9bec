"""What makes figures of a noisy machine comparable: candidates take turns, and a figure is a median."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import statistics
from time import thread_time_ns
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

T = TypeVar("T")


def interleave(candidates: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run every candidate once a round, beginning each round with a different one.

    Whatever slows the machine down for a while then slows all of them.

    Args:
        candidates: What to run, by name; each returns its result of one round.
        rounds: How often, at least once.

    Returns:
        The results of each candidate, in the order of the rounds.
    """
    names = list(candidates)
    results: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            results[name].append(candidates[name]())
    return results


def medians(results: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each candidate's results."""
    return {name: statistics.median(values) for name, values in results.items()}


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the least value that this percentage of the values don't exceed (nearest rank)."""
    return sorted(values)[max(math.ceil(len(values) * percent / 100) - 1, 0)]


@contextlib.contextmanager
def on_one_core() -> Generator[None]:
    """Keep this thread, and what it starts meanwhile, on one core: the last that it may use."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def without_collections() -> Generator[None]:
    """Turn off garbage collection, as `timeit` does."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def seconds_of(call: Callable[[T], object], arguments: Sequence[T]) -> float:
    """Call it once with each argument, and return the mean seconds per call.

    CPU seconds of this thread: the wall clock would include other work on the core, and a candidate that
    takes longer would include more of it.
    """
    with without_collections():
        began = thread_time_ns()
        for argument in arguments:
            call(argument)
        return (thread_time_ns() - began) / 1e9 / len(arguments)
