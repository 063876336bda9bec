"""A real Prometheus on loopback, with the rules of `deploy/prometheus` and shorter times, and its answers."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.deploy.systems import DEPLOY
from tests.support.processes import started
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

RULES: Final = DEPLOY / "prometheus"

#: Between two scrapes, and two looks at the rules.
_INTERVAL: Final = "500ms"

#: Times of the rules, and the times used here instead: long enough for a few scrapes on a busy machine.
_FOR: Final = "for: 2s"
_WINDOW: Final = "8s"
_LONG_WINDOW: Final = "25s"

#: Bounds of the rules in seconds, by what is compared with them, and the bounds used here instead.
_BOUNDS: Final = {
    "event_publisher_heartbeat_age_seconds > 30": "event_publisher_heartbeat_age_seconds > 6",
    "event_publisher_failing_seconds > 300": "event_publisher_failing_seconds > 3",
    "event_publisher_oldest_event_age_seconds > 60": "event_publisher_oldest_event_age_seconds > 3",
    "event_publisher_spool_oldest_age_seconds > 3600": "event_publisher_spool_oldest_age_seconds > 3",
    "(event_publisher_attempt_seconds_bucket[5m])) > 2.5": (
        "(event_publisher_attempt_seconds_bucket[5m])) > 0.5"
    ),
}

#: How pods are found in a cluster, and how here: Debian's Prometheus doesn't support Kubernetes.
_IN_A_CLUSTER: Final = "    kubernetes_sd_configs:\n      - role: pod\n"
_FROM_A_FILE: Final = "    file_sd_configs:\n      - files: [{}.json]\n"
#: What a pod says of itself.
POD: Final = {"namespace": "shops", "pod_name": "shop-0", "pod_phase": "Running"}

#: The port of another container in a pod. Nothing listens there, so scraping it would fail.
_OTHER_PORT: Final = 1

_HOSTS: Final = re.compile(r"    static_configs:\n      - targets:\n(?:          - \S+\n)+")


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert that fires.

    Attributes:
        name: Its name.
        labels: Its labels.
        texts: Its annotations.
    """

    name: str
    labels: Mapping[str, str]
    texts: Mapping[str, str]


def quick(rules: str) -> str:
    """Make rules whose alerts fire and end within seconds: the same expressions with shorter times.

    Raises:
        AssertionError: A bound isn't as expected.
    """
    for bound, quick_bound in _BOUNDS.items():
        assert rules.count(bound) == 1, bound
        rules = rules.replace(bound, quick_bound)
    rules = re.sub(r"\bfor: \w+", _FOR, rules)
    rules = rules.replace("[30m]", f"[{_LONG_WINDOW}]")
    rules = re.sub(r"\[\d+[mh]\]", f"[{_WINDOW}]", rules)
    rules = re.sub(r"(event_publisher_uptime_seconds <) \d+", rf"\1 {_WINDOW.removesuffix('s')}", rules)
    assert not re.search(r"\b\d+[mhd]\b", rules.partition("groups:")[2].replace("rate5m", ""))
    return rules


class Prometheus:
    """A Prometheus that runs.

    Args:
        folder: That of its configuration.
        port: Its port on loopback.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._url = f"http://127.0.0.1:{port}/"
        self._hosts: set[int] = set()

    def _get(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - it is JSON
        url = f"{self._url}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as exc:
            raise AssertionError(f"{parameters}: {exc.read().decode()}") from exc

    def ready(self) -> bool:
        """Return whether it answers."""
        try:
            with urllib.request.urlopen(f"{self._url}-/ready", timeout=PATIENCE):
                return True
        except OSError:
            return False

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and values of what an expression currently finds.

        Raises:
            AssertionError: It isn't an expression.
        """
        found = self._get("api/v1/query", query=expression)["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in found]

    def firing(self) -> list[Alert]:
        """Return the alerts that fire."""
        return [
            Alert(alert["labels"]["alertname"], alert["labels"], alert["annotations"])
            for alert in self._get("api/v1/alerts")["alerts"]
            if alert["state"] == "firing"
        ]

    def add_host(self, port: int) -> None:
        """Scrape a publisher at a port of loopback, as on a host."""
        self._hosts.add(port)
        self._write_hosts()

    def remove_host(self, port: int) -> None:
        """Stop scraping it."""
        self._hosts.discard(port)
        self._write_hosts()

    def _write_hosts(self) -> None:
        _write_targets(self._folder / "hosts.json", [({}, port) for port in sorted(self._hosts)])

    def set_pods(self, port: int) -> None:
        """Find a pod as in a cluster: its container with a publisher at a port, and another container."""
        metadata = {f"__meta_kubernetes_{name}": value for name, value in POD.items()}
        containers = {
            port: {"__meta_kubernetes_pod_container_port_name": "event-metrics"},
            _OTHER_PORT: {"__meta_kubernetes_pod_container_port_name": "http"},
        }
        targets = [(metadata | labels, at) for at, labels in containers.items()]
        _write_targets(self._folder / "pods.json", targets)


def _write_targets(path: Path, targets: list[tuple[dict[str, str], int]]) -> None:
    """Write a file of targets so that it is never read half-written."""
    written = [{"targets": [f"127.0.0.1:{port}"], "labels": labels} for labels, port in targets]
    new = path.with_suffix(".new")
    new.write_text(json.dumps(written))
    new.replace(path)


def free_port() -> int:
    """Return a port of loopback that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _configuration() -> str:
    """Return the scrape configuration of `deploy/prometheus`, with targets from files."""
    text, hosts = _HOSTS.subn(_FROM_A_FILE.format("hosts"), (RULES / "scrape.yml").read_text())
    assert (hosts, text.count(_IN_A_CLUSTER)) == (1, 1)
    intervals = f"scrape_interval: {_INTERVAL}, scrape_timeout: {_INTERVAL}, evaluation_interval: {_INTERVAL}"
    return f"global: {{{intervals}}}\n{text.replace(_IN_A_CLUSTER, _FROM_A_FILE.format('pods'))}"


def prepare(folder: Path) -> Path:
    """Write the configuration and the quick rules into a folder, and return the path of the configuration."""
    (folder / "alerts.yml").write_text(quick((RULES / "alerts.yml").read_text()))
    recording = (RULES / "recording.yml").read_text()
    (folder / "recording.yml").write_text(recording.replace("[5m]", f"[{_WINDOW}]"))
    for name in ("hosts", "pods"):
        (folder / f"{name}.json").write_text("[]")
    path = folder / "prometheus.yml"
    path.write_text(_configuration())
    return path


@contextlib.contextmanager
def running(folder: Path) -> Generator[Prometheus]:
    """Run a Prometheus with the rules of `deploy/prometheus` made quick, which scrapes nothing yet.

    Raises:
        TimeoutError: It doesn't start.
    """
    configuration = prepare(folder)
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    log = folder / "prometheus.log"
    with log.open("wb") as output, started(*command, stdout=output, stderr=output) as process:
        prometheus = Prometheus(folder, port)
        wait_until(prometheus.ready, log.read_text, process=process, interval=0.05)
        yield prometheus
