from __future__ import annotations

import email.utils
import errno
import os
import ssl

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from baseplate_events.cli.doctor.collector import (
    Peer,
    judge_certificate,
    judge_connection,
    judge_handshake,
    judge_name,
)
from baseplate_events.cli.doctor.findings import Code, Verdict
from baseplate_events.cli.doctor.probe import judge_clock, judge_probe
from baseplate_events.event_publisher.http_connection import TunnelError
from baseplate_events.event_publisher.http_response import MalformedResponseError
from baseplate_events.event_publisher.policy.outcome import REMEDIES, Accepted, Misconfigured, classify
from baseplate_events.event_publisher.policy.wire import Failure, FailureKind, Response
from tests.support.doctors import check_words, sound

COLLECTOR = Peer("collector.hostname", "collector.test", 443)

#: What connecting to an address may come to: the codes of errors, with None for no error.
REFUSED, SILENT, UNREACHABLE = errno.ECONNREFUSED, errno.ETIMEDOUT, errno.ENETUNREACH
results = st.lists(
    st.sampled_from([None, REFUSED, SILENT, UNREACHABLE, errno.EAFNOSUPPORT, errno.EACCES]), min_size=1
)

statuses = st.integers(0, 999)
replies = st.builds(Response, statuses, st.text()) | st.builds(
    Failure, st.sampled_from(FailureKind), st.text()
)


def failure(number: int) -> OSError:
    """Return the error that the system has for this code."""
    return OSError(number, os.strerror(number))


def untrusted(code: int, words: str = "no reason") -> ssl.SSLCertVerificationError:
    """Return the error with which OpenSSL refuses a certificate."""
    error = ssl.SSLCertVerificationError(1, words)
    error.verify_code, error.verify_message = code, words
    return error


def openssl(error: ssl.SSLError, reason: str) -> ssl.SSLError:
    """Return an error the reason that OpenSSL has for it."""
    error.reason = reason
    return error


# --- name and connection ---


@given(st.lists(st.ip_addresses().map(str), min_size=1))
def test_a_name_is_good_just_if_it_has_addresses(addresses: list[str]) -> None:
    """All of them are named; a lookup that fails or takes too long is a problem."""
    found = sound(judge_name(COLLECTOR, addresses))
    assert (Code.NAME_RESOLVED, addresses) == (found.code, found.fields["addresses"])
    failed = sound(judge_name(COLLECTOR, OSError(-2, "not known")))
    assert failed.code is Code.NAME_UNRESOLVED
    assert ["getent hosts collector.test"] == list(failed.commands)
    assert sound(judge_name(COLLECTOR, TimeoutError("late"))).code is Code.NAME_SERVERS_SILENT


@given(results)
def test_one_address_that_answers_is_enough(numbers: list[int | None]) -> None:
    """If none accepts, the likeliest cause counts; an address without a route costs no time."""
    failures = {f"192.0.2.{place}": failure(number) for place, number in enumerate(numbers) if number}
    codes = {exc.errno for exc in failures.values()}
    check = sound(judge_connection(COLLECTOR, failures, len(numbers)))
    if None in numbers:
        harmless = codes <= {UNREACHABLE, errno.EAFNOSUPPORT}
        assert (Code.CONNECTION_MADE if harmless else Code.CONNECTION_PARTIAL) is check.code
    elif REFUSED in codes:
        assert check.code is Code.CONNECTION_REFUSED
    elif SILENT in codes:
        assert check.code is Code.CONNECTION_TIMED_OUT
    else:
        assert check.code is Code.CONNECTION_FAILED
    assert check.fields == {
        "peer": "collector.test:443",
        "key": "collector.hostname",
        "tried": len(numbers),
        "failures": {address: exc.strerror for address, exc in failures.items()},
    }
    assert all(address in check.found for address in failures)


# --- TLS ---


