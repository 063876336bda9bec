r"""Prometheus' text exposition format, version 0.0.4: for scrapers. Pure.

    # HELP NAME What it is.
    # TYPE NAME counter
    NAME{label="value",other="value"} 5

Each metric follows the other, and each line has its line feed. Help texts escape `\` and line feeds, and
label values also `"`. `parse_samples` parses only the output of `format_metrics`: no timestamps, and no extra
blanks. All numbers are finite.

https://github.com/prometheus/docs/blob/main/docs/instrumenting/exposition_formats.md
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .snapshot import Distribution

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
#: Names and values of labels, in output order.
Labels: TypeAlias = tuple[tuple[str, str], ...]

#: The media type of a scrape.
MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES: Final = {"\\": "\\\\", "\n": "\\n", '"': '\\"'}
_UNESCAPES: Final = {escaped: char for char, escaped in _ESCAPES.items()}
_LABEL: Final = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\[\\n"])*)"')
_SAMPLE: Final = re.compile(
    r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\n"])*"(?:,|(?=\})))*)\})?'
    r" (-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)"
)


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample of a metric.

    Attributes:
        labels: What distinguishes it from the other samples of its metric.
        value: The number.
        suffix: What its name adds to that of the metric, such as `_bucket`.
    """

    labels: Labels
    value: float
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """The samples of one name.

    Attributes:
        name: Lower-case letters and underscores; of a counter it ends in `_total`.
        kind: What it is.
        meaning: What it means, for people.
        samples: Its numbers; without any the metric isn't written.
    """

    name: str
    kind: Kind
    meaning: str
    samples: tuple[Sample, ...]


def histogram_samples(distribution: Distribution, labels: Labels) -> tuple[Sample, ...]:
    """Return the samples of a histogram: how many values are up to each bound, their sum and number."""
    bounds = [*map(str, distribution.bounds), "+Inf"]
    buckets = zip(bounds, itertools.accumulate(distribution.counts), strict=True)
    return (
        *(Sample((*labels, ("le", bound)), count, "_bucket") for bound, count in buckets),
        Sample(labels, distribution.total, "_sum"),
        Sample(labels, distribution.count, "_count"),
    )


def format_metrics(metrics: Iterable[Metric]) -> str:
    """Format metrics."""
    lines: list[str] = []
    for metric in metrics:
        if metric.samples:
            lines.append(f"# HELP {metric.name} {_escape(metric.meaning, quoted=False)}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
        for sample in metric.samples:
            labels = ",".join(f'{name}="{_escape(value)}"' for name, value in sample.labels)
            braces = f"{{{labels}}}" if labels else ""
            lines.append(f"{metric.name}{sample.suffix}{braces} {sample.value}")
    return "".join(f"{line}\n" for line in lines)


def parse_samples(text: str) -> Mapping[tuple[str, Labels], float]:
    """Parse the output of `format_metrics`; return the values by name and labels.

    Raises:
        ValueError: It isn't such a text, or ends within a line.
    """
    samples: dict[tuple[str, Labels], float] = {}
    lines = text.split("\n")
    if lines.pop():
        raise ValueError("the metrics end within a line")
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            continue
        match = _SAMPLE.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number} of the metrics isn't a sample")
        samples[match[1], _parse_labels(match[2] or "")] = (
            int(match[3]) if match[3].isdecimal() else float(match[3])
        )
    return samples


def _parse_labels(text: str) -> Labels:
    found = _LABEL.findall(text)
    return tuple((name, re.sub(r"\\.", lambda escape: _UNESCAPES[escape[0]], value)) for name, value in found)


def _escape(text: str, *, quoted: bool = True) -> str:
    pattern = r'[\\\n"]' if quoted else r"[\\\n]"
    return re.sub(pattern, lambda match: _ESCAPES[match[0]], text)
