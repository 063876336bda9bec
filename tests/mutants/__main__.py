"""Runs cosmic-ray on a copy of the package, module by module, and prints how many mutants the tests found.

All mutants take hours. `--sample N` tries N of each module, which `--seed` chooses. What was tried is kept
under `--folder`. A run that was cut off goes on where it ended, unless the module or its tests have changed.

It ends with 0 if the tests found at least 95 % of the mutants, and at most 3 % are declared as equivalent
(`equivalent.py`).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import functools
import hashlib
import os
import queue
import shlex
import shutil
import socket
import string
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

from tests.mutants.sessions import Tally, choose, confirm_timeouts, forget_timeouts, is_complete, read
from tests.mutants.targets import COMMON, TARGETS

if TYPE_CHECKING:
    from collections.abc import Generator

_ROOT: Final = Path(__file__).parents[2]
_PACKAGE: Final = "baseplate_events"

#: What the tests need of this folder.
_COPIED: Final = (
    _PACKAGE,
    "tests",
    "benchmarks",
    "deploy",
    "docs",
    "README.md",
    "CHANGELOG.md",
    "pyproject.toml",
)

#: In the copy, where `forks` waits for `ask`.
_SOCKET: Final = "mutants.socket"

#: The share of the mutants that must be found at least, and that may be declared as equivalent at most.
_FOUND: Final = 0.95
_EQUIVALENT: Final = 0.03

#: The tests of a mutant may take so many seconds, and so many times what they take without it.
_PATIENCE: Final = 20.0
_FACTOR: Final = 4.0


def main() -> int:
    """Do what the command line says, and return the exit status."""
    arguments = _parse()
    modules = arguments.module or [*TARGETS]
    tallies: list[Tally] = []
    with contextlib.ExitStack() as stack:
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for _ in range(arguments.jobs):
            copies.put(stack.enter_context(_copy()))
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(arguments.jobs))
        results = pool.map(functools.partial(_try_in_copy, copies, arguments), modules)
        for module, tally in zip(modules, results, strict=True):
            tallies.append(tally)
            print("\n\n".join(tally.survivors) + "\n" if tally.survivors else "", end="")
            print(_row(module, tally), flush=True)
    found, equivalent, tried = (
        sum(getattr(tally, field) for tally in tallies) for field in ("found", "equivalent", "tried")
    )
    survivors = [survivor for tally in tallies for survivor in tally.survivors]
    timed_out = sum(tally.timed_out for tally in tallies)
    print(_row("total", Tally(tried, found, timed_out, equivalent, survivors)))
    return 0 if found >= _FOUND * tried and equivalent <= _EQUIVALENT * tried else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("module", nargs="*", help="as in targets.py; all by default")
    parser.add_argument("--sample", type=int, metavar="N", help="mutants of each module; all by default")
    parser.add_argument("--seed", default="1", help="what chooses them (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="modules at the same time (default: %(default)s)")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir(), "mutants"), help="of results"
    )
    arguments = parser.parse_args()
    if unknown := sorted({*arguments.module} - TARGETS.keys()):
        parser.error(f"not among the targets: {', '.join(unknown)}")
    return arguments


@contextlib.contextmanager
def _copy() -> Generator[Path]:
    """Copy the package and what its tests need: cosmic-ray changes files where they are.

    In the copy, `tests.mutants.forks` runs until the end of the block.
    """
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder)
        for name in _COPIED:
            source = _ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis")
                )
            else:
                shutil.copy2(source, copy / name)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
            server.bind(str(copy / _SOCKET))
            server.listen()
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.mutants.forks", str(server.fileno())],
                cwd=copy,
                env=_environ(copy),
                stdin=subprocess.PIPE,
                pass_fds=[server.fileno()],
            )
        with process:
            yield copy


def _environ(copy: Path) -> dict[str, str]:
    return {
        **os.environ,
        "CI": "1",
        "HYPOTHESIS_PROFILE": "mutants",
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "",
    }


def _try_in_copy(copies: queue.SimpleQueue[Path], arguments: argparse.Namespace, module: str) -> Tally:
    copy = copies.get()
    try:
        return _try_module(module, copy, arguments)
    finally:
        copies.put(copy)


def _try_module(module: str, copy: Path, arguments: argparse.Namespace) -> Tally:
    source = copy / _PACKAGE / f"{module}.py"
    tests = [copy / "tests" / f"{file}.py" for file in (*TARGETS[module], COMMON)]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in (source, *tests))).hexdigest()[:8]
    chosen = "all" if arguments.sample is None else f"{arguments.seed}-{arguments.sample}"
    session: Path = arguments.folder / chosen / f"{module.replace('/', '.')}-{digest}.sqlite"
    session.parent.mkdir(parents=True, exist_ok=True)
    if session.exists() and is_complete(session):
        return read(session, module)
    command = [
        sys.executable,
        "-I",
        "-S",
        "tests/mutants/ask.py",
        _SOCKET,
        "-q",
        "-x",
        "-p",
        "tests.mutants.order",
        "--failed-first",  # what found the mutant before is likely to find its neighbour
        "-o",
        f"cache_dir={copy / '.pytest_cache'}",
        "-m",
        "not slow and not simulated",
    ]
    command += [str(file.relative_to(copy)) for file in tests]

    def run(*words: str | Path) -> None:
        subprocess.run(words, cwd=copy, env=_environ(copy), check=True, stdout=sys.stderr)

    begin = monotonic()
    run(*command)  # which must pass without a mistake; and compiles the tests
    timeout = _PATIENCE + _FACTOR * (monotonic() - begin)
    configuration = copy / "cosmic-ray.toml"

    def configure(timeout: float) -> None:
        template = string.Template(Path(__file__).with_name("cosmic-ray.toml").read_text())
        configuration.write_text(
            template.substitute(
                module=source.relative_to(copy), timeout=round(timeout), command=shlex.join(command)
            )
        )

    configure(timeout)
    if not session.exists():
        begun = session.with_suffix(".begun")
        begun.unlink(missing_ok=True)
        run("cosmic-ray", "init", configuration, begun)
        run("cr-filter-operators", begun, configuration)
        choose(begun, source.read_text(), f"{arguments.seed} {module}", arguments.sample)
        begun.rename(session)
    run("cosmic-ray", "exec", configuration, session)
    if forget_timeouts(session):
        configure(2 * timeout)
        run("cosmic-ray", "exec", configuration, session)
        confirm_timeouts(session)
    return read(session, module)


def _row(module: str, tally: Tally) -> str:
    share = 100 * tally.found / tally.tried if tally.tried else 100.0
    return (
        f"| {module} | {tally.tried} | {tally.found} | {share:.1f} % | {tally.equivalent} |"
        f" {len(tally.survivors)} | {tally.timed_out} |"
    )


if __name__ == "__main__":
    sys.exit(main())
