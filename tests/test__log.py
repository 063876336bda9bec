"""Logging that can't fail a service."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from baseplate_events._log import DEBUG, ERROR, INFO, WARNING, log

if TYPE_CHECKING:
    import pytest


def test_a_message_is_logged_for_its_caller(caplog: pytest.LogCaptureFixture) -> None:
    """Logger, level and place are those of the module that logs."""
    caplog.set_level(logging.DEBUG, "some.module")
    for level in (DEBUG, INFO, WARNING, ERROR):
        log("some.module", level, "%s of %s", 1, "two")
    assert caplog.record_tuples == [
        ("some.module", level, "1 of two")
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
    ]
    assert {__file__} == {record.pathname for record in caplog.records}


def test_nothing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler may fail, and a process without descriptors can't load `logging`."""
    handler = logging.Handler()
    monkeypatch.setattr(handler, "handle", None)
    monkeypatch.setattr(logging.getLogger("some.module"), "handlers", [handler])
    log("some.module", WARNING, "anything")
    monkeypatch.setitem(sys.modules, "logging", None)
    log("some.module", WARNING, "anything")
