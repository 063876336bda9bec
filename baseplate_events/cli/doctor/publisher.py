"""Asks the publisher that is running how it is, where it has a health endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..._words import counted
from ..status.command import UnreachableError, scrape
from .findings import Code, ok, problem, skipped, warning

if TYPE_CHECKING:
    from ...event_publisher.config.values import Endpoint
    from .findings import Check

_NAME: Final = "publisher"


def check_publisher(health: Endpoint | None) -> Check:
    """Ask the publisher.

    Args:
        health: Where its health endpoint is, or None.
    """
    if health is None:
        found = "health.bind isn't set, so a publisher can't be asked"
        return skipped(Code.PUBLISHER_ENDPOINT_UNSET, _NAME, found)
    fields = {"endpoint": str(health)}
    try:
        look = scrape(health)
    except UnreachableError as exc:
        return warning(
            Code.PUBLISHER_SILENT,
            _NAME,
            f"nobody answers at {exc.address}: {exc.problem}",
            "start the publisher; if it runs, run the doctor as its user, or restart it with health.bind as "
            "it is now",
            fields={**fields, "reason": exc.problem},
        )
    if look.unready is None:
        delivered = look.number("events_delivered_total") or 0.0
        found = f"it runs, and has delivered {counted(delivered, 'event')}"
        problems = list(look.by_label("spool_problem", "problem"))
        if problems:
            return warning(
                Code.PUBLISHER_HAMPERED,
                _NAME,
                f"{found}, but {'; '.join(problems)}",
                "the checks before and its log say what mends that",
                fields={**fields, "delivered": delivered, "problems": problems},
            )
        return ok(Code.PUBLISHER_DELIVERS, _NAME, found, fields={**fields, "delivered": delivered})
    return problem(
        Code.PUBLISHER_FAILS,
        _NAME,
        f"it isn't delivering: {look.unready}",
        "the checks before and its log say what mends that",
        fields={**fields, "reason": look.unready},
    )
