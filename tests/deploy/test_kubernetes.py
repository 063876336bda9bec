"""The pod's manifest: by Kubernetes' own schemas, by what a sidecar needs, and tried with an engine."""

from __future__ import annotations

import json
import re
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import pytest

from baseplate_events.event_publisher.config.settings import load_settings
from baseplate_events.event_publisher.config.values import InternetEndpoint
from baseplate_events.event_publisher.ledger.file import KEPT_ASIDE
from baseplate_events.events import MAX_SPOOL_SIZE, SPOOL_VARIABLE
from baseplate_events.spool.writer import MIN_SEGMENT_SIZE, SEGMENTS
from tests.deploy.containers import COLLECTOR, PYTHON
from tests.deploy.guide import guide
from tests.deploy.systems import DEPLOY
from tests.support.commands import run

if TYPE_CHECKING:
    from baseplate_events.event_publisher.config.settings import PublisherSettings
    from tests.deploy.containers import Engine

MANIFEST: Final = DEPLOY / "kubernetes" / "pod.yaml"
POLICY: Final = DEPLOY / "kubernetes" / "network-policy.yaml"

#: The first release with native sidecars by default, and the newest with published schemas.
VERSIONS: Final = ("1.29.0", "1.37.0")

#: Writers that the volume has room for: EventQueue objects in processes of the service.
WRITERS: Final = 32

#: How many times `dead_letters.max_size` the file of a ledger takes, and how many are kept.
LETTER_PAGES: Final = 2
LEDGERS: Final = 1 + KEPT_ASIDE

#: Bytes of the rest of a ledger and its journal.
LEDGER_SIZE: Final = 2**20

#: Settings that a cluster may forbid, or that a node must be prepared for.
KERNEL_SETTINGS: Final = re.compile("sysctl|rlimit|ulimit|hostIPC|shareProcessNamespace|privileged: true")


class Node:
    """A value of the manifest."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __getitem__(self, key: str) -> Node:
        return Node(self._mapping[key])

    def __contains__(self, key: str) -> bool:
        return key in self._mapping

    def items(self) -> list[Node]:
        items = cast("list[object]", self.value)
        assert isinstance(items, list), items
        return [Node(item) for item in items]

    def named(self, name: str) -> Node:
        """Return the item of a list that has this name, itself or in its metadata."""
        (found,) = [item for item in self.items() if item.name == name]
        return found

    @property
    def name(self) -> object:
        owner = self["metadata"] if "metadata" in self else self  # noqa: SIM401 - it is no mapping
        return owner["name"].value

    @property
    def _mapping(self) -> dict[str, object]:
        mapping = cast("dict[str, object]", self.value)
        assert isinstance(mapping, dict), mapping
        return mapping

    @property
    def text(self) -> str:
        assert isinstance(self.value, str), self.value
        return self.value

    @property
    def number(self) -> int:
        assert isinstance(self.value, int), self.value
        return self.value


def read_yaml(text: str) -> list[Node]:
    """Read the documents of a file."""
    convert = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout)"
    return Node(json.loads(run(sys.executable, "-c", convert, stdin=text).check())).items()


def yaml_blocks(heading: str) -> list[Node]:
    """Read the manifests in the guide."""
    return [document for block in guide(heading, "yaml") for document in read_yaml(block)]


@pytest.fixture(scope="module")
def documents() -> dict[str, Node]:
    """The documents of the manifest, by their kinds."""
    return {node["kind"].text: node for node in read_yaml(MANIFEST.read_text())}


@pytest.fixture(scope="module")
def pod(documents: dict[str, Node]) -> Node:
    """The specification of the pod."""
    return documents["Pod"]["spec"]


@pytest.fixture(scope="module")
def sidecar(pod: Node) -> Node:
    """The publisher's container."""
    return pod["initContainers"].named("event-publisher")


