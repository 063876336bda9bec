"""The examples of docs/services.md, as they stand there: each is run by its command, and its events arrive.

Each has POSIX queues of its own, or a spool, so no other test has the queue of the guide. Servers get sockets
in place of fixed ports by the variables of their environment.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

import pytest

from baseplate_events.events import SPOOL_VARIABLE
from tests.servers.processes import Server, serve_command
from tests.support.commands import IMPORTING, run
from tests.support.documents import blocks
from tests.support.publishers import MAX_MESSAGE_SIZE, MAX_MESSAGES
from tests.support.sandbox import Sandbox, sandbox, with_python
from tests.support.spool_reader import SpoolFileReader
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

GUIDE: Final = "docs/services.md"

#: Sections whose commands run a server that answers requests, and those whose commands run a job to its end.
SERVERS: Final = ("Flask", "FastAPI", "Django", "gunicorn", "uvicorn", "gevent")
JOBS: Final = ("asyncio", "gevent")

#: Requests that are sent to each server: no more events than a small queue holds.
POSTS: Final = [f"t3_{number}" for number in range(MAX_MESSAGES)]

#: The queue of the examples.
QUEUE: Final = "clicks"


def commands(*headings: str, job: bool = False) -> list[str]:
    """Return the commands in sections of the guide: servers, or jobs."""
    found = [block for heading in headings for block in blocks(GUIDE, "console", heading=heading)]
    lines = [line for block in found for line in block.commands]
    return [line for line in lines if line.startswith("python ") == job]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with all files of the guide."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for block in blocks(GUIDE, "python"):
        if block.file is not None:
            (folder / block.file).write_text(block.text)
    return folder


class Place(Protocol):
    """Where a service of the guide runs, and its events go."""

    environ: dict[str, str]

    def command(self, folder: Path, command: str) -> list[str]:
        """Return what runs a command there, in a folder."""
        ...

    def read(self) -> list[bytes]:
        """Return all events that have arrived so far."""
        ...


def environ() -> dict[str, str]:
    """Return the environment of a service: sockets that are free instead of fixed ports."""
    return {
        **with_python(),
        # The folder of the command comes first, as it does in a shell.
        "PYTHONPATH": os.pathsep.join(["", IMPORTING["PYTHONPATH"]]),
        "FLASK_RUN_PORT": "0",
        # A worker that gets SIGTERM while it starts doesn't notice; gunicorn kills it after that time.
        "GUNICORN_CMD_ARGS": "--bind=fd://{fd} --no-control-socket --graceful-timeout=3",
        "UVICORN_FD": "{fd}",
        "CELERY_BROKER_URL": "filesystem://",
    }


class SpoolPlace:
    """A place whose events go into a spool."""

    def __init__(self, reader: SpoolFileReader, directory: Path) -> None:
        self.environ = {**environ(), SPOOL_VARIABLE: str(directory)}
        self._reader = reader

    def command(self, folder: Path, command: str) -> list[str]:
        """See `Place`."""
        return ["env", f"--chdir={folder}", *shlex.split(command)]

    def read(self) -> list[bytes]:
        """See `Place`."""
        self._reader.read()
        return self._reader.events


class PosixPlace:
    """A place with POSIX queues of its own: the names in the guide are no one else's."""

    def __init__(self, box: Sandbox) -> None:
        self.environ = environ()
        self._box = box
        self._events: list[bytes] = []

    def command(self, folder: Path, command: str) -> list[str]:
        """See `Place`."""
        return self._box.command(folder, *shlex.split(command))

    def read(self) -> list[bytes]:
        """See `Place`."""
        result = self._box.run("python", "-m", "baseplate_events", "queue", "read", QUEUE)
        self._events += result.check().encode().splitlines()
        return self._events


@pytest.fixture
def spool(tmp_path: Path) -> Generator[Place]:
    """A service with a spool."""
    folder = tmp_path / "spool" / f"events-{QUEUE}"
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    with SpoolFileReader(folder) as reader:
        yield SpoolPlace(reader, folder.parent)


