"""How many events a second a publisher delivers from one core: ours, baseplate.py's, and the floor.

The floor receives, joins, signs and compresses the same events in a bare loop, and sends nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from baseplate_events.event_publisher.config.options import OPTION_BY_NAME
from benchmarks.light_collector import LightCollector
from benchmarks.original import is_installed
from benchmarks.publisher_rig import rig
from benchmarks.report import Line, Report, Target
from benchmarks.rounds import interleave

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from benchmarks.publisher_rig import Rig, Speed
    from benchmarks.scale import Scale

#: Milliseconds after which the collector answers.
LATENCIES: Final = (0, 10, 50, 200)

#: Numbers of senders that are tried.
_CONCURRENCIES: Final = (1, 2, 4, 8, 16)

#: Levels of gzip that are tried.
_LEVELS: Final = (1, 2, 3, 4, 6, 9)

#: When a spool is forced onto the disk.
_MODES: Final = ("never", "batch", "event")

#: Names of settings.
_CONCURRENCY: Final = "delivery.concurrency"
_LEVEL: Final = "compression.level"

#: Times baseplate.py's rate that ours should be, by the latency in milliseconds.
_ORIGINAL_BOUNDS: Final = {0: 4.5, 50: 15.0}

#: Share of the floor's rate that ours should be at no latency, and shares of the rate without a spool that it
#: should be if events come through the POSIX queue and are moved to one, and if they are read from one.
_FLOOR_BOUND: Final = 0.8
_RELAY_BOUND: Final = 0.75
_READ_BOUND: Final = 1.0

#: Latencies at which a spool is read, and times baseplate.py's rate that ours should be then at 0 ms.
_SPOOL_LATENCIES: Final = (0, 50)
_SPOOL_ORIGINAL_BOUND: Final = 5.0

#: The settings of an operator who sets nothing.
_DEFAULTS: Final[Mapping[str, str]] = {}

#: By name, the function that runs a publisher and returns its speed.
_Candidates: TypeAlias = "dict[str, Callable[[], Speed]]"


def run_publisher(scale: Scale) -> Iterator[Report]:
    """Measure publishers at several latencies, and ours with several settings; yield each report at once."""
    with rig() as made:
        depth = made.queue.max_messages
        yield _latencies(made, scale)
        yield _concurrencies(made, scale)
        yield _levels(made, scale)
    with rig(deep=False) as made:
        if made.queue.max_messages < depth:
            yield _shallow(made, scale)


def run_spool(scale: Scale) -> Iterator[Report]:
    """Measure our publisher with and without a spool."""
    with rig() as made:
        yield _spools(made, scale)


def _latencies(made: Rig, scale: Scale) -> Report:
    latencies = scale.pick(full=LATENCIES, quick=(0, 50), tiny=(0,))
    candidates: _Candidates = {"floor": partial(_floor, made, scale, _default(_LEVEL))}
    for latency in latencies:
        candidates[f"ours {latency}"] = partial(_ours, made, scale, latency, _DEFAULTS)
        if _default(_CONCURRENCY) > 1:
            candidates[f"single {latency}"] = partial(_ours, made, scale, latency, {_CONCURRENCY: "1"})
        if is_installed():
            candidates[f"original {latency}"] = partial(_original, made, scale, latency)
    found = _measure(candidates, scale)
    lines: list[Line] = []
    targets: list[Target] = []
    for latency in latencies:
        original = found.get(f"original {latency}")
        for who, number in (("ours", _default(_CONCURRENCY)), ("single", 1)):
            ours = found.get(f"{who} {latency}")
            if ours is None:
                continue
            line = Line(
                f"collector answers after {latency} ms, {_senders(number)}",
                "events/s",
                ours.rate,
                original.rate if original is not None else None,
                found["floor"].rate,
                more_is_better=True,
            )
            lines.append(line)
            if who == "ours":
                targets += _targets(latency, line)
    ours, floor, original = found["ours 0"], found["floor"], found.get("original 0")
    lines += [
        Line(
            "CPU at 0 ms", "s per 1,000,000 events", ours.cpu, original.cpu if original else None, floor.cpu
        ),
        Line("sent", "bytes/event", ours.size, original.size if original else None, floor.size),
    ]
    notes = (
        made.note,
        f"Rich events of some 730 bytes that differ; gzip level {_default(_LEVEL)}, baseplate.py's is 9.",
        "The floor receives, joins, signs and compresses in a bare loop, and sends nothing.",
        "Rates are those of a quiet host; the CPU of an event is much the same on a busy one.",
    )
    return Report("Publisher on one core", tuple(lines), tuple(targets), notes)


def _targets(latency: int, line: Line) -> list[Target]:
    targets: list[Target] = []
    bound = _ORIGINAL_BOUNDS.get(latency)
    if bound is not None and line.times_original is not None:
        targets.append(Target(f"events/s at {latency} ms, times baseplate.py", line.times_original, bound))
    if latency == 0 and line.of_floor is not None:
        targets.append(Target("events/s at 0 ms, share of the floor", line.of_floor, _FLOOR_BOUND))
    return targets


def _shallow(made: Rig, scale: Scale) -> Report:
    candidates: _Candidates = {
        "ours": partial(_ours, made, scale, 0, _DEFAULTS),
        "floor": partial(_floor, made, scale, _default(_LEVEL)),
    }
    if is_installed():
        candidates["original"] = partial(_original, made, scale, 0)
    rates = {name: speed.rate for name, speed in _measure(candidates, scale).items()}
    line = Line(
        "collector answers after 0 ms",
        "events/s",
        rates["ours"],
        rates.get("original"),
        rates["floor"],
        more_is_better=True,
    )
    return Report("Publisher with the queue of a stock Linux", (line,), (), (made.note,))


def _concurrencies(made: Rig, scale: Scale) -> Report:
    latencies = scale.pick(full=LATENCIES, quick=(0, 50), tiny=(0,))
    numbers = scale.pick(full=_CONCURRENCIES, quick=(1, 4, 16), tiny=(2,))
    keys = [(latency, number) for latency in latencies for number in numbers]
    found = _measure(
        {
            f"{latency} {number}": partial(_ours, made, scale, latency, {_CONCURRENCY: str(number)})
            for latency, number in keys
        },
        scale,
    )
    lines = [
        Line(
            f"collector answers after {latency} ms, {_senders(number)}",
            "events/s",
            found[f"{latency} {number}"].rate,
            more_is_better=True,
        )
        for latency, number in keys
    ]
    return Report("Publisher by `delivery.concurrency`", tuple(lines), (), (made.note,))


def _levels(made: Rig, scale: Scale) -> Report:
    levels = scale.pick(full=_LEVELS, quick=(1, 3, 6), tiny=(1,))
    ours = {f"ours {level}": partial(_ours, made, scale, 0, {_LEVEL: str(level)}) for level in levels}
    floors = {f"floor {level}": partial(_floor, made, scale, level) for level in levels}
    found = _measure({**ours, **floors}, scale)
    lines: list[Line] = []
    for level in levels:
        speeds = found[f"ours {level}"], found[f"floor {level}"]
        rate, floor = (speed.rate for speed in speeds)
        lines += [
            Line(f"gzip level {level}, rate", "events/s", rate, None, floor, more_is_better=True),
            Line(f"gzip level {level}, sent", "bytes/event", *(speeds[0].size, None, speeds[1].size)),
        ]
    return Report("Publisher by `compression.level`", tuple(lines), (), (made.note,))


def _spools(made: Rig, scale: Scale) -> Report:
    modes = scale.pick(full=_MODES, quick=_MODES, tiny=("never",))
    latencies = scale.pick(full=_SPOOL_LATENCIES, quick=_SPOOL_LATENCIES, tiny=(0,))
    candidates: _Candidates = {}
    for latency in latencies:
        candidates[f"none {latency}"] = partial(_ours, made, scale, latency, _DEFAULTS)
        candidates[f"read {latency}"] = partial(_from_spool, made, scale, latency)
    candidates.update({mode: partial(_relayed, made, scale, mode) for mode in modes})
    candidates["floor"] = partial(_floor, made, scale, _default(_LEVEL))
    candidates["floor read"] = partial(_floor_from_spool, made, scale)
    candidates["floor relay"] = partial(_floor_relayed, made, scale)
    if is_installed():
        candidates["original"] = partial(_original, made, scale, 0)
    found = _measure(candidates, scale)
    lines: list[Line] = []
    targets: list[Target] = []
    for latency in latencies:
        read, without = found[f"read {latency}"], found[f"none {latency}"]
        original = found["original"].rate if latency == 0 and "original" in found else None
        what = f"read from the spool, {latency} ms"
        lines.append(Line(what, "events/s", read.rate, original, without.rate, more_is_better=True))
        targets += _share(f"{what}, share of the POSIX queue", lines[-1].of_floor, _READ_BOUND)
        targets += _share(f"{what}, times baseplate.py", lines[-1].times_original, _SPOOL_ORIGINAL_BOUND)
        lines.append(Line(f"CPU, {what}", "s per 1,000,000 events", read.cpu, None, without.cpu))
    without = found[f"none {latencies[0]}"]
    for mode in modes:
        what = f"moved to the spool, `spool.fsync` {mode}"
        lines += [
            Line(what, "events/s", found[mode].rate, None, without.rate, more_is_better=True),
            Line(f"CPU, {what}", "s per 1,000,000 events", found[mode].cpu, None, without.cpu),
        ]
        if mode == modes[0]:
            targets += _share(f"{what}, share of those without", lines[-2].of_floor, _RELAY_BOUND)
    for key, what in (("read", "read from the spool"), ("relay", "moved to the spool")):
        bare, without = found[f"floor {key}"], found["floor"]
        lines += [
            Line(f"bare loop, {what}", "events/s", bare.rate, None, without.rate, more_is_better=True),
            Line(f"CPU, bare loop, {what}", "s per 1,000,000 events", bare.cpu, None, without.cpu),
        ]
    notes = (
        made.note,
        "The floor is the same publisher, or bare loop, with a POSIX queue and no spool.",
        "A bare loop does the least that any publisher must, and sends nothing: see `benchmarks/floor.py`.",
        f"The spool is on {filesystem(made.folder)}.",
    )
    return Report("Publisher with a spool", tuple(lines), tuple(targets), notes)


def _share(what: str, share: float | None, bound: float) -> list[Target]:
    return [] if share is None else [Target(what, share, bound)]


def filesystem(path: Path) -> str:
    """Return the type of the filesystem that a path is on, such as ext4."""
    mounts = os.fsdecode(Path("/proc/self/mounts").read_bytes()).splitlines()
    places = {place: kind for _, place, kind, *_ in (mount.split(" ") for mount in mounts)}
    return next((places[str(folder)] for folder in (path, *path.parents) if str(folder) in places), "a disk")


def _measure(candidates: _Candidates, scale: Scale) -> dict[str, Speed]:
    """Run all in turns, and return the run of each with the median rate."""
    results = interleave(candidates, scale.pick(full=3, quick=1, tiny=1))
    return {name: _middle(speeds) for name, speeds in results.items()}


def _middle(speeds: Sequence[Speed]) -> Speed:
    return sorted(speeds, key=lambda speed: speed.rate)[len(speeds) // 2]


def _ours(made: Rig, scale: Scale, latency: int, settings: Mapping[str, str]) -> Speed:
    with (
        contextlib.closing(LightCollector(latency / 1_000)) as collector,
        made.ours(collector, settings) as publisher,
        made.producer() as producer,
    ):
        producer.go()
        cycle = int(settings.get(_CONCURRENCY, _default(_CONCURRENCY))) if latency else 1
        return publisher.watch(collector, _seconds(scale), cycle=cycle)


def _relayed(made: Rig, scale: Scale, mode: str) -> Speed:
    with _spool_directory(made) as folder:
        return _ours(made, scale, 0, {"spool.directory": folder, "spool.fsync": mode})


def _from_spool(made: Rig, scale: Scale, latency: int) -> Speed:
    with (
        _spool_directory(made) as folder,
        contextlib.closing(LightCollector(latency / 1_000)) as collector,
        made.producer("--spool", folder) as producer,
        made.ours(collector, {"spool.directory": folder, "queue.transport": "spool"}) as publisher,
    ):
        producer.go()
        cycle = _default(_CONCURRENCY) if latency else 1
        return publisher.watch(collector, _seconds(scale), cycle=cycle)


@contextlib.contextmanager
def _spool_directory(made: Rig) -> Generator[str]:
    folder = made.folder / "spool"
    folder.mkdir(mode=0o700)
    try:
        yield str(folder)
    finally:
        shutil.rmtree(folder)


def _original(made: Rig, scale: Scale, latency: int) -> Speed:
    with (
        contextlib.closing(LightCollector(latency / 1_000)) as collector,
        made.original(collector) as publisher,
        made.producer() as producer,
    ):
        producer.go()
        return publisher.watch(collector, _seconds(scale))


def _floor(made: Rig, scale: Scale, level: int) -> Speed:
    return made.floor(level, _seconds(scale))


def _floor_from_spool(made: Rig, scale: Scale) -> Speed:
    with _spool_directory(made) as folder:
        segments = str(Path(folder, made.queue.name.removeprefix("/")))
        return made.floor(_default(_LEVEL), _seconds(scale), "--spool", segments, spool=folder)


def _floor_relayed(made: Rig, scale: Scale) -> Speed:
    with _spool_directory(made) as folder:
        return made.floor(_default(_LEVEL), _seconds(scale), "--relay", folder)


def _seconds(scale: Scale) -> float:
    return scale.pick(full=1.5, quick=1.0, tiny=0.05)


def _default(name: str) -> int:
    return int(OPTION_BY_NAME[name].default or 0)


def _senders(number: int) -> str:
    return "1 sender" if number == 1 else f"{number} senders"
