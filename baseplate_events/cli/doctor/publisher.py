"""Queries the running publisher through its health endpoint, if it has one."""

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
    """Query the publisher.

    Args:
        health: Where its health endpoint is, or None.
    """
    if health is None:
        found = "health.bind isn't set, so the publisher can't be queried"
        return skipped(Code.PUBLISHER_ENDPOINT_UNSET, _NAME, found)
    fields = {"endpoint": str(health)}
    try:
        scraped = scrape(health)
    except UnreachableError as exc:
        return warning(
            Code.PUBLISHER_SILENT,
            _NAME,
            f"no answer at {exc.address}: {exc.problem}",
            "start the publisher; if it runs, run the doctor as its user, or restart it with health.bind as "
            "it is now",
            fields={**fields, "reason": exc.problem},
        )
    if scraped.unready is None:
        delivered = scraped.number("events_delivered_total") or 0.0
        found = f"running, {counted(delivered, 'event')} delivered"
        problems = list(scraped.by_label("spool_problem", "problem"))
        if problems:
            return warning(
                Code.PUBLISHER_HAMPERED,
                _NAME,
                f"{found}, but {'; '.join(problems)}",
                "see the checks above and its log",
                fields={**fields, "delivered": delivered, "problems": problems},
            )
        return ok(Code.PUBLISHER_DELIVERS, _NAME, found, fields={**fields, "delivered": delivered})
    return problem(
        Code.PUBLISHER_FAILS,
        _NAME,
        f"running, but not delivering: {scraped.unready}",
        "see the checks above and its log",
        fields={**fields, "reason": scraped.unready},
    )
