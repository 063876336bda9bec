"""The figures in the documentation: `python -m benchmarks [NAME ...] [--quick]`.

Each benchmark measures this package, baseplate.py where `baseplate` 2.7.1 is installed, and the floor where
there is one, in the same rounds, and prints each table in Markdown as soon as it is complete.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from baseplate_events import __version__
from baseplate_events.transport.limits import read_limits
from benchmarks.report import Report, Table
from benchmarks.scale import Scale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: Module and function of each benchmark, in the order in which they run.
BENCHMARKS: Final = {
    "serialize": ("serialize", "run"),
    "typed-events": ("typed_events", "run"),
    "put": ("put", "run"),
    "refused": ("refused", "run"),
    "spool-put": ("spool_put", "run"),
    "spool-writers": ("spool_writers", "run"),
    "publisher": ("publisher", "run_publisher"),
    "spool": ("publisher", "run_spool"),
    "container-limits": ("container_limits", "run"),
    "scaling": ("scaling", "run"),
    "latency": ("latency", "run"),
    "footprint": ("footprint", "run"),
    "memory": ("memory", "run"),
}

#: Distributions whose versions are reported, if they are installed. Two provide the package `thrift`.
_DISTRIBUTIONS: Final = ("baseplate", "thrift", "thrift-unofficial", "posix_ipc")


def main(words: Sequence[str] | None = None) -> int:
    """Run benchmarks and print their reports; return the exit status."""
    # What is measured as a POSIX queue must be one, and switched on.
    os.environ.pop("EVENT_SPOOL_DIRECTORY", None)
    os.environ.pop("EVENT_QUEUES_ENABLED", None)
    # Without it, each start that is measured would compile the package.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        description="Measure this package beside baseplate.py. A target that is missed is no error.",
    )
    parser.add_argument("name", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="measure less: for a look, not for a claim")
    arguments = parser.parse_args(words)
    unknown = [name for name in arguments.name if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; expected {', '.join(BENCHMARKS)}")
    scale = Scale.QUICK if arguments.quick else Scale.FULL
    names: list[str] = arguments.name or list(BENCHMARKS)
    print(*(f"- {fact}" for fact in describe_machine()), "", sep="\n", flush=True)
    for name in names:
        began = time.monotonic()
        for report in _load(name)(scale):
            print(report, flush=True)
        print(f"({name}: {time.monotonic() - began:.0f} s)\n", file=sys.stderr, flush=True)
    return 0


def _load(name: str) -> Callable[[Scale], Iterable[Report | Table]]:
    module, function = BENCHMARKS[name]
    run = cast(
        "Callable[[Scale], Report | Table | Iterable[Report | Table]]",
        getattr(importlib.import_module(f".{module}", __package__), function),
    )

    def run_all(scale: Scale) -> Iterable[Report | Table]:
        found = run(scale)
        return [found] if isinstance(found, (Report, Table)) else found

    return run_all


def describe_machine() -> list[str]:
    """Return what the figures depend on, one fact per line."""
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    python = f"{platform.python_implementation()} {platform.python_version()}"
    limits = read_limits()
    rlimit = "no limit" if limits.rlimit is None else f"{limits.rlimit:,}"
    queues = f"msg_max {limits.msg_max:,}, msgsize_max {limits.msgsize_max:,}, RLIMIT_MSGQUEUE {rlimit}"
    return [
        f"{_processor()}, {cores} cores, load {load:.1f} at the start",
        f"{platform.system()} {platform.release()}, {python}",
        ", ".join(filter(None, (f"baseplate-events {__version__}", *map(_version, _DISTRIBUTIONS)))),
        queues,
    ]


def _version(distribution: str) -> str:
    try:
        return f"{distribution} {importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


if __name__ == "__main__":
    # A run that is terminated cleans up.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
    sys.exit(main())
