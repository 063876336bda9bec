"""Properties of the outcomes: every reply is exactly one, and no status but 2xx is delivery."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.policy.outcome import (
    MAX_RETRY_AFTER,
    Accepted,
    Misconfigured,
    Outcome,
    Refused,
    Retryable,
    TooLarge,
    classify,
    retry_after,
)
from baseplate_events.event_publisher.policy.wire import Failure, FailureKind, Response


@given(status=st.integers(0, 999), reason=st.text(max_size=10))
def test_only_2xx_is_delivery(status: int, reason: str) -> None:
    """A status is accepted if and only if it is 2xx."""
    outcome = classify(Response(status, reason))
    assert isinstance(outcome, Accepted) == (200 <= status <= 299)


@given(status=st.integers(0, 999))
def test_only_the_content_can_be_refused(status: int) -> None:
    """Nothing but 400, 413 and 422 ever gives a batch up."""
    outcome = classify(Response(status))
    assert isinstance(outcome, TooLarge | Refused) == (status in {400, 413, 422})


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([408, 425, 429, 500, 502, 503, 504, 507, 599, 100, 103], Retryable),
        ([300, 301, 302, 303, 304, 307, 308], Misconfigured),
        ([401, 403, 404, 405, 407, 410, 411, 415, 451, 501], Misconfigured),
    ],
)
def test_statuses_by_example(statuses: list[int], expected: type[Outcome]) -> None:
    """The statuses that matter, by their outcome."""
    assert [type(classify(Response(status))) for status in statuses] == [expected] * len(statuses)


@given(status=st.integers(300, 999), header=st.text(max_size=20))
def test_the_log_names_the_status(status: int, header: str) -> None:
    """Whatever isn't delivery has a reason that names the status."""
    outcome = classify(Response(status, "Reason", retry_after=header))
    assert not isinstance(outcome, Accepted)
    assert outcome.reason == f"{status} Reason"


@given(kind=st.sampled_from(FailureKind), detail=st.text(max_size=20))
def test_no_response_is_never_refused(kind: FailureKind, detail: str) -> None:
    """A failure without a response keeps the batch, and isn't counted as an answer of the collector."""
    outcome = classify(Failure(kind, detail))
    assert isinstance(outcome, Retryable | Misconfigured)
    assert not outcome.from_collector
    assert detail in outcome.reason


@given(text=st.one_of(st.none(), st.text(max_size=40)), date=st.one_of(st.none(), st.text(max_size=40)))
def test_retry_after_takes_anything(text: str | None, date: str | None) -> None:
    """No header makes the wait negative, too long, or an error."""
    assert 0.0 <= retry_after(Response(503, retry_after=text, date=date)) <= MAX_RETRY_AFTER


@given(seconds=st.integers(0, 10**30))
def test_retry_after_in_seconds(seconds: int) -> None:
    """A number is the seconds to wait, up to the cap."""
    assert retry_after(Response(503, retry_after=str(seconds))) == min(seconds, MAX_RETRY_AFTER)


@given(now=st.integers(0, 4_000_000_000), seconds=st.integers(-10_000, 10_000))
def test_retry_after_as_a_date(now: int, seconds: int) -> None:
    """A date counts from the response's own Date header; a past one asks for no wait."""
    response = Response(
        503,
        retry_after=email.utils.formatdate(max(now + seconds, 0), usegmt=True),
        date=email.utils.formatdate(now, usegmt=True),
    )
    assert retry_after(response) == min(max(max(now + seconds, 0) - now, 0), MAX_RETRY_AFTER)
