"""What kills, damage and unusual writers cost a publisher with a spool: `python -m tests.soak.delivery`.

Each run prints a line with figures and PASS or FAIL. Exit status: 0 if all passed, 1 if one failed, 2 for a
command-line error. At full scale it takes some ten minutes.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from dataclasses import fields
from typing import TYPE_CHECKING, Final

from tests.soak.delivery.rounds import Scale, run_rounds
from tests.soak.delivery.scenes import SCENES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_KILLS: Final = "kills"


def main(words: Sequence[str] | None = None) -> int:
    """Make the runs and print their figures; return the exit status."""
    default = vars(Scale())
    names = (_KILLS, *SCENES)
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak.delivery", description="Count what a publisher loses of a spool."
    )
    parser.add_argument("run", nargs="*", metavar="RUN", help=f"{', '.join(names)}; default: all")
    for option in fields(Scale):
        parser.add_argument(
            f"--{option.name}",
            type=int,
            default=default[option.name],
            help="of the kills (default %(default)s)",
        )
    arguments = vars(parser.parse_args(words))
    wanted: list[str] = arguments.pop("run") or list(names)
    unknown = [name for name in wanted if name not in names]
    if unknown:
        parser.error(f"no such run: {', '.join(unknown)}; expected {', '.join(names)}")
    failed = [name for name in wanted if not _run(name, Scale(**arguments))]
    return int(bool(failed))


def _run(name: str, scale: Scale) -> bool:
    """Make one run, print its figures, and return whether it passed."""
    began = time.monotonic()
    figures: Mapping[str, float] = {}
    failures: list[str] = []
    if name == _KILLS:
        report = run_rounds(scale)
        figures, failures = {"rounds": scale.rounds, **report.figures}, report.failures
    else:
        try:
            figures = SCENES[name]()
        except (AssertionError, OSError) as exc:
            failures = [f"{type(exc).__name__}: {exc}"]
    seconds = round(time.monotonic() - began)
    words = [f"{key}={figure}" for key, figure in {**figures, "seconds": seconds}.items()]
    print("FAIL" if failures else "PASS", f"{name}:", *words, *(f"[{why}]" for why in failures), flush=True)
    return not failures


if __name__ == "__main__":
    # So that a terminated run cleans up.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
    sys.exit(main())
