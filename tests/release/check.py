"""Checks what would be published: `tox -e release` runs `python tests/release/check.py FOLDER [--publish]`.

1. Two builds, from copies of the project with other paths, times and permissions, give the same wheel and the
   same source distribution, byte for byte.
2. `twine check --strict` accepts both, and PyPI's renderer makes HTML of the README without a link or a
   picture that leads nowhere there.
3. The version at the top of the changelog is that of the wheel, which runs.

It prints "ready to publish", or what is missing: a date in the changelog, the address of a maintainer, or
that of the repository. With `--publish` it fails if anything is.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

#: What the project consists of; a checkout has more.
PARTS: Final = (".ci", "baseplate_events", "benchmarks", "deploy", "docs", "tests")
FILES: Final = (
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md"),
    *("mypy.ini", "pyproject.toml", "tox.ini", ".gitignore", ".editorconfig", ".pre-commit-config.yaml"),
)

#: Permissions and times of the files of each copy.
COPIES: Final = {"one": (0o644, 0o755, 1_000_000_000), "another/place": (0o600, 0o700, 1_700_000_000)}


def run(*command: str, folder: Path) -> str:
    """Run a command, and return what it wrote to stdout; ends this program if it fails."""
    environ = {key: value for key, value in os.environ.items() if key != "SOURCE_DATE_EPOCH"}
    done = subprocess.run(command, cwd=folder, check=False, text=True, stdout=subprocess.PIPE, env=environ)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}")
    return done.stdout


def copy(source: Path, target: Path, mode: int, folder_mode: int, time: int) -> None:
    """Copy the project, with these permissions and times."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for part in PARTS:
        shutil.copytree(source / part, target / part, ignore=ignored)
    for name in FILES:
        shutil.copy(source / name, target / name)
    for path in target.rglob("*"):
        path.chmod(folder_mode if path.is_dir() else mode)
        os.utime(path, (time, time))


def build(source: Path, folder: Path) -> dict[str, Path]:
    """Build a copy, and return its wheel and source distribution by their names."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source), folder=source)
    return {path.name: path for path in sorted(folder.iterdir())}


def same_twice(root: Path, work: Path) -> dict[str, Path]:
    """Build two copies, and return what was built once both are the same."""
    built: list[dict[str, Path]] = []
    for number, (place, settings) in enumerate(COPIES.items()):
        source = work / place
        source.mkdir(parents=True)
        copy(root, source, *settings)
        built.append(build(source, work / f"dist{number}"))
    first, second = built
    hashes = [{n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in files.items()} for files in built]
    if hashes[0] != hashes[1]:
        sys.exit(f"two builds differ: {hashes}")
    assert len(first) == len(second) == 2, first
    for name, digest in hashes[0].items():
        print(f"{digest}  {name}")
    return first


def metadata_of(wheel: Path) -> tuple[str, str, str]:
    """Return the version of a wheel, the head of its metadata, and its README."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        head, _, readme = archive.read(name).decode().partition("\n\n")
    [version] = re.findall(r"^Version: (.+)$", head, re.MULTILINE)
    return version, head, readme


def missing(head: str, addresses: list[str]) -> list[str]:
    """Return what the metadata lacks for a release: whom to report a vulnerability to, and the source."""
    lacks: list[str] = []
    if not re.search(r"^(Author|Maintainer)-email: .*@", head, re.MULTILINE):
        lacks.append("pyproject.toml has no address of a maintainer, which SECURITY.md refers to")
    if all(address.startswith("https://pypi.org/") for address in addresses):
        lacks.append(
            "[project.urls] has no repository, so the README on PyPI has neither links to files nor pictures"
        )
    return lacks


def check_readme(addresses: list[str], text: str, work: Path) -> None:
    """Render a README as PyPI does, and look at its links, and at addresses of headings in it."""
    (work / "README.md").write_text(text)
    html = run(sys.executable, "-m", "readme_renderer", "README.md", folder=work)
    targets = re.findall(r'(?:href|src)="([^"]*)"', html)
    lost = [target for target in targets if not target.startswith(("https://", "http://", "mailto:", "#"))]
    anchors = set(re.findall(r'id="([^"]*)"', html))
    lost += [target for target in targets if target.startswith("#") and target[1:] not in anchors]
    headings = [address.partition("#user-content-")[2] for address in addresses]
    lost += [heading for heading in headings if heading and f"user-content-{heading}" not in anchors]
    if lost:
        sys.exit(f"links of the README that lead nowhere on PyPI: {lost}")
    if "](" in text and re.search(r"\]\((?!https?://|#)", text):
        sys.exit("the README has relative links")
    if "<h2" not in html or "<table" not in html:
        sys.exit("the README was rendered without its headings or tables")


def check_version(root: Path, wheel: Path, work: Path) -> bool:
    """Compare the versions of changelog, wheel and package; return whether there is a date."""
    changelog = (root / "CHANGELOG.md").read_text()
    first = next(line for line in changelog.splitlines() if line.startswith("## "))
    heading = re.fullmatch(r"## (\S+) \((\d{4}-\d\d-\d\d|unreleased)\)", first)
    if heading is None:
        sys.exit(f"CHANGELOG.md begins with {first!r}; expected `## VERSION (YYYY-MM-DD)`")
    version, _, _ = metadata_of(wheel)
    unpacked = work / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)  # it is our own
    said = run(sys.executable, "-m", "baseplate_events", "--version", folder=unpacked).split()
    if not version == heading[1] == said[1]:
        sys.exit(f"versions differ: wheel {version}, changelog {heading[1]}, package {said[1]}")
    return heading[2] != "unreleased"


def main(work: Path, *, publish: bool) -> None:
    """Make all checks in a folder, which is emptied before; what a release lacks is an error if `publish`."""
    root = Path(__file__).parents[2]
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    built = same_twice(root, work)
    run(sys.executable, "-m", "twine", "check", "--strict", *map(str, built.values()), folder=work)
    wheel = next(path for name, path in built.items() if name.endswith(".whl"))
    _, head, readme = metadata_of(wheel)
    addresses = re.findall(r"^Project-URL: .+, (.+)$", head, re.MULTILINE)
    if not addresses:
        sys.exit("the wheel has no [project.urls]")
    check_readme(addresses, readme, work)
    lacks = missing(head, addresses)
    if not check_version(root, wheel, work):
        lacks.insert(0, "the top of CHANGELOG.md has no date")
    print("\n".join(f"to do before publishing: {what}" for what in lacks) or "ready to publish", flush=True)
    if publish and lacks:
        sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() / "release", publish="--publish" in sys.argv[2:])