@given(st.integers(1, 100))
def test_a_certificate_has_a_finding_for_each_reason_that_can_be_fixed(code: int) -> None:
    """The time, the name, the form, and everything else, which is mostly the authority."""
    expected = {
        9: Code.CERTIFICATE_NOT_YET_VALID,
        10: Code.CERTIFICATE_EXPIRED,
        62: Code.CERTIFICATE_FOR_ANOTHER_NAME,
        64: Code.CERTIFICATE_FOR_ANOTHER_NAME,
        26: Code.CERTIFICATE_FOR_ANOTHER_PURPOSE,
        **dict.fromkeys((66, 67, 68), Code.CERTIFICATE_WEAK),
        **dict.fromkeys(range(80, 94), Code.CERTIFICATE_NOT_STRICT),
    }
    check = sound(judge_handshake(untrusted(code), COLLECTOR, None))
    assert expected.get(code, Code.CERTIFICATE_UNTRUSTED) is check.code
    assert code == check.fields["verify_code"]


@given(st.integers(1, 100), st.booleans())
def test_an_empty_store_is_blamed_for_what_it_explains(code: int, own_file: bool) -> None:
    """Only with the system's certificates, and if no trusted authority was found; a `ca_file` is no store."""
    ca_file = "/ca.pem" if own_file else None
    with_store = judge_handshake(untrusted(code), COLLECTOR, ca_file)
    check = sound(judge_handshake(untrusted(code), COLLECTOR, ca_file, empty_store="/certs"))
    if code in {2, 18, 19, 20, 21} and not own_file:
        assert (Code.CERTIFICATE_AUTHORITIES_MISSING, "/certs") == (check.code, check.fields["place"])
    else:
        assert with_store == check


@given(st.integers(0, 999), st.text())
def test_what_a_proxy_answers_to_connect_has_a_finding(status: int, reason: str) -> None:
    """Credentials, a prohibition, and everything else; no status is lost."""
    check = sound(judge_handshake(TunnelError(status, reason), COLLECTOR, None))
    assert status == check.fields["status"]
    assert (status == 407) == (check.code is Code.TUNNEL_WANTS_CREDENTIALS)
    assert check.code is not Code.TUNNEL_FORBIDDEN or 300 <= status <= 499 or status == 501
    assert check.code is not Code.TUNNEL_FAILED or status < 300 or status >= 500 or status in {408, 425, 429}


@pytest.mark.parametrize(
    ("exc", "code", "reason"),
    [
        (TimeoutError("slow"), Code.HANDSHAKE_TIMED_OUT, None),
        (openssl(ssl.SSLError(), "WRONG_VERSION"), Code.HANDSHAKE_REFUSED, "WRONG_VERSION"),
        (openssl(ssl.SSLEOFError(), "UNEXPECTED_EOF"), Code.HANDSHAKE_BROKEN, "UNEXPECTED_EOF"),
        (failure(errno.ECONNRESET), Code.HANDSHAKE_BROKEN, os.strerror(errno.ECONNRESET)),
        (TunnelError(407, "No"), Code.TUNNEL_WANTS_CREDENTIALS, "407 No"),
        (MalformedResponseError("SSH-2.0"), Code.HANDSHAKE_PROXY_NOT_HTTP, None),
    ],
)
def test_a_handshake_that_fails_has_its_finding(
    exc: ssl.SSLError | MalformedResponseError, code: Code, reason: str | None
) -> None:
    """A peer without TLS, one that hangs up and one that says nothing differ, and the reason is kept."""
    check = sound(judge_handshake(exc, COLLECTOR, None))
    assert check.code is code
    assert ("collector.test:443", "collector.hostname") == (check.fields["peer"], check.fields["key"])
    assert (reason is None) == ("reason" not in check.fields)
    assert reason is None or reason in str(check.fields["reason"])


