"""What kills cost a service with a spool, measured: `python -m tests.soak.spool`.

It prints a line with figures and PASS or FAIL. Exit status: 0 if it passed, 1 if not, 2 for a command-line
error. At full scale it takes some minutes.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from dataclasses import fields
from typing import TYPE_CHECKING

from tests.soak.spool.rounds import Scale, run_rounds

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(words: Sequence[str] | None = None) -> int:
    """Run the rounds and print their figures; return the exit status."""
    default = vars(Scale())
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak.spool", description="Count what is lost when services are killed."
    )
    for option in fields(Scale):
        parser.add_argument(
            f"--{option.name}",
            type=int,
            default=default[option.name],
            help="(default %(default)s)",
        )
    scale = Scale(**vars(parser.parse_args(words)))
    began = time.monotonic()
    report = run_rounds(scale)
    figures = {
        "rounds": scale.rounds,
        "kills": report.kills,
        **vars(report.audit),
        "seconds": round(time.monotonic() - began),
    }
    words = [f"{name}={figure}" for name, figure in figures.items()]
    outcome = "FAIL" if report.failures else "PASS"
    print(f"{outcome} kill-services:", *words, *(f"[{failure}]" for failure in report.failures), flush=True)
    return int(bool(report.failures))


if __name__ == "__main__":
    # So that a terminated run cleans up.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
    sys.exit(main())
