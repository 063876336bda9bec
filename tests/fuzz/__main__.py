"""Fuzz some targets or all: `python -m tests.fuzz [TARGET ...] [--seconds 1800] [--work FOLDER] [--keep]`.

Each target runs in a process of its own. It begins with the corpus of the repository and with what an earlier
run left in the work folder, so a run goes on where the last one ended. An input that fails is kept there as
`crash-...`. `python -m tests.fuzz --repeat FILE TARGET` runs it again.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.fuzz.targets import TARGETS
from tests.support.commands import run

if TYPE_CHECKING:
    from collections.abc import Sequence

CORPUS: Final = Path(__file__).parent / "corpus"

#: Seconds for one target by default, and for one input at most.
_SECONDS: Final = 1_800
_LONGEST: Final = 25

#: Seconds for what comes before and after: the corpus is read first, and an input may hang at the end.
_MARGIN: Final = 600

#: Inputs of a target in the repository at most.
_KEPT: Final = 25


@dataclass(frozen=True)
class Result:
    """What came of fuzzing a target.

    Attributes:
        name: The target.
        inputs: How many inputs were tried.
        coverage: How many edges of the package's code they reached, as libFuzzer counts.
        corpus: How many inputs reach all of these.
        failures: Files with inputs that failed.
    """

    name: str
    inputs: int
    coverage: int
    corpus: int
    failures: tuple[Path, ...]

    def __str__(self) -> str:
        """A row of a table."""
        failed = "none" if not self.failures else ", ".join(map(str, self.failures))
        return f"| {self.name} | {self.inputs:,} | {self.coverage:,} | {self.corpus:,} | {failed} |"


def fuzz(name: str, work: Path, seconds: int) -> Result:
    """Fuzz a target for so many seconds, or until an input fails."""
    found = work / name
    found.mkdir(parents=True, exist_ok=True)
    options = (f"-max_total_time={seconds}", f"-timeout={_LONGEST}", "-print_final_stats=1", "-verbosity=1")
    command = (
        *(sys.executable, "-m", "tests.fuzz.run", name, *options, f"-artifact_prefix={found}/"),
        *(str(found), str(CORPUS / name)),
    )
    done = run(*command, timeout=2 * seconds + _MARGIN)
    log = done.out + done.err  # an exception is in the first, what libFuzzer says in the second
    (work / f"{name}.log").write_text(log, errors="surrogateescape")
    failures = tuple(sorted(path for path in found.iterdir() if re.match(r"(crash|timeout|oom)-", path.name)))
    if done.status and not failures:
        raise SystemExit(f"{name} can't be fuzzed; its log ends:\n{log[-2_000:]}")
    inputs = re.search(r"number_of_executed_units:\s*(\d+)", log)
    states = re.findall(r"cov: (\d+) .*? corp: (\d+)/", log) or [("0", "0")]
    return Result(name, int(inputs[1]) if inputs else 0, int(states[-1][0]), int(states[-1][1]), failures)


def keep(name: str, work: Path) -> None:
    """Add the smallest inputs that reached something new to the corpus, up to its bound."""
    found = sorted((work / name).iterdir(), key=lambda path: (path.stat().st_size, path.name))
    room = _KEPT - len(list((CORPUS / name).iterdir()))
    for path in found[: max(0, room)]:
        (CORPUS / name / path.name[:12]).write_bytes(path.read_bytes())


def main(words: Sequence[str] | None = None) -> int:
    """Fuzz, and print a row for each target; return 1 if an input failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Look for inputs that fail.")
    parser.add_argument("target", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=int, default=_SECONDS, help="for each target (default: 1800)")
    parser.add_argument("--work", type=Path, help="folder for what is found (default: a temporary one)")
    parser.add_argument("--keep", action="store_true", help="add what reached something new to the corpus")
    parser.add_argument("--repeat", type=Path, metavar="FILE", help="run the target with this input only")
    arguments = parser.parse_args(words)
    names: list[str] = arguments.target or list(TARGETS)
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}; expected {', '.join(TARGETS)}")
    if arguments.repeat:
        for name in names:
            TARGETS[name].run(arguments.repeat.read_bytes())
        return 0
    work: Path = arguments.work or Path(tempfile.mkdtemp(prefix="fuzz-"))
    print(
        f"Work folder: {work}\n\n| target | inputs | edges | corpus | failed |\n|---|---|---|---|---|",
        flush=True,
    )
    failed = False
    for name in names:
        result = fuzz(name, work, arguments.seconds)
        print(result, flush=True)
        failed |= bool(result.failures)
        if arguments.keep and not result.failures:
            keep(name, work)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
