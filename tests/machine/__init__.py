"""A virtual machine with a real kernel, a real systemd and a disk that loses what was not flushed.

image           builds the kernel, the initrd and the root file system, once for each version of the project
qemu            runs a machine, saves it and restores it; speaks QMP
agent           runs commands in a machine
prepared        a machine in which the project is installed as docs/operations.md says
volatile_disk   the blocks of a disk with a volatile cache, and what a power cut leaves of them
nbd             serves such a disk to a machine, and cuts the power at a chosen moment
guest/          what runs inside
boot/           what the machine boots with
cuts/           120 power cuts: `python -m tests.machine.cuts`
"""
