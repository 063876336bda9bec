"""Draws what became of a fleet, as an SVG that is readable on light and on dark pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.soak.fleet.report import SLICES, Mode, Report, Slice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Seconds that a point of a curve stands for.
_STEP: Final = 10

#: Seconds from which on the axis has a mark every ten minutes instead of every minute.
_LONG: Final = 1_200

#: Sizes in user units: the picture, its margins, and a panel with the room between two.
_WIDTH, _LEFT, _RIGHT, _TOP = 976, 64, 32, 40
_PANEL, _GAP = 150, 46

_STYLE: Final = """
.page { fill: #fff }
text { font: 12px sans-serif; fill: #24292f }
.title { font-weight: bold } .end { text-anchor: end } .middle { text-anchor: middle }
.grid { stroke: #8c959f; stroke-opacity: .4 } .down { fill: #8c959f; fill-opacity: .2 }
.limit { stroke: #cf222e; stroke-dasharray: 6 4 }
polyline { fill: none; stroke-width: 1.5; stroke-linejoin: round }
.a { stroke: #0969da } .b { stroke: #bf8700 } .a-text { fill: #0969da } .b-text { fill: #bf8700 }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } text { fill: #d0d7de } .limit { stroke: #ff7b72 }
.a { stroke: #58a6ff } .b { stroke: #d29922 } .a-text { fill: #58a6ff } .b-text { fill: #d29922 }
}
"""


@dataclass(frozen=True, slots=True)
class _Curve:
    label: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    curves: Sequence[_Curve]
    ticks: Sequence[float]
    limit: float | None = None


def draw(report: Report) -> str:
    """Draw load, requests and backlog over time; return the text of an SVG file."""
    seconds = min(len(report.slices) / SLICES, report.ended_at)
    panels = _panels(report)
    height = _TOP + len(panels) * (_PANEL + _GAP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{len(report.publishers):,} publishers through an outage and a deploy</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{height}"/>',
    ]
    for number, panel in enumerate(panels):
        lines += _draw_panel(panel, report, seconds, _TOP + number * (_PANEL + _GAP))
    return "\n".join([*lines, "</svg>", ""])


def _panels(report: Report) -> list[_Panel]:
    def mean(measure: Callable[[Slice], float]) -> list[float]:
        return [report.mean(measure, at, at + _STEP) for at in _steps(report)]

    load = [report.busiest(lambda piece: piece.load, at, at + _STEP) for at in _steps(report)]
    requests = report.capacity.requests
    return [
        _Panel(
            "Load offered, as a multiple of the collector's capacity",
            [_Curve("busiest second of ten", load), _Curve("mean", mean(lambda piece: piece.load))],
            [0, 1, 2],
            limit=2.0,
        ),
        _Panel(
            "Requests per second",
            [
                _Curve("offered", mean(lambda piece: piece.requests)),
                _Curve("answered 503", mean(lambda piece: piece.rejected)),
            ],
            [0, requests / 3, requests * 2 / 3],
        ),
        _backlog_panel(report),
    ]


def _backlog_panel(report: Report) -> _Panel:
    backlog = [report.slices[round(at * SLICES)].backlog / 1e6 for at in _steps(report)]
    most = max(backlog)
    return _Panel(
        "Backlog, millions of events", [_Curve("backlog", backlog)], [0, round(most / 2), round(most)]
    )


def _steps(report: Report) -> Iterator[float]:
    for step in range(int(min(len(report.slices) / SLICES, report.ended_at)) // _STEP):
        yield float(step * _STEP)


def _draw_panel(panel: _Panel, report: Report, seconds: float, top: float) -> Iterator[str]:
    """Yield the elements of a panel whose upper edge is at `top`."""
    most = max(*(max(curve.values) for curve in panel.curves), *panel.ticks) * 1.05
    bottom = top + _PANEL

    def x(at: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * at / seconds

    def y(value: float) -> float:
        return bottom - _PANEL * value / most

    for phase, since, until in report.spans:
        if phase.mode is not Mode.UP:
            width = x(until) - x(since)
            yield f'<rect class="down" x="{x(since):.1f}" y="{top}" width="{width:.1f}" height="{_PANEL}"/>'
            middle = (x(since) + x(until)) / 2
            yield f'<text class="middle" x="{middle:.1f}" y="{top + 36}">{phase.name}</text>'
    for tick in panel.ticks:
        yield f'<path class="grid" d="M{_LEFT} {y(tick):.1f}H{_WIDTH - _RIGHT}"/>'
        yield f'<text class="end" x="{_LEFT - 6}" y="{y(tick) + 4:.1f}">{tick:,.0f}</text>'
    for minute in range(0, int(seconds // 60) + 1, 10 if seconds > _LONG else 1):
        yield f'<text class="middle" x="{x(minute * 60):.1f}" y="{bottom + 16}">{minute} min</text>'
    if panel.limit is not None:
        yield f'<path class="limit" d="M{_LEFT} {y(panel.limit):.1f}H{_WIDTH - _RIGHT}"/>'
    yield f'<text class="title" x="{_LEFT}" y="{top - 8}">{panel.title}</text>'
    at = _WIDTH - _RIGHT
    for name, curve in reversed(list(zip("ab", panel.curves, strict=False))):
        points = " ".join(
            f"{x((step + 0.5) * _STEP):.1f},{y(value):.1f}" for step, value in enumerate(curve.values)
        )
        yield f'<polyline class="{name}" points="{points}"/>'
        if len(panel.curves) > 1:
            yield f'<text class="{name}-text end" x="{at}" y="{top - 8}">{curve.label}</text>'
            at -= 8 * len(curve.label) + 16
