"""What the publisher reports of itself, beside what `look` sees."""

from __future__ import annotations

import logging
import socket
import sys
from typing import TYPE_CHECKING

from baseplate_events.event_publisher.config.settings import load_settings
from baseplate_events.event_publisher.policy.accounting import Accounting
from baseplate_events.event_publisher.telemetry.logs import configure_logging
from baseplate_events.event_publisher.telemetry.reporter import Reporter
from baseplate_events.event_publisher.telemetry.snapshot import Snapshot
from baseplate_events.event_publisher.telemetry.systemd import Notifier
from tests.support.publishers import config_text
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_dropped_log_lines_go_to_statsd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines that stderr didn't take are a counter, whatever `look` knows of them."""
    root = logging.Logger("root")  # noqa: LOG001  pytest has handlers at the real one
    monkeypatch.setattr(logging, "root", root)
    monkeypatch.setattr(sys, "stderr", None)
    configure_logging("text", debug=False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(PATIENCE)
        config_file = tmp_path / "config.ini"
        host, port = statsd.getsockname()
        config_file.write_text(config_text("main", "http://c.test", metrics__endpoint=f"{host}:{port}"))
        telemetry = Reporter(
            load_settings(config_file, "main", {}),
            Notifier({}),
            lambda now: Snapshot("main", "1.0", 0.0, now, Accounting(), 0, 10),
        )
        for expected in (3, 1):
            for _ in range(expected):
                root.info("lost")
            telemetry.report_at = 0.0
            telemetry.report(100.0 * (4 - expected))
            lines: list[str] = []
            while f"log_lines_dropped:{expected}|c" not in lines:
                lines += statsd.recv(65_536).decode().split("\n")
        telemetry.finish(1_000.0)
        telemetry.close()
