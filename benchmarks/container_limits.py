"""What services in containers lose under the limits of a stock kernel, with either transport.

Rules:

1. Services and publisher run as a user without privileges, in an IPC namespace with only what the
   kernel gives it, with the usual RLIMIT_MSGQUEUE. Without root, they run within the limits as they are.
2. The publisher is killed while the services put, and started again at once. Afterwards it delivers what is
   left. Every event has a number, and the collector records all that arrive.
3. A request serializes its events and puts them. Each is followed or preceded by one of bare writes, which
   serializes the same events, and appends as many bytes to files as new as our segments. So both meet the
   same load, that of the publisher included.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, cast

from benchmarks.container_pod import SERVICES, Figures, Task
from benchmarks.report import Table, Target, number
from benchmarks.rounds import interleave, percentile
from tests.support.commands import IMPORTING
from tests.support.processes import PIPE, Process, hear, say, started

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from benchmarks.scale import Scale

#: Requests a second of two services together, and events of a request.
_LOADS: Final = ((50, 10), (50, 50), (500, 10), (500, 200))

#: Times the time of the bare writes that a request may take, at the 99th percentile.
_BOUND: Final = 2.0

_HEAD: Final = (
    *("requests/s x events per request", "events put", "refused", "lost", "duplicates"),
    *("p99 of a request", "of bare writes", "ratio", "POSIX queue: refused", "lost"),
)

#: The user, and what is needed to become that one with the limits of a stock kernel. It keeps the right to
#: read any file: the interpreter may be in a folder of root's.
_USER: Final = 10_001
_TOOLS: Final = ("unshare", "prlimit", "setpriv")
_CAPABILITY: Final = "+dac_read_search"
_AS_A_POD: Final = (
    *("unshare", "--ipc", "prlimit", "--msgqueue=819200:819200"),
    *("setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups", "--no-new-privs"),
    *(
        f"--bounding-set=-all,{_CAPABILITY}",
        f"--inh-caps=-all,{_CAPABILITY}",
        f"--ambient-caps={_CAPABILITY}",
    ),
)


def run(scale: Scale) -> Table:
    """Run pods with either transport in turns, and compare what was put with what arrived."""
    loads = scale.pick(full=_LOADS, quick=_LOADS, tiny=_LOADS[:1])
    seconds = scale.pick(full=10.0, quick=3.0, tiny=0.5)
    rounds = scale.pick(full=3, quick=1, tiny=1)
    kills = scale.pick(full=5, quick=5, tiny=1)
    rows: list[tuple[str, ...]] = []
    targets: list[Target] = []
    with _pod() as pod:
        note = _describe(json.loads(hear(pod)))
        for rate, events in loads:
            found = interleave(
                {
                    transport: partial(_run, pod, Task(transport, rate, events, seconds, kills))
                    for transport in ("spool", "posix")
                },
                rounds,
            )
            what = f"{rate} x {events}"
            spool, posix = found["spool"], found["posix"]
            ours, bare = _percentile(spool, "ours"), _percentile(spool, "bare")
            refused, lost = (sum(figures[key] for figures in spool) for key in ("refused", "lost"))
            rows.append(
                (
                    what,
                    f"{sum(figures['put'] for figures in spool):,}",
                    f"{refused:,}",
                    f"{lost:,}",
                    f"{sum(figures['duplicates'] for figures in spool):,}",
                    f"{1e3 * ours:.3g} ms",
                    f"{1e3 * bare:.3g} ms",
                    f"{number(ours / bare)}x",
                    f"{_share(posix, 'refused'):.1%}",
                    f"{sum(figures['lost'] for figures in posix):,}",
                )
            )
            times = f"{what}, p99 of a request, times the bare writes"
            targets += [
                Target(f"{what}, events refused or lost", refused + lost, 0, at_least=False),
                Target(times, ours / bare, _BOUND, at_least=False),
            ]
    notes = (
        note,
        f"{SERVICES} services put for {seconds:g} s in each of {rounds} rounds, events of some 500 bytes.",
        f"The publisher is killed (`kill -9`) and started again {kills} times in each round.",
        "p99: serializing and putting the events of a request; the same with bare write(2), in turns.",
        "The POSIX queue: the same services without `put_timeout`; the publisher has a spool, too.",
    )
    title = "Events of services within the limits of a stock container"
    return Table(title, _HEAD, tuple(rows), tuple(targets), notes)


def _run(pod: Process, task: Task) -> Figures:
    say(pod, json.dumps(task))
    return cast("Figures", json.loads(hear(pod)))


def _pod() -> AbstractContextManager[Process]:
    """Run a process that runs pods; see `benchmarks.container_pod`."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.container_pod"]
    as_a_pod = _AS_A_POD if _is_alone() else ()
    return started(*as_a_pod, *command, stdin=PIPE, stdout=PIPE, environ=IMPORTING)


def _is_alone() -> bool:
    """Whether a pod can have a user and an IPC namespace of its own."""
    return os.geteuid() == 0 and all(map(shutil.which, _TOOLS))


def _describe(limits: object) -> str:
    facts = cast("Mapping[str, int]", limits)
    where = "a fresh IPC namespace" if _is_alone() else "the IPC namespace of this process"
    return (
        f"As uid {facts['uid']:,} in {where}: msg_max {facts['msg_max']:,}, "
        f"msgsize_max {facts['msgsize_max']:,}, RLIMIT_MSGQUEUE {facts['rlimit']:,}."
    )


def _percentile(found: Sequence[Figures], who: Literal["ours", "bare"]) -> float:
    return percentile([seconds for figures in found for seconds in figures[who]], 99)


def _share(found: Sequence[Figures], what: Literal["refused"]) -> float:
    return sum(figures[what] for figures in found) / sum(figures["put"] for figures in found)
