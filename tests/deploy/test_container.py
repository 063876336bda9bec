"""The container file: as a linter sees it, and tried with a real engine by the commands of the guide."""

from __future__ import annotations

import json
import re
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.deploy.containers import COLLECTOR, PYTHON
from tests.deploy.guide import GUIDE, guide
from tests.deploy.systems import DEPLOY
from tests.support.commands import Result, run

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.deploy.containers import Engine

#: What `docker inspect` reports about the first process.
PID: Final = "--format '{{.State.Pid}}'"
EXIT_CODE: Final = "--format '{{.State.ExitCode}}'"


def test_the_linter_finds_nothing() -> None:
    """Hadolint has no finding of any severity about the container file."""
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    file = DEPLOY / "container" / "Dockerfile"
    assert Result(0, "", "") == run(hadolint, "--no-color", "--failure-threshold=ignore", file)


class Deployment:
    """Containers that were started as docs/operations.md says.

    Attributes:
        output: Output of the commands that check them.
        publisher: The command that starts the publisher.
        service: The command that starts the service.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        _, publish, serve, look = guide("In containers")
        # The test's collector, and no long pauses after it was down.
        pauses = "retry.base = 50 milliseconds\nretry.cap = 100 milliseconds"
        there = f"{COLLECTOR}\ncollector.scheme = http\n{pauses}"
        assert "collector.example.com\n" in publish
        engine.run(publish.replace("collector.example.com", there))
        engine.run(serve)
        engine.wait_for_more("shop")
        self.output = ""

        def is_seen() -> bool:
            self.output = engine.run(look)
            return bool(json.loads(self.output.partition("\n")[0])["delivered"])

        engine.wait("a rate is known", is_seen)  # the publisher takes it once a second
        self.service = serve.strip()
        (self.publisher,) = re.findall("(?m)^docker run .*--name event-publisher .*", publish)

    def gauge(self, name: str) -> float:
        """Return a metric of the publisher's health endpoint; -1 if it doesn't answer."""
        ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9102/metrics').read().decode())"
        metrics = self.engine.run(f'docker exec event-publisher {PYTHON} -c "{ask}"', check=False)
        found = re.search(rf"(?m)^event_publisher_{name}(?:\{{.*\}})? (\S+)$", metrics)
        return -1 if found is None else float(found[1])

    def kill(self, container: str) -> None:
        """Kill the first process of a container, as if it had crashed."""
        self.engine.run(f"kill -KILL $(docker inspect {PID} $1)", container)


@pytest.fixture(scope="module")
def started_deployment(engine: Engine) -> Generator[Deployment]:
    """The containers, started once."""
    yield Deployment(engine)
    engine.run("docker rm --force shop event-publisher")


@pytest.fixture
def deployment(started_deployment: Deployment) -> Deployment:
    """The containers, all of which run."""
    started_deployment.engine.run("docker start event-publisher shop collector")
    started_deployment.engine.wait_for_more("shop")
    return started_deployment


def test_the_guide_works(deployment: Deployment) -> None:
    """After the commands of the guide, events are delivered and doctor finds no problem."""
    status, _, doctor = deployment.output.partition("\n")
    assert json.loads(status)["ready"] is True
    assert json.loads(status)["delivered"] > 0
    assert "ok       signed probe" in doctor
    assert "problem  " not in doctor


def test_no_setting_of_the_kernel_is_needed(deployment: Deployment) -> None:
    """The commands ask for no sysctl, rlimit or shared namespace, and each container has its own."""
    for block in guide("In containers"):
        assert re.search("--(sysctl|ulimit|ipc|pid|privileged)", block) is None
    link = "docker exec $1 readlink /proc/1/ns/ipc"
    assert deployment.engine.run(link, "shop") != deployment.engine.run(link, "event-publisher")


def test_it_is_locked_down(deployment: Deployment) -> None:
    """The publisher isn't root, has no capabilities and can't gain any, and can write to its volume only."""
    about = deployment.engine.run("docker exec event-publisher cat /proc/1/status")
    for line in ("Uid:\t10001\t", "Gid:\t10001\t", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n"):
        assert line in about
    mounts = deployment.engine.run("docker exec event-publisher cat /proc/1/mounts")
    root, *_ = re.findall(r"(?m)^\S+ / \S+ (\S+)", mounts)
    configuration, *_ = re.findall(r"(?m)^\S+ /etc/event-publisher \S+ (\S+)", mounts)
    assert ("ro", "ro") == (root.split(",")[0], configuration.split(",")[0])


def test_the_spool_is_theirs(deployment: Deployment) -> None:
    """The volume belongs to the user of both, and only that user can read the spool."""
    folders = "/var/spool/events /var/spool/events/events-v2"
    for container in ("shop", "event-publisher"):
        owners = deployment.engine.run(f"docker exec {container} stat --format='%u:%g %a' {folders}")
        assert "10001:10001 2770\n10001:10001 2700\n" == owners


@pytest.mark.parametrize("container", ["shop", "event-publisher"])
def test_either_may_start_again(deployment: Deployment, container: str) -> None:
    """Events flow again after either was restarted or crashed, without further steps."""
    deployment.engine.run("docker restart $1", container)
    deployment.engine.wait_for_more("shop")
    deployment.kill(container)
    deployment.engine.wait_for_more("shop")


def test_a_key_is_rotated(deployment: Deployment) -> None:
    """After a signal the publisher signs with the key now in the file, even if the file was replaced."""
    engine = deployment.engine
    write = 'sed --in-place "s/^key.secret = .*/key.secret = $1/" /etc/event-publisher/v2.ini'
    engine.run(f"{write}; docker kill --signal HUP event-publisher", "b3RoZXI=")
    engine.wait("the collector refuses", lambda: 0 == deployment.gauge("ready"))
    engine.run(f"{write}; docker kill --signal HUP event-publisher", "c2VjcmV0")
    engine.wait_for_more("shop")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_another_publisher_takes_over(deployment: Deployment, end: str) -> None:
    """Events put while the collector is down arrive, also if both containers are replaced meanwhile."""
    engine = deployment.engine
    engine.run("docker kill collector")
    engine.wait("events wait", lambda: len(engine.put("shop") - engine.arrived()) > 20)
    engine.run(f"docker {end} event-publisher; docker rm --force event-publisher; docker {end} shop")
    before = engine.put("shop")
    assert before - engine.arrived()
    engine.run(f"docker rm --force shop; {deployment.service}; {deployment.publisher}")
    engine.run("docker start collector")
    engine.wait("all events arrive", lambda: before | engine.put("shop") <= engine.arrived())


def test_a_stop_is_clean(deployment: Deployment) -> None:
    """The publisher stops on request, before it is killed, with a success status."""
    deployment.engine.run("docker stop event-publisher")
    assert "0\n" == deployment.engine.run(f"docker inspect {EXIT_CODE} event-publisher")


def test_posix_queues_work_in_containers(deployment: Deployment) -> None:
    """With the namespace of the guide, queues may have their full size, and events flow through them."""
    engine = deployment.engine
    (namespace,) = guide("POSIX queues in containers")
    shared = "--ipc container:event-queues --ulimit msgqueue=1024960000"
    assert shared in GUIDE.read_text()
    spool = "EVENT_SPOOL_DIRECTORY=/var/spool/events"
    assert spool in deployment.service
    service = deployment.service.replace(spool, "EVENT_SPOOL_DIRECTORY=")
    set_transport = (
        "sed --in-place 's/^queue.transport = .*/queue.transport = $1/' /etc/event-publisher/v2.ini"
    )
    engine.run("docker rm --force shop event-publisher")
    engine.run(set_transport.replace("$1", "both"))
    engine.run(namespace)
    for command in (deployment.publisher, service):
        engine.run(command.replace("--detach", f"--detach {shared}"))
    engine.wait_for_more("shop")
    read = "docker exec $1 cat /proc/sys/fs/mqueue/msg_max /proc/sys/fs/mqueue/msgsize_max"
    for container in ("shop", "event-publisher"):
        assert "10000\n102400\n" == engine.run(read, container)
    engine.run("docker stop shop")
    engine.run("docker stop event-publisher")
    assert engine.put("shop") <= engine.arrived()
    engine.run("docker rm --force shop event-publisher; docker rm --force event-queues")
    engine.run(set_transport.replace("$1", "spool"))
    engine.run(f"{deployment.publisher}; {deployment.service}")
