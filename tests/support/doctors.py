"""The command `doctor` in tests: its calls and its findings."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
from typing import TYPE_CHECKING, Any, Final

from baseplate_events.cli.doctor.findings import Check, Code, Verdict
from tests.support.commands import Result, call
from tests.support.publishers import config_text
from tests.support.queues import fresh_event_name

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from baseplate_events.cli.doctor.findings import Field
    from tests.support.sandbox import Sandbox


#: The verdict that each code has by its declaration, by the code's name in the enumeration.
DECLARED: Final = {
    name: Verdict(verdict)
    for verdict, name in re.findall(
        r"^ +#: (\w+): .+\n(?: +#: .+\n)* +([A-Z_]+) = ", inspect.getsource(Code), re.MULTILINE
    )
}


def sound(check: Check) -> Check:
    """Check what holds for every finding, and return it.

    Its verdict is the one that its code is declared with; it has a remedy only if it needs one; and its
    commands are those that a person reads in the remedy.
    """
    assert check.verdict is DECLARED[check.code.name], check
    assert check.found, check
    assert bool(check.remedy) == (check.verdict in {Verdict.WARNING, Verdict.PROBLEM}), check
    assert all(f"`{command}`" in check.remedy for command in check.commands), check
    return check


def check_words(check: Check, found: str, remedy: str = "") -> None:
    """Check the texts of a finding. Each wording is checked in one test, and in no scenario."""
    assert (found, remedy) == (check.found, check.remedy)


class Table:
    """The findings of the doctor.

    Attributes:
        status: Its exit status.
        verdict: The overall verdict.
        checks: Its checks.
        text: The whole output.
    """

    def __init__(self, result: Result) -> None:
        assert result.err == ""
        report: dict[str, Any] = json.loads(result.out)
        assert report.keys() == {"checks", "verdict"}
        self.status = result.status
        self.verdict = Verdict(report["verdict"])
        self.checks: list[Check] = [sound(_read(**members)) for members in report["checks"]]
        self.text = result.out

    @property
    def names(self) -> set[str]:
        """The names of its checks."""
        return {check.name for check in self.checks}

    @property
    def problems(self) -> list[Check]:
        """The checks that keep events from flowing."""
        return [check for check in self.checks if check.verdict is Verdict.PROBLEM]

    def __getitem__(self, name: str) -> Check:
        """Return the only check of this name."""
        found = [check for check in self.checks if check.name == name]
        assert len(found) == 1, (name, self.checks)
        return found[0]


def _read(
    *,
    name: str,
    code: str,
    verdict: str,
    found: str,
    remedy: str | None,
    commands: list[str],
    fields: dict[str, Field],
) -> Check:
    """Create a check from exactly these members of its JSON."""
    assert remedy != ""
    return Check(Code(code), name, Verdict(verdict), found, remedy or "", commands, fields)


def doctor(*words: str) -> Table:
    """Run the doctor."""
    return Table(call("doctor", "--json", *words))


def doctor_in(place: Sandbox, *words: str, after: str = ":") -> Table:
    """Run the doctor in a sandbox, after a command of the same shell."""
    script = f'{after} >&2 && exec python -m baseplate_events doctor --json "$@"'
    return Table(place.run("bash", "-c", script, "bash", *words))


@contextlib.contextmanager
def configured(tmp_path: Path, url: str = "http://127.0.0.1:9", **overrides: str) -> Generator[list[str]]:
    """Yield the arguments for a configuration of a queue that doesn't exist."""
    with fresh_event_name() as name:
        path = tmp_path / "publisher.ini"
        path.write_text(config_text(name, url, **overrides))
        yield [str(path), "--queue-name", name, "--timeout", "5 seconds"]


def diagnose(tmp_path: Path, url: str = "http://127.0.0.1:9", *words: str, **overrides: str) -> Table:
    """Run the doctor for a configuration."""
    with configured(tmp_path, url, **overrides) as arguments:
        return doctor(*arguments, *words)


def spool_of(tmp_path: Path, directory: Path, **overrides: str) -> Table:
    """Return the doctor's findings with a spool in this directory."""
    return diagnose(
        tmp_path, "http://127.0.0.1:9", "--no-probe", spool__directory=str(directory), **overrides
    )
