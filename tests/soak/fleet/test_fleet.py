"""Properties of a fleet: many publishers with the real policy, and a collector that is short of capacity."""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING

import pytest

from tests.soak.fleet.__main__ import main
from tests.soak.fleet.report import BLOCK, Capacity, Mode, Phase, Report, Slice
from tests.soak.fleet.simulation import CAP, Fleet

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 30
CAPACITY = Capacity(requests=1.5 * SIZE, events=3.0 * BLOCK * SIZE)

OUTAGE = (
    Phase("normal", 30.0),
    Phase("outage", 180.0, Mode.REFUSING),
    Phase("recovery", 150.0),
    Phase("deploy", 30.0, Mode.UNAVAILABLE),
    Phase("afterwards", 60.0),
)

#: All refused requests get the same Retry-After.
ANNOUNCED = (
    Phase("normal", 30.0),
    Phase("deploy", 30.0, Mode.UNAVAILABLE, announced=True),
    Phase("afterwards", 90.0),
)


def load(piece: Slice) -> float:
    """Return the load of a slice."""
    return piece.load


def heaviest(report: Report, seconds: float) -> float:
    """Return the most that was offered, as a multiple of the capacity, while the collector was up."""
    return max(
        report.busiest(load, since, until - seconds, seconds=seconds)
        for phase, since, until in report.spans
        if phase.mode is Mode.UP and until - since > seconds
    )


@pytest.mark.parametrize("story", [OUTAGE, ANNOUNCED])
@pytest.mark.parametrize("retry_after", [0, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_fleet_delivers_everything_without_a_herd(
    story: tuple[Phase, ...], retry_after: int, seed: int
) -> None:
    """Nothing is lost or given up, only resets cause duplicates, and the load is at most 2x."""
    capacity = Capacity(CAPACITY.requests, CAPACITY.events, retry_after=retry_after)
    report = Fleet(SIZE, capacity, story, seed=seed).run()
    assert 0 == report.undelivered
    assert 0 == report.given_up
    assert 0 == report.unbalanced
    assert report.resets == report.duplicates
    # So few publishers are uneven in a single second; tests/soak/fleet looks at seconds.
    assert heaviest(report, 5.0) <= 2.0


def test_fleet_uses_what_the_collector_has() -> None:
    """While there is a backlog the collector is busy, although publishers take care not to overload it."""
    report = Fleet(SIZE, CAPACITY, OUTAGE).run()
    use = report.mean(lambda piece: piece.accepted_events, 240.0, 270.0) / CAPACITY.events
    assert use >= 0.7


def test_fleet_probes_rarely_during_an_outage() -> None:
    """After two minutes each publisher tries about once in half of `retry.cap`, not all together."""
    report = Fleet(SIZE, CAPACITY, OUTAGE).run()
    probes = report.busiest(lambda piece: piece.requests, 150.0, 200.0, seconds=10.0)
    assert 0.0 < probes <= 2.0 * SIZE / (CAP / 2.0)


@pytest.mark.parametrize("mode", [Mode.REFUSING, Mode.UNAVAILABLE])
def test_overload_condemns_no_event(mode: Mode) -> None:
    """No event becomes a dead letter because the collector answered 503 for a long time."""
    story = (Phase("normal", 20.0), Phase("outage", 120.0, mode), Phase("recovery", 300.0))
    report = Fleet(SIZE, Capacity(1.1 * SIZE, 1e9, patience=0.2), story, batch_blocks=1).run()
    assert 0 == report.given_up
    assert 0 == report.undelivered
    assert sum(piece.rejected for piece in report.slices) > 1_000


def test_a_fleet_repeats_itself() -> None:
    """The same arguments give the same run; another seed gives another run."""
    first, second, other = (Fleet(5, CAPACITY, ANNOUNCED, seed=seed).run() for seed in (0, 0, 1))
    assert list(map(astuple, first.slices)) == list(map(astuple, second.slices))
    assert list(map(astuple, first.slices)) != list(map(astuple, other.slices))


def test_a_claim_that_does_not_hold_sets_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A short outage leaves no backlog to be busy with: that claim fails, and so does the command."""
    picture = tmp_path / "fleet.svg"
    assert main(["--size", "20", "--outage", "10", "--plot", str(picture)]) == 1
    claims = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("ok ", "FAIL"))]
    (failed,) = (claim for claim in claims if claim.startswith("FAIL"))
    assert "of the capacity is used" in failed
    assert len(claims) > 5
    assert picture.read_text().startswith("<svg")
