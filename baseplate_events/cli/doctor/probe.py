"""Judges the collector's answers to the doctor's probes, and the clock by their dates. Pure."""

from __future__ import annotations

import email.utils
from typing import TYPE_CHECKING, Final

from ..._compat import assert_never
from ..._words import counted
from ...event_publisher.policy.outcome import (
    RETRYABLE_STATUSES,
    Accepted,
    Misconfigured,
    Refused,
    Retryable,
    TooLarge,
    classify,
)
from ...event_publisher.policy.wire import Failure, FailureKind, Response
from .collector import CLOCK, PROBE
from .findings import Code, ok, problem, skipped, warning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...event_publisher.policy.outcome import Outcome
    from ...event_publisher.policy.wire import Reply
    from .findings import Check, Field

#: Seconds that this host's clock may differ from the collector's without a warning.
LARGEST_SKEW: Final = 60.0

_BAD_REQUEST: Final = 400

#: Codes, findings and remedies for a server that wants another kind of connection.
_WANTS_TLS: Final = (
    Code.PROBE_PORT_WANTS_TLS,
    "the server says that its port is for TLS (400)",
    "set collector.scheme to https, or check the port in collector.hostname",
)
_WANTS_CLIENT_CERTIFICATE: Final = (
    Code.PROBE_WANTS_CLIENT_CERTIFICATE,
    "the server wants a client certificate, and the publisher sends none",
    (
        "configure the server to accept the publisher without one, since its requests are signed (nginx: "
        "`ssl_verify_client off`)"
    ),
)

#: By what such a server says: nginx, Apache and Go's net/http in the body of a 400 for plain HTTP on a TLS
#: port; nginx likewise with `ssl_verify_client on`; OpenSSL as the error of a connection that ended for lack
#: of a client certificate, in TLS 1.3 after the handshake.
_DEMANDS: Final = {
    "plain HTTP request was sent to HTTPS port": _WANTS_TLS,
    "speaking plain HTTP to an SSL-enabled server port": _WANTS_TLS,
    "sent an HTTP request to an HTTPS server": _WANTS_TLS,
    "No required SSL certificate was sent": _WANTS_CLIENT_CERTIFICATE,
    "The SSL certificate error": _WANTS_CLIENT_CERTIFICATE,
    "ALERT_CERTIFICATE_REQUIRED": _WANTS_CLIENT_CERTIFICATE,
}

#: The codes for statuses whose outcome is `Misconfigured`; the outcome has the remedy.
_STATUS_CODES: Final = {
    401: Code.PROBE_KEY_REJECTED,
    403: Code.PROBE_KEY_FORBIDDEN,
    404: Code.PROBE_PATH_UNKNOWN,
    **dict.fromkeys((405, 501), Code.PROBE_NOT_A_COLLECTOR),
    407: Code.PROBE_PROXY_WANTS_CREDENTIALS,
    411: Code.PROBE_LENGTH_REQUIRED,
    415: Code.PROBE_FORMAT_UNSUPPORTED,
}


def judge_probe(  # noqa: RET503 - the last case never returns
    reply: Reply, key_name: str, forged: Outcome | None = None
) -> Check:
    """Judge the collector's answer to an empty batch.

    Args:
        reply: How the attempt ended.
        key_name: The key that it was signed with.
        forged: The outcome of another with a false signature, if the first one was `Accepted` or `Refused`.
    """
    status = reply.status if isinstance(reply, Response) else None
    fields: dict[str, Field] = {"key_name": key_name, "status": status}
    # Without `retry.codes`: what the publisher is configured to tolerate is still worth knowing.
    outcome = classify(reply)
    if (demand := _judge_demand(reply, fields)) is not None:
        return demand
    see_log = "see the log of the collector, or of the proxy in front of it"
    match outcome:
        case Accepted() if isinstance(forged, Accepted):
            return warning(
                Code.PROBE_ANYTHING_ACCEPTED,
                PROBE,
                f"an empty batch is accepted ({status}), whatever its signature: it is unknown whether key "
                f"{key_name} is right, and whether the server is an event collector",
                "check that collector.hostname is an event collector, which checks signatures. The "
                "publisher takes a 200 of any other web server for delivery, and deletes the events",
                fields=fields,
            )
        case Accepted():
            found = f"the collector accepted an empty batch signed with key {key_name} ({status})"
            return ok(Code.PROBE_ACCEPTED, PROBE, found, fields=fields)
        case Refused(reason=reason):
            return _judge_refusal(reason, key_name, forged, fields)
        case TooLarge(reason=reason):
            return problem(
                Code.PROBE_TOO_LARGE,
                PROBE,
                f"an empty batch is too large for the collector, or for a proxy in front of it ({reason})",
                "check the largest body that a proxy in front of the collector allows, such as nginx's "
                "client_max_body_size; batch.max_size has to fit into it",
                fields=fields,
            )
        case Misconfigured(reason=reason, remedy=remedy):
            return problem(
                _misconfiguration(reply),
                PROBE,
                reason,
                f"{remedy}; the publisher keeps all events until then",
                fields=fields,
            )
        case Retryable(reason=reason, status=status) if status in RETRYABLE_STATUSES:
            return warning(
                Code.PROBE_POSTPONED,
                PROBE,
                f"the collector asks to retry later ({reason})",
                "check the load of the collector",
                fields=fields,
            )
        case Retryable(reason=reason, from_collector=True):
            return problem(
                Code.PROBE_COLLECTOR_FAILS,
                PROBE,
                reason,
                f"{see_log}; if it fails only for empty batches, skip the probe with --no-probe",
                fields=fields,
            )
        case Retryable(reason=reason):
            return problem(
                Code.PROBE_UNANSWERED,
                PROBE,
                reason,
                f"{see_log}; and check the port in collector.hostname, and collector.scheme",
                fields=fields,
            )
        case _:
            assert_never(outcome)


