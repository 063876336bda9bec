"""The certificates to trust: loaded when they are needed, and again when their file has changed."""

from __future__ import annotations

import os
import ssl
import threading
from typing import TypeAlias

#: What changes with a file: device, inode, size, and when it was written and renamed, in nanoseconds.
_Version: TypeAlias = tuple[int, int, int, int, int]


class CertificatesError(OSError):
    """The certificates to trust can't be loaded."""


class Certificates:
    """The certificates to trust. Shared by all senders, for each copy takes time and a megabyte to load."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._loaded: tuple[str | None, _Version | None] | None = None

    def context(self, ca_file: str | None) -> ssl.SSLContext:
        """Return a context that verifies certificates and host names and offers HTTP/1.1.

        Args:
            ca_file: Path of a PEM file with the certificates to trust. None: the system's.

        Raises:
            CertificatesError: They can't be loaded.
        """
        system = ssl.get_default_verify_paths()
        path = ca_file or system.cafile
        with self._lock:
            try:
                # Before it is read: a change meanwhile is then seen the next time.
                wanted = ca_file, _version(path) if path else None
                if self._context is None or self._loaded != wanted:
                    # By path: without one, system certificates that can't be read are silently left out.
                    context = ssl.create_default_context(
                        cafile=path, capath=None if ca_file else system.capath
                    )
                    context.set_alpn_protocols(["http/1.1"])
                    self._context, self._loaded = context, wanted
            except ssl.SSLError as exc:
                raise CertificatesError(f"no certificates in PEM form ({exc.reason}): {path}") from None
            except OSError as exc:
                raise CertificatesError(exc.errno, exc.strerror, path) from None
            return self._context


def _version(path: str) -> _Version:
    status = os.stat(path)  # noqa: PTH116 - one call rather than a path object for each connection
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