@pytest.fixture(scope="module")
def settings(documents: dict[str, Node], tmp_path_factory: pytest.TempPathFactory) -> PublisherSettings:
    """The publisher's configuration, with the secret of the example."""
    path = tmp_path_factory.mktemp("configuration") / "v2.ini"
    path.write_text(documents["ConfigMap"]["data"]["v2.ini"].text)
    secret = documents["Secret"]["stringData"]["key-secret"].text
    return load_settings(path, "v2", {"EVENT_KEY_SECRET": secret})


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schema_is_kept(version: str) -> None:
    """The manifest has the form that Kubernetes requires, without unknown keys."""
    validate = Path(sysconfig.get_path("scripts")) / "kubernetes-validate"
    done = run(validate, "--strict", "--kubernetes-version", version, MANIFEST, POLICY, merged=True)
    assert 4 == done.check().count(" passed for ")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_variant_with_a_claim_is_valid(
    documents: dict[str, Node], pod: Node, version: str, tmp_path: Path
) -> None:
    """With the guide's volume claim, the pod is that of a StatefulSet, and the claim is no smaller."""
    (claim,) = yaml_blocks("In Kubernetes")
    spec = cast("dict[str, object]", claim.value)
    volumes = [volume.value for volume in pod["volumes"].items() if volume["name"].value != "spool"]
    labels = documents["Pod"]["metadata"]["labels"].value
    template = {
        "metadata": {"labels": labels},
        "spec": {**cast("dict[str, object]", pod.value), "volumes": volumes},
    }
    stateful = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "service"},
        "spec": {"serviceName": "service", "selector": {"matchLabels": labels}, "template": template, **spec},
    }
    path = tmp_path / "stateful.yaml"
    path.write_text(json.dumps(stateful))
    validate = Path(sysconfig.get_path("scripts")) / "kubernetes-validate"
    done = run(validate, "--strict", "--kubernetes-version", version, path, merged=True)
    assert 1 == done.check().count(" passed for ")
    size = claim["volumeClaimTemplates"].named("spool")["spec"]["resources"]["requests"]["storage"].text
    assert size.endswith("Gi")
    assert int(size[:-2]) * 2**30 >= mebibytes(pod["volumes"].named("spool")["emptyDir"]["sizeLimit"])


def test_the_publisher_is_a_sidecar(pod: Node, sidecar: Node) -> None:
    """It starts before the service and ends after it, and has enough time."""
    assert "Always" == sidecar["restartPolicy"].text
    assert 1 == len(pod["initContainers"].items())


def test_it_has_the_time_to_end(pod: Node, settings: PublisherSettings) -> None:
    """The service has half of the time to end."""
    assert pod["terminationGracePeriodSeconds"].number / 2 > settings.shutdown.grace


def test_no_setting_of_the_kernel_is_needed(settings: PublisherSettings) -> None:
    """The manifest starts on a stock cluster: events go through the volume alone."""
    assert "spool" == settings.queue.transport
    assert KERNEL_SETTINGS.search(MANIFEST.read_text()) is None


def test_both_have_the_volume(pod: Node, sidecar: Node, settings: PublisherSettings) -> None:
    """Service and publisher mount the same volume, for writing, where both expect the spool."""
    assert settings.spool is not None
    service = pod["containers"].named("service")
    for container in (sidecar, service):
        mount = container["volumeMounts"].named("spool")
        assert settings.spool.directory == mount["mountPath"].text
        assert "readOnly" not in mount
    assert settings.spool.directory == service["env"].named(SPOOL_VARIABLE)["value"].text


def mebibytes(node: Node) -> int:
    """Read a size."""
    assert node.text.endswith("Mi")
    return int(node.text[:-2]) * 2**20


