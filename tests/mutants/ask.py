"""Asks the process of `forks.py` to run pytest, and ends as that did: `python ask.py SOCKET ARGUMENT...`.

It imports little, as it is started for each mutant.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Final

#: What it prints if there is no answer, which says nothing about a mutant.
NO_ANSWER: Final = "mutants: the process that runs tests doesn't answer"


def main() -> int:
    """Pass arguments, environment, stdout and stderr on, and return the exit status of the tests."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        try:
            server.connect(sys.argv[1])
            request = json.dumps([sys.argv[2:], dict(os.environ)]).encode()
            socket.send_fds(server, [request], [sys.stdout.fileno(), sys.stderr.fileno()])
            answer = server.recv(100)
        except OSError:
            answer = b""
    if not answer:
        print(NO_ANSWER)
        return 1
    return int(answer)


if __name__ == "__main__":
    sys.exit(main())
