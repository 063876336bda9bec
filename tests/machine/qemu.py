"""A machine that qemu runs: its start, its end, its monitor (QMP), and its saved state.

Rules:

1. A machine ends with the process that started it, even if that is killed.
2. KVM is used only if the agent answers within `KVM_PATIENCE` seconds: KVM can look available and hang the
guest.
   Emulation works everywhere, and takes about ten times as long.
3. A machine is saved in one file, its memory and devices. Its root file system is in memory, and no other may
   be mounted then.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.machine.agent import PATIENCE, Guest
from tests.machine.guest.agent import PORT
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from tests.machine.image import Image

#: Seconds until the agent of a machine under KVM has to answer; it takes 5.
KVM_PATIENCE: Final = 20.0

#: What runs the guest's code, the fast one first.
KVM: Final = "kvm"
TCG: Final = "tcg,thread=single"

#: For the kernel: it shows errors only, does no work that protects from other guests, ends on a panic, and
#: doesn't check its timers, since it panics where this host is too busy to run them in time.
_KERNEL_LINE: Final = (
    "console=ttyS0 quiet loglevel=4 panic=-1 net.ifnames=0 mitigations=off random.trust_cpu=on audit=0 "
    "tsc=reliable no_timer_check systemd.show_status=0"
)

#: Bytes a second at which a state is saved: as fast as it can.
_BANDWIDTH: Final = 1 << 34


class MachineError(AssertionError):
    """A machine ended, or doesn't answer."""


@dataclass(frozen=True)
class Hardware:
    """What a machine has.

    Attributes:
        memory: MiB.
        disks: Values of `-drive` of its disks beside that of the root, which become /dev/vdb and so on.
        accelerator: What runs its code.
    """

    memory: int
    disks: tuple[str, ...] = ()
    accelerator: str = TCG


class Machine:
    """A machine that runs.

    Attributes:
        guest: What runs in it.
        process: Its qemu.
    """

    def __init__(self, image: Image, hardware: Hardware, folder: Path, state: Path | None) -> None:
        self._log = folder / "qemu.log"
        self._console = folder / "console"
        self._monitor = folder / "monitor"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                _command(image, hardware, self._console, self._monitor, state),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait(self._is_controlled, PATIENCE)
            self.guest = Guest(self._forwarded_port())
        except BaseException:
            self.kill()
            raise

    def _is_controlled(self) -> bool:
        """Return whether qemu takes commands; its socket exists before that."""
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(self._monitor)) == 0

    def wait_for_agent(self, patience: float = PATIENCE) -> None:
        """Wait until commands can be run.

        Raises:
            MachineError: The machine ended, or doesn't answer in time.
        """
        self._wait(self.guest.answers, patience)

    def _wait(self, condition: Callable[[], bool], patience: float) -> None:
        try:
            wait_until(condition, "no answer", process=self.process, patience=patience)
        except TimeoutError as exc:
            raise MachineError(f"the machine does not answer: {exc}\n{self.said()}") from exc

    def said(self) -> str:
        """Return the end of what qemu and the console said."""
        logs = [path for path in (self._log, self._console) if path.exists()]
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in logs)

    def monitor(self, command: str, **arguments: object) -> Any:  # noqa: ANN401 - each command has its own
        """Run a command of QMP, and return its answer.

        Raises:
            MachineError: It failed.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._monitor))
            with connection.makefile("rwb") as stream:
                stream.readline()

                def ask(**request: object) -> dict[str, Any]:
                    stream.write(json.dumps(request).encode() + b"\n")
                    stream.flush()
                    return _answer(stream.readline)

                ask(execute="qmp_capabilities")
                answer = ask(execute=command, arguments=arguments)
        if "error" in answer:
            raise MachineError(f"{command}: {answer['error']}\n{self.said()}")
        return answer["return"]

    def _forwarded_port(self) -> int:
        network = self.monitor("human-monitor-command", **{"command-line": "info usernet"})
        found = re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", network)
        assert found is not None, network
        return int(found[1])

    def save(self, path: Path) -> None:
        """Save the machine, which stands still from then on."""
        self.monitor("migrate-set-parameters", **{"max-bandwidth": _BANDWIDTH})
        self.monitor("migrate", uri=f"exec:cat > {path}")

        def saved() -> bool:
            status = self.monitor("query-migrate")["status"]
            if status in {"failed", "cancelled"}:
                raise MachineError(f"the machine can't be saved: {self.said()}")
            return bool(status == "completed")

        self._wait(saved, PATIENCE)

    def kill(self) -> None:
        """End it at once, as if power was cut; what it wrote is with its disks."""
        self.process.kill()
        self.process.wait()

    def wait_for_end(self) -> None:
        """Wait until the guest has switched the machine off.

        Raises:
            subprocess.TimeoutExpired: It doesn't.
        """
        self.process.wait(PATIENCE)


def _answer(readline: Callable[[], bytes]) -> dict[str, Any]:
    """Return the next answer; events come between."""
    while True:
        message: dict[str, Any] = json.loads(readline())
        if "return" in message or "error" in message:
            return message


def _command(
    image: Image, hardware: Hardware, console: Path, monitor: Path, state: Path | None
) -> Sequence[str]:
    root = f"file={image.folder}/root.img,format=raw,if=virtio,readonly=on"
    drives = (("-drive", drive) for drive in (root, *hardware.disks))
    kvm = hardware.accelerator == KVM
    return [
        *("setpriv", "--pdeathsig=KILL", "nice", "-n", "5", "qemu-system-x86_64"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-accel", hardware.accelerator, "-machine", "q35", "-cpu", "host" if kvm else "max", "-smp", "1"),
        *("-m", str(hardware.memory)),
        *("-kernel", f"{image.folder}/vmlinuz", "-initrd", f"{image.folder}/initrd", "-append", _KERNEL_LINE),
        *("-serial", f"file:{console}", "-qmp", f"unix:{monitor},server=on,wait=off"),
        *itertools.chain.from_iterable(drives),
        *(
            "-netdev",
            f"user,id=net,hostfwd=tcp:127.0.0.1:0-:{PORT}",
            "-device",
            "virtio-net-pci,netdev=net,romfile=",
        ),
        *("-device", "virtio-rng-pci"),
        *(() if state is None else ("-incoming", f"exec:cat {state}")),
    ]


@contextlib.contextmanager
def running(image: Image, hardware: Hardware, state: Path | None = None) -> Generator[Machine]:
    """Start a machine, and kill it in the end.

    Args:
        image: What it boots from.
        hardware: What it has.
        state: A file that `Machine.save` made of a machine with the same hardware; None to boot.

    Raises:
        MachineError: It doesn't start.
    """
    # A short path: that of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="machine-") as folder:
        machine = Machine(image, hardware, Path(folder), state)
        try:
            machine.wait_for_agent(KVM_PATIENCE if hardware.accelerator == KVM else PATIENCE)
            if state is not None:
                machine.guest.wake()
            yield machine
        finally:
            machine.kill()


def choose_accelerator(image: Image) -> str:
    """Return KVM if a machine really runs under it, otherwise the emulation."""
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        with contextlib.suppress(MachineError), running(image, Hardware(512, accelerator=KVM)):
            return KVM
    return TCG