def test_the_volume_holds_all_that_is_kept(pod: Node, sidecar: Node, settings: PublisherSettings) -> None:
    """The limit of the volume, beyond which the pod is evicted, is above the most that it may hold."""
    assert settings.spool is not None
    assert settings.dead_letters is not None
    assert settings.spool.max_size == MAX_SPOOL_SIZE  # the limit that the service's EventQueue uses
    overshoot = WRITERS * max(MAX_SPOOL_SIZE // SEGMENTS, MIN_SEGMENT_SIZE)
    ledgers = LEDGERS * (LETTER_PAGES * settings.dead_letters.max_size + LEDGER_SIZE)
    limit = mebibytes(pod["volumes"].named("spool")["emptyDir"]["sizeLimit"])
    assert MAX_SPOOL_SIZE + overshoot + ledgers < limit
    assert limit == mebibytes(sidecar["resources"]["requests"]["ephemeral-storage"])


def test_everything_is_locked_down(pod: Node, sidecar: Node) -> None:
    """The pod meets Kubernetes' restricted standard, and only volumes are writable."""
    context = pod["securityContext"]
    assert context["runAsNonRoot"].value is True
    assert context["runAsUser"].number > 0
    assert "RuntimeDefault" == context["seccompProfile"]["type"].text
    for container in (sidecar, *pod["containers"].items()):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"].value is False
        assert own["readOnlyRootFilesystem"].value is True
        assert ["ALL"] == own["capabilities"]["drop"].value
        assert "runAsUser" not in own


def test_a_collector_that_is_down_takes_nothing_out_of_service(sidecar: Node) -> None:
    """There is no readiness probe."""
    assert "readinessProbe" not in sidecar


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe"])
def test_probes_ask_for_life(sidecar: Node, probe: str) -> None:
    """A probe is an HTTP request for /healthz at the port that is scraped."""
    assert {"path": "/healthz", "port": "event-metrics"} == sidecar[probe]["httpGet"].value


def test_others_than_the_pod_reach_the_port(sidecar: Node, settings: PublisherSettings) -> None:
    """The publisher listens on all addresses of the pod, at the port that has the name."""
    assert settings.health.bind == InternetEndpoint(
        "0.0.0.0", sidecar["ports"].named("event-metrics")["containerPort"].number
    )


def test_prometheus_looks_for_the_port() -> None:
    """The scrape configuration and the PodMonitor refer to the port by name."""
    (scrape,) = read_yaml((DEPLOY / "prometheus" / "scrape.yml").read_text())
    job = next(job for job in scrape["scrape_configs"].items() if "kubernetes_sd_configs" in job)
    (kept,) = [
        rule for rule in job["relabel_configs"].items() if "action" in rule and rule["action"].value == "keep"
    ]
    assert "event-metrics" == kept["regex"].text
    (monitor,) = read_yaml((DEPLOY / "prometheus" / "pod-monitor.yaml").read_text())
    assert "PodMonitor" == monitor["kind"].text
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"].items()
    assert {"port": "event-metrics", "path": "/metrics"} == endpoint.value


def test_the_policy_is_for_the_pod(documents: dict[str, Node], sidecar: Node) -> None:
    """Only one namespace gets through to the publisher's port; the service's own port is open to all."""
    (policy,) = read_yaml(POLICY.read_text())
    labels = documents["Pod"]["metadata"]["labels"].value
    assert labels == policy["spec"]["podSelector"]["matchLabels"].value
    guarded, service = policy["spec"]["ingress"].items()
    (port,) = guarded["ports"].items()
    assert port.value == {"port": sidecar["ports"].named("event-metrics").name}
    (source,) = guarded["from"].items()
    assert list(source["namespaceSelector"]["matchLabels"].value) == ["kubernetes.io/metadata.name"]  # type: ignore[call-overload]
    assert "from" not in service
    (port,) = service["ports"].items()
    assert port["port"].number != sidecar["ports"].named("event-metrics")["containerPort"].number


class Kubelet:
    """Runs the containers of the manifest one by one, each with an IPC namespace of its own.

    Kubernetes' own part isn't tested: the order and time of starts, and the fate of the pod.
    """

    #: Where the volumes are.
    volumes = "/var/lib/kubelet"

    def __init__(self, engine: Engine, documents: dict[str, Node]) -> None:
        self._engine = engine
        self._documents = documents
        self._pod = documents["Pod"]["spec"]
        self._context = self._pod["securityContext"]
        idle = ("--entrypoint=sleep", "event-publisher:1", "infinity")
        self._run("--name=pod", "--stop-signal=SIGKILL", *idle)
        for volume in self._pod["volumes"].items():
            self._make(volume)

    def _run(self, *arguments: str) -> None:
        self._engine.run('docker run --detach "$@"', *arguments)

    def _make(self, volume: Node) -> None:
        """Make a volume as a kubelet does: owned by root, with permissions for its group."""
        folder, group = f"{self.volumes}/{volume['name'].text}", self._context["fsGroup"].number
        self._engine.run('mkdir -p "$1"; chgrp "$2" "$1"; chmod 2777 "$1"', folder, str(group))
        if "configMap" in volume:
            assert self._documents["ConfigMap"]["metadata"]["name"].text == volume["configMap"]["name"].text
            text = self._documents["ConfigMap"]["data"]["v2.ini"].text
            there = f"{COLLECTOR}\ncollector.scheme = http"
            self._engine.run('cat > "$1/v2.ini"', folder, stdin=text.replace("collector.example.com", there))

    def start(self, container: Node, image: str) -> str:
        """Start a container from the local image, and return its name."""
        name = f"pod-{container['name'].text}"
        own = container["securityContext"]
        flags = [f"--name={name}", "--network=container:pod"]
        flags.append(f"--user={self._context['runAsUser'].number}:{self._context['runAsGroup'].number}")
        flags += [f"--cap-drop={capability.text}" for capability in own["capabilities"]["drop"].items()]
        if own["readOnlyRootFilesystem"].value is True:
            flags.append("--read-only")
        if own["allowPrivilegeEscalation"].value is False:
            flags.append("--security-opt=no-new-privileges")
        for variable in container["env"].items():
            value = variable["value"].text if "value" in variable else self._secret(variable)
            flags.append(f"--env={variable['name'].text}={value}")
        for mount in container["volumeMounts"].items():
            mode = ":ro" if "readOnly" in mount and mount["readOnly"].value is True else ""
            flags.append(f"--volume={self.volumes}/{mount['name'].text}:{mount['mountPath'].text}{mode}")
        arguments = [argument.text for argument in container["args"].items()] if "args" in container else []
        self._engine.run('docker tag "$1" "$2"', image, container["image"].text)
        self._run(*flags, container["image"].text, *arguments)
        return name

    def _secret(self, variable: Node) -> str:
        source = variable["valueFrom"]["secretKeyRef"]
        assert self._documents["Secret"]["metadata"]["name"].text == source["name"].text
        return self._documents["Secret"]["stringData"][source["key"].text].text

    def probe(self, container: Node, probe: str) -> bool:
        """Return whether a probe of a running container succeeds."""
        asked = container[probe]["httpGet"]
        port = container["ports"].named(asked["port"].text)["containerPort"].number
        return self.get(port, asked["path"].text) is not None

    def get(self, port: int, path: str) -> str | None:
        """Return a page as another host of the network gets it, by the pod's address; None after an error."""
        url = "http://$(docker inspect --format '{{.NetworkSettings.IPAddress}}' pod):$1$2"
        script = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=4).read().decode())"
        output = self._engine.run(
            f'docker exec collector {PYTHON} -c "$3" "{url}" && echo succeeded || true',
            str(port),
            path,
            script,
        )
        return output.removesuffix("succeeded\n") if output.endswith("succeeded\n") else None


