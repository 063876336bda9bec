"""Asks the publisher that is running how it is, where it has a health endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..status.command import UnreachableError, scrape
from .checks import ok, problem, skipped, warning

if TYPE_CHECKING:
    from ...event_publisher.config.values import Endpoint
    from .checks import Check

_NAME: Final = "publisher"


def check_publisher(health: Endpoint | None) -> Check:
    """Ask the publisher.

    Args:
        health: Where its health endpoint is, or None.
    """
    if health is None:
        return skipped(_NAME, "health.bind isn't set, so a publisher can't be asked")
    try:
        look = scrape(health)
    except UnreachableError as exc:
        return warning(
            _NAME,
            f"nobody answers at {exc.address}: {exc.problem}",
            "start the publisher; if it runs, run the doctor as its user, or restart it with health.bind as "
            "it is now",
        )
    if look.unready is None:
        delivered = look.number("events_delivered_total") or 0
        return ok(_NAME, f"it runs, and has delivered {delivered:,.0f} events")
    return problem(
        _NAME, f"it isn't delivering: {look.unready}", "the checks before and its log say what mends that"
    )