@given(
    st.integers(0, 2**31),
    st.integers(-100, 100).map(lambda days: days * 86_400) | st.integers(-(10**6), 10**8),
)
def test_two_weeks_decide_on_a_certificate(now: int, left: int) -> None:
    """A certificate with less than 14 whole days left is a warning."""
    check = sound(judge_certificate(now + left, now, version="TLSv1.3", ca_file=None))
    long = left >= 14 * 86_400
    assert (Code.CERTIFICATE_ACCEPTED if long else Code.CERTIFICATE_ENDS_SOON) is check.code
    assert {"days": left // 86_400, "version": "TLSv1.3", "ca_file": None} == check.fields


# --- probe ---


@given(replies, st.none() | replies)
def test_every_reply_has_a_finding(reply: Response | Failure, forged: Response | Failure | None) -> None:
    """Only a 2xx or a refusal that a false signature doesn't get is ok."""
    outcome = classify(forged) if forged else None
    check = sound(judge_probe(reply, "TheKey", outcome))
    status = reply.status if isinstance(reply, Response) else None
    assert {"key_name": "TheKey", "status": status} == check.fields
    accepted = status is not None and 200 <= status <= 299 and not isinstance(outcome, Accepted)
    checked = status in {400, 422} and isinstance(outcome, Misconfigured) and outcome.from_collector
    assert (accepted or checked) == (check.verdict is Verdict.OK)


def test_statuses_share_a_finding_just_if_they_share_a_remedy() -> None:
    """A program learns as much from the code as a person from the remedy."""
    answers = [Response(status, "") for status in range(1_000)]
    checks = [
        judge_probe(answer, "TheKey") for answer in answers if isinstance(classify(answer), Misconfigured)
    ]
    findings = {(check.code, check.remedy) for check in checks}
    assert len(findings) == len({code for code, _ in findings}) == len({remedy for _, remedy in findings})
    assert len(findings) > 1


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Response(402, ""), Code.PROBE_UNEXPECTED_STATUS),
        (Response(425, ""), Code.PROBE_POSTPONED),
        (Response(999, ""), Code.PROBE_COLLECTOR_FAILS),
        (Failure(FailureKind.UNREACHABLE, ""), Code.PROBE_UNANSWERED),
        (Failure(FailureKind.UNTRUSTED, ""), Code.PROBE_UNTRUSTED),
        (Failure(FailureKind.UNKNOWN_NAME, ""), Code.PROBE_NAME_UNKNOWN),
        (
            Failure(FailureKind.UNREACHABLE, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] (_ssl.c:1)"),
            Code.PROBE_WANTS_CLIENT_CERTIFICATE,
        ),
    ],
)
def test_a_reply_that_is_hard_to_provoke_has_its_code(reply: Response | Failure, code: Code) -> None:
    """The other outcomes are provoked in `test_network`."""
    assert sound(judge_probe(reply, "TheKey")).code is code


@pytest.mark.parametrize(
    ("forged", "code"),
    [
        (Response(422, ""), Code.PROBE_SIGNATURE_IGNORED),
        (Response(200, ""), Code.PROBE_INCONCLUSIVE),
        (Failure(FailureKind.UNTRUSTED, ""), Code.PROBE_INCONCLUSIVE),
        (None, Code.PROBE_INCONCLUSIVE),
    ],
)
def test_a_refusal_is_judged_by_the_answer_to_a_false_signature(
    forged: Response | Failure | None, code: Code
) -> None:
    """Only a collector that refuses the false signature for being false has checked the true one."""
    outcome = classify(forged) if forged else None
    assert sound(judge_probe(Response(400, ""), "TheKey", outcome)).code is code


# --- clock ---


@given(st.integers(0, 4_000_000_000), st.floats(-10_000, 10_000))
def test_a_minute_decides_on_the_clock(moment: int, skew: float) -> None:
    """A clock within a minute is ok in either direction."""
    assume(abs(abs(skew) - 60) > 0.001)
    check = sound(judge_clock(email.utils.formatdate(moment, usegmt=True), moment + skew))
    assert (Code.CLOCK_RIGHT if abs(skew) <= 60 else Code.CLOCK_OFF) is check.code
    assert check.fields["skew"] == pytest.approx(skew, abs=0.001)


@given(st.text())
def test_no_date_breaks_the_check_of_the_clock(date: str) -> None:
    """Whatever a collector sends as its date, there is a finding."""
    assert sound(judge_clock(date, 0.0)).name == "clock"


