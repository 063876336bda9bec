from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from baseplate_events import EventQueue
from baseplate_events.events import SPOOL_VARIABLE
from tests.servers.processes import CLIENTS, Load, Reader, Server, SpoolGetter, serve
from tests.support.commands import IMPORTING, Result, run
from tests.support.publishers import MAX_MESSAGES, small_queue
from tests.support.spool_reader import SpoolFileReader
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from baseplate_events.transport.posix import MessageQueue

#: Requests that a test waits for, several times what the queue holds.
MANY = 10 * MAX_MESSAGES

#: Requests whose events wait at the same time for room in the queue.
WAITING = 5

#: Loaded before the fork, and after.
PRELOAD = [("--preload",), ()]


@pytest.fixture
def queue(name: str) -> Generator[MessageQueue]:
    """The POSIX queue `/events-NAME`, made small before a server opens it."""
    with small_queue(name) as queue:
        yield queue


@pytest.fixture
def reader(queue: MessageQueue) -> Generator[Reader]:
    """The reader of that queue, which doesn't read yet."""
    with Reader(queue) as reader:
        yield reader


@contextlib.contextmanager
def spool_reader(directory: Path, name: str) -> Generator[Reader]:
    """Let servers use a spool, and no POSIX queue; give its reader, which doesn't read yet."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SPOOL_VARIABLE, str(directory))
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, hard))
        try:
            EventQueue(name, bytes, strict_size=True).close()  # makes the folder, to lock
            with (
                SpoolFileReader(directory / f"events-{name}") as source,
                Reader(SpoolGetter(source)) as reader,
            ):
                yield reader
                # Each server closed what it wrote to, and nothing came behind the reader's back.
                assert source.read() == 0
                assert (source.grown, source.vanished, source.torn) == (0, 0, 0)
        finally:
            resource.setrlimit(resource.RLIMIT_MSGQUEUE, (soft, hard))


@pytest.fixture(params=["queue", "spool"])
def any_reader(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> Generator[Reader]:
    """The reader of either transport, which doesn't read yet; servers find it by their environment."""
    if request.param == "spool":
        with spool_reader(tmp_path, name) as reader:
            yield reader
    else:
        with small_queue(name) as queue, Reader(queue) as reader:
            yield reader


def gunicorn(folder: Path, name: str, *arguments: str) -> AbstractContextManager[Server]:
    """Run gunicorn with the WSGI application."""
    return serve(
        folder,
        name,
        "gunicorn",
        "--bind=fd://{fd}",
        "--no-control-socket",
        *arguments,
        "tests.servers.applications:wsgi",
    )


def uwsgi(folder: Path, name: str, *arguments: str) -> AbstractContextManager[Server]:
    """Run uWSGI with the WSGI application, in two workers of three threads."""
    return serve(
        folder,
        name,
        "tests.servers.uwsgi",
        *("--http-socket=fd://{fd}", "--master", "--die-on-term", "--need-app", "--enable-threads"),
        *("--workers=2", "--threads=3", "--wsgi=tests.servers.applications:wsgi"),
        *arguments,
    )


def uvicorn(folder: Path, name: str, *arguments: str) -> AbstractContextManager[Server]:
    """Run uvicorn with the ASGI application."""
    return serve(
        folder, name, "uvicorn", "--fd={fd}", "--lifespan=off", *arguments, "tests.servers.applications:asgi"
    )


@pytest.mark.parametrize("preload", PRELOAD)
@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_workers_of_gunicorn_share_a_queue(
    tmp_path: Path, name: str, any_reader: Reader, kind: str, preload: tuple[str, ...]
) -> None:
    """Each event of each worker arrives once, whether the queue was opened before the fork or after."""
    any_reader.start()
    with (
        gunicorn(tmp_path, name, f"-k{kind}", "--workers=2", "--threads=3", *preload) as server,
        Load(server, "/wait") as requests,
    ):
        requests.wait_for(lambda: len(requests.answered) > MANY and len(requests.workers) == 2)
    arrived = any_reader.finish()
    assert requests.refused == requests.broken == []
    requests.check(arrived)


@pytest.mark.parametrize("lazy", [(), ("--lazy-apps",)])
def test_workers_of_uwsgi_share_a_queue(
    tmp_path: Path, name: str, any_reader: Reader, lazy: tuple[str, ...]
) -> None:
    """Each event of each worker arrives once, though C forks the workers, and one of them is killed."""
    any_reader.start()
    with uwsgi(tmp_path, name, *lazy) as server, Load(server, "/wait") as requests:
        requests.wait_for(lambda: len(requests.workers) == 2)
        os.kill(min(requests.workers), signal.SIGKILL)
        requests.wait_for(lambda: len(requests.workers) >= 3 and len(requests.answered) > MANY)
    arrived = any_reader.finish()
    assert requests.refused == []
    assert len(requests.broken) <= CLIENTS
    requests.check(arrived)


