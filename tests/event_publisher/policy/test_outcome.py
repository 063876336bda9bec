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


def expected_type(status: int) -> type[Outcome]:
    """Return what a status means, after the rules of the module."""
    if 200 <= status <= 299:
        return Accepted
    if status in {400, 422}:
        return Refused
    if status == 413:
        return TooLarge
    if status in {408, 425, 429} or status < 300 or (status >= 500 and status != 501):
        return Retryable
    return Misconfigured


def test_every_status() -> None:
    """Each status is of one outcome, which has what the response says besides."""
    for status in range(1_000):
        outcome = classify(Response(status, "Why", retry_after="7", excerpt=b"{}"))
        assert type(outcome) is expected_type(status)
        assert outcome.status == status
        match outcome:
            case Refused() | TooLarge():
                assert outcome.excerpt == b"{}"
            case Retryable():
                assert (outcome.from_collector, outcome.retry_after) == (True, 7.0)
                assert outcome.may_be_poison == (500 <= status <= 599)
            case Misconfigured():
                assert (outcome.from_collector, outcome.retry_after) == (True, 7.0)
            case Accepted():
                pass


def test_statuses_that_the_configuration_adds() -> None:
    """They may pass later, whatever they mean otherwise, but delivery stays delivery; 5xx may be poison."""
    for status in range(1_000):
        outcome = classify(Response(status), frozenset({status}))
        assert type(outcome) is (Accepted if 200 <= status <= 299 else Retryable)
        assert getattr(outcome, "may_be_poison", False) == (500 <= status <= 599)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "check key.name and key.secret"),
        (403, "check that the collector allows key.name to send"),
        (404, "check collector.hostname and collector.version"),
        (405, "check collector.hostname: this doesn't look like an event collector"),
        (407, "check collector.proxy: the proxy wants credentials"),
        (411, "check the proxy in front of the collector: it misses a Content-Length that was sent"),
        (415, "check collector.version"),
        (501, "check collector.hostname: this doesn't look like an event collector"),
        *(
            (status, "check collector.scheme and collector.hostname")
            for status in (302, 402, 406, 409, 410, 412, 414, 416, 499)
        ),
    ],
)
def test_a_remedy_names_what_to_look_at(status: int, remedy: str) -> None:
    """What a configuration has to do with a status is said; otherwise the host and scheme are named."""
    outcome = classify(Response(status))
    assert isinstance(outcome, Misconfigured)
    assert outcome.remedy == remedy


@pytest.mark.parametrize("kind", FailureKind)
def test_failures_by_kind(kind: FailureKind) -> None:
    """Nothing is known of when to come back; a batch may be the reason only if it was in flight."""
    outcome = classify(Failure(kind, "why"))
    assert isinstance(outcome, Retryable | Misconfigured)
    assert (outcome.from_collector, outcome.retry_after, outcome.status) == (False, 0.0, None)
    sent = {FailureKind.TIMED_OUT, FailureKind.INTERRUPTED, FailureKind.MALFORMED}
    if isinstance(outcome, Retryable):
        assert kind in {*sent, FailureKind.UNREACHABLE}
        assert outcome.may_be_poison == (kind in sent)


def test_a_wait_of_five_minutes_at_most() -> None:
    """The cap, and numbers with zeros before them, of any length."""
    assert [
        retry_after(Response(503, retry_after=text))
        for text in ("299", "300", "301", "5".zfill(5_000), "5" * 5_000)
    ] == [299.0, 300.0, 300.0, 5.0, 300.0]


@pytest.mark.parametrize(
    ("text", "date"),
    [
        (None, None),
        ("", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("\xb2", "Thu, 01 Jan 1970 00:00:00 GMT"),  # a digit, but not of ASCII
        ("soon", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("Thu, 01 Jan 1970 00:00:09 GMT", None),
        ("Thu, 01 Jan 1970 00:00:09 GMT", ""),
        ("Thu, 01 Jan 1970 00:00:09 GMT", "today"),
        ("Thu, 01 Jan 1970 00:00:09 GMT", "Thu, 01 Jan 1970 00:00:00 -0000"),  # which has no time zone
        ("Thu, 01 Jan 99999999999999999999 00:00:09 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:09 GMT"),
    ],
)
def test_a_header_that_asks_for_no_wait(text: str | None, date: str | None) -> None:
    """What is missing, no date, in the past, or can't be compared is no wait at all."""
    assert retry_after(Response(503, retry_after=text, date=date)) == 0.0