# --- the words, by an example of each ---


def test_the_words_on_a_name() -> None:
    """The addresses are listed, or the error with the key that names the host."""
    check_words(
        judge_name(COLLECTOR, ["192.0.2.1", "2001:db8::1"]), "collector.test is 192.0.2.1, 2001:db8::1"
    )
    check_words(
        judge_name(COLLECTOR, OSError(-2, "Name or service not known")),
        "collector.test: Name or service not known",
        "check collector.hostname, and the name servers in /etc/resolv.conf: `getent hosts collector.test`",
    )
    check_words(
        judge_name(COLLECTOR, TimeoutError("too late")),
        "collector.test: too late",
        "check the name servers in /etc/resolv.conf: none answered",
    )


def test_the_words_on_a_connection() -> None:
    """Every address that fails is listed with the reason; the remedy is that of the likeliest cause."""
    refused, silent, unreachable = failure(REFUSED), TimeoutError("timed out"), failure(UNREACHABLE)
    check_words(judge_connection(COLLECTOR, {}, 1), "connected to collector.test:443")
    check_words(
        judge_connection(COLLECTOR, {"::1": unreachable, "::2": unreachable}, 3),
        "connected to collector.test:443 (no route to ::1, ::2)",
    )
    check_words(
        judge_connection(COLLECTOR, {"192.0.2.1": refused, "192.0.2.2": silent}, 3),
        "addresses that don't accept connections: 2 of 3: collector.test:443: 192.0.2.1: Connection refused; "
        "192.0.2.2: timed out",
        "remove those addresses from DNS, or fix the route to them: each attempt loses time on them",
    )
    check_words(
        judge_connection(COLLECTOR, {"192.0.2.1": refused}, 1),
        "collector.test:443: 192.0.2.1: Connection refused",
        "nothing listens there: check the port in collector.hostname, and that the server runs",
    )
    check_words(
        judge_connection(Peer("collector.proxy", "::1", 3_128), {"::1": silent}, 1),
        "[::1]:3128: ::1: timed out",
        "packets are dropped: check that the firewalls let this host connect to [::1]:3128",
    )
    check_words(
        judge_connection(COLLECTOR, {"192.0.2.1": unreachable}, 1),
        "collector.test:443: 192.0.2.1: Network is unreachable",
        "check the routes and firewalls of this host towards collector.test:443, and collector.hostname",
    )


def test_the_words_on_a_certificate() -> None:
    """The problem is in OpenSSL's words; the trusted certificates are named if they are the problem."""
    days = 86_400
    check_words(
        judge_certificate(20.5 * days, 0, version="TLSv1.3", ca_file=None),
        "TLSv1.3, accepted by the system's certificates; the certificate expires in 20 days",
    )
    check_words(
        judge_certificate(5.5 * days, 0, version="TLSv1.2", ca_file="/ca.pem"),
        "TLSv1.2, accepted by the certificates of /ca.pem; the certificate expires in 5 days",
        "renew the collector's certificate before then; otherwise delivery stops",
    )
    check_words(
        judge_handshake(untrusted(10, "certificate has expired"), COLLECTOR, None),
        "the certificate isn't accepted: certificate has expired",
        "renew the collector's certificate; if it is still valid, set this host's clock",
    )
    authority = (
        "set collector.ca_file to a PEM file with the certificate of the authority that issued the "
        "collector's, or have the collector send the intermediate certificates"
    )
    reissue = (
        "have the offending certificate reissued as RFC 5280 requires, with key identifiers "
        "(`subjectKeyIdentifier`, `authorityKeyIdentifier`): it is the collector's, an intermediate one, or "
        "the authority's in the system's certificates. Python 3.13 and newer require this, older ones don't"
    )
    for code, remedy in (
        (9, "set this host's clock: the certificate isn't valid yet"),
        (62, "check collector.hostname: the certificate is for another name"),
        (20, f"{authority}; now the system's certificates are trusted"),
        (85, reissue),
        (67, "have the certificate reissued, with an RSA key of 2048 bits or more and SHA-256"),
        (26, "have the certificate reissued for servers (`extendedKeyUsage = serverAuth`)"),
    ):
        assert remedy == judge_handshake(untrusted(code), COLLECTOR, None).remedy
    assert "the certificates of /ca.pem" in judge_handshake(untrusted(20), COLLECTOR, "/ca.pem").remedy
    check_words(
        judge_handshake(untrusted(20), COLLECTOR, None, empty_store="/cert.pem and /certs"),
        "the certificate can't be checked: this host has no authority's certificate in /cert.pem and /certs",
        "as root, in the image or on the host: `apt-get install ca-certificates`, or the package of that "
        "name of another distribution; or set collector.ca_file to a PEM file with the certificate of the "
        "collector's authority",
    )


