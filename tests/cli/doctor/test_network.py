from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import gzip
import ipaddress
import json
import secrets
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from baseplate_events.cli.doctor.findings import Code, Verdict
from baseplate_events.dev_collector import DevCollector
from baseplate_events.event_publisher.policy.wire import sign, signature_header
from tests.support.doctors import Table, check_words, configured, diagnose, doctor_in
from tests.support.fault_collector import (
    GARBAGE_STATUS_LINE,
    Behaviour,
    Drip,
    Drop,
    FaultCollector,
    Hang,
    Respond,
    redirect,
    stranger_tls,
    trusted_tls,
)
from tests.support.http_transports import resolve_to
from tests.support.publishers import KEY_NAME, SECRET
from tests.support.sandbox import sandbox
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

#: Another secret than the one of the tests.
OTHER_SECRET = b"another secret of the tests"

BLOCKED = Code.STEP_BLOCKED

#: What a collector does that takes an empty batch, but not one with a false signature.
CHECKING = (Respond(), Respond(401))


def steps(table: Table) -> list[Code]:
    """Return what was found at each step to the collector."""
    names = ("collector name", "collector connection", "collector TLS", "signed probe", "clock")
    return [table[name].code for name in names]


def diagnose_reply(tmp_path: Path, behaviour: Behaviour, *arguments: str) -> Table:
    """Run the doctor for a collector that does this, and rejects a false signature."""
    with FaultCollector([behaviour, Respond(401)]) as server:
        return diagnose(tmp_path, server.url, *arguments)


# --- name and connection ---


def test_a_name_that_doesnt_exist_is_a_problem(tmp_path: Path) -> None:
    """It is reported with the host, and the steps that need it are skipped."""
    table = diagnose(tmp_path, "http://collector.invalid")
    assert steps(table) == [Code.NAME_UNRESOLVED, BLOCKED, BLOCKED, BLOCKED, BLOCKED]
    check = table["collector name"]
    assert {"host": "collector.invalid", "key": "collector.hostname"} == check.fields
    assert ["getent hosts collector.invalid"] == list(check.commands)
    check_words(table["collector connection"], "needs the step that failed above")


def test_name_servers_that_dont_answer_are_a_problem(tmp_path: Path) -> None:
    """A name lookup is abandoned after the timeout, although the system's resolver can't be cancelled."""
    with sandbox(tmp_path) as place, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as name_server:
        name_server.bind((f"127.{secrets.randbelow(200) + 1}.{secrets.randbelow(250)}.1", 53))
        name_server.settimeout(PATIENCE)
        place.replace("/etc/nsswitch.conf", "hosts: dns\n")
        place.replace("/etc/resolv.conf", f"nameserver {name_server.getsockname()[0]}\n")
        with configured(tmp_path, "http://collector.test", metrics__endpoint="statsd.test:8125") as arguments:
            table = doctor_in(place, *arguments, "--timeout", "50 milliseconds")
        assert b"collector" in name_server.recv(512)
    assert steps(table) == [Code.NAME_SERVERS_SILENT, BLOCKED, BLOCKED, BLOCKED, BLOCKED]
    assert {"host": "collector.test", "key": "collector.hostname"} == table["collector name"].fields
    assert "50 milliseconds" in table["collector name"].found
    assert table["metrics"].code is Code.STATSD_NAME_UNRESOLVED
    assert "50 milliseconds" in table["metrics"].found
    assert ["getent hosts statsd.test"] == list(table["metrics"].commands)


@contextlib.contextmanager
def refusing_port() -> Generator[int]:
    """Yield a port that refuses connections, and that no one else uses in the meantime."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_a_port_that_refuses_is_a_problem(tmp_path: Path) -> None:
    """Nothing listens there, and the port is what to check."""
    with refusing_port() as port:
        table = diagnose(tmp_path, f"http://127.0.0.1:{port}")
    assert steps(table) == [Code.NAME_RESOLVED, Code.CONNECTION_REFUSED, BLOCKED, BLOCKED, BLOCKED]
    assert table["collector name"].fields["addresses"] == ["127.0.0.1"]
    assert table["collector connection"].fields == {
        "peer": f"127.0.0.1:{port}",
        "key": "collector.hostname",
        "tried": 1,
        "failures": {"127.0.0.1": "Connection refused"},
    }


def test_an_address_without_a_way_is_a_problem(tmp_path: Path) -> None:
    """The remedy is to check routes and firewalls; here for an address that is unreachable."""
    table = diagnose(tmp_path, "http://255.255.255.255")
    assert steps(table)[1] is Code.CONNECTION_FAILED
    assert ["255.255.255.255"] == list(failures_of(table))


def failures_of(table: Table) -> dict[str, str | int]:
    """Return why addresses of the collector don't answer, by address."""
    failures = table["collector connection"].fields["failures"]
    assert isinstance(failures, dict)
    return failures


