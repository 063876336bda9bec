"""What logind does with the POSIX queues of a user whose last session ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.machine.prepared import DISK_SIZE, powered, prepare, restored
from tests.machine.volatile_disk import VolatileDisk

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.machine.agent import Guest
    from tests.machine.image import Image

#: Puts an event onto a small queue of one's own, and looks at it.
PUT: Final = """
set -eu
events="/opt/event-publisher/bin/python -m baseplate_events queue"
$events create "$USER" --max-queue-size 10 --max-event-size 1024
echo "{}" | $events write "$USER"
ls /dev/mqueue
"""


@pytest.fixture
def guest(image: Image) -> Generator[Guest]:
    """A machine with an ordinary user, alice, and a user of the system, shop."""
    prepared = prepare(image, "ext4")
    disk = VolatileDisk(prepared.disk, DISK_SIZE)
    with powered(disk) as (_, drive), restored(prepared, drive) as machine:
        machine.guest.run("useradd", "--create-home", "--shell", "/bin/sh", "alice")
        machine.guest.run("usermod", "--shell", "/bin/sh", "shop")
        yield machine.guest
    disk.close()


def test_a_logout_takes_the_queues_of_an_ordinary_user(guest: Guest) -> None:
    """They are removed with what is in them; those of a system user stay, as the guide says."""
    for user in ("shop", "alice"):
        assert f"events-{user}" in guest.run("su", "--login", user, "--command", PUT)
    guest.wait("the queue of alice is removed", lambda: "events-alice" not in guest.run("ls", "/dev/mqueue"))
    assert "events-shop" in guest.run("ls", "/dev/mqueue")
