"""The files for Prometheus, with the real one: checked by promtool, and tried on publishers with faults."""

from __future__ import annotations

import contextlib
import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest

from tests.deploy.faults import FAULTS, healthy
from tests.deploy.prometheus import POD, RULES, prepare, running
from tests.deploy.scene import Scene
from tests.deploy.systems import DEPLOY
from tests.support.commands import run
from tests.support.queues import needs_root
from tests.support.tools import need_command
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.deploy.faults import Steps
    from tests.deploy.prometheus import Alert, Prometheus

#: Seconds until all alerts have come and gone, and between two looks at them.
_PATIENCE: Final = 120.0
_GLANCE: Final = 0.3

#: The alert that fires before anything is scraped.
_NOTHING_IS_SCRAPED: Final = "EventPublishersMissing"

ALERTS: Final = re.findall(r"(?m)^      - alert: (\w+)$", (RULES / "alerts.yml").read_text())
RECORDED: Final = re.findall(r"(?m)^      - record: (\S+)$", (RULES / "recording.yml").read_text())
DASHBOARD: Final = json.loads((DEPLOY / "grafana" / "event-publisher.json").read_text())
QUERIES: Final[list[str]] = [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])
]


@pytest.mark.parametrize("name", ["alerts.yml", "recording.yml"])
def test_promtool_accepts_the_rules(name: str) -> None:
    """Promtool finds no mistake in the rules."""
    need_command("promtool")
    assert "SUCCESS" in run("promtool", "check", "rules", RULES / name, merged=True).check()


def test_promtool_accepts_the_scrape_configuration(tmp_path: Path) -> None:
    """Promtool finds no mistake in the scrape configuration, or in the rules with shorter times."""
    need_command("promtool")
    assert "SUCCESS" in run("promtool", "check", "config", prepare(tmp_path), merged=True).check()


def test_alerts_fire_and_end_at_the_times_of_the_rules() -> None:
    """With the real times each alert fires on its numbers alone, and ends with them."""
    need_command("promtool")
    assert "SUCCESS" in run("promtool", "test", "rules", RULES / "alerts.test.yml", merged=True).check()


@dataclass
class Play:
    """Observations of all faults.

    Attributes:
        scenes: Each fault with its scene.
        fired: The texts of the alerts that fired, by name.
        ended: Names of alerts that fired and then ended, in any scene.
        unanswered: Queries of the dashboard that had no result so far.
        unrecorded: Recorded series that haven't existed so far.
        pods: The labels of what was scraped as in a cluster.
    """

    scenes: dict[str, Scene] = field(default_factory=dict[str, Scene])
    fired: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    ended: set[str] = field(default_factory=set[str])
    unanswered: set[str] = field(default_factory=lambda: set(QUERIES))
    unrecorded: set[str] = field(default_factory=lambda: set(RECORDED))
    pods: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def scene_of(self, alert: Alert) -> Scene | None:
        """Return the scene of an alert."""
        for scene in self.scenes.values():
            if alert.labels.get("queue") == scene.name:
                return scene
            if alert.labels.get("instance") in {f"127.0.0.1:{port}" for port in scene.ports}:
                return scene
        return None

    def look(self, prometheus: Prometheus) -> bool:
        """Record the alerts that fire; return whether none does."""
        firing = prometheus.firing()
        for alert in firing:
            scene = self.scene_of(alert)
            assert scene is not None or alert.name == _NOTHING_IS_SCRAPED, alert
            for seen in (self.fired, *([] if scene is None else [scene.fired])):
                seen.setdefault(alert.name, []).extend(alert.texts.values())
        self.ended = self.fired.keys() - {alert.name for alert in firing}
        return not firing

    def ask(self, prometheus: Prometheus) -> None:
        """Run the queries of the dashboard, and query the recorded series."""
        for query in list(self.unanswered):
            asked = query.replace("$__rate_interval", "5s").replace("$queue", ".*").replace("$instance", ".*")
            assert "$" not in asked
            if any(value == value for _, value in prometheus.query(asked)):  # noqa: PLR0124 - not NaN
                self.unanswered.discard(query)
        self.unrecorded -= {name for name in self.unrecorded if prometheus.query(name)}


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Generator[Play]:
    """All faults, side by side, from their beginnings until no alert fires any more."""
    for tool in ("prometheus", "mkfs.ext4", "fsfreeze", "prlimit"):
        need_command(tool)
    play = Play()
    with (
        running(tmp_path_factory.mktemp("prometheus")) as prometheus,
        contextlib.ExitStack() as stack,
    ):
        give_up_at = time.monotonic() + _PATIENCE

        def is_scraped_by_none() -> bool:
            play.look(prometheus)
            return _NOTHING_IS_SCRAPED in play.fired

        wait_until(
            is_scraped_by_none, f"{_NOTHING_IS_SCRAPED} doesn't fire", patience=_PATIENCE, interval=_GLANCE
        )
        running_steps: dict[str, Steps] = {}
        for fault, expected in FAULTS.items():
            folder = tmp_path_factory.mktemp(fault.__name__)
            scene = Scene(folder, prometheus, stack, expected)
            play.scenes[fault.__name__] = scene
            running_steps[fault.__name__] = fault(scene)

        def is_over() -> bool:
            for name, steps in list(running_steps.items()):
                try:
                    next(steps)
                except StopIteration:
                    del running_steps[name]
            quiet = play.look(prometheus)
            play.ask(prometheus)
            return quiet and running_steps.keys() == {healthy.__name__}

        with contextlib.suppress(TimeoutError):  # the test of each alert says what is missing
            left = give_up_at - time.monotonic()
            wait_until(is_over, "alerts fire", patience=left, interval=_GLANCE)
        play.pods = [labels for labels, _ in prometheus.query('up{job="event-publisher-pods"} == 1')]
        yield play


@needs_root
@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_fires_and_ends(play: Play, name: str) -> None:
    """Each alert fires for a real publisher with the fault, has annotations, and ends afterwards."""
    assert name in play.fired
    assert name in play.ended
    for text in play.fired[name]:
        assert text
        assert re.search(r"{{|<no value>|%!|<error|NaN", text) is None


@needs_root
@pytest.mark.parametrize("fault", [fault.__name__ for fault in FAULTS])
def test_a_fault_fires_its_alerts(play: Play, fault: str) -> None:
    """A publisher with a fault fires its alerts; a healthy publisher beside it fires none."""
    scene = play.scenes[fault]
    assert scene.expected <= scene.fired.keys()
    if not scene.expected:
        assert scene.fired == {}


def test_each_alert_is_tried() -> None:
    """No alert is left out."""
    assert {_NOTHING_IS_SCRAPED, *frozenset().union(*FAULTS.values())} == set(ALERTS)


@needs_root
def test_the_dashboard_shows_something(play: Play) -> None:
    """Each query of the dashboard is valid, and returns numbers of real publishers."""
    assert play.unanswered == set()


@needs_root
def test_series_are_recorded(play: Play) -> None:
    """Each recording rule gives a series."""
    assert play.unrecorded == set()


@needs_root
def test_a_pod_is_found_by_its_port(play: Play) -> None:
    """Of the containers of a pod the publisher alone is scraped, with the names of pod and namespace."""
    (port,) = play.scenes[healthy.__name__].ports
    (labels,) = play.pods
    assert f"127.0.0.1:{port}" == labels["instance"]
    assert (POD["namespace"], POD["pod_name"]) == (labels["namespace"], labels["pod"])