def test_the_pod_works(
    engine: Engine, documents: dict[str, Node], pod: Node, sidecar: Node, settings: PublisherSettings
) -> None:
    """As the manifest configures it, the publisher starts, lives and delivers all that the service puts."""
    engine.run("docker start collector")
    kubelet = Kubelet(engine, documents)
    publisher = kubelet.start(sidecar, "event-publisher:1")
    engine.wait("the publisher has started", lambda: kubelet.probe(sidecar, "startupProbe"))
    service = kubelet.start(pod["containers"].named("service"), "shop")
    engine.wait_for_more(service)
    assert kubelet.probe(sidecar, "livenessProbe")
    metrics = kubelet.get(sidecar["ports"].named("event-metrics")["containerPort"].number, "/metrics")
    assert metrics is not None
    assert 'event_publisher_events_delivered_total{queue="v2"}' in metrics
    assert settings.spool is not None
    spool = f"{settings.spool.directory}/events-v2"
    folder = engine.run('docker exec "$1" stat --format="%u:%g %a" "$2"', publisher, spool)
    assert "10001:10001 2700\n" == folder
    engine.run("docker stop $1", service)
    engine.run("docker stop --time=$1 $2", str(pod["terminationGracePeriodSeconds"].number), publisher)
    assert engine.put(service) <= engine.arrived()
