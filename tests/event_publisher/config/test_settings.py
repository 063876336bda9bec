from __future__ import annotations

import base64
import copy
import ssl
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from baseplate_events import events
from baseplate_events.errors import ConfigurationError
from baseplate_events.event_publisher.config.in_force import values_of
from baseplate_events.event_publisher.config.options import (
    BATCH_WRAPPER_SIZE,
    GROUPS,
    OPTION_BY_NAME,
    OPTIONS,
    SPOOL_VARIABLE,
)
from baseplate_events.event_publisher.config.settings import (
    MAX_QUEUE_NAME_SIZE,
    PublisherSettings,
    load_health,
    load_settings,
)
from baseplate_events.event_publisher.config.values import InternetEndpoint, Secret, UnixEndpoint
from tests.support.strategies import (
    broken_values,
    host_names,
    listening_hosts,
    misspellings,
    option_values,
    ports,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from baseplate_events.event_publisher.config.declare import Option

_SECRET = b"\x00a secret of 32 random bytes\xff\xfe\xfd"
_SECRET_TEXT = base64.b64encode(_SECRET).decode()
_REQUIRED = {"collector.hostname": "events.test", "key.name": "NameOfKey", "key.secret": _SECRET_TEXT}

#: A certificate that signs itself, valid until 2126; its key was thrown away.
_CERTIFICATE = (
    "MIIBdTCCARugAwIBAgIUH9q0YmGeTuVXQbuOkBflKXEkfLwwCgYIKoZIzj0EAwIwDzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjQw"
    "NjMzNDdaGA8yMTI2MTAzMTA2MzM0N1owDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABDaq8bsMt9PO"
    "de6WHxYa3wMl/KKkCp4IFA1LhccT6JKoVvLe4NghqDw3/4WeAj9ihn/ptlPPPqmNpCyD1EQNxZmjUzBRMB0GA1UdDgQWBBRwuROY"
    "P/ErM4IvUdlCniM8FlcVKDAfBgNVHSMEGDAWgBRwuROYP/ErM4IvUdlCniM8FlcVKDAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49"
    "BAMCA0gAMEUCIAcVNFLVhyWsZ7JXQI38KYhDRJ6zEYH461tGOaJJZ3FVAiEAhgXRrqRXGOfEvIMoAX9bwx3j15bXrAtHhHWeiAIf"
    "5lo="
)

#: All but one that needs a file, and one without a value.
_SETTABLE = [
    option for option in OPTIONS if option.name not in {"collector.ca_file", "metrics.swallow_network_errors"}
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for one INI file at a time."""
    return tmp_path_factory.mktemp("settings")


def load(
    folder: Path, values: Mapping[str, str], *, name: str = "v2", environ: Mapping[str, str] | None = None
) -> PublisherSettings:
    """Write an INI file and load it."""
    path = folder / "publisher.ini"
    lines = "".join(f"{key} = {value}\n" for key, value in values.items())
    path.write_text(
        f"[DEFAULT]\ncollector.hostnane = shared\n[event-publisher:{name}]\n{lines}", encoding="utf-8"
    )
    return load_settings(path, name, environ or {})


def mistakes(
    folder: Path, values: Mapping[str, str], *, name: str = "v2", environ: Mapping[str, str] | None = None
) -> list[str]:
    """Load an INI file that is wrong, and give its problems after file and section."""
    with pytest.raises(ConfigurationError) as caught:
        load(folder, values, name=name, environ=environ)
    start = f"{folder / 'publisher.ini'}: [event-publisher:{name}] "
    assert all(problem.startswith(start) and problem.isprintable() for problem in caught.value.problems)
    assert_hidden(str(caught.value) + repr(caught.value))
    return [problem.removeprefix(start) for problem in caught.value.problems]


def assert_hidden(text: str) -> None:
    """Assert that a text contains neither the secret nor a part of it."""
    assert not any(_SECRET_TEXT[at : at + 6] in text for at in range(len(_SECRET_TEXT) - 5))
    assert "a secret" not in text


def consistent(drawn: dict[str, tuple[str, object]]) -> None:
    """Correct values that contradict each other."""

    def value(name: str) -> float:
        text, found = drawn.get(name, (OPTION_BY_NAME[name].default or "", None))
        return found if isinstance(found, (int, float)) else float(text.split()[0])

    for low, high in (("collector.timeout", "collector.deadline"), ("retry.base", "retry.cap")):
        if value(low) > value(high):
            drawn[high] = drawn[low] if low in drawn else (OPTION_BY_NAME[low].default or "", value(low))
    room = int(value("max_event_size")) + BATCH_WRAPPER_SIZE
    if value("batch.max_size") < room:
        drawn["batch.max_size"] = (str(room), room)
    if "spool.directory" in drawn:
        drawn.pop("dead_letters.directory", None)
        if drawn.get("queue.mode", ("", 0o600))[1] not in {0o600, 0o660}:
            drawn["queue.mode"] = ("0660", 0o660)
    elif "queue.transport" in drawn:
        drawn["queue.transport"] = ("posix", "posix")


# --- what is valid ---


@given(st.data())
def test_valid_values_are_read_back(folder: Path, data: st.DataObject) -> None:
    """Any valid values in any order, and defaults for what is left out, make the settings that they say."""
    names = data.draw(st.permutations([option.name for option in _SETTABLE]))
    names = [*names[: data.draw(st.integers(0, len(names)))], *_REQUIRED]
    drawn = {name: data.draw(option_values(OPTION_BY_NAME[name])) for name in dict.fromkeys(names)}
    consistent(drawn)
    settings = load(folder, {name: text for name, (text, _) in drawn.items()})
    found, defaults = values_of(settings), values_of(load(folder, _REQUIRED))
    has_spool = "spool.directory" in drawn
    for option in _SETTABLE:
        name, group = option.name, option.name.split(".")[0]
        if name == "queue.transport" and has_spool and name not in drawn:
            assert found[name] == "both"
        elif name == "dead_letters.max_size" and has_spool:
            assert name not in drawn or drawn[name][1] == found[name]
        elif group in {"spool", "dead_letters"} and f"{group}.directory" not in drawn:
            assert found[name] is None
        elif name in drawn:
            assert drawn[name][1] == found[name], name
        elif group not in {"spool", "dead_letters"}:
            assert defaults[name] == found[name], name
    assert settings == copy.deepcopy(settings)
    assert repr(settings).count("Secret()") == 1


def test_the_documented_configuration_gives_the_documented_defaults(folder: Path) -> None:
    """The section of the documentation loads, with baseplate.py's constants where it had them."""
    settings = load(
        folder,
        {
            "collector.hostname": "some-domain.example.com",
            "key.name": "NameOfASecretKey",
            "key.secret": _SECRET_TEXT,
            "metrics.namespace": "a.name.to.put.metrics.under",
            "metrics.endpoint": "the-statsd-host:1234",
        },
    )
    assert settings.collector.url == "https://some-domain.example.com/v2"
    assert (settings.collector.timeout, settings.collector.deadline) == (3.0, 10.0)
    assert (settings.collector.ca_file, settings.collector.proxy) == (None, None)
    assert (settings.key.name, settings.key.secret) == ("NameOfASecretKey", Secret(_SECRET))
    assert (settings.queue.name, settings.queue.mode) == ("v2", 0o600)
    assert (settings.queue.max_size, settings.queue.max_event_size) == (10_000, 102_400)
    assert (settings.batch.max_size, settings.batch.max_age, settings.batch.max_events) == (
        512_000,
        1.0,
        10_000,
    )
    assert (settings.retry.base, settings.retry.cap) == (1.0, 30.0)
    assert (settings.compression.level, settings.delivery.concurrency, settings.shutdown.grace) == (2, 16, 10)
    assert settings.metrics.namespace == "a.name.to.put.metrics.under"
    assert settings.metrics.endpoint == InternetEndpoint("the-statsd-host", 1234)
    assert not settings.metrics.log_if_unconfigured
    assert_hidden(repr(settings))
    assert load(folder, {**_REQUIRED, "metrics.endpoint": "/run/statsd"}).metrics.endpoint == UnixEndpoint(
        "/run/statsd"
    )
    assert load(folder, _REQUIRED).metrics.endpoint is None


@given(
    st.sampled_from(["2", "2j"]), st.sampled_from(["http", "https"]), st.sampled_from(["h", "h:1", "[::1]:1"])
)
def test_the_url_is_made_of_scheme_host_and_version(
    folder: Path, version: str, scheme: str, host: str
) -> None:
    """The URL is baseplate.py's: `SCHEME://HOSTNAME/vVERSION`."""
    values = {"collector.version": version, "collector.scheme": scheme, "collector.hostname": host}
    assert load(folder, {**_REQUIRED, **values}).collector.url == f"{scheme}://{host}/v{version}"


def test_the_table_of_options_is_complete(folder: Path) -> None:
    """Every default of the table, written into the file, changes nothing; the table has every option once."""
    written = {option.name: option.default for option in OPTIONS if option.default is not None}
    assert load(folder, {**written, **_REQUIRED}) == load(folder, _REQUIRED)
    assert len(OPTION_BY_NAME) == len(OPTIONS)
    assert set(_REQUIRED) == {option.name for option in OPTIONS if option.default is None}
    assert all(option.meaning.endswith(".") for option in OPTIONS)


def test_settings_have_all_groups(folder: Path) -> None:
    """Each group of options is a field of the settings, in the same order."""
    settings = load(folder, {**_REQUIRED, "spool.directory": "/s"})
    values: list[object] = [getattr(settings, each.name) for each in fields(settings)]
    assert list(GROUPS) == [type(value) for value in values]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_is_read(folder: Path, option: Option[Any]) -> None:
    """A value that no option can have is a mistake of each option."""
    found = mistakes(folder, {**_REQUIRED, option.name: "\x7f"})
    assert [line.split(": ")[0] for line in found] == [option.name]


def test_variables_of_the_environment_are_values(folder: Path) -> None:
    """A secret can come from the environment, and one that isn't set is named."""
    values = {**_REQUIRED, "key.secret": "${EVENTS_SECRET}"}
    assert load(folder, values, environ={"EVENTS_SECRET": _SECRET_TEXT}).key.secret.reveal() == _SECRET
    (problem,) = mistakes(folder, values)
    assert problem.startswith("key.secret: the environment variable EVENTS_SECRET isn't set")


@given(listening_hosts | st.sampled_from(["localhost", "LOCALHOST"]), ports)
def test_the_health_endpoint_may_have_any_address(folder: Path, host: str, port: int) -> None:
    """Any address is taken, `localhost` is 127.0.0.1, and `load_health` reads the same."""
    text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    expected = InternetEndpoint("127.0.0.1" if host.lower() == "localhost" else host, port)
    assert expected == load(folder, {**_REQUIRED, "health.bind": text}).health.bind
    assert expected == load_health(folder / "publisher.ini", "v2", {})


@given(host_names, ports)
def test_a_health_endpoint_by_a_name_is_refused(folder: Path, host: str, port: int) -> None:
    """Every name but `localhost` is a mistake, whatever it stands for."""
    assume(host.lower() != "localhost" and not host.replace(".", "").isdigit())
    (problem,) = mistakes(folder, {**_REQUIRED, "health.bind": f"{host}:{port}"})
    assert "has a name instead of an address" in problem


def test_the_health_endpoint_needs_no_secret(folder: Path) -> None:
    """Whoever looks at a publisher needs to have set none of the variables of its configuration."""
    found = mistakes(folder, {"key.secret": "$UNSET_VARIABLE", "health.bind": "./health.sock"})
    assert any("UNSET_VARIABLE" in problem for problem in found)
    assert load_health(folder / "publisher.ini", "v2", {}) == UnixEndpoint("./health.sock")
    load(folder, _REQUIRED)
    assert load_health(folder / "publisher.ini", "v2", {}) is None
    load(
        folder,
        {**_REQUIRED, "health.bind": "./health.sock", "health.hosts": "$UNSET"},
        environ={"UNSET": "a.test"},
    )
    assert load_health(folder / "publisher.ini", "v2", {}) == UnixEndpoint("./health.sock")
    with pytest.raises(ConfigurationError):
        load(folder, {"health.bind": "9102"})
    with pytest.raises(ConfigurationError, match="no section"):
        load_health(folder / "publisher.ini", "v3", {})


# --- what is not ---


@given(st.data())
def test_every_mistake_is_found_at_once(folder: Path, data: st.DataObject) -> None:
    """However many values are broken, each is reported once under its name, and no secret is shown."""
    broken = data.draw(st.lists(st.sampled_from(OPTIONS), min_size=1, unique=True))
    values = _REQUIRED | {option.name: data.draw(broken_values(option, _SECRET_TEXT)) for option in broken}
    found = mistakes(folder, values)
    assert sorted(option.name for option in broken) == sorted(problem.split(": ")[0] for problem in found)
    assert all("expected" in problem for problem in found)


@given(st.sets(st.sampled_from(sorted(_REQUIRED)), min_size=1), st.sampled_from([None, "", "  "]))
def test_what_is_required_has_to_be_there(folder: Path, missing: set[str], value: str | None) -> None:
    """A required option that is missing or empty is a mistake, and all of them are reported."""
    values = {key: text for key, text in _REQUIRED.items() if key not in missing}
    if value is not None:
        values |= dict.fromkeys(missing, value)
    word = "missing" if value is None else "empty"
    found = mistakes(folder, values)
    assert missing == {problem.split(f": {word}; expected ")[0] for problem in found}


@given(st.data())
def test_a_misspelt_key_is_told_with_the_right_one(folder: Path, data: st.DataObject) -> None:
    """A name with a letter missing, added, changed or swapped is reported, with the right one."""
    option = data.draw(st.sampled_from(OPTIONS))
    misspelt = data.draw(misspellings(option.name))
    assume(misspelt not in OPTION_BY_NAME)
    values = _REQUIRED | {misspelt: "x"}
    (mistake,) = mistakes(folder, values)
    assert mistake.startswith(f"{misspelt}: ")
    assert mistake.endswith(f" {option.name}")


def test_keys_of_others_are_ignored(folder: Path) -> None:
    """Keys that aren't like ours don't matter, nor do keys of `[DEFAULT]`."""
    assert load(folder, {**_REQUIRED, "tracing.endpoint": "x", "app": "y"}) == load(folder, _REQUIRED)


@pytest.mark.parametrize(
    ("values", "start"),
    [
        (
            {"collector.timeout": "20 seconds"},
            "collector.deadline: 10 seconds is less than collector.timeout; expected at least 20 seconds",
        ),
        (
            {"retry.base": "1 minute"},
            "retry.cap: 30 seconds is less than retry.base; expected at least 1 minute",
        ),
        (
            {"queue.transport": "spool"},
            "queue.transport: spool needs a spool; set spool.directory",
        ),
        (
            {"spool.directory": "/s", "queue.mode": "0640"},
            (
                "queue.mode: a spool cannot have mode 0640; expected 0600, or 0660 if services and publisher "
                "share a group"
            ),
        ),
        (
            {"spool.directory": "/s", "dead_letters.directory": "/d"},
            "dead_letters.directory: dead letters are in the spool's ledger; remove this option",
        ),
        (
            {"max_event_size": "512000"},
            "batch.max_size: 512,000 bytes cannot hold an event of max_event_size; expected at least 512,064",
        ),
    ],
)
def test_settings_have_to_go_together(folder: Path, values: dict[str, str], start: str) -> None:
    """Values that are valid alone but not together are reported under the key that would fix it."""
    assert mistakes(folder, {**_REQUIRED, **values}) == [start]


@pytest.mark.parametrize(
    ("bad", "other"),
    [
        ("collector.timeout", {"collector.deadline": "2 seconds"}),
        ("retry.base", {"retry.cap": "500 milliseconds"}),
        ("max_event_size", {"batch.max_size": "2000"}),
        ("spool.directory", {"queue.transport": "spool"}),
        ("spool.directory", {"dead_letters.directory": "/d"}),
    ],
)
def test_a_mistake_is_not_compared_with_what_is_right(folder: Path, bad: str, other: dict[str, str]) -> None:
    """A mistaken value brings no second mistake about the default that replaces it."""
    (problem,) = mistakes(folder, {**_REQUIRED, **other, bad: "many"})
    assert problem.startswith(f"{bad}: ")


def test_the_directory_of_spools_can_come_from_the_environment(folder: Path) -> None:
    """Services take it from the same variable; a value in the file goes first."""
    environ = {"EVENT_SPOOL_DIRECTORY": "/from/environment"}
    settings = load(folder, _REQUIRED, environ=environ)
    assert settings.spool is not None
    assert (settings.spool.directory, settings.queue.transport) == ("/from/environment", "both")
    settings = load(folder, {**_REQUIRED, "spool.directory": "/from/file"}, environ=environ)
    assert settings.spool is not None
    assert settings.spool.directory == "/from/file"
    for blank in ("", " "):
        assert load(folder, _REQUIRED, environ={"EVENT_SPOOL_DIRECTORY": blank}).spool is None
    (problem,) = mistakes(folder, _REQUIRED, environ={"EVENT_SPOOL_DIRECTORY": "relative"})
    assert problem.startswith("spool.directory: '$EVENT_SPOOL_DIRECTORY' ")
    assert problem.endswith("; expected the absolute path of a folder")
    assert SPOOL_VARIABLE == events.SPOOL_VARIABLE


def test_the_largest_event_just_fits(folder: Path) -> None:
    """A batch that holds one event of the largest size and the wrapper is fine, a byte less isn't."""
    values = {**_REQUIRED, "max_event_size": "1000"}
    load(folder, {**values, "batch.max_size": "1064"})
    assert len(mistakes(folder, {**values, "batch.max_size": "1063"})) == 1


def test_a_scheme_goes_into_its_own_key(folder: Path) -> None:
    """A URL as the hostname is a mistake that says where the scheme goes."""
    (problem,) = mistakes(folder, {**_REQUIRED, "collector.hostname": "https://events.test"})
    assert "belongs in collector.scheme" in problem


@pytest.mark.parametrize(
    "name", ["a/b", "x" * (MAX_QUEUE_NAME_SIZE + 1), "é" * (MAX_QUEUE_NAME_SIZE // 2 + 1)]
)
def test_a_queue_needs_a_possible_name(folder: Path, name: str) -> None:
    """A name that no queue can have is reported at the start."""
    assert load(folder, _REQUIRED, name="x" * MAX_QUEUE_NAME_SIZE).queue.name == "x" * MAX_QUEUE_NAME_SIZE
    (problem,) = mistakes(folder, _REQUIRED, name=name)
    assert problem.startswith("--queue-name: a queue cannot have this name")


def test_a_section_that_is_not_there_is_told_with_those_that_are(folder: Path) -> None:
    """The sections of the file are named when the one of the queue is missing."""
    load(folder, _REQUIRED)
    with pytest.raises(ConfigurationError, match=r" \[event-publisher:v3\];.* \[event-publisher:v2\]"):
        load_settings(folder / "publisher.ini", "v3", {})


def test_a_ca_file_has_to_hold_certificates(folder: Path) -> None:
    """A PEM file is loaded at the start; any other file is reported with the reason."""
    good = folder / "good.pem"
    good.write_text(ssl.DER_cert_to_PEM_cert(base64.b64decode(_CERTIFICATE)))
    values = {**_REQUIRED, "collector.ca_file": str(good)}
    assert load(folder, values).collector.ca_file == str(good)
    junk = folder / "junk.pem"
    junk.write_text("no certificate")
    for path, reason in (
        (junk, "no certificates"),
        (folder / "missing.pem", "No such file"),
        (folder, ""),
        (folder / "nul\0.pem", "control character"),
    ):
        (problem,) = mistakes(folder, {**_REQUIRED, "collector.ca_file": str(path)})
        assert problem.startswith("collector.ca_file: '/")
        assert reason in problem