@contextlib.contextmanager
def silent_port(address: str = "127.0.0.1", port: int = 0) -> Generator[int]:
    """Yield a port from which nothing comes back."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind((address, port))
        listener.listen(0)
        while True:  # until its queue of connections is full, whereupon Linux drops packets
            client = stack.enter_context(socket.socket())
            client.settimeout(0.1)
            try:
                client.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener.getsockname()[1]


def test_packets_that_are_dropped_are_a_problem(tmp_path: Path) -> None:
    """If nothing answers at all, firewalls are what to look at."""
    with silent_port() as port:
        table = diagnose(tmp_path, f"http://127.0.0.1:{port}", "--timeout", "100 milliseconds")
    assert steps(table)[1] is Code.CONNECTION_TIMED_OUT
    assert f"127.0.0.1:{port}" == table["collector connection"].fields["peer"]


@contextlib.contextmanager
def nothing(*_: object) -> Generator[None]:
    """Leave an address as it is."""
    yield


@pytest.mark.parametrize(
    ("dead", "make", "code", "reason"),
    [
        ("127.0.0.2", nothing, Code.CONNECTION_PARTIAL, "Connection refused"),
        ("127.0.0.2", silent_port, Code.CONNECTION_PARTIAL, "timed out"),
        ("255.255.255.255", nothing, Code.CONNECTION_MADE, "Network is unreachable"),
    ],
)
def test_an_address_that_doesnt_answer_is_a_warning(
    tmp_path: Path,
    dead: str,
    make: Callable[[str, int], AbstractContextManager[object]],
    code: Code,
    reason: str,
) -> None:
    """If one of two addresses of a name is dead, attempts lose time on it, and events flow.

    No time is lost on an address without a route, such as IPv6 on a host without it.
    """
    with sandbox(tmp_path) as place, FaultCollector(CHECKING) as server, make(dead, server.address[1]):
        place.replace("/etc/nsswitch.conf", "hosts: files\n")
        place.replace("/etc/hosts", f"{dead} collector.test\n127.0.0.1 collector.test\n")
        peer = f"collector.test:{server.address[1]}"
        with configured(tmp_path, f"http://{peer}") as arguments:
            hurry = ("--timeout", "300 milliseconds") if make is silent_port else ()
            table = doctor_in(place, *arguments, *hurry)
    assert steps(table)[1:] == [code, Code.TLS_UNUSED, Code.PROBE_ACCEPTED, Code.CLOCK_WITHOUT_DATE]
    assert table["collector connection"].fields == {
        "peer": peer,
        "key": "collector.hostname",
        "tried": 2,
        "failures": {dead: reason},
    }


def test_the_likeliest_of_several_causes_is_reported(tmp_path: Path) -> None:
    """If no address accepts, a refusal outweighs a missing route."""
    with sandbox(tmp_path) as place, refusing_port() as port:
        place.replace("/etc/nsswitch.conf", "hosts: files\n")
        place.replace("/etc/hosts", "255.255.255.255 collector.test\n127.0.0.1 collector.test\n")
        with configured(tmp_path, f"http://collector.test:{port}") as arguments:
            table = doctor_in(place, *arguments)
    assert steps(table)[1] is Code.CONNECTION_REFUSED
    assert failures_of(table) == {
        "255.255.255.255": "Network is unreachable",
        "127.0.0.1": "Connection refused",
    }


# --- TLS ---


def leaf_tls(
    tmp_path: Path,
    *,
    identity: str = "127.0.0.1",
    not_before: dt.datetime | None = None,
    not_after: dt.datetime | None = None,
) -> tuple[ssl.SSLContext, str]:
    """Return a server context with a certificate as requested, and the path of its authority's."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf = authority.issue_cert(identity, not_before=not_before, not_after=not_after)
    with leaf.private_key_and_cert_chain_pem.tempfile() as path:
        context.load_cert_chain(path)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return context, str(tmp_path / "ca.pem")


