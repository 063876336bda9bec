"""A host with an engine for containers, in namespaces of this host, for trying images and their guide."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.deploy.guide import guide
from tests.deploy.hosts import NETWORK, Host, first_process
from tests.deploy.systems import DEPLOY
from tests.support import processes

if TYPE_CHECKING:
    from collections.abc import Generator

#: The namespaces of the host, besides the network's.
_NAMESPACES: Final = ("--pid", "--mount")

_HERE: Final = Path(__file__).parent

#: The interpreter of the image.
PYTHON: Final = "/opt/event-publisher/bin/python"

#: Where the collector is, in the network that engines make by default.
COLLECTOR: Final = "10.88.0.100:8080"

#: Where it writes the events that arrived.
_ARRIVALS: Final = "/var/log/collector"

#: Without control groups, which would outlive the engine.
_CONFIGURATION: Final = f"""
[containers]
cgroups = "disabled"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "crun"
[engine.runtimes]
crun = ["{_HERE / "lenient_runtime.py"}"]
"""

#: Makes a substitute for the image of Python that the container file builds on.
_BASE: Final = r"""
mkdir -p /etc/containers
cat > /etc/containers/containers.conf
tar --create --directory="$1" . | podman import --quiet - localhost/debian
docker build --quiet --tag "docker.io/library/$2" - <<'END'
FROM localhost/debian
RUN apt-get update && apt-get install --yes --no-install-recommends \
    ca-certificates python-is-python3 python3-pip python3-venv
END
"""

#: A service that puts events until it is stopped, and prints the ids of those that it has put.
_SHOP: Final = """
import json, signal, time, uuid
from baseplate_events import EventQueue
told_to_end = []
signal.signal(signal.SIGTERM, lambda number, frame: told_to_end.append(number))
with EventQueue("v2", lambda event: json.dumps(event).encode(), put_timeout=30) as queue:
    while not told_to_end:
        name = uuid.uuid4().hex
        queue.put({"id": name})
        print(f"put {name}", flush=True)
        time.sleep(0.01)
"""
_SHOP_IMAGE: Final = f"""
FROM event-publisher:1
COPY shop.py /
ENTRYPOINT ["{PYTHON}", "/shop.py"]
CMD []
"""


class Engine(Host):
    """A host whose command `docker` works, with the image `event-publisher:1`, a service's, and a collector.

    Args:
        init: Its first process, as this host counts.
        project: A clone of the project.
    """

    def __init__(self, init: int, project: Path) -> None:
        super().__init__(init, _NAMESPACES)
        self._project = project

    def prepare(self, debian: Path) -> None:
        """Build the images, the publisher's as the guide says, and start the collector."""
        base = re.search(r"(?m)^FROM (\S+)", (DEPLOY / "container" / "Dockerfile").read_text())
        assert base is not None
        self.run(_BASE, str(debian), base[1], stdin=_CONFIGURATION, online=True)
        build, *_ = guide("In containers")
        self.run(build, online=True)
        self.run("mkdir /var/shop; cat > /var/shop/shop.py", stdin=_SHOP)
        self.run("cat > /var/shop/Dockerfile; docker build --quiet --tag shop /var/shop", stdin=_SHOP_IMAGE)
        address, _, port = COLLECTOR.partition(":")
        self.run(
            f"mkdir {_ARRIVALS}; docker run --detach --name collector --user root --ip $1 "
            f"--volume {_ARRIVALS}:{_ARRIVALS} --entrypoint {PYTHON} event-publisher:1 -m baseplate_events "
            f"collect --bind 0.0.0.0:$2 --key NameOfASecretKey=c2VjcmV0 --output {_ARRIVALS}/events.jsonl",
            *(address, port),
        )

    def run(
        self, commands: str, *arguments: str, check: bool = True, stdin: str = "", online: bool = False
    ) -> str:
        """Run commands of a shell there as root, in the top folder of the project.

        Args:
            commands: The commands.
            arguments: `$1` and so on.
            check: Whether to raise an error if a command fails.
            stdin: Their input.
            online: Whether they have the network of this host, in place of the host's own.

        Returns:
            Their output on stdout and stderr.

        Raises:
            AssertionError: A command failed, and `check` is true.
        """
        script = f'cd {self._project}\ndocker() {{ sh {_HERE}/docker.sh "$@"; }}\n{commands}'
        result = self.call("sh", "-euc", script, "sh", *arguments, stdin=stdin, online=online)
        assert result.status == 0 or not check, f"{commands} ended with {result.status}: {result.out}"
        return result.out

    def logs(self) -> str:
        """Return the list of containers, and the ends of their logs."""
        each = "for each in $(docker ps --all --quiet); do docker logs --tail 30 $each; done"
        return self.run(f"docker ps --all; {each}", check=False)

    def put(self, service: str) -> set[str]:
        """Return the ids of all events that a service has put."""
        return set(re.findall("(?m)^put (.+)", self.run("docker logs $1", service)))

    def arrived(self) -> set[str]:
        """Return the ids of all events that the collector has accepted."""
        return set(re.findall('"id": ?"([^"]+)"', self.run(f"cat {_ARRIVALS}/*", check=False)))

    def wait_for_more(self, service: str) -> None:
        """Wait until an event arrives that a service puts after this call."""
        before = self.put(service)
        self.wait(f"events of {service} arrive", lambda: bool((self.put(service) - before) & self.arrived()))


@contextlib.contextmanager
def started(folder: Path, project: Path, debian: Path) -> Generator[Engine]:
    """Start a host with an engine.

    Args:
        folder: An empty folder.
        project: A clone of the project.
        debian: The top folder of a Debian, from which the images are made.

    Raises:
        OSError, AssertionError, subprocess.TimeoutExpired: This host doesn't allow it; the message says
            which step failed.
    """
    command = ("unshare", *_NAMESPACES, NETWORK, "--fork", "--kill-child")
    # When it is killed, so is the first process of the namespace, and with that all of them.
    script = _HERE / "containers.sh"
    with processes.started(*command, "sh", script, folder, stdin=processes.DEVNULL) as unshare:
        engine = Engine(first_process(unshare, f"{folder}/ready", lambda: "see above"), project)
        engine.prepare(debian)
        yield engine
