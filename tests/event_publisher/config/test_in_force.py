"""What of a changed configuration takes effect: a model of options that are changed one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.config.in_force import (
    changed_options,
    reloaded,
    shown_values,
    values_of,
)
from baseplate_events.event_publisher.config.options import OPTION_BY_NAME, OPTIONS
from baseplate_events.event_publisher.config.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from baseplate_events.event_publisher.config.settings import PublisherSettings

#: Two values of each option that can be changed alone, in a file with a spool.
CHOICES: Final = {
    "collector.hostname": ("one.example.com", "two.example.com"),
    "collector.version": ("2", "2j"),
    "collector.scheme": ("https", "http"),
    "collector.timeout": ("3 seconds", "4 seconds"),
    "collector.deadline": ("10 seconds", "11 seconds"),
    "collector.proxy": ("", "http://proxy.example.com:3128"),
    "key.name": ("OneName", "OtherName"),
    "key.secret": ("b25lIHNlY3JldA==", "dHdvIHNlY3JldHM="),
    "max_queue_size": ("10", "11"),
    "max_event_size": ("1024", "2048"),
    "queue.mode": ("0600", "0660"),
    "queue.transport": ("both", "spool"),
    "queue.exclusive": ("false", "true"),
    "batch.max_size": ("512000", "500000"),
    "batch.max_age": ("1 second", "2 seconds"),
    "batch.max_events": ("100", "200"),
    "compression.level": ("2", "3"),
    "retry.base": ("1 second", "2 seconds"),
    "retry.cap": ("30 seconds", "40 seconds"),
    "retry.codes": ("", "404"),
    "retry.max_age": ("", "1 day"),
    "delivery.concurrency": ("16", "17"),
    "spool.directory": ("/var/spool/one", "/var/spool/two"),
    "spool.max_size": ("1048576", "2000000"),
    "spool.fsync": ("never", "batch"),
    "dead_letters.max_size": ("100000", "200000"),
    "shutdown.grace": ("10 seconds", "0 seconds"),
    "shutdown.drain": ("true", "false"),
    "metrics.namespace": ("", "some.name"),
    "metrics.endpoint": ("", "127.0.0.1:8125"),
    "metrics.log_if_unconfigured": ("false", "true"),
    "health.bind": ("", "127.0.0.1:9102"),
    "health.hosts": ("", "node1.example.com"),
}

#: Options that need a file or a configuration without a spool, or that have no value.
OTHERS: Final = {"collector.ca_file", "dead_letters.directory", "metrics.swallow_network_errors"}

REQUIRED: Final = ("collector.hostname", "key.name", "key.secret")

changes = st.sets(st.sampled_from(sorted(CHOICES)))


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An INI file."""
    return tmp_path_factory.mktemp("settings") / "publisher.ini"


def load(file: Path, values: Mapping[str, str]) -> PublisherSettings:
    """Write the file and load it."""
    lines = "".join(f"{name} = {value}\n" for name, value in values.items())
    file.write_text(f"[event-publisher:v2]\n{lines}")
    return load_settings(file, "v2", {})


def chosen(changed: set[str]) -> dict[str, str]:
    """Return the second value of some options, and the first of all others."""
    return {name: values[name in changed] for name, values in CHOICES.items()}


def test_every_option_has_its_value(file: Path) -> None:
    """Each option has its value by its name, set or not, and none is missing from the tests."""
    assert set(CHOICES) | OTHERS == {option.name for option in OPTIONS}
    for values in (chosen(set()), {name: CHOICES[name][0] for name in REQUIRED}):
        assert list(values_of(load(file, values))) == list(OPTION_BY_NAME)


@given(changes, changes)
def test_changed_options_are_named_and_take_effect_or_wait(
    file: Path, first: set[str], second: set[str]
) -> None:
    """Exactly the changed options are named, and each has its new value, or its old one if it waits."""
    old, new = load(file, chosen(first)), load(file, chosen(second))
    taken, waiting = changed_options(old, new)
    assert sorted(taken + waiting) == sorted(first ^ second)
    assert all(OPTION_BY_NAME[name].reload for name in taken)
    assert not any(OPTION_BY_NAME[name].reload for name in waiting)
    in_force = reloaded(old, new)
    before, after = values_of(old), values_of(new)
    for name, value in values_of(in_force).items():
        assert value == (after if OPTION_BY_NAME[name].reload else before)[name], name
    assert changed_options(in_force, new) == ([], waiting)


@given(changes)
def test_metrics_have_the_values_and_never_the_key(file: Path, changed: set[str]) -> None:
    """Each option that is set is shown, a number as a number, a span in seconds; nothing shows the key."""
    values = chosen(changed)
    shown = shown_values(load(file, values))
    for name in CHOICES.keys() - {"key.name", "key.secret"}:
        assert (name in shown) == bool(values[name]), name
    for name, value in shown.items():
        numeric = OPTION_BY_NAME[name].kind.expected.startswith(("a number", "a whole number", "true"))
        assert isinstance(value, int | float) == numeric, name
    if "queue.mode" in changed:
        assert shown["queue.mode"] == "0660"
    assert shown["shutdown.grace"] == (0 if "shutdown.grace" in changed else 10)
    assert shown["shutdown.drain"] == int("shutdown.drain" not in changed)
    text = repr(shown)
    assert not any(part in text for name in ("key.name", "key.secret") for part in CHOICES[name])
    assert "secret" not in text
