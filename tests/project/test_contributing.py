"""What a contributor starts with agrees: tox, pre-commit, dependency groups, the API reference."""

from __future__ import annotations

import configparser
import importlib
import re
from typing import Final, TypeVar

import pytest

from tests.support.documents import TOP

PYPROJECT: Final = (TOP / "pyproject.toml").read_text()

#: The environments of tox, by name.
TOX: Final = configparser.ConfigParser(interpolation=None)
TOX.read(TOP / "tox.ini")
ENVIRONMENTS: Final = [section for section in TOX.sections() if section.startswith("testenv")]

#: The dependency groups. (Python 3.10 has no TOML.)
GROUPS: Final = re.findall(
    r"^([\w-]+) = \[", PYPROJECT.partition("[dependency-groups]\n")[2].partition("\n[")[0], re.MULTILINE
)

#: Public modules, whose names the API reference has.
PUBLIC: Final = ("", ".testing", ".pytest_plugin", ".dev_collector")

#: What the entry of a name in the API reference looks like.
ENTRY: Final = re.compile(r"^\.\. (?:auto\w+|currentmodule):: ([\w.]+)", re.MULTILINE)


def lines(section: str, key: str) -> list[str]:
    """Return the lines of a value of tox.ini, without comments."""
    found = TOX.get(section, key, fallback="").splitlines()
    return [line for line in map(str.strip, found) if line and not line.startswith("#")]


@pytest.mark.parametrize("section", ENVIRONMENTS)
def test_an_environment_explains_itself(section: str) -> None:
    """Each environment of tox has a description of its own, and the README of the tests lists it."""
    descriptions = [TOX.get(name, "description") for name in ENVIRONMENTS]
    assert 1 == descriptions.count(TOX.get(section, "description"))
    name = section.partition(":")[2] or "py310"
    assert f"`tox -e {name}`" in (TOP / "tests" / "README.md").read_text()


def test_dependencies_are_declared_once() -> None:
    """Groups have them; what tox.ini names itself are the package's own, and pinned old releases."""
    named = {line for section in ENVIRONMENTS for line in lines(section, "deps")}
    assert {line for line in named if "==" not in line} <= {"thrift", "posix_ipc"}
    used = {line for section in ENVIRONMENTS for line in lines(section, "dependency_groups")}
    assert {group for group in used if not group.startswith("{")} <= set(GROUPS)


def test_every_group_is_used() -> None:
    """Each group is one of an environment, or the one for a contributor."""
    used = {line for section in ENVIRONMENTS for line in lines(section, "dependency_groups")}
    assert {"dev"} == set(GROUPS) - used


def test_pre_commit_runs_what_tox_runs() -> None:
    """The hooks are the commands of the environments lint and types, and none has a version of its own."""
    text = (TOP / ".pre-commit-config.yaml").read_text()
    assert ["local"] == re.findall(r"repo: (.+)", text)
    hooks = {re.split(r" --| -q", entry)[0] for entry in re.findall(r"entry: (.+)", text)}
    found = lines("testenv:lint", "commands") + lines("testenv:types", "commands")
    commands = {re.split(r" --| \.", line)[0] for line in found}
    assert {"ruff check", "ruff format", "mypy", "pyright", "python -m pytest"} == hooks
    assert hooks <= commands


@pytest.mark.parametrize("module", PUBLIC)
def test_the_reference_has_every_public_name(module: str) -> None:
    """The API reference has an entry for each public name of a module."""
    found = importlib.import_module(f"baseplate_events{module}")
    entries: set[str] = set()
    for page in sorted((TOP / "docs" / "api").glob("*.rst")):
        current = ""
        for name in ENTRY.findall(page.read_text()):
            if name.startswith("baseplate_events"):
                current = name
            else:
                entries.add(f"{current}.{name}")
    names = getattr(found, "__all__", None) or [
        name
        for name, value in vars(found).items()
        if getattr(value, "__module__", None) == found.__name__
        and not name.startswith("_")
        and not isinstance(value, TypeVar)
    ]
    assert names
    assert [] == sorted(name for name in names if f"{found.__name__}.{name}" not in entries)


def test_the_pages_of_the_reference_are_in_the_navigation() -> None:
    """Sphinx warns of a page that is nowhere; this says it without Sphinx."""
    navigation = (TOP / "docs" / "conf.py").read_text()
    pages = [path.relative_to(TOP).with_suffix("").as_posix() for path in (TOP / "docs").glob("api/*.rst")]
    pages += [path.relative_to(TOP).with_suffix("").as_posix() for path in (TOP / "docs").glob("*.md")]
    assert [] == sorted(page for page in pages if f'"{page}"' not in navigation)
