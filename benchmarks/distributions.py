"""What is installed along with a distribution."""

from __future__ import annotations

import importlib.metadata
import os
import re
from dataclasses import dataclass
from typing import Final

#: Name, extras and marker of a requirement such as `name[extra1,extra2] (>=1.0); marker`.
_REQUIREMENT: Final = re.compile(r"\s*([\w.-]+)\s*(?:\[([^\]]*)\])?[^;]*(?:;(.*))?", re.DOTALL)

_EXTRA: Final = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


@dataclass(frozen=True)
class Installed:
    """Distributions that are installed.

    Attributes:
        names: Their names, normalized.
        size: Bytes of their files, compiled modules included.
    """

    names: frozenset[str]
    size: int


def installed(name: str) -> Installed | None:
    """Return a distribution and all that it requires, directly or not; None where it isn't installed.

    A requirement counts if it is installed, whatever its marker says, unless that asks for an extra that
    is not requested.
    """
    found: dict[str, int] = {}
    wanted: list[tuple[str, frozenset[str]]] = [(_normalized(name), frozenset())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while wanted:
        item = wanted.pop()
        if item in seen:
            continue
        seen.add(item)
        current, extras = item
        try:
            distribution = importlib.metadata.distribution(current)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[current] = _size(distribution)
        wanted += _requirements(distribution, extras)
    return Installed(frozenset(found), sum(found.values())) if _normalized(name) in found else None


def _requirements(
    distribution: importlib.metadata.Distribution, extras: frozenset[str]
) -> list[tuple[str, frozenset[str]]]:
    """Return what a distribution requires with these extras: names, and the extras requested of each."""
    requirements: list[tuple[str, frozenset[str]]] = []
    for text in distribution.requires or ():
        match = _REQUIREMENT.fullmatch(text)
        if match is None:
            raise ValueError(f"{distribution.name} has a requirement that can't be read: {text}")
        name, wanted, marker = match.groups(default="")
        condition = _EXTRA.findall(marker)
        if not condition or extras.intersection(condition):
            requirements.append((_normalized(name), frozenset(filter(None, re.split(r"\s*,\s*", wanted)))))
    return requirements


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _size(distribution: importlib.metadata.Distribution) -> int:
    size = 0
    for file in distribution.files or ():
        try:
            size += os.stat(file.locate()).st_size  # noqa: PTH116 - it is any PathLike
        except OSError:  # listed, and removed since
            continue
    return size
