"""Runs pytest in forks of a process that has imported what tests import: `python -m tests.mutants.forks FD`.

Starting Python, pytest and hypothesis takes longer than most mutants live. So this process imports them once,
and forks for each request of `ask.py`. It imports nothing of the folder that it runs in: the fork does, as
the package has another mutant each time.

It ends when its stdin is closed. If cosmic-ray kills `ask.py`, after a timeout, the fork is killed too.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Where a fork that passed leaves the names of the modules that it imported.
_IMPORTED: Final = Path("imported.json")

#: Arguments of pytest: it can't change the code of plugins that are imported already, and has no need to.
_ARGUMENTS: Final = ("-W", "ignore::pytest.PytestAssertRewriteWarning")


def main() -> None:
    """Serve the requests that come to a listening socket, one at a time."""
    with socket.socket(fileno=int(sys.argv[1])) as server:
        while 0 not in select.select([0, server.fileno()], [], [])[0]:
            client, _ = server.accept()
            with client:
                _serve(client)


def _serve(client: socket.socket) -> None:
    """Run pytest as a client asks, and answer with its exit status."""
    request, streams, *_ = socket.recv_fds(client, 1 << 20, 2)
    child = os.fork()
    if child == 0:
        arguments, environ = json.loads(request)
        _run(arguments, environ, streams)
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(child)
    ready, *_ = select.select([client.fileno(), ended], [], [])
    os.close(ended)
    if client.fileno() in ready:
        os.kill(child, signal.SIGKILL)  # it may not lead its group yet
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what its tests started
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(BrokenPipeError):
        client.send(str(abs(os.waitstatus_to_exitcode(status))).encode())
    _import()


def _run(arguments: Sequence[str], environ: Mapping[str, str], streams: Sequence[int]) -> None:
    """Do what `python -m pytest ARGUMENTS` does; it doesn't return."""
    status = 99
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream, number in zip(streams, (1, 2), strict=True):
            os.dup2(stream, number)
            os.close(stream)
        os.environ.clear()
        os.environ.update(environ)
        sys.dont_write_bytecode = bool(environ.get("PYTHONDONTWRITEBYTECODE"))
        sys.argv = ["pytest", *arguments]
        status = int(pytest.main([*_ARGUMENTS, *arguments]))
        if status == 0:
            _IMPORTED.write_text(json.dumps([*filter(_is_installed, sys.modules)]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _is_installed(name: str) -> bool:
    """Return whether a module is of Python or its packages, and so the same for all mutants."""
    spec = getattr(sys.modules[name], "__spec__", None)
    origin = str(getattr(spec, "origin", None))
    return name != "__main__" and origin.startswith((sys.prefix, sys.base_prefix))


def _import() -> None:
    """Import what the tests imported that passed last."""
    with contextlib.suppress(FileNotFoundError):
        names = json.loads(_IMPORTED.read_text())
        _IMPORTED.unlink()
        for name in names:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        gc.collect()
        gc.freeze()


if __name__ == "__main__":
    main()
