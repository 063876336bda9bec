"""Sections of INI files for tests, and their mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from baseplate_events.errors import ConfigurationError
from baseplate_events.event_publisher.config.declare import Option
from baseplate_events.event_publisher.config.ini import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from baseplate_events.event_publisher.config.declare import Kind

_T = TypeVar("_T")


def section(environ: Mapping[str, str] | None = None, /, **values: str) -> Section:
    """Make a section named s from keys and values."""
    return Section("s", values, environ or {})


def value(
    read: Section, kind: Kind[_T], name: str = "k", *, default: str | None = None, secret: bool = False
) -> _T:
    """Read the value of an option."""
    return read.read(Option(name, kind, default, "A meaning.", secret=secret))


def problems(read: Section) -> tuple[str, ...]:
    """Finish a section and return its mistakes."""
    try:
        read.finish()
    except ConfigurationError as error:
        return alone(error).problems
    return ()


def alone(error: ConfigurationError) -> ConfigurationError:
    """Assert that an error is chained to no other, which could contain a secret."""
    assert error.__cause__ is None
    assert error.__context__ is None
    return error


def refused(read: Section) -> str:
    """Finish a section with one mistake, about the key k, and return its text."""
    (problem,) = problems(read)
    assert problem.startswith("[s] k: ")
    assert problem.isprintable()
    return problem.removeprefix("[s] k: ")
