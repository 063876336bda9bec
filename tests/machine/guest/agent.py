r"""Runs what the host asks for: one request for each connection.

    guest: hello\n
    host:  {"command": [...], "stdin": "..."}\n
    guest: what the command writes, as it comes; and in the end \n\0exit STATUS\n

A request may also have the host's `time` and a `seed`: the clock is set to the one, and the kernel draws
random numbers from the other. A machine that was saved and is restored twice would otherwise draw the same
ones twice.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import threading
import time
from typing import Final

#: Where the host finds it.
PORT: Final = 7000

#: Of random(4): add to the pool of entropy, and draw from the pool from now on.
_RNDADDENTROPY: Final = 0x40085203
_RNDRESEEDCRNG: Final = 0x5207


def main() -> None:
    """Serve until the machine ends."""
    with socket.create_server(("0.0.0.0", PORT), backlog=64) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    with connection, connection.makefile("rb") as lines:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"hello\n")
        line = lines.readline()
        if not line:
            return
        request = json.loads(line)
        if "time" in request:
            time.clock_settime(time.CLOCK_REALTIME, request["time"])
            _reseed(bytes.fromhex(request["seed"]))
        process = subprocess.Popen(
            request["command"],
            stdin=subprocess.PIPE,
            stdout=connection.fileno(),
            stderr=connection.fileno(),
            start_new_session=True,
        )
        process.communicate(request["stdin"].encode())
        connection.sendall(b"\n\0exit %d\n" % process.returncode)


def _reseed(seed: bytes) -> None:
    random = os.open("/dev/urandom", os.O_WRONLY)
    try:
        fcntl.ioctl(random, _RNDADDENTROPY, struct.pack("ii", 8 * len(seed), len(seed)) + seed)
        fcntl.ioctl(random, _RNDRESEEDCRNG)
    finally:
        os.close(random)


if __name__ == "__main__":
    main()