def test_the_words_on_a_tunnel() -> None:
    """The proxy, its answer and the remedy are named."""
    proxy = Peer("collector.proxy", "proxy.test", 3_128)
    found = "the proxy proxy.test:3128 doesn't connect to the collector: Tunnel connection failed:"
    remedies = {
        407: "the publisher sends no credentials to a proxy: configure the proxy to let this host connect to "
        "the collector without any, or set collector.proxy to one that wants none",
        403: "configure the proxy to allow CONNECT from this host to the collector's host and port; and "
        "check that an HTTP proxy answers at collector.proxy",
        502: "see the log of the proxy: it has to resolve and reach the collector; and "
        "check collector.hostname",
    }
    for status, remedy in remedies.items():
        error = TunnelError(status, "No")
        check_words(judge_handshake(error, proxy, None), f"{found} {status} No", remedy)


def test_the_words_on_a_handshake() -> None:
    """The failure is in the library's words, with what to check."""
    look = "check the server at collector.test:443 (from collector.hostname), and its log"
    check_words(judge_handshake(TimeoutError(), COLLECTOR, None), "the handshake failed: timed out", look)
    check_words(
        judge_handshake(failure(errno.ECONNRESET), COLLECTOR, None),
        "the handshake failed: Connection reset by peer",
        look,
    )
    check_words(
        judge_handshake(MalformedResponseError("SSH-2.0"), COLLECTOR, None),
        "the handshake failed: the proxy doesn't answer in HTTP",
        look,
    )
    check_words(
        judge_handshake(openssl(ssl.SSLError(), "WRONG_VERSION"), COLLECTOR, None),
        "the handshake failed: WRONG_VERSION",
        "check the port in collector.hostname, and collector.scheme: the server doesn't speak TLS 1.2 or "
        "later, or refuses the handshake for a reason given in its log",
    )


def test_the_words_on_a_probe() -> None:
    """The key is named, and the answer with its reason."""
    check_words(
        judge_probe(Response(200, "OK"), "TheKey"),
        "the collector accepted an empty batch signed with key TheKey (200)",
    )
    check_words(
        judge_probe(Response(413, "Too Large"), "TheKey"),
        "an empty batch is too large for the collector, or for a proxy in front of it (413 Too Large)",
        "check the largest body that a proxy in front of the collector allows, such as nginx's "
        "client_max_body_size; batch.max_size has to fit into it",
    )
    check_words(
        judge_probe(Response(429, "Slow down"), "TheKey"),
        "the collector asks to retry later (429 Slow down)",
        "check the load of the collector",
    )
    see_log = "see the log of the collector, or of the proxy in front of it"
    check_words(
        judge_probe(Response(503, "Busy"), "TheKey"),
        "503 Busy",
        f"{see_log}; if it fails only for empty batches, skip the probe with --no-probe",
    )
    check_words(
        judge_probe(Failure(FailureKind.TIMED_OUT, "in the middle"), "TheKey"),
        "timed out: in the middle",
        f"{see_log}; and check the port in collector.hostname, and collector.scheme",
    )


