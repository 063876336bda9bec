"""A bare Debian from its package registry, and the project beside it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from tests.support.commands import run

#: The oldest Debian that docs/operations.md supports (12).
SUITE: Final = "bookworm"

#: What a host has beyond a minimal Debian: systemd as its first process, and the bus on which it answers.
_PACKAGES: Final = ("systemd", "systemd-sysv", "dbus")

#: Seconds for downloading and unpacking some 60 MB; 12 where the registry is near.
_PATIENCE: Final = 600.0

#: Certificates that an administrator added to this host, which its way to the registries may need.
_CERTIFICATES: Final = Path("/usr/local/share/ca-certificates")


def bootstrap(folder: Path) -> None:
    """Make a minimal Debian with a systemd, as root. It resolves names as this host does.

    Args:
        folder: Becomes its top folder; must not exist.

    Raises:
        OSError, AssertionError: There is no mmdebstrap, or it failed, for example without a registry; the
            message has its output.
        subprocess.TimeoutExpired: It takes longer than ten minutes.
    """
    include = f"--include={','.join(_PACKAGES)}"
    done = run("mmdebstrap", "--variant=minbase", include, SUITE, folder, merged=True, timeout=_PATIENCE)
    assert done.status == 0, f"mmdebstrap ended with {done.status}: {done.out[-2000:]}"
    if _CERTIFICATES.is_dir():
        shutil.copytree(_CERTIFICATES, folder / _CERTIFICATES.relative_to("/"), dirs_exist_ok=True)


def clone(folder: Path) -> None:
    """Copy the files of a clone of the project, including those not committed yet.

    Args:
        folder: Becomes its top folder.

    Raises:
        OSError, AssertionError: There is no git, or these tests aren't in a clone.
    """
    # Also from a copy of the tests inside the clone, as tox makes it.
    here = Path(__file__).parent
    top = Path(run("git", "-C", here, "rev-parse", "--show-toplevel").check().rstrip("\n"))
    options = ("-z", "--cached", "--others", "--exclude-standard")
    listed = run("git", "-C", top, "ls-files", *options).check()
    for name in listed.split("\0"):
        if (top / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(top / name, folder / name)
