"""What the library and the publisher cost before they do anything: time to start, memory, idle CPU, disk.

Rules:

1. Imports and starts are reported in addition to those of a bare `python -c pass`, which takes part in the
   same rounds. An import is CPU time, which other load doesn't stretch; a start may also wait, so it
   is given as both.
2. Publishers idle side by side, at the same time, after they have delivered something.
3. Memory is what the kernel reports for the process: VmRSS, and VmHWM for the peak under load.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from benchmarks.ages import collector_process, event_bodies, stamped
from benchmarks.distributions import installed
from benchmarks.peers import PUBLISHERS, publisher, queue_for
from benchmarks.report import Line, Report, Target
from benchmarks.rounds import interleave, medians
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from baseplate_events.transport.posix import MessageQueue
    from benchmarks.peers import Publisher
    from benchmarks.scale import Scale

T = TypeVar("T")

#: baseplate.py's library, and ours.
_LIBRARIES: Final = {
    "ours": "baseplate_events",
    **({"original": "baseplate.lib.events"} if "original" in PUBLISHERS else {}),
}

#: What is imported when a publisher starts.
_SIDECARS: Final = {**PUBLISHERS, "ours": "baseplate_events.event_publisher.__main__"}

#: Milliseconds over bare Python, MiB and per cent that it may take.
_IMPORT_BOUND: Final = 25.0
_START_BOUND: Final = 150.0
_MEMORY_BOUND: Final = 30.0
_IDLE_BOUND: Final = 0.1

#: Per cent of a core and context switches a minute of a publisher with a spool that idles.
_SPOOL_IDLE_BOUND: Final = 0.05
_SPOOL_SWITCHES_BOUND: Final = 12

#: Our publisher with a spool, which reads the POSIX queue as well.
_SPOOL: Final = "spool"

#: An address where nothing listens: the port of the discard service.
_NOWHERE: Final = "http://127.0.0.1:9"

#: KiB of a MiB: the kernel counts in KiB.
_KIB: Final = 1_024


def run(scale: Scale) -> Report:
    """Measure starts, idling, memory under load, and what is installed."""
    rounds = scale.pick(full=15, quick=3, tiny=1)
    library = _imports("library", _LIBRARIES, rounds)
    sidecar = _imports("publisher", _SIDECARS, rounds)
    starts = _starts(rounds)
    states = _states(
        warm_up=scale.pick(full=3.0, quick=1.0, tiny=0.1),
        idle=scale.pick(full=20.0, quick=2.0, tiny=0.1),
        load=scale.pick(full=10.0, quick=2.0, tiny=0.1),
    )
    return Report(
        "Footprint",
        (library, sidecar, *starts, *states, *_distributions()),
        (
            _at_most(library, _IMPORT_BOUND),
            _at_most(starts[0], _START_BOUND),
            _at_most(states[0], _IDLE_BOUND),
            _at_most(states[2], _MEMORY_BOUND),
            _at_most(states[4], _SPOOL_IDLE_BOUND),
            _at_most(states[5], _SPOOL_SWITCHES_BOUND),
            _at_most(states[6], _MEMORY_BOUND),
        ),
        (
            "Imports and starts: beyond those of `python -c pass`, in processes of their own.",
            "The event of the first receive waits in the queue already.",
            "Idle: side by side, with nothing in the queue, a while after something was delivered.",
            "Under load: events come as fast as a producer can put them.",
            "Installed: with all that it requires; the bytes of the files.",
        ),
    )


# --- starting ---


def _imports(what: str, modules: dict[str, str], rounds: int) -> Line:
    codes = {"bare": "pass", **{whose: f"import {module}" for whose, module in modules.items()}}
    candidates = {who: partial(_cpu_of, code) for who, code in codes.items()}
    return _over_bare(f"import of the {what}, CPU time", _warmed(candidates, rounds))


def _starts(rounds: int) -> list[Line]:
    """Measure from the start of a publisher to its first receive: the wall time, and its CPU time."""

    def start(whose: str) -> tuple[float, float]:
        name = f"benchmark-{secrets.token_hex(8)}"
        with tempfile.TemporaryDirectory() as folder, queue_for(name) as queue:
            queue.put(b"{}")
            began = time.perf_counter()
            with publisher(whose, Path(folder), name, _NOWHERE) as process:
                process.wait_for(lambda: not queue.current_messages)
                return time.perf_counter() - began, _cpu_clock(process)

    def start_bare() -> tuple[float, float]:
        began = time.perf_counter()
        cpu = _cpu_of("pass")
        return time.perf_counter() - began, cpu

    candidates: dict[str, Callable[[], tuple[float, float]]] = {
        **{whose: partial(start, whose) for whose in PUBLISHERS},
        "bare": start_bare,
    }
    found = _warmed(candidates, rounds)
    return [
        _over_bare(
            f"publisher's start to its first receive{note}",
            {who: [seconds[place] for seconds in results] for who, results in found.items()},
        )
        for place, note in enumerate(("", ", CPU time"))
    ]


def _warmed(candidates: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run the candidates in turns, after a round that warms the caches and doesn't count."""
    for start in candidates.values():
        start()
    return interleave(candidates, rounds)


