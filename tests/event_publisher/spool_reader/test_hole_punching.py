from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

import pytest

from baseplate_events.event_publisher.spool_reader.hole_punching import punch_hole

if TYPE_CHECKING:
    from pathlib import Path


def test_a_hole_takes_no_space(tmp_path: Path) -> None:
    """A hole reads as zeros, and the file keeps its size."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 300_000)
    with path.open("r+b") as file:
        assert punch_hole(file.fileno(), 4096, 266_240)
    data = path.read_bytes()
    assert data == b"x" * 4096 + bytes(266_240 - 4096) + b"x" * (300_000 - 266_240)
    assert path.stat().st_blocks * 512 < 100_000


def test_a_device_has_no_holes() -> None:
    """Devices and files of other file systems have no holes."""
    device = os.open("/dev/null", os.O_RDWR)
    try:
        assert not punch_hole(device, 0, 4096)
    finally:
        os.close(device)


def test_an_error_of_one_file_is_raised(tmp_path: Path) -> None:
    """An error for one file says nothing about others."""
    (tmp_path / "file").write_bytes(b"x" * 8192)
    with (tmp_path / "file").open("rb") as file, pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        punch_hole(file.fileno(), 0, 4096)
    read, write = os.pipe()
    try:
        with pytest.raises(OSError, match=os.strerror(errno.ESPIPE)):
            punch_hole(write, 0, 4096)
    finally:
        os.close(read)
        os.close(write)


def test_a_python_without_ctypes_punches_no_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python may be built without libffi; then the space is freed with the file."""
    monkeypatch.setitem(sys.modules, "ctypes", None)
    with (tmp_path / "file").open("wb") as file:
        assert not punch_hole(file.fileno(), 0, 4096)
