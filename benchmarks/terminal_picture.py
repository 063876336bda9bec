"""Draw what the commands show: `python -m benchmarks.terminal_picture [FOLDER]`.

It draws `demo.svg` and `status.svg`. The commands run for real on a pseudo-terminal; `status` shows a
publisher that delivers a few hundred events a second to a collector of this process. Needs `pyte` and `rich`:
`tox -e pictures`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import itertools
import os
import pty
import re
import secrets
import select
import signal
import struct
import sys
import tempfile
import termios
import threading
import time
from fcntl import ioctl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from baseplate_events import EventQueue, serialize_v2j_event
from baseplate_events.testing import EventCollector
from baseplate_events.transport.posix import unlink_queue
from tests.support.processes import DEVNULL, started

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

_COMMAND: Final = (sys.executable, "-m", "baseplate_events")

#: Seconds between two events of the picture.
_PACE: Final = 0.003

#: Columns and lines of the terminal.
_COLUMNS: Final = 110
_LINES: Final = 40

#: Bytes read at a time.
_CHUNK: Final = 65_536

#: What leaves a program's other screen, and so ends what is to be shown.
_OWN_SCREEN: Final = b"\x1b[?1049l"

#: Random numbers by which the renderer distinguishes pictures; one picture per page needs none.
_UNIQUE: Final = re.compile(r"terminal-\d+")

#: Fonts that a reader's browser would have to fetch; its own will do.
_FONT: Final = re.compile(r"@font-face \{[^}]*\}\s*")


def main(words: Sequence[str] | None = None) -> int:
    """Draw the pictures and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.terminal_picture", description="Draw what the commands show on a terminal."
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs"), help="default: docs")
    folder: Path = parser.parse_args(words).folder
    demo = run([*_COMMAND, "demo"], 60.0)
    (folder / "demo.svg").write_text(draw(demo, "python -m baseplate_events demo"))
    with delivering() as (config_file, name):
        status = run([*_COMMAND, "status", config_file, "--queue-name", name, "--interval", "1 second"], 6.0)
    (folder / "status.svg").write_text(
        draw(status, "python -m baseplate_events status v2.ini --queue-name v2")
    )
    return 0


@contextlib.contextmanager
def delivering() -> Generator[tuple[str, str]]:
    """Run a publisher under load; yield its configuration and the name of its queue."""
    name = f"picture-{secrets.token_hex(6)}"
    over = threading.Event()

    def produce(queue: EventQueue[dict[str, int]]) -> None:
        for number in itertools.count():
            if over.wait(_PACE):
                return
            queue.put({"id": number})

    with (
        tempfile.TemporaryDirectory() as folder,
        EventCollector() as collector,
        EventQueue(
            name, serialize_v2j_event, max_queue_size=10, max_event_size=1_024, put_timeout=10.0
        ) as queue,
    ):
        config_file = f"{folder}/v2.ini"
        config = collector.publisher_config(
            name,
            version="2j",
            max_queue_size="10",
            max_event_size="1024",
            batch__max_size="10000",
            spool__directory=f"{folder}/spool",
            health__bind=f"{folder}/v2.sock",
        )
        Path(folder, "spool").mkdir()
        Path(config_file).write_text(config)
        publisher = [*_COMMAND, "publish", config_file, "--queue-name", name]
        producer = threading.Thread(target=produce, args=(queue,))
        with started(*publisher, stderr=DEVNULL) as process:
            try:
                producer.start()
                collector.wait_for(100)
                yield config_file, name
            finally:
                over.set()
                producer.join()
                process.terminate()
                process.wait()
                unlink_queue(f"/events-{name}")


def run(command: Sequence[str], seconds: float) -> bytes:
    """Run a command on a terminal, interrupt it after this many seconds, and return its output."""
    ours, its = pty.openpty()
    ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, _COLUMNS, 0, 0))
    output = bytearray()
    ends_at = time.monotonic() + seconds
    environ = {"TERM": "xterm-256color"}
    with started(*command, stdin=its, stdout=its, stderr=its, environ=environ) as process:
        os.close(its)
        while True:
            if process.poll() is None and time.monotonic() >= ends_at:
                process.send_signal(signal.SIGINT)
                ends_at = float("inf")
            if not select.select([ours], [], [], 0.1)[0]:
                continue
            try:
                output += os.read(ours, _CHUNK)
            except OSError:  # EIO: the command has ended
                break
    os.close(ours)
    return bytes(output)


def draw(output: bytes, title: str) -> str:
    """Return the SVG picture of the screen after this output."""
    pyte: Any = importlib.import_module("pyte")
    rich_console: Any = importlib.import_module("rich.console")
    rich_text: Any = importlib.import_module("rich.text")
    screen = pyte.Screen(_COLUMNS, _LINES)
    pyte.ByteStream(screen).feed(output.split(_OWN_SCREEN)[0])
    text = rich_text.Text()
    last = max(line for line, shown in enumerate(screen.display) if line == 0 or shown.strip())
    for line in range(last + 1):
        row = screen.buffer[line]
        for column in range(_COLUMNS):
            char = row[column]
            style = " ".join(
                [*(["bold"] if char.bold else []), *([char.fg] if char.fg != "default" else [])]
            ).replace("brown", "yellow")
            text.append(char.data, style or None)
        text.rstrip()
        text.append("\n" if line < last else "")
    console = rich_console.Console(record=True, width=_COLUMNS, file=io.StringIO())
    console.print(text)
    picture: str = console.export_svg(title=title)
    return _UNIQUE.sub("terminal-picture", _FONT.sub("", picture))


if __name__ == "__main__":
    sys.exit(main())
