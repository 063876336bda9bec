"""nginx in front of a collector, on a free port of loopback, with its files in one folder."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trustme

from tests.peers.daemons import answering, can_connect, free_port, peers_folder
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.support.processes import Process

# Those who run it as root would otherwise have workers of another user, who can't reach the folder.
_USER: Final = "user root;" if os.geteuid() == 0 else ""

_CONFIGURATION: Final = """\
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log notice;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    log_format statuses '$status $connection';
    access_log {folder}/access.log statuses;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {http}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/certificate.pem;
        ssl_certificate_key {folder}/certificate.pem;
        {server}
        location / {{
            proxy_pass {upstream};
        }}
    }}
}}
"""


@dataclass
class Nginx:
    """A running nginx.

    Attributes:
        folder: Where its files are.
        ca_file: The certificate of its authority, for clients to trust.
        port: Where it listens.
        process: Its master process.
    """

    folder: Path
    ca_file: Path
    port: int = 0
    process: Process | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def statuses(self) -> list[int]:
        """What it has answered so far."""
        return [int(line.split()[0]) for line in self._access_log()]

    def has_answered(self, least: int) -> bool:
        """Return whether it has answered so many requests."""
        return len(self.statuses) >= least

    @property
    def connections(self) -> int:
        """How many connections it has answered on."""
        return len({line.split()[1] for line in self._access_log()})

    def reload(self) -> None:
        """Have it read its configuration again, and wait for new workers to replace the old ones."""
        if self.process is None:
            raise AssertionError("it isn't running")
        workers = self._workers()
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self._workers() > workers, "no new worker starts")

    def _workers(self) -> int:
        return (self.folder / "error.log").read_text().count("start worker process ")

    def _access_log(self) -> list[str]:
        # A line that is being written doesn't count yet.
        return (self.folder / "access.log").read_text().split("\n")[:-1]


@contextmanager
def nginx(folder: Path, upstream: str, *, http: str = "", server: str = "") -> Generator[Nginx]:
    """Run nginx until the end of the block, with TLS towards the client.

    Args:
        folder: Where its files go.
        upstream: Scheme, host and port of the collector behind it.
        http: Further directives of its configuration.
        server: Further directives of its one server.
    """
    authority = trustme.CA()
    running = Nginx(folder, folder / "authority.pem")
    authority.cert_pem.write_to_path(str(running.ca_file))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(folder / "certificate.pem")
    )
    configuration_file = folder / "nginx.conf"

    def command() -> list[str]:
        running.port = free_port()
        configuration_file.write_text(
            _CONFIGURATION.format(
                user=_USER, folder=folder, port=running.port, upstream=upstream, http=http, server=server
            )
        )
        log = str(folder / "error.log")
        return [str(peers_folder() / "nginx"), "-p", str(folder), "-c", str(configuration_file), "-e", log]

    with answering(command, lambda: can_connect(running.port), folder / "output.log") as process:
        running.process = process
        try:
            yield running
        finally:
            # Killed, it would leave its workers behind.
            process.terminate()
            process.wait()
