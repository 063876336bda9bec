"""A bare Debian from its package registry, and the project beside it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

#: The oldest Debian that docs/operations.md speaks of (12).
SUITE: Final = "bookworm"

#: What a host has beyond a minimal Debian: a systemd that is its first process, and the bus to speak to it.
_PACKAGES: Final = ("systemd", "systemd-sysv", "dbus")

#: Seconds for downloading and unpacking some 60 MB; 12 where the registry is near.
_PATIENCE: Final = 600.0

#: Where an administrator of this host put certificates of his own, which its way to the registries may need.
_CERTIFICATES: Final = Path("/usr/local/share/ca-certificates")


def bootstrap(folder: Path) -> None:
    """Make a minimal Debian with a systemd, as root. It resolves names as this host does.

    Args:
        folder: Becomes its top folder; must not exist.

    Raises:
        OSError, AssertionError: There is no mmdebstrap, or it failed, say for want of a registry; the message
            has what it said.
        subprocess.TimeoutExpired: It takes longer than ten minutes.
    """
    done = subprocess.run(
        ["mmdebstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", SUITE, folder],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"mmdebstrap ended with {done.returncode}: {done.stdout[-2000:]}"
    if _CERTIFICATES.is_dir():
        shutil.copytree(_CERTIFICATES, folder / _CERTIFICATES.relative_to("/"), dirs_exist_ok=True)


def clone(folder: Path) -> None:
    """Make what a clone of the project holds, with what isn't committed yet.

    Args:
        folder: Becomes its top folder.

    Raises:
        OSError, subprocess.CalledProcessError: There is no git, or these tests aren't in a clone.
    """
    # Also from a copy of the tests inside the clone, as tox makes it.
    here = Path(__file__).parent
    found = subprocess.check_output(["git", "-C", here, "rev-parse", "--show-toplevel"], text=True)
    top = Path(found.rstrip("\n"))
    listed = subprocess.check_output(
        ["git", "-C", top, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], text=True
    )
    for name in listed.split("\0"):
        if (top / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(top / name, folder / name)