@pytest.mark.usefixtures("queue")
def test_workers_of_uwsgi_count_their_own_events(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of what their master had put before it forked them, of which Python learns nothing."""
    monkeypatch.setenv("EVENT_AT_IMPORT", "first")
    put: Counter[str] = Counter()
    with uwsgi(tmp_path, name) as server:
        for number in range(MAX_MESSAGES - 1):
            status, worker = server.get(f"/put/{number}")
            assert status == 200
            put[worker] += 1
            counting, count = server.get("/count")[1].split()
            assert put[counting] == int(count)
    assert put.total() == MAX_MESSAGES - 1


@pytest.mark.parametrize("preload", PRELOAD)
def test_a_worker_that_is_killed_costs_no_event(
    tmp_path: Path, name: str, any_reader: Reader, preload: tuple[str, ...]
) -> None:
    """What was acknowledged arrives once, though a worker is killed that waits for room in the queue."""
    with (
        gunicorn(tmp_path, name, "-ksync", "--workers=2", *preload) as server,
        Load(server, "/wait") as requests,
    ):
        # The workers put, or wait as the queue is full.
        requests.wait_for(lambda: len(requests.answered) >= MAX_MESSAGES)
        os.kill(min(requests.workers), signal.SIGKILL)
        any_reader.start()
        requests.wait_for(lambda: len(requests.workers) >= 3 and len(requests.answered) > MANY)
    arrived = any_reader.finish()
    assert requests.refused == []
    assert len(requests.broken) <= 1
    requests.check(arrived)


@pytest.mark.parametrize("preload", PRELOAD)
def test_a_graceful_reload_costs_no_event(
    tmp_path: Path, name: str, any_reader: Reader, preload: tuple[str, ...]
) -> None:
    """While SIGHUP replaces all workers, every event is acknowledged and arrives once."""
    any_reader.start()
    with (
        gunicorn(tmp_path, name, "-ksync", "--workers=2", *preload) as server,
        Load(server, "/wait") as requests,
    ):
        requests.wait_for(lambda: len(requests.workers) == 2)
        server.process.send_signal(signal.SIGHUP)
        requests.wait_for(lambda: len(requests.workers) >= 4 and len(requests.answered) > MANY)
    arrived = any_reader.finish()
    assert requests.refused == requests.broken == []
    requests.check(arrived)


def check_that_others_run_meanwhile(server: Server, reader: Reader) -> None:
    """Check that a server of one process answers others while puts wait for room in the queue."""
    for number in range(MAX_MESSAGES):
        assert server.get(f"/put/{number}")[0] == 200
    statuses: list[int] = []

    def wait(number: int) -> None:
        statuses.append(server.get(f"/wait/{number}")[0])

    clients = [
        threading.Thread(target=wait, args=(number,))
        for number in range(MAX_MESSAGES, MAX_MESSAGES + WAITING)
    ]
    for client in clients:
        client.start()
    try:
        wait_until(lambda: server.get("/waiting") == (200, str(WAITING)), "the puts do not wait")
        assert server.get("/put/refused")[0] == 503
        assert statuses == []
    finally:
        reader.start()
        for client in clients:
            client.join()
        arrived = reader.finish()
    assert [200] * WAITING == statuses
    assert server.get("/waiting") == (200, "0")
    assert sorted(map(str, range(MAX_MESSAGES + WAITING))) == sorted(event["id"] for event in arrived)


@pytest.mark.parametrize("preload", PRELOAD)
def test_greenlets_of_gunicorn_wait_without_holding_up_others(
    tmp_path: Path, name: str, reader: Reader, preload: tuple[str, ...]
) -> None:
    """A put that waits lets other greenlets run, even if the application was loaded before the patching."""
    with gunicorn(tmp_path, name, "-kgevent", "--workers=1", *preload) as server:
        check_that_others_run_meanwhile(server, reader)


def test_coroutines_of_uvicorn_wait_without_holding_up_others(
    tmp_path: Path, name: str, reader: Reader
) -> None:
    """A put in a coroutine never waits, and one with a `put_timeout` waits in a thread."""
    with uvicorn(tmp_path, name) as server:
        check_that_others_run_meanwhile(server, reader)


@pytest.mark.parametrize("path", ["/put", "/wait"])
def test_workers_of_uvicorn_share_a_queue(tmp_path: Path, name: str, any_reader: Reader, path: str) -> None:
    """Each event that a coroutine of any worker put arrives once, and none that was refused."""
    any_reader.start()
    with uvicorn(tmp_path, name, "--workers=2") as server, Load(server, path) as requests:
        requests.wait_for(lambda: len(requests.answered) > MANY and len(requests.workers) == 2)
    arrived = any_reader.finish()
    assert requests.broken == []
    requests.check(arrived)


@pytest.mark.parametrize("patch", ["early", "late"])
def test_greenlets_share_a_queue(name: str, queue: MessageQueue, patch: str) -> None:
    """Under `monkey.patch_all()`, before or after the import, greenlets wait in turn and lose nothing."""
    del queue
    command = (sys.executable, "-W", "error", "-m", "tests.servers.greenlets", name, patch)
    assert Result(0, "nothing lost\n", "") == run(*command, environ=IMPORTING, timeout=2 * PATIENCE)
