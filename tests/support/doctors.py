"""The command `doctor` in tests: what it is asked, and what it found."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from tests.support.commands import Result, call
from tests.support.publishers import config_text
from tests.support.queues import as_user, fresh_event_name

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.support.sandbox import Sandbox

#: A user of the host who isn't the one of the tests, if that is root.
NOBODY = 65_534


class Table:
    """What the doctor found.

    Attributes:
        status: Its exit status.
        verdict: Its verdict on all.
        checks: What it says of each thing that it looked at.
        text: All of it.
    """

    def __init__(self, result: Result) -> None:
        assert result.err == ""
        report: dict[str, Any] = json.loads(result.out)
        self.status = result.status
        self.verdict: str = report["verdict"]
        self.checks: list[dict[str, str | None]] = report["checks"]
        self.text = result.out

    def __getitem__(self, name: str) -> tuple[str, str, str]:
        """Give verdict, what was found, and the remedy of a check that was made once."""
        found = [check for check in self.checks if check["name"] == name]
        assert len(found) == 1, (name, self.checks)
        check = found[0]
        return str(check["verdict"]), str(check["found"]), check["remedy"] or ""


def doctor(*words: str) -> Table:
    """Run the doctor."""
    return Table(call("doctor", "--json", *words))


def doctor_in(place: Sandbox, *words: str, after: str = ":") -> Table:
    """Run the doctor in a sandbox, after a command of the same shell."""
    script = f'{after} >&2 && exec python -m baseplate_events doctor --json "$@"'
    return Table(place.run("bash", "-c", script, "bash", *words))


@contextlib.contextmanager
def configured(tmp_path: Path, url: str = "http://127.0.0.1:9", **overrides: str) -> Generator[list[str]]:
    """Give the arguments for a configuration of a queue that isn't there."""
    with fresh_event_name() as name:
        path = tmp_path / "publisher.ini"
        path.write_text(config_text(name, url, **overrides))
        yield [str(path), "--queue-name", name, "--timeout", "5 seconds"]


def diagnose(tmp_path: Path, url: str = "http://127.0.0.1:9", *words: str, **overrides: str) -> Table:
    """Run the doctor for a configuration."""
    with configured(tmp_path, url, **overrides) as arguments:
        return doctor(*arguments, *words)


@contextlib.contextmanager
def unprivileged(path: Path) -> Generator[None]:
    """Be a user without privileges, who can reach this path; root becomes one."""
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0:
            for folder in [path, *path.parents]:
                mode = folder.stat().st_mode
                if not mode & 0o001:
                    folder.chmod(mode | 0o711)
                    stack.callback(folder.chmod, mode)
            stack.enter_context(as_user(NOBODY))
        yield


def folders_of(tmp_path: Path, directory: Path, **overrides: str) -> Table:
    """Return what the doctor says of a spool."""
    return diagnose(
        tmp_path, "http://127.0.0.1:9", "--no-probe", spool__directory=str(directory), **overrides
    )
