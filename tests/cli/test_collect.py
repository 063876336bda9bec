from __future__ import annotations

import argparse
import base64
import contextlib
import errno
import http.client
import os
import signal
import sys
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

import pytest

from baseplate_events.cli.collect import add_arguments, run
from baseplate_events.dev_collector import DevCollector
from tests.support.commands import Result
from tests.support.processes import PIPE, Process, finish, started
from tests.support.signed_requests import KEYS, MARKER, SAMPLE, SignedRequest, post, sealed
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

#: The process of the command, and its URL.
Running: TypeAlias = tuple[Process, str]

SECRET = base64.b64encode(KEYS["TestKey"]).decode()


@contextlib.contextmanager
def collecting(*options: str, stdout: int = PIPE) -> Generator[Running, None, None]:
    """Run the command with a key on a free port; give the process and its URL."""
    command = (sys.executable, "-m", "baseplate_events", "collect", "--bind", "127.0.0.1:0")
    with started(*command, "--key", f"TestKey={SECRET}", *options, stdout=stdout, stderr=PIPE) as process:
        assert process.stderr is not None
        line = process.stderr.readline().decode()
        assert line.startswith("listening on http://127.0.0.1:"), line + finish(process).err
        assert line.endswith(" (for development only)\n")
        yield process, line.split()[2]


def post_to(url: str, request: SignedRequest) -> tuple[int, str]:
    """Send a request on a connection of its own."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        return post(connection, request)
    finally:
        connection.close()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_the_command_writes_events_as_lines(ending: signal.Signals) -> None:
    """Each event is one line of stdout, each refusal one of stderr, and a signal ends it with status 0."""
    wrong = sealed("/v2j", b'[{"a":"%s}]' % MARKER.encode())
    with collecting() as (process, url):
        assert post_to(url, SAMPLE)[0] == 200
        assert post_to(url, wrong)[0] == 400
        assert post_to(url, SAMPLE.with_header("X-Signature", f"key=no\x7f, mac={'0' * 64}"))[0] == 401
        process.send_signal(ending)
        result = finish(process)
    assert (result.status, result.out) == (0, '{"id":1}\n{"id":2}\n')
    refused, unknown = result.err.splitlines()
    assert refused.startswith("batch refused with 400: event 1 isn't valid JSON")
    assert unknown == "batch refused with 401: X-Signature: unknown key 'no\\x7f'"
    assert MARKER not in result.err


def test_the_command_appends_to_a_file(tmp_path: Path) -> None:
    """With --output the events follow what the file held, and are there when the batch is answered."""
    output = tmp_path / "events"
    output.write_text("before\n")
    with collecting("--output", str(output)) as (process, url):
        assert post_to(url, SAMPLE)[0] == 200
        assert output.read_text() == 'before\n{"id":1}\n{"id":2}\n'
        process.terminate()
        assert finish(process) == Result(0, "", "")


def test_the_command_ends_when_no_one_reads() -> None:
    """When the reader of stdout is gone, the batch isn't acknowledged and the command ends with status 0."""
    reading, writing = os.pipe()
    with collecting(stdout=writing) as (process, url):
        os.close(writing)
        os.close(reading)
        status, text = post_to(url, SAMPLE)
        assert (status, True) == (500, os.strerror(errno.EPIPE) in text)
        assert finish(process) == Result(0, "", f"batch refused with 500: {text}")


def test_the_command_bounds_the_size() -> None:
    """--batch-max-size is the bound on a batch."""
    with collecting("--batch-max-size", "20") as (_, url):
        assert post_to(url, sealed("/v2j", b'[{"a":"%s"}]' % (b"x" * 20)))[0] == 413
        assert post_to(url, sealed("/v2j", b'[{"a":"x"}]'))[0] == 200