@pytest.fixture
def posix(tmp_path: Path) -> Generator[Place]:
    """A service with a POSIX queue, which is made small before the service opens it."""
    with sandbox(tmp_path) as box:
        size = f"max_messages={MAX_MESSAGES}, max_message_size={MAX_MESSAGE_SIZE}"
        make = f"MessageQueue('/events-{QUEUE}', {size}).close()"
        box.run("python", "-c", f"from baseplate_events.transport.posix import MessageQueue; {make}").check()
        yield PosixPlace(box)


@pytest.fixture(params=["posix", "spool"])
def place(request: pytest.FixtureRequest) -> Place:
    """A service with either."""
    place: Place = request.getfixturevalue(request.param)
    return place


def arrived(place: Place) -> Counter[tuple[str, str]]:
    """Return what has arrived: action and post of each event."""
    events = [json.loads(event) for event in place.read()]
    return Counter((event["action"], event["post"]) for event in events)


def expected(*events: tuple[str, str]) -> Counter[tuple[str, str]]:
    """Return what must arrive."""
    return Counter(events)


def listening(server: Server) -> Server:
    """Return a server with the port that it chose itself, once it has said which."""
    pattern = r"http://127\.0\.0\.1:(\d+)"
    wait_until(lambda: re.search(pattern, server.log) is not None, "it doesn't listen")
    found = re.search(pattern, server.log)
    assert found is not None
    return Server(server.process, int(found[1]), server.log_file)


@pytest.mark.parametrize("command", commands(*SERVERS))
def test_a_server_of_the_guide(tmp_path: Path, shop: Path, posix: Place, command: str) -> None:
    """Each request is answered, and its event arrives once."""
    with serve_command(tmp_path, posix.command(shop, command), posix.environ, shop) as server:
        used = listening(server) if command.startswith("flask") else server
        for post in POSTS:
            status, body = used.get(f"/posts/{post}")
            assert (200, post) == (status, body.strip('"')), server.log
    assert expected(*[("view", post) for post in POSTS]) == arrived(posix), server.log
    assert " refused " not in server.log  # an event that can't be put


@pytest.mark.parametrize("command", commands(*JOBS, job=True))
def test_a_job_of_the_guide(shop: Path, place: Place, command: str) -> None:
    """It ends well, and its events arrive."""
    result = run(*place.command(shop, command), environ=place.environ)
    # The queue is as small as tests have them, which is logged.
    errors = [line for line in result.err.splitlines() if "it was created with room for" not in line]
    assert (0, []) == (result.status, errors)
    views = [("view", "a"), ("view", "b")]
    reads = [("read", "a"), ("read", "b")] if "asyncio" in command else []
    assert expected(*views, *reads) == arrived(place)


@pytest.mark.parametrize("command", commands("Celery"))
def test_celery_of_the_guide(tmp_path: Path, shop: Path, place: Place, command: str) -> None:
    """Tasks that a client sends to a worker of two processes put their events, each once."""
    # Celery's broker in files: what clients send is what the worker receives.
    (shop / "data_out").mkdir()
    (shop / "data_in").symlink_to("data_out")
    client = f"from tasks import buy\nfor post in {POSTS!r}: buy.delay(post)"
    with serve_command(tmp_path, place.command(shop, command), place.environ, shop) as worker:
        run(*place.command(shop, shlex.join(["python", "-c", client])), environ=place.environ).check()
        wait_until(lambda: arrived(place).total() >= len(POSTS), f"not all arrived: {worker.log}")
    assert expected(*[("buy", post) for post in POSTS]) == arrived(place)


def test_every_section_is_tried() -> None:
    """No section of the guide with a command is left out."""
    tried = {*SERVERS, *JOBS, "Celery"}
    headings = {block.heading for block in blocks(GUIDE, "python") if block.file is not None}
    assert headings - {"Frameworks and servers"} <= tried
    assert all(commands(heading) or commands(heading, job=True) for heading in tried)
