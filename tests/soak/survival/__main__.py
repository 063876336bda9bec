"""What a publisher survives, measured: `python -m tests.soak.survival [SCENARIO ...]`.

Real processes, real POSIX queues within the limits of a stock Linux, a real collector, and an oracle that
knows every event by its number. Each scenario prints a line with its figures and PASS or FAIL. Exit status: 0
if all passed, 1 if one failed, 2 for a command-line error.

At full scale it takes about six minutes. `disk-full` mounts a small tmpfs if it may.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from typing import TYPE_CHECKING

from tests.soak.survival.scenarios import SCENARIOS, Result, Scale

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(words: Sequence[str] | None = None) -> int:
    """Run scenarios and print their figures; return the exit status."""
    default = Scale()
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak.survival", description="Count what a publisher loses when it shouldn't."
    )
    parser.add_argument(
        "scenario", nargs="*", metavar="SCENARIO", help=f"{', '.join(SCENARIOS)}; default: all"
    )
    parser.add_argument("--rounds", type=int, default=default.rounds, help="kills (default %(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=default.seconds,
        help="how long a key is revoked, each of two times (default %(default)s)",
    )
    parser.add_argument(
        "--poison-events",
        type=int,
        default=default.poison_events,
        help="good events around a poison event (default %(default)s)",
    )
    parser.add_argument(
        "--outage-events",
        type=int,
        default=default.outage_events,
        help="events put while the collector is down (default %(default)s)",
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=default.rate,
        help="events a second of a paced producer (default %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=default.seed, help="of random moments (default %(default)s)"
    )
    parser.add_argument(
        "--no-spool", action="store_true", help="show what `kill` and `outage` cost without a spool"
    )
    parser.add_argument("--json", action="store_true", help="print an object a line")
    arguments = parser.parse_args(words)
    unknown = [name for name in arguments.scenario if name not in SCENARIOS]
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}; expected {', '.join(SCENARIOS)}")
    names: list[str] = arguments.scenario or (["kill", "outage"] if arguments.no_spool else list(SCENARIOS))
    scale = Scale(
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        poison_events=arguments.poison_events,
        outage_events=arguments.outage_events,
        rate=arguments.rate,
        seed=arguments.seed,
        spool=not arguments.no_spool,
    )
    failed = False
    for name in names:
        began = time.monotonic()
        result = SCENARIOS[name](scale)
        print(describe(name, result, time.monotonic() - began, as_json=arguments.json), flush=True)
        failed = failed or bool(result.failures)
    return int(failed)


def describe(name: str, result: Result, seconds: float, *, as_json: bool) -> str:
    """Write a line about a scenario: its figures, how long it took, and what went wrong."""
    figures = {**result.figures, "seconds": round(seconds, 1)}
    if as_json:
        passed = not result.failures
        return json.dumps({"scenario": name, "passed": passed, **figures, "failures": list(result.failures)})
    words = " ".join(f"{key}={value}" for key, value in figures.items())
    outcome = "FAIL" if result.failures else "PASS"
    return " ".join([f"{outcome} {name}: {words}", *(f"[{failure}]" for failure in result.failures)])


if __name__ == "__main__":
    # So that a terminated run cleans up.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
    sys.exit(main())