def _over_bare(what: str, seconds: dict[str, list[float]]) -> Line:
    """Return the milliseconds that it takes in addition to bare Python's."""
    found = medians(seconds)
    return _line(what, "ms", {who: 1e3 * (found[who] - found["bare"]) for who in found})


def _cpu_of(code: str) -> float:
    """Return the CPU seconds of a Python process that runs this."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    pid = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise ChildProcessError(f"{code!r} ends with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_utime + usage.ru_stime


# --- running ---


@dataclass(frozen=True)
class _Usage:
    """What a process has used so far: seconds of CPU, context switches, MiB now and at the peak."""

    cpu: float
    switches: int
    memory: float
    peak: float


def _usage(process: Publisher) -> _Usage:
    pid = process.process.pid
    status = _status(Path(f"/proc/{pid}/status"))
    threads = [_status(path) for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return _Usage(
        cpu=_cpu_clock(process),
        switches=sum(
            thread["voluntary_ctxt_switches"] + thread["nonvoluntary_ctxt_switches"] for thread in threads
        ),
        memory=status["VmRSS"] / _KIB,
        peak=status["VmHWM"] / _KIB,
    )


def _cpu_clock(process: Publisher) -> float:
    """Return the CPU seconds that all threads of a process have taken (clock_getcpuclockid(3))."""
    return time.clock_gettime(~process.process.pid << 3 | 2)


def _status(path: Path) -> dict[str, int]:
    """Read the numbers of a `status` file of `/proc`; sizes are in KiB."""
    pairs = (line.split(":", 1) for line in path.read_text().splitlines())
    words = ((key, value.split()) for key, value in pairs)
    return {key: int(values[0]) for key, values in words if values and values[0].isdigit()}


def _states(*, warm_up: float, idle: float, load: float) -> list[Line]:
    """Measure publishers while idle, then under load, one after the other."""
    bodies = event_bodies(2_000)
    cpu, switches, memory, peak = (dict[str, float]() for _ in range(4))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        collector = stack.enter_context(collector_process())
        chains: dict[str, tuple[MessageQueue, Publisher]] = {}
        for whose in (*PUBLISHERS, _SPOOL):
            name = f"benchmark-{secrets.token_hex(8)}"
            queue = stack.enter_context(queue_for(name))
            settings = {"batch__max_age": "50 milliseconds"}
            if whose == _SPOOL:
                settings["spool__directory"] = str(folder)
            # A short age, so that it has delivered soon; it makes no difference to one that idles.
            module = "ours" if whose == _SPOOL else whose
            process = stack.enter_context(publisher(module, folder, name, collector.url, **settings))
            queue.put(stamped(bodies[0], 0))
            chains[whose] = queue, process
        for _, process in chains.values():
            process.wait_for(lambda: len(collector.ages(0)) >= len(chains))
        time.sleep(warm_up)
        before = {whose: _usage(process) for whose, (_, process) in chains.items()}
        time.sleep(idle)
        for whose, (_, process) in chains.items():
            now = _usage(process)
            cpu[whose] = 100 * (now.cpu - before[whose].cpu) / idle
            switches[whose] = 60 * (now.switches - before[whose].switches) / idle
            memory[whose] = now.memory
        for whose, (queue, process) in chains.items():
            _put_for(load, queue, bodies)
            peak[whose] = _usage(process).peak
    return [
        _line("idle CPU", "% of a core", cpu),
        _line("idle, context switches", "a minute", switches),
        _line("idle, resident", "MiB", memory),
        _line("under load, resident at most", "MiB", peak),
        Line("idle with a spool, CPU", "% of a core", cpu[_SPOOL]),
        Line("idle with a spool, context switches", "a minute", switches[_SPOOL]),
        Line("idle with a spool, resident", "MiB", memory[_SPOOL]),
        Line("under load with a spool, resident at most", "MiB", peak[_SPOOL]),
    ]


def _put_for(seconds: float, queue: MessageQueue, bodies: list[bytes]) -> None:
    """Put events as fast as there is room."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for body in bodies:
            queue.put(stamped(body, 0), timeout=PATIENCE)


# --- on disk ---


def _distributions() -> list[Line]:
    ours, original = installed("baseplate-events"), installed("baseplate")
    if ours is None:  # it is run from its source
        return []
    return [
        Line(
            "installed", "distributions", len(ours.names), None if original is None else len(original.names)
        ),
        Line("installed", "MB", ours.size / 1e6, None if original is None else original.size / 1e6),
    ]


def _line(what: str, unit: str, found: dict[str, float]) -> Line:
    return Line(what, unit, found["ours"], found.get("original"))


def _at_most(line: Line, bound: float) -> Target:
    return Target(f"{line.what}, {line.unit}", line.ours, bound, at_least=False)