def parse(*options: str) -> argparse.Namespace:
    """Return the arguments of a command line."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(options)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--bind", "8080"], "--bind '8080': expected HOST:PORT"),
        (["--bind", ":8080"], "--bind ':8080': expected HOST:PORT"),
        (["--bind", "127.0.0.1:65536"], "--bind '127.0.0.1:65536': expected HOST:PORT"),
        (["--bind", "127.0.0.1:x\n"], "--bind '127.0.0.1:x\\n': expected HOST:PORT"),
        (["--bind", "::1:80"], "--bind '::1:80': expected HOST:PORT"),
        (["--bind", "[localhost]:80"], "--bind '[localhost]:80': expected HOST:PORT"),
        (["--bind", "192.0.2.1:0"], "--bind: can't listen on 192.0.2.1, port 0: "),
        (["--bind", "a..b:0"], "--bind: can't listen on a..b, port 0: "),
        (["--batch-max-size", "0"], "--batch-max-size '0': expected a number of bytes"),
        (["--batch-max-size", "1MB"], "--batch-max-size '1MB': expected a number of bytes"),
        (["--output", "/nowhere/at/all"], "--output '/nowhere/at/all': can't be written: No such file"),
        (["--output", "\0"], "--output '\\x00': can't be written: ValueError"),
    ],
)
def test_an_option_that_cannot_be_used_is_one_line(
    options: list[str], complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A mistake is reported in one line that names the option, with status 2."""
    assert run(parse("--bind", "127.0.0.1:0", "--key", f"TestKey={SECRET}", *options)) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"collect: {complaint}")
    assert err.count("\n") == 1
    assert SECRET not in err


@pytest.mark.parametrize(
    "key",
    [
        SECRET,
        f"={SECRET}",
        "name=",
        "justone",
        f"a,b={SECRET}",
        f"a b={SECRET}",
        f"name=!!{SECRET}",
        f"name={SECRET}*",
    ],
)
def test_a_key_that_cannot_be_used_is_not_shown(key: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A mistake in a key is reported by its number, without any of its text, which may be the secret."""
    # The size is wrong as well, so that the command doesn't run where the key is taken.
    assert run(parse("--key", f"TestKey={SECRET}", "--key", key, "--batch-max-size", "0")) == 2
    err = capfd.readouterr().err
    assert err.startswith("collect: --key, number 2: expected NAME=BASE64")
    assert err.count("\n") == 2
    assert SECRET not in err
    assert key not in err


def test_all_mistakes_are_reported_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    """Each mistake has its line."""
    key = f"TestKey={SECRET}"
    assert run(parse("--bind", "x", "--key", key, "--key", key, "--key", "y", "--batch-max-size", "z")) == 2
    err = capfd.readouterr().err
    assert [line.split()[1] for line in err.splitlines()] == [
        "--bind",
        "--key,",
        "--key,",
        "--batch-max-size",
    ]
    assert "number 2: duplicate name" in err


def test_the_address_may_be_taken(capfd: pytest.CaptureFixture[str]) -> None:
    """A port that is in use is a mistake like others."""
    with DevCollector(KEYS, lambda _: None) as collector:
        assert run(parse("--bind", f"127.0.0.1:{collector.address[1]}", "--key", f"TestKey={SECRET}")) == 2
    assert "Address already in use" in capfd.readouterr().err


def test_signals_are_as_before() -> None:
    """Running the command leaves the signal mask of the thread as it was."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert run(parse("--key", "x")) == 2
    assert before == signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.SIGTERM not in before, "a test before this one left it blocked"


def test_a_signal_too_many_is_ignored() -> None:
    """A signal that is pending when the command ends isn't delivered afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        signal.raise_signal(signal.SIGTERM)
        assert signal.SIGTERM in signal.sigpending()
        assert run(parse("--key", "x")) == 2
        assert signal.SIGTERM not in signal.sigpending()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_missing_stdout_is_reported(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A process without a stdout needs a file to write to."""
    monkeypatch.setattr(sys, "stdout", None)
    assert run(parse("--bind", "127.0.0.1:0", "--key", f"TestKey={SECRET}")) == 2
    assert capfd.readouterr().err == "collect: there is no stdout; give --output FILE\n"


def test_the_help_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    """The help page warns of production."""
    with pytest.raises(SystemExit) as ending:
        parse("--help")
    assert ending.value.code == 0
    assert "NOT for production" in capsys.readouterr().out
