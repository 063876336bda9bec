"""The files for Prometheus and Grafana agree with what the publisher exports, and with the guide."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from baseplate_events.event_publisher.policy.accounting import Accounting
from baseplate_events.event_publisher.telemetry.metrics import metrics_of
from baseplate_events.event_publisher.telemetry.snapshot import Snapshot, SpoolLevel

TOP: Final = Path(__file__).parents[2]
FOLDER: Final = TOP / "deploy" / "prometheus"
DASHBOARD: Final = TOP / "deploy" / "grafana" / "event-publisher.json"
GUIDE: Final = TOP / "docs" / "operations.md"

#: Names of what a histogram has besides its own.
_PARTS: Final = re.compile("_(bucket|sum|count)$")

#: Columns of a Grafana dashboard.
_COLUMNS: Final = 24


def exported() -> dict[str, str]:
    """Return the names of all metrics of a publisher with both transports, and their kinds."""
    snapshot = Snapshot("v2", "1.0", 0.0, 1.0, Accounting(), 0, 10, spool=SpoolLevel(0, 1))
    return {metric.name: metric.kind for metric in metrics_of(snapshot, 1.0)}


def without_comments(path: Path) -> str:
    """Return the text of a YAML file without its comments."""
    return re.sub(r"(?m)^\s*#.*\n", "", path.read_text())


def metrics_in(text: str) -> set[str]:
    """Return the metrics of a publisher that a text names; names of recorded series have colons."""
    kinds = exported()
    found = re.findall(r"(?<![\w:])(event_publisher_\w+)(?![\w:])", text)
    return {name if name in kinds else _PARTS.sub("", name) for name in found}


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    read: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return read


def queries() -> list[str]:
    """Return the queries of the dashboard."""
    return [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]


def alerts() -> dict[str, str]:
    """Return the alerts, each with the text of its rule."""
    rules = re.split(r"(?m)^      - alert: ", without_comments(FOLDER / "alerts.yml"))[1:]
    return {rule.partition("\n")[0]: rule for rule in rules}


@pytest.mark.parametrize(
    "text",
    [
        *(without_comments(path) for path in sorted(FOLDER.glob("*.yml"))),
        *queries(),
        *(str(variable["query"]) for variable in dashboard()["templating"]["list"]),
    ],
)
def test_everything_that_is_asked_for_is_exported(text: str) -> None:
    """Rules, their tests and the dashboard name no metric that a publisher doesn't have."""
    assert metrics_in(text) <= exported().keys()


def test_the_dashboard_has_every_metric() -> None:
    """Each metric is in a query of the dashboard."""
    assert exported().keys() == metrics_in("\n".join(queries()))


@pytest.mark.parametrize(
    "text", [*alerts().values(), (FOLDER / "recording.yml").read_text(), "\n".join(queries())]
)
def test_counters_are_not_taken_for_levels(text: str) -> None:
    """Of a counter an increase or a rate is asked for, or whether it is there at all; of a gauge none is."""
    for name, kind in exported().items():
        of_time = re.findall(rf"\b(?:rate|increase)\({name}(?:_bucket|_sum|_count)?\b", text)
        assert kind != "gauge" or not of_time
        if kind == "counter" and metrics_in(text) & {name} and "torn" not in name:
            assert of_time


def test_the_guide_has_every_alert() -> None:
    """The guide says what to do for each alert, in the order of the file, with the same severity."""
    section = GUIDE.read_text().partition("\n### Alerts\n")[2].partition("\n## ")[0]
    named = re.findall(r"(?m)^#### (\w+)\n\n\*(\w+)\.\* ", section)
    severities = {name: re.findall(r"severity: (\w+)", rule) for name, rule in alerts().items()}
    assert [(name, [severity.lower()]) for name, severity in named] == list(severities.items())
    assert set(itertools.chain(*severities.values())) == {"critical", "warning"}
    assert metrics_in(section) <= exported().keys()
    linked = set(re.findall(r"\bEvent(?:s|Publisher)?[A-Z][a-z]\w+|DeadLetters\w+", section))
    assert {name for name in linked if not name.endswith("Error")} == alerts().keys()


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_what_to_do(name: str) -> None:
    """Each has a summary, a description, and a link to its heading in the guide."""
    rule = alerts()[name]
    assert re.search(r"(?m)^          summary: ", rule)
    assert re.search(r"(?m)^          description: ", rule)
    assert [f"docs/operations.md#{name.lower()}"] == re.findall(r"runbook_url: (\S+)", rule)


def test_every_alert_has_a_test() -> None:
    """`promtool test rules` sees each fire and end."""
    fired: set[str] = set()
    for block in (FOLDER / "alerts.test.yml").read_text().split("  - name: "):
        found = re.findall(r"labels: '\{alertname=\"(\w+)\"\}'", block)
        assert not found or "exp_samples: []" in block.partition(found[0])[2]
        fired.update(found)
    assert alerts().keys() == fired


def test_the_dashboard_is_laid_out() -> None:
    """Panels have distinct numbers, titles and places, a unit, and words on what they show."""
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= _COLUMNS
        own = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
            )
        )
        assert not own & cells
        cells |= own
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert all(target["legendFormat"] for target in panel["targets"])
            letters = [target["refId"] for target in panel["targets"]]
            assert len(set(letters)) == len(letters)


def test_the_dashboard_uses_its_variables() -> None:
    """Each query goes to the chosen Prometheus, for the chosen queues and publishers."""
    names = {variable["name"] for variable in dashboard()["templating"]["list"]}
    assert names == {"datasource", "queue", "instance"}
    (annotation,) = dashboard()["annotations"]["list"]
    shown = re.search(r'alertname=~"([^"]*)"', annotation["expr"])
    assert shown is not None
    assert all(re.fullmatch(shown[1], name) for name in alerts())
    for query in queries():
        selectors = re.findall(r"event_publisher_\w+(\{[^}]*\})?", query)
        assert all('queue=~"$queue", instance=~"$instance"' in selector for selector in selectors)
        assert set(re.findall(r"\$(\w+)", query)) <= {*names, "__rate_interval"}
    for panel in dashboard()["panels"]:
        for part in (panel, *panel.get("targets", [])):
            assert panel["type"] == "row" or part["datasource"]["uid"] == "${datasource}"