def days_from_now(days: float) -> dt.datetime:
    """Return a moment as certificates have it."""
    return dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=days)


def test_an_authority_that_no_one_knows_is_a_problem(tmp_path: Path) -> None:
    """A certificate that isn't trusted points to `collector.ca_file`, and to what is trusted now."""
    with FaultCollector(ssl_context=stranger_tls()) as server:
        table = diagnose(tmp_path, server.url)
        assert server.requests == []
        assert steps(table)[:2] == [Code.NAME_RESOLVED, Code.CONNECTION_MADE]
        assert steps(table)[2:] == [Code.CERTIFICATE_UNTRUSTED, BLOCKED, BLOCKED]
        check = table["collector TLS"]
        assert (server.url.removeprefix("https://"), None) == (check.fields["peer"], check.fields["ca_file"])
        _, wrong = leaf_tls(tmp_path)
        check = diagnose(tmp_path, server.url, collector__ca_file=wrong)["collector TLS"]
        assert (Code.CERTIFICATE_UNTRUSTED, wrong) == (check.code, check.fields["ca_file"])
        assert wrong in check.remedy


def plain_certificates(tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    """Return a server context with a certificate as old scripts make them, and the path of its authority's.

    Neither has an extension that isn't needed to verify it by the rules of before Python 3.13.
    """
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("authority", "server")]

    def certificate(subject: int, extension: x509.ExtensionType, *, critical: bool) -> bytes:
        return (
            x509.CertificateBuilder()
            .subject_name(names[subject])
            .issuer_name(names[0])
            .public_key(keys[subject].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(days_from_now(-1))
            .not_valid_after(days_from_now(100))
            .add_extension(extension, critical=critical)
            .sign(keys[0], hashes.SHA256())
            .public_bytes(Encoding.PEM)
        )

    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    authority = certificate(0, x509.BasicConstraints(ca=True, path_length=None), critical=True)
    leaf = certificate(1, x509.SubjectAlternativeName([address]), critical=False)
    key = keys[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ca.pem").write_bytes(authority)
    (tmp_path / "leaf.pem").write_bytes(leaf + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "leaf.pem")
    return context, str(tmp_path / "ca.pem")


def test_a_certificate_without_key_identifiers_has_to_be_reissued(tmp_path: Path) -> None:
    """Python 3.13 and newer refuse it, though `collector.ca_file` has its authority; older ones don't."""
    context, ca_file = plain_certificates(tmp_path)
    with FaultCollector(ssl_context=context) as server:
        check = diagnose(tmp_path, server.url, collector__ca_file=ca_file)["collector TLS"]
    strict = bool(ssl.create_default_context().verify_flags & ssl.VERIFY_X509_STRICT)
    assert (Code.CERTIFICATE_NOT_STRICT if strict else Code.CERTIFICATE_ACCEPTED) is check.code
    assert strict == ("Identifier" in check.found)


@pytest.mark.parametrize(
    ("file", "folder", "code"),
    [
        (None, None, Code.CERTIFICATE_AUTHORITIES_MISSING),
        (None, "README", Code.CERTIFICATE_AUTHORITIES_MISSING),
        (None, "0a1b2c3d.0", Code.CERTIFICATE_UNTRUSTED),
        ("ca.pem", None, Code.CERTIFICATE_UNTRUSTED),
    ],
)
def test_a_host_without_any_authority_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str | None, folder: str | None, code: Code
) -> None:
    """An image without `ca-certificates` trusts no collector, and the collector isn't blamed for that."""
    (tmp_path / "certs").mkdir()
    _, other = leaf_tls(tmp_path)
    if folder is not None:
        (tmp_path / "certs" / folder).write_bytes(Path(other).read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / (file or "missing.pem")))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "certs"))
    with FaultCollector(ssl_context=stranger_tls()) as server:
        check = diagnose(tmp_path, server.url)["collector TLS"]
        with_file = diagnose(tmp_path, server.url, collector__ca_file=other)["collector TLS"]
    assert (code, Code.CERTIFICATE_UNTRUSTED) == (check.code, with_file.code)
    if code is Code.CERTIFICATE_AUTHORITIES_MISSING:
        assert str(tmp_path / "certs") in str(check.fields["place"])
        assert ["apt-get install ca-certificates"] == list(check.commands)


