"""The trusted certificates: loaded on demand, and reloaded when their file changes."""

from __future__ import annotations

import os
import ssl
import threading
from typing import TypeAlias

#: The version of a file: device, inode, size, and the times of its last write and rename in nanoseconds.
_Version: TypeAlias = tuple[int, int, int, int, int]


class CertificatesError(OSError):
    """Raised if the trusted certificates can't be loaded."""


class Certificates:
    """The trusted certificates. Shared by all senders, since each copy takes a megabyte and time to load."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._loaded: tuple[str | None, _Version | None] | None = None

    def context(self, ca_file: str | None) -> ssl.SSLContext:
        """Return a context that verifies certificates and host names and offers HTTP/1.1.

        Args:
            ca_file: Path of a PEM file with the trusted certificates; None for the system's.

        Raises:
            CertificatesError: They can't be loaded.
        """
        system = ssl.get_default_verify_paths()
        path = ca_file or system.cafile
        with self._lock:
            try:
                # Before it is read, so that the next call notices a change during the read.
                wanted = ca_file, _version(path) if path else None
                if self._context is None or self._loaded != wanted:
                    # Explicit paths: without them, unreadable system certificates are silently skipped.
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