@pytest.mark.parametrize(
    ("reply", "remedy"),
    [
        *((Response(status, "No"), remedy) for status, remedy in REMEDIES.items()),
        (Response(301, "No"), "collector.scheme"),
        (Failure(FailureKind.UNTRUSTED, "No"), "collector.ca_file"),
        (Failure(FailureKind.UNKNOWN_NAME, "No"), "name servers"),
    ],
)
def test_the_words_on_a_probe_that_nothing_gets_through(reply: Response | Failure, remedy: str) -> None:
    """The remedy is the outcome's, which names the keys to check, and the finding is its reason."""
    check = judge_probe(reply, "TheKey")
    assert check.found.endswith(" No")
    assert remedy in check.remedy


def test_the_words_on_what_waits_for_a_configuration() -> None:
    """A problem that needs a change of configuration says what the publisher does until then."""
    outcome = classify(Response(401, "No"))
    assert isinstance(outcome, Misconfigured)
    check_words(
        judge_probe(Response(401, "No"), "TheKey"),
        outcome.reason,
        f"{outcome.remedy}; the publisher keeps all events until then",
    )


def test_the_words_on_a_refusal_of_an_empty_batch() -> None:
    """The text says what is known of the key, with both answers."""
    refusal = Response(400, "Empty")
    check_words(
        judge_probe(refusal, "TheKey", classify(Response(401, "Bad signature"))),
        "the collector accepts key TheKey: it refused an empty batch for its content (400 Empty), and one "
        "with a false signature for the signature (401 Bad signature)",
    )
    check_words(
        judge_probe(refusal, "TheKey", classify(refusal)),
        "an empty batch is refused for its content (400 Empty), whatever its signature: it is unknown "
        "whether key TheKey is accepted, and whether the server is an event collector",
        "check collector.scheme, the port in collector.hostname, and the log of the server there; the "
        "publisher keeps all events while everything is refused",
    )
    check_words(
        judge_probe(refusal, "TheKey", classify(Response(503, "Busy"))),
        "the collector refused an empty batch for its content (400 Empty); whether it accepts key TheKey is "
        "unknown",
    )


def test_the_words_on_a_server_that_isnt_one_for_events() -> None:
    """The text says what the server wants of TLS, or that it accepts anything."""
    accepted = Response(200, "OK")
    check_words(
        judge_probe(accepted, "TheKey", classify(accepted)),
        "an empty batch is accepted (200), whatever its signature: it is unknown whether key TheKey is "
        "right, and whether the server is an event collector",
        "check that collector.hostname is an event collector, which checks signatures. The publisher takes a "
        "200 of any other web server for delivery, and deletes the events",
    )
    plain = Response(400, "Bad", excerpt=b"The plain HTTP request was sent to HTTPS port")
    check_words(
        judge_probe(plain, "TheKey"),
        "the server says that its port is for TLS (400)",
        "set collector.scheme to https, or check the port in collector.hostname; the publisher keeps all "
        "events until then",
    )
    mutual = Response(400, "Bad", excerpt=b"No required SSL certificate was sent")
    check_words(
        judge_probe(mutual, "TheKey"),
        "the server wants a client certificate, and the publisher sends none",
        "configure the server to accept the publisher without one, since its requests are signed (nginx: "
        "`ssl_verify_client off`); the publisher keeps all events until then",
    )


def test_the_words_on_the_clock() -> None:
    """The difference of the clock is given in seconds with its direction, and the command that sets it."""
    date, moment = "Thu, 01 Jan 1970 01:00:00 GMT", 3_600
    remedy = (
        "set this host's clock and keep it synchronized: `timedatectl set-ntp true`; a collector may refuse "
        "requests signed at another time"
    )
    check_words(judge_clock(date, moment), "within 60 seconds of the collector's")
    check_words(judge_clock(date, moment + 3_000), "3,000 seconds ahead of the collector's", remedy)
    check_words(judge_clock(date, moment - 3_000), "3,000 seconds behind the collector's", remedy)
    for no_date in (None, "yesterday"):
        check_words(judge_clock(no_date, moment), "the collector's response has no date that can be parsed")
