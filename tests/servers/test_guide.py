"""The examples of docs/services.md, as they stand there: each is run by its command, and its events arrive.

The environment has a spool, so no other test has their queue, and sockets in place of fixed ports.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from baseplate_events.events import SPOOL_VARIABLE
from tests.servers.processes import Server, serve_command
from tests.support.commands import IMPORTING, run
from tests.support.documents import blocks
from tests.support.spool_reader import SpoolReader
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

GUIDE: Final = "docs/services.md"

#: Sections whose commands run a server that answers requests, and those whose commands run a job to its end.
SERVERS: Final = ("Flask", "FastAPI", "Django", "gunicorn", "uvicorn", "gevent")
JOBS: Final = ("asyncio", "gevent")

#: Requests that are sent to each server.
POSTS: Final = [f"t3_{number}" for number in range(20)]


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


@pytest.fixture
def environ(tmp_path: Path) -> Mapping[str, str]:
    """The environment of a service: a spool of its own, and sockets that are free instead of fixed ports."""
    spool = tmp_path / "spool"
    spool.mkdir()
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        # The folder of the command comes first, as it does in a shell.
        "PYTHONPATH": os.pathsep.join(["", IMPORTING["PYTHONPATH"]]),
        SPOOL_VARIABLE: str(spool),
        "FLASK_RUN_PORT": "0",
        "GUNICORN_CMD_ARGS": "--bind=fd://{fd} --no-control-socket",
        "UVICORN_FD": "{fd}",
        "CELERY_BROKER_URL": "filesystem://",
    }


@pytest.fixture
def reader(environ: Mapping[str, str]) -> Generator[SpoolReader]:
    """The reader of the queue of the examples."""
    folder = Path(environ[SPOOL_VARIABLE], "events-clicks")
    folder.mkdir(mode=0o700)
    with SpoolReader(folder) as reader:
        yield reader


def arrived(reader: SpoolReader) -> Counter[tuple[str, str]]:
    """Return what has arrived: action and post of each event."""
    reader.read()
    events = [json.loads(event) for event in reader.events]
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
def test_a_server_of_the_guide(
    tmp_path: Path, shop: Path, environ: Mapping[str, str], reader: SpoolReader, command: str
) -> None:
    """Each request is answered, and its event arrives once."""
    with serve_command(tmp_path, shlex.split(command), environ, shop) as server:
        used = listening(server) if command.startswith("flask") else server
        for post in POSTS:
            status, body = used.get(f"/posts/{post}")
            assert (200, post) == (status, body.strip('"')), server.log
    assert expected(*[("view", post) for post in POSTS]) == arrived(reader), server.log
    assert "event not sent" not in server.log


@pytest.mark.parametrize("command", commands(*JOBS, job=True))
def test_a_job_of_the_guide(
    shop: Path, environ: Mapping[str, str], reader: SpoolReader, command: str
) -> None:
    """It ends well, and its events arrive."""
    result = run("env", "-C", str(shop), *shlex.split(command), environ=environ)
    assert (0, "") == (result.status, result.err)
    views = [("view", "a"), ("view", "b")]
    reads = [("read", "a"), ("read", "b")] if "asyncio" in command else []
    assert expected(*views, *reads) == arrived(reader)


@pytest.mark.parametrize("command", commands("Celery"))
def test_celery_of_the_guide(
    tmp_path: Path, shop: Path, environ: Mapping[str, str], reader: SpoolReader, command: str
) -> None:
    """Tasks that a client sends to a worker of two processes put their events, each once."""
    # Celery's broker in files: what clients send is what the worker receives.
    (shop / "data_out").mkdir()
    (shop / "data_in").symlink_to("data_out")
    client = f"from tasks import buy\nfor post in {POSTS!r}: buy.delay(post)"
    with serve_command(tmp_path, shlex.split(command), environ, shop) as worker:
        run("env", "-C", str(shop), sys.executable, "-c", client, environ=environ).check()
        wait_until(lambda: arrived(reader).total() >= len(POSTS), f"not all arrived: {worker.log}")
    assert expected(*[("buy", post) for post in POSTS]) == arrived(reader)


def test_every_section_is_tried() -> None:
    """No section of the guide with a command is left out."""
    tried = {*SERVERS, *JOBS, "Celery"}
    headings = {block.heading for block in blocks(GUIDE, "python") if block.file is not None}
    assert headings - {"Frameworks and servers"} <= tried
    assert all(commands(heading) or commands(heading, job=True) for heading in tried)
