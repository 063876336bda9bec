"""Gets the peers into a folder, and changes nothing else of the host: `python -m tests.peers.install FOLDER`.

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

_STATSD: Final = Path(__file__).with_name("statsd")


def install_statsd(folder: Path) -> None:
    """Put statsd into `folder/statsd`, without what it only needs for other backends."""
    shutil.copytree(_STATSD, folder / "statsd", dirs_exist_ok=True)
    options = ["--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(["npm", "ci", "--prefix", folder / "statsd", *options], check=True)


def install_node(folder: Path) -> None:
    """Put Node at `folder/node`: the program itself, since what is on the PATH may only start it."""
    told = subprocess.run(["node", "-p", "process.execPath"], check=True, capture_output=True, text=True)
    target = folder / "node"
    target.unlink(missing_ok=True)
    target.symlink_to(told.stdout.strip())


def install_nginx(folder: Path) -> None:
    """Put nginx at `folder/nginx`."""
    target = folder / "nginx"
    if target.exists():
        return
    found = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        found = _unpack_nginx(folder / "debian")
    target.symlink_to(found)
    subprocess.run([target, "-v"], check=True)


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
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "download", "nginx"], check=True, cwd=folder)
    (package,) = folder.glob("nginx_*.deb")
    subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True)
    return str(folder / "root/usr/sbin/nginx")


def main() -> None:
    """Install all peers."""
    parser = argparse.ArgumentParser(description="Gets the peers of tests/peers into a folder.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    install_node(folder)
    install_statsd(folder)
    install_nginx(folder)
    sys.stdout.write(f"the peers are in {folder}\n")


if __name__ == "__main__":
    main()