def _judge_demand(reply: Reply, fields: Mapping[str, Field]) -> Check | None:
    """Judge an answer about TLS, to which a second probe would add nothing."""
    words = reply.detail if isinstance(reply, Failure) else reply.excerpt.decode("latin-1")
    for phrase, (code, found, remedy) in _DEMANDS.items():
        if phrase in words and fields["status"] in {None, _BAD_REQUEST}:
            until = "; the publisher keeps all events until then"
            return problem(code, PROBE, found, remedy + until, fields=fields)
    return None


def _misconfiguration(reply: Reply) -> Code:
    if isinstance(reply, Response):
        return _STATUS_CODES.get(reply.status, Code.PROBE_UNEXPECTED_STATUS)
    if reply.kind is FailureKind.UNTRUSTED:
        return Code.PROBE_UNTRUSTED
    return Code.PROBE_NAME_UNKNOWN


def _judge_refusal(reason: str, key_name: str, forged: Outcome | None, fields: Mapping[str, Field]) -> Check:
    """Judge a refusal of an empty batch for its content.

    A collector checks the signature first, so its answer to a false one shows whether it does. One that
    refuses whatever it gets delivers nothing.
    """
    match forged:
        case Misconfigured(reason=other_reason, from_collector=True):
            return ok(
                Code.PROBE_KEY_ACCEPTED,
                PROBE,
                f"the collector accepts key {key_name}: it refused an empty batch for its content "
                f"({reason}), and one with a false signature for the signature ({other_reason})",
                fields=fields,
            )
        case Refused():
            return problem(
                Code.PROBE_SIGNATURE_IGNORED,
                PROBE,
                f"an empty batch is refused for its content ({reason}), whatever its signature: it is "
                f"unknown whether key {key_name} is accepted, and whether the server is an event collector",
                "check collector.scheme, the port in collector.hostname, and the log of the server there; "
                "the publisher keeps all events while everything is refused",
                fields=fields,
            )
        case _:
            return skipped(
                Code.PROBE_INCONCLUSIVE,
                PROBE,
                f"the collector refused an empty batch for its content ({reason}); whether it accepts key "
                f"{key_name} is unknown",
                fields=fields,
            )


def judge_clock(date: str | None, now: float) -> Check:
    """Judge this host's clock.

    Args:
        date: The Date header of a response, or None.
        now: Seconds since 1970 by the clock of this host, when the response came.
    """
    try:
        skew = now - email.utils.parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError, OverflowError):
        found = "the collector's response has no date that can be parsed"
        return skipped(Code.CLOCK_WITHOUT_DATE, CLOCK, found)
    fields = {"skew": skew}
    if abs(skew) <= LARGEST_SKEW:
        found = f"within {counted(LARGEST_SKEW, 'second')} of the collector's"
        return ok(Code.CLOCK_RIGHT, CLOCK, found, fields=fields)
    direction = "ahead of" if skew > 0 else "behind"
    synchronize = "timedatectl set-ntp true"
    return warning(
        Code.CLOCK_OFF,
        CLOCK,
        f"{counted(abs(skew), 'second')} {direction} the collector's",
        f"set this host's clock and keep it synchronized: `{synchronize}`; a collector may refuse requests "
        "signed at another time",
        commands=(synchronize,),
        fields=fields,
    )
