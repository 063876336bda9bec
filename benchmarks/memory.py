"""The peak memory of a publisher, compared with what `docs/operations.md` promises.

Rules:

1. Each publisher has all senders busy, with batches of full size that hardly compress, against a collector
   that resets one connection in twenty. It has a spool, and speaks TLS if `trustme`, which makes
   the certificates, is installed.
2. Memory is the peak that the kernel counts as resident (VmHWM), shared libraries included.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from typing import TYPE_CHECKING, Final

from benchmarks.light_collector import LightCollector
from benchmarks.publisher_rig import rig
from benchmarks.report import Line, Report, Target

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from benchmarks.publisher_rig import Rig
    from benchmarks.scale import Scale

_MIB: Final = 1024 * 1024

#: The formula of `docs/operations.md`: MiB of the publisher, MiB of each sender, and what a byte of
#: `batch.max_size` takes for each sender and `MORE_BATCHES` more.
BASE: Final = 40
SENDER: Final = 1
FACTOR: Final = 2.5
MORE_BATCHES: Final = 2

#: Share of the requests whose connections are reset.
_RESETS: Final = 0.05

#: Bytes a second that one core takes in, compresses and sends at most: what keeps all senders busy.
_SPEED: Final = 40e6

#: Pairs of `delivery.concurrency` and `batch.max_size`.
_SETTINGS: Final = ((1, 512_000), (4, 512_000), (16, 512_000), (16, 128_000), (4, 2_000_000))


def documented_bound(concurrency: int, batch_size: int) -> float:
    """Return the MiB that the documentation promises."""
    return BASE + SENDER * concurrency + FACTOR * batch_size / _MIB * (concurrency + MORE_BATCHES)


def run(scale: Scale) -> Report:
    """Measure publishers of different sizes, one after the other."""
    settings = scale.pick(full=_SETTINGS, quick=((16, 512_000),), tiny=((2, 128_000),))
    seconds = scale.pick(full=30.0, quick=15.0, tiny=0.2)
    lines: list[Line] = []
    targets: list[Target] = []
    with rig() as made:
        for concurrency, batch_size in settings:
            what = f"{concurrency} senders, batches of {batch_size:,} bytes"
            peak = _peak(made, concurrency, batch_size, seconds)
            lines.append(Line(what, "MiB", peak))
            targets.append(Target(what, peak, documented_bound(concurrency, batch_size), at_least=False))
        notes = (made.note, "One connection in twenty is reset. Resident at most, shared libraries included.")
    return Report("Memory", tuple(lines), tuple(targets), notes)


def _peak(made: Rig, concurrency: int, batch_size: int, seconds: float) -> float:
    """Return the peak memory of a publisher in MiB."""
    with contextlib.ExitStack() as stack:
        context, secure = _tls(made.folder)
        # As long as all senders take to be handed a batch each.
        latency = concurrency * batch_size / _SPEED
        collector = stack.enter_context(
            contextlib.closing(LightCollector(latency, resets=_RESETS, ssl_context=context))
        )
        spool = made.folder / "spool"
        spool.mkdir()
        stack.callback(shutil.rmtree, spool)
        settings = {
            **secure,
            "delivery.concurrency": str(concurrency),
            "batch.max_size": str(batch_size),
            "spool.directory": str(spool),
            "retry.base": "10 milliseconds",
            "retry.cap": "50 milliseconds",
        }
        publisher = stack.enter_context(made.ours(collector, settings))
        producer = stack.enter_context(made.producer("--noise"))
        producer.go()
        publisher.watch(collector, seconds)
        return publisher.peak_memory / _MIB


def _tls(folder: Path) -> tuple[ssl.SSLContext | None, dict[str, str]]:
    """Return the context of a collector, and the settings that trust it; nothing without `trustme`."""
    if importlib.util.find_spec("trustme") is None:
        return None, {}
    from tests.support.fault_collector import trusted_tls  # noqa: PLC0415 - it needs trustme

    context, authority = trusted_tls()
    ca_file = folder / "ca.pem"
    ca_file.write_bytes(authority)
    return context, {"collector.scheme": "https", "collector.ca_file": str(ca_file)}
