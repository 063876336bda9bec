"""Installs the peers into a folder and nowhere else: `python -m tests.peers.install FOLDER`.

statsd comes from npm, in the release of the lock file. nginx is the host's, or else Debian's package,
unpacked: that takes neither root nor an installation.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support.commands import run

#: Seconds for a command that downloads.
_PATIENCE: Final = 600.0

_STATSD: Final = Path(__file__).with_name("statsd")


def install_statsd(folder: Path) -> None:
    """Put statsd into `folder/statsd`, without what it only needs for other backends."""
    shutil.copytree(_STATSD, folder / "statsd", dirs_exist_ok=True)
    options = ["--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"]
    run("npm", "ci", "--prefix", folder / "statsd", *options, timeout=_PATIENCE).check()


def install_node(folder: Path) -> None:
    """Put Node at `folder/node`: the program itself, since what is on the PATH may only start it."""
    path = run("node", "-p", "process.execPath").check().strip()
    target = folder / "node"
    target.unlink(missing_ok=True)
    target.symlink_to(path)


def install_nginx(folder: Path) -> None:
    """Put nginx at `folder/nginx`."""
    target = folder / "nginx"
    if target.exists():
        return
    found = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        found = _unpack_nginx(folder / "debian")
    run(found, "-v").check()
    target.symlink_to(found)


def _unpack_nginx(folder: Path) -> str:
    # Lists and packages of our own, so that it works for any user and leaves the host's alone.
    for part in ("state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    options = {
        "Dir::State": folder / "state",
        "Dir::Cache": folder / "cache",
        "Dir::State::status": "/var/lib/dpkg/status",
        "APT::Sandbox::User": "",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    run(*apt, "update", timeout=_PATIENCE).check()
    run(*apt, "download", "nginx", cwd=folder, timeout=_PATIENCE).check()
    (package,) = folder.glob("nginx_*.deb")
    run("dpkg-deb", "-x", package, folder / "root").check()
    return str(folder / "root/usr/sbin/nginx")


#: The peers: how to get each, and a file that is there once that is done.
_PEERS: Final = {
    "node": (install_node, "node"),
    "statsd": (install_statsd, "statsd/node_modules/statsd/stats.js"),
    "nginx": (install_nginx, "nginx"),
}


def absent_peers(folder: Path) -> list[str]:
    """Return the names of the peers that are not in a folder."""
    return [name for name, (_, file) in _PEERS.items() if not (folder / file).exists()]


def main() -> None:
    """Install all peers that this machine can get, and report the others in one line each."""
    parser = argparse.ArgumentParser(description="Gets the peers of tests/peers into a folder.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name, (install, _) in _PEERS.items():
        try:
            install(folder)
        except (OSError, AssertionError, subprocess.TimeoutExpired) as exc:
            sys.stdout.write(f"{name} is not available: {exc}\n")


if __name__ == "__main__":
    main()