@pytest.mark.parametrize(
    ("first", "last", "code"),
    [
        (-30, -1, Code.CERTIFICATE_EXPIRED),
        (1, 30, Code.CERTIFICATE_NOT_YET_VALID),
        (-30, 5.5, Code.CERTIFICATE_ENDS_SOON),
        (-30, 20.5, Code.CERTIFICATE_ACCEPTED),
    ],
)
def test_the_time_of_a_certificate_is_reported(tmp_path: Path, first: float, last: float, code: Code) -> None:
    """A certificate that isn't valid now is a problem; one that expires in less than 14 days a warning."""
    context, ca_file = leaf_tls(tmp_path, not_before=days_from_now(first), not_after=days_from_now(last))
    with FaultCollector(ssl_context=context) as server:
        check = diagnose(tmp_path, server.url, collector__ca_file=ca_file)["collector TLS"]
    assert (code, ca_file) == (check.code, check.fields["ca_file"])
    if check.verdict is not Verdict.PROBLEM:
        assert int(last) == check.fields["days"]
        assert check.fields["version"] in {"TLSv1.2", "TLSv1.3"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_certificate_for_another_name_is_a_problem(tmp_path: Path, host: str) -> None:
    """It points to `collector.hostname`, be that an address or a name."""
    context, ca_file = leaf_tls(tmp_path, identity="other.test")
    with FaultCollector(ssl_context=context) as server:
        url = server.url.replace("127.0.0.1", host)
        table = diagnose(tmp_path, url, collector__ca_file=ca_file)
    assert table["collector TLS"].code is Code.CERTIFICATE_FOR_ANOTHER_NAME


def test_the_dot_of_an_absolute_name_is_for_the_resolver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate is for the name without the final dot, as for the publisher."""
    context, authority = trusted_tls("events.example.com")
    (tmp_path / "ca.pem").write_bytes(authority)
    with FaultCollector(CHECKING, ssl_context=context) as server:
        names = resolve_to(monkeypatch, [server.address])
        url = "https://events.example.com."
        table = diagnose(tmp_path, url, collector__ca_file=str(tmp_path / "ca.pem"))
    assert {"events.example.com."} == {*names}
    assert steps(table)[2:4] == [Code.CERTIFICATE_ACCEPTED, Code.PROBE_ACCEPTED]


def test_a_port_that_doesnt_speak_our_tls_is_a_problem(tmp_path: Path) -> None:
    """An `http` port behind `https`, and TLS of old, point to the port and the scheme."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer() -> None:
            for _ in range(2):  # the connection, then the handshake
                client, _ = listener.accept()
                with client:
                    if client.recv(65_536):  # all of it, or closing resets the connection
                        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        table = diagnose(tmp_path, f"https://127.0.0.1:{listener.getsockname()[1]}")
        thread.join(PATIENCE)
    context, ca_file = leaf_tls(tmp_path)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with FaultCollector(ssl_context=context) as server:
        old = diagnose(tmp_path, server.url, collector__ca_file=ca_file)
    for found in (table, old):
        assert found["collector TLS"].code is Code.HANDSHAKE_REFUSED


def test_a_handshake_that_hangs_or_breaks_is_a_problem(tmp_path: Path) -> None:
    """A silent peer is abandoned after the timeout, and one that hangs up is reported."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        silent = diagnose(tmp_path, f"https://{host}", "--timeout", "100 milliseconds")["collector TLS"]
    with FaultCollector([Drop()]) as server:
        broken = diagnose(tmp_path, server.url.replace("http", "https"))["collector TLS"]
    assert silent.code is Code.HANDSHAKE_TIMED_OUT
    assert (host, "collector.hostname") == (silent.fields["peer"], silent.fields["key"])
    assert broken.code is Code.HANDSHAKE_BROKEN
    assert "collector.hostname" == broken.fields["key"]


# --- the signed probe ---


@pytest.mark.parametrize("version", ["2", "2j"])
def test_the_probe_is_a_signed_batch_without_events(tmp_path: Path, version: str) -> None:
    """What the collector gets is signed as the publisher signs, and has no event in it."""
    with FaultCollector(CHECKING) as server:
        check = diagnose(tmp_path, server.url, collector__version=version)["signed probe"]
        request, false = server.requests
    assert check.code is Code.PROBE_ACCEPTED
    assert {"key_name": KEY_NAME, "status": 200} == check.fields
    body = gzip.decompress(request.body)
    assert f"/v{version}" == request.target
    assert json.loads(body) == ({"1": {"lst": ["rec", 0]}} if version == "2" else [])
    assert signature_header(KEY_NAME, sign(SECRET, body)) == request.header("X-Signature")
    assert request.body == false.body


def test_the_probe_can_be_left_out(tmp_path: Path) -> None:
    """`--no-probe` sends nothing to the collector, and says what is therefore unknown."""
    with FaultCollector() as server:
        table = diagnose(tmp_path, server.url, "--no-probe")
        assert server.requests == []
    assert steps(table)[:2] == [Code.NAME_RESOLVED, Code.CONNECTION_MADE]
    assert steps(table)[2:] == [Code.TLS_UNUSED, Code.PROBE_LEFT_OUT, Code.CLOCK_LEFT_OUT]
    check_words(table["collector TLS"], "collector.scheme is http: events travel unencrypted")
    check_words(table["signed probe"], "skipped by --no-probe, so whether the key is accepted is unknown")
    check_words(table["clock"], "skipped by --no-probe")


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (Respond(200), Code.PROBE_ACCEPTED),
        (Respond(204), Code.PROBE_ACCEPTED),
        (redirect("http://127.0.0.1:9/", 301), Code.PROBE_UNEXPECTED_STATUS),
        (redirect("http://127.0.0.1:9/", 308), Code.PROBE_UNEXPECTED_STATUS),
        (Respond(400), Code.PROBE_KEY_ACCEPTED),
        (Respond(422), Code.PROBE_KEY_ACCEPTED),
        (Respond(401), Code.PROBE_KEY_REJECTED),
        (Respond(403), Code.PROBE_KEY_FORBIDDEN),
        (Respond(404), Code.PROBE_PATH_UNKNOWN),
        (Respond(405), Code.PROBE_NOT_A_COLLECTOR),
        (Respond(407), Code.PROBE_PROXY_WANTS_CREDENTIALS),
        (Respond(408), Code.PROBE_POSTPONED),
        (Respond(411), Code.PROBE_LENGTH_REQUIRED),
        (Respond(413), Code.PROBE_TOO_LARGE),
        (Respond(415), Code.PROBE_FORMAT_UNSUPPORTED),
        (Respond(429), Code.PROBE_POSTPONED),
        (Respond(500), Code.PROBE_COLLECTOR_FAILS),
        (Respond(501), Code.PROBE_NOT_A_COLLECTOR),
        (Respond(502), Code.PROBE_COLLECTOR_FAILS),
        (Respond(503), Code.PROBE_COLLECTOR_FAILS),
        (Respond(504), Code.PROBE_COLLECTOR_FAILS),
        (Drop(after_reading=True), Code.PROBE_UNANSWERED),
        (Hang(), Code.PROBE_UNANSWERED),
        (Drip(), Code.PROBE_UNANSWERED),
        (GARBAGE_STATUS_LINE, Code.PROBE_UNANSWERED),
    ],
)
def test_every_answer_to_the_probe_has_its_finding(tmp_path: Path, behaviour: Behaviour, code: Code) -> None:
    """Whatever the collector does, the finding fits."""
    hurry = ("--timeout", "100 milliseconds") if isinstance(behaviour, Hang | Drip) else ()
    table = diagnose_reply(tmp_path, behaviour, *hurry)
    check = table["signed probe"]
    assert check.code is code
    assert (check.verdict is Verdict.PROBLEM) == (table.status == 1)
    if isinstance(behaviour, Respond):
        assert {"key_name": KEY_NAME, "status": behaviour.status} == check.fields
        assert str(behaviour.status) in check.found
    else:
        assert {"key_name": KEY_NAME, "status": None} == check.fields
        assert table["clock"].code is Code.CLOCK_UNANSWERED


@pytest.mark.parametrize(
    ("answer", "second", "code"),
    [
        (Respond(400), Respond(401), Code.PROBE_KEY_ACCEPTED),
        (Respond(400), Respond(403), Code.PROBE_KEY_ACCEPTED),
        (Respond(400), Respond(400), Code.PROBE_SIGNATURE_IGNORED),
        (Respond(422), Respond(400), Code.PROBE_SIGNATURE_IGNORED),
        (Respond(400), Respond(503), Code.PROBE_INCONCLUSIVE),
        (Respond(400), Drop(), Code.PROBE_INCONCLUSIVE),
        (Respond(200), Respond(401), Code.PROBE_ACCEPTED),
        (Respond(200), Respond(400), Code.PROBE_ACCEPTED),
        (Respond(200), Drop(), Code.PROBE_ACCEPTED),
        (Respond(200), Respond(200), Code.PROBE_ANYTHING_ACCEPTED),
        (Respond(204), Respond(200), Code.PROBE_ANYTHING_ACCEPTED),
    ],
)
def test_a_collector_is_asked_with_a_false_signature_too(
    tmp_path: Path, answer: Respond, second: Behaviour, code: Code
) -> None:
    """If it then rejects the false signature, the key is accepted; with the same answer nothing is known.

    A server that refuses everything delivers nothing; one that accepts everything may not be a collector.
    """
    with FaultCollector([answer, second]) as server:
        table = diagnose(tmp_path, server.url)
        first, *others = server.requests
    check = table["signed probe"]
    assert check.code is code
    assert (check.verdict is Verdict.PROBLEM) == (table.status == 1)
    assert {"key_name": KEY_NAME, "status": answer.status} == check.fields
    for other in others:
        assert first.body == other.body
        assert first.header("X-Signature") != other.header("X-Signature")
        assert str(other.header("X-Signature")).startswith(f"key={KEY_NAME}, mac=")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("<center>The plain HTTP request was sent to HTTPS port</center>", Code.PROBE_PORT_WANTS_TLS),
        (
            "Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />",
            Code.PROBE_PORT_WANTS_TLS,
        ),
        ("Client sent an HTTP request to an HTTPS server.\n", Code.PROBE_PORT_WANTS_TLS),
        ("<center>No required SSL certificate was sent</center>", Code.PROBE_WANTS_CLIENT_CERTIFICATE),
        ("<center>The SSL certificate error</center>", Code.PROBE_WANTS_CLIENT_CERTIFICATE),
    ],
)
def test_a_web_server_that_says_what_it_wants_of_tls_is_a_problem(
    tmp_path: Path, body: str, code: Code
) -> None:
    """nginx, Apache and Go's server answer 400 to every request, and say why in the body."""
    with FaultCollector([Respond(400, body=body.encode())]) as server:
        table = diagnose(tmp_path, server.url)
    assert (1, code) == (table.status, table["signed probe"].code)
    assert body not in table.text


def test_a_port_of_tls_behind_http_is_a_problem(tmp_path: Path) -> None:
    """Whatever the port makes of a request that isn't TLS."""
    with FaultCollector(ssl_context=stranger_tls()) as server:
        table = diagnose(tmp_path, server.url.replace("https", "http"))
        assert server.requests == []
    assert steps(table)[3:] == [Code.PROBE_UNANSWERED, Code.CLOCK_UNANSWERED]
    assert "collector.scheme" in table["signed probe"].remedy
    check_words(table["clock"], "needs a response")


@pytest.mark.parametrize(
    ("name", "secret", "code"),
    [
        (KEY_NAME, SECRET, Code.PROBE_KEY_ACCEPTED),
        (KEY_NAME, OTHER_SECRET, Code.PROBE_KEY_REJECTED),
        ("Other", SECRET, Code.PROBE_KEY_REJECTED),
    ],
)
def test_the_development_collector_knows_its_key(
    tmp_path: Path, name: str, secret: bytes, code: Code
) -> None:
    """A wrong secret or name is a problem; the right ones are accepted, though no empty batch is."""
    with DevCollector({name: secret}, lambda _: None) as collector:
        table = diagnose(tmp_path, collector.url)
    assert (code, Code.CLOCK_RIGHT) == (table["signed probe"].code, table["clock"].code)


@pytest.mark.parametrize(
    ("date", "code", "skew"),
    [
        (lambda: email.utils.formatdate(usegmt=True), Code.CLOCK_RIGHT, 0),
        (lambda: email.utils.formatdate(time.time() - 3_600, usegmt=True), Code.CLOCK_OFF, 3_600),
        (lambda: email.utils.formatdate(time.time() + 3_600, usegmt=True), Code.CLOCK_OFF, -3_600),
        (lambda: "yesterday", Code.CLOCK_WITHOUT_DATE, None),
        (lambda: None, Code.CLOCK_WITHOUT_DATE, None),
    ],
)
def test_a_clock_that_is_off_is_a_warning(
    tmp_path: Path, date: Callable[[], str | None], code: Code, skew: float | None
) -> None:
    """A clock that is off by more than a minute is reported, with its direction and the command."""
    text = date()
    headers = () if text is None else (("Date", text),)
    check = diagnose_reply(tmp_path, Respond(headers=headers))["clock"]
    assert check.code is code
    if skew is not None:
        assert check.fields["skew"] == pytest.approx(skew, abs=60)


# --- a proxy ---


def test_a_proxy_is_what_is_connected_to(tmp_path: Path) -> None:
    """With `collector.proxy`, the proxy's name and port matter, and its refusal is reported."""
    with FaultCollector(CHECKING) as proxy:
        table = diagnose(tmp_path, "http://collector.invalid", collector__proxy=proxy.url)
        assert steps(table)[:2] == [Code.NAME_RESOLVED, Code.CONNECTION_MADE]
        assert steps(table)[2:4] == [Code.TLS_UNUSED, Code.PROBE_ACCEPTED]
        assert {"http://collector.invalid/v2j"} == {request.target for request in proxy.requests}
        assert table["collector connection"].fields["peer"] == proxy.url.removeprefix("http://")
    with refusing_port() as port:
        table = diagnose(tmp_path, "http://collector.invalid", collector__proxy=f"http://127.0.0.1:{port}")
    check = table["collector connection"]
    assert (Code.CONNECTION_REFUSED, "collector.proxy") == (check.code, check.fields["key"])


@pytest.mark.parametrize(
    ("answer", "code", "status"),
    [
        (Respond(407), Code.TUNNEL_WANTS_CREDENTIALS, 407),
        (Respond(403), Code.TUNNEL_FORBIDDEN, 403),
        (Respond(405), Code.TUNNEL_FORBIDDEN, 405),
        (Respond(501), Code.TUNNEL_FORBIDDEN, 501),
        (Respond(502), Code.TUNNEL_FAILED, 502),
        (Respond(503), Code.TUNNEL_FAILED, 503),
        (Drop(after_reading=True), Code.HANDSHAKE_BROKEN, None),
        (GARBAGE_STATUS_LINE, Code.HANDSHAKE_PROXY_NOT_HTTP, None),
    ],
)
def test_a_proxy_that_makes_no_connection_is_a_problem(
    tmp_path: Path, answer: Behaviour, code: Code, status: int | None
) -> None:
    """It is the proxy that is to be looked at, with what it answers."""
    with FaultCollector([answer]) as proxy:
        check = diagnose(tmp_path, "https://collector.invalid", collector__proxy=proxy.url)["collector TLS"]
        assert [request.method for request in proxy.requests] == ["CONNECT"]
    assert (code, "collector.proxy") == (check.code, check.fields["key"])
    assert status == check.fields.get("status")


def test_a_proxy_gets_an_address_of_ipv6_in_brackets(tmp_path: Path) -> None:
    """So a host and its port can be distinguished."""
    with FaultCollector([Respond(403)]) as proxy:
        diagnose(tmp_path, "https://[::1]", collector__proxy=proxy.url)
        assert [request.target for request in proxy.requests] == ["[::1]:443"]
