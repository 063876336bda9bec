"""An example of a service that puts events."""

from __future__ import annotations

from typing import TypedDict

from baseplate_events import EventError, EventQueue


class Click(TypedDict):
    """An event of a service."""

    action: str


class Clicks:
    """A service: what is to be tested with a queue in memory."""

    def __init__(self, queue: EventQueue[Click]) -> None:
        self.queue = queue

    def handle(self, action: str) -> bool:
        """Handle a request, whatever happens to its event; return whether it was put."""
        try:
            self.queue.put({"action": action})
        except EventError:
            return False
        return True
